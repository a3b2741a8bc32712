//! Settings of a daemon: TOML, one file and the `*.toml` of a directory beside it, later files
//! winning key by key. Flags win over files; the programs do that part.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Table;
use toml::de::DeTable;

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

/// A setting whose value is of the right type and makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its key in the file.
    pub key: &'static str,
    /// What is wrong with it, and what to write.
    pub message: String,
}

/// Where each key was set that is in force.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, (PathBuf, usize)>);

impl Places {
    /// Says what is wrong, with file and line where a file is to blame.
    pub fn name(&self, fault: &Fault) -> String {
        match self.0.get(fault.key) {
            Some((file, line)) => {
                format!("{}, line {line}: {}", file.display(), fault.message)
            }
            None => fault.message.clone(),
        }
    }

    /// `text` is TOML already.
    fn add(&mut self, file: &Path, text: &str) {
        let Ok(table) = DeTable::parse(text) else {
            return;
        };
        for key in table.get_ref().keys() {
            let before = &text[..key.span().start];
            let line = before.matches('\n').count() + 1;
            let place = (file.to_owned(), line);
            self.0.insert(key.get_ref().to_string(), place);
        }
    }
}

/// Reads `NAME.toml` and the `NAME.conf.d/*.toml` beside it, in the order of their names: each daemon
/// has a directory of its own, since it refuses keys that it does not know.
/// A missing `path` counts as empty when `optional`. Returns also where each key was set.
///
/// # Errors
/// Names the file, the line, what is wrong.
pub fn load<T: DeserializeOwned>(path: &Path, optional: bool) -> Result<(T, Places), ConfigError> {
    let mut merged = Table::new();
    let mut places = Places::default();
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
        places.add(&file, &text);
        merged.extend(table);
    }
    let settings = merged
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Content {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
    Ok((settings, places))
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
        let (loaded, places): (Example, _) = load(&directory.path().join("x.toml"), false).unwrap();
        assert_eq!(
            loaded,
            Example {
                listen_port: Some(3),
                name: Some("a".into())
            }
        );
        let fault = |key| Fault {
            key,
            message: "it is odd".into(),
        };
        let at = |file: &str| directory.path().join(file).display().to_string();
        let port = places.name(&fault("listen_port"));
        assert_eq!(port, at("x.conf.d/20.toml") + ", line 1: it is odd");
        let name = places.name(&fault("name"));
        assert_eq!(name, at("x.toml") + ", line 2: it is odd");
        assert_eq!(places.name(&fault("other")), "it is odd");
    }

    #[test]
    fn a_missing_file_is_empty_only_when_optional() {
        let directory = directory(&[]);
        let path = directory.path().join("x.toml");
        let (loaded, _) = load::<Example>(&path, true).unwrap();
        assert_eq!(loaded, Example::default());
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
