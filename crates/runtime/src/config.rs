//! Settings of a daemon: TOML, one file and the `*.toml` of a directory beside it, later files
//! winning key by key. Flags win over files; the programs do that part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Table;

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
    },
    /// A key is unknown, or its value has the wrong type.
    #[error("{path}: {message}")]
    Content {
        /// The file, or all files together when the fault lies in their sum.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Reads `NAME.toml` and the `NAME.conf.d/*.toml` beside it, in the order of their names: each daemon
/// has a directory of its own, since it refuses keys that it does not know.
/// A missing `path` counts as empty when `optional`.
///
/// # Errors
/// Names the file, the line, what is wrong.
pub fn load<T: DeserializeOwned>(path: &Path, optional: bool) -> Result<T, ConfigError> {
    let mut merged = Table::new();
    for file in files(path, optional)? {
        let text = fs::read_to_string(&file).map_err(|source| ConfigError::Read {
            path: file.clone(),
            source,
        })?;
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                path: file.clone(),
                message: error.to_string(),
            })?;
        // Each file alone must be right, so that the message can name the file.
        toml::from_str::<T>(&text).map_err(|error| ConfigError::Content {
            path: file.clone(),
            message: error.to_string(),
        })?;
        merged.extend(table);
    }
    merged
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Content {
            path: path.to_owned(),
            message: error.to_string(),
        })
}

fn files(path: &Path, optional: bool) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    if path.exists() || !optional {
        files.push(path.to_owned());
    }
    let directory = path.with_extension("conf.d");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(source) => {
            return Err(ConfigError::Read {
                path: directory,
                source,
            });
        }
    };
    let mut extra: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    extra.sort();
    files.extend(extra);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        listen_port: Option<u16>,
        name: Option<String>,
    }

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("x.conf.d")).unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn later_files_win_key_by_key() {
        let directory = directory(&[
            ("x.toml", "listen_port = 1\nname = 'a'"),
            ("x.conf.d/20.toml", "listen_port = 3"),
            ("x.conf.d/10.toml", "listen_port = 2"),
        ]);
        let loaded: Example = load(&directory.path().join("x.toml"), false).unwrap();
        assert_eq!(
            loaded,
            Example {
                listen_port: Some(3),
                name: Some("a".into())
            }
        );
    }

    #[test]
    fn a_missing_file_is_empty_only_when_optional() {
        let directory = directory(&[]);
        let path = directory.path().join("x.toml");
        assert_eq!(load::<Example>(&path, true).unwrap(), Example::default());
        assert!(matches!(
            load::<Example>(&path, false),
            Err(ConfigError::Read { .. })
        ));
    }

    #[test]
    fn an_unknown_key_names_the_file_and_the_line() {
        let directory = directory(&[("x.toml", "name = 'a'\nlisten_prot = 1\n")]);
        let message = load::<Example>(&directory.path().join("x.toml"), false)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("x.toml")
                && message.contains("line 2")
                && message.contains("listen_prot"),
            "{message}"
        );
    }
}
