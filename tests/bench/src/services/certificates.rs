//! Certificates for proxies that have no authority of their own: one for each machine, of one root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::LabError;

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// The files of one machine.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// What signed both machines' certificates.
    pub(super) root: PathBuf,
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Chain and key in one.
    pub(super) joined: PathBuf,
}

/// Makes the root and a certificate for each name.
pub(super) fn make<const N: usize>(
    directory: &Path,
    names: [&str; N],
) -> Result<[Certificate; N], LabError> {
    let place = |name: &str| directory.join(name);
    openssl(
        directory,
        &["req", "-x509", "-subj", "/CN=root", "-days", "2"],
        &[
            &NEW_KEY[..],
            &["-keyout", "root.key", "-out", "root.pem"][..],
        ]
        .concat(),
    )?;
    for name in names {
        certify(directory, name)?;
    }
    Ok(names.map(|name| Certificate {
        root: place("root.pem"),
        chain: place(&format!("{name}.pem")),
        key: place(&format!("{name}.key")),
        joined: place(&format!("{name}.joined.pem")),
    }))
}

fn certify(directory: &Path, name: &str) -> Result<(), LabError> {
    let file = |ending: &str| format!("{name}.{ending}");
    let (key, request, chain) = (file("key"), file("csr"), file("pem"));
    let (subject, other_name) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    openssl(
        directory,
        &["req", "-new", "-subj", &subject, "-addext", &other_name],
        &[&NEW_KEY[..], &["-keyout", &key, "-out", &request][..]].concat(),
    )?;
    openssl(
        directory,
        &[
            "x509", "-req", "-in", &request, "-out", &chain, "-days", "2",
        ],
        &[
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-copy_extensions",
            "copy",
        ],
    )?;
    let read = |name: &str| {
        fs::read_to_string(directory.join(name))
            .map_err(|error| LabError::new(format!("cannot read {name}: {error}")))
    };
    let both = read(&chain)? + &read(&key)?;
    fs::write(directory.join(file("joined.pem")), both)
        .map_err(|error| LabError::new(format!("cannot write a certificate: {error}")))
}

fn openssl(directory: &Path, what: &[&str], how: &[&str]) -> Result<(), LabError> {
    let output = Command::new("openssl")
        .args(what)
        .args(how)
        .current_dir(directory)
        .output()
        .map_err(|error| LabError::new(format!("cannot run openssl: {error}")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(LabError::new(format!(
            "openssl {} failed: {}",
            what.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
