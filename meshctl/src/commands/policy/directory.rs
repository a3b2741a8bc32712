//! A bundle's directory on this machine's disk.

use std::path::Path;

use model::admin::PolicyFile;
use model::limits::Limits;

use crate::failure::Failure;

/// Reads every `*.yaml` and `*.yml` below a directory, in the order of their paths.
pub(super) fn read_bundle(directory: &Path) -> Result<Vec<PolicyFile>, Failure> {
    let mut files = Vec::new();
    let mut bytes_left = Limits::BUNDLE_BYTES;
    collect(directory, directory, &mut files, &mut bytes_left)?;
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "there is no *.yaml file in {}",
            directory.display()
        )));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(
    root: &Path,
    directory: &Path,
    files: &mut Vec<PolicyFile>,
    bytes_left: &mut usize,
) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::Usage(format!("cannot read {}: {error}", path.display()))
    };
    for entry in std::fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files, bytes_left)?;
        } else if yaml {
            let size = path.metadata().map_err(|error| failed(&path, error))?.len();
            *bytes_left = usize::try_from(size)
                .ok()
                .and_then(|size| bytes_left.checked_sub(size))
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "the bundle is larger than {} MiB; is {} the right directory?",
                        Limits::BUNDLE_BYTES >> 20,
                        root.display()
                    ))
                })?;
            let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            let relative = path
                .strip_prefix(root)
                .expect("found below it")
                .display()
                .to_string();
            files.push(PolicyFile {
                path: relative,
                text,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_read_in_order_and_hidden_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        for name in ["b.yaml", "a.yml", "sub/c.yaml", ".hidden.yaml", "notes.txt"] {
            std::fs::write(directory.path().join(name), "fleet: x\n").unwrap();
        }
        let paths: Vec<String> = read_bundle(directory.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(paths, ["a.yml", "b.yaml", "sub/c.yaml"]);
    }

    #[test]
    fn an_empty_directory_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_bundle(directory.path()),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(
            read_bundle(&directory.path().join("none")),
            Err(Failure::Usage(_))
        ));
    }
}
