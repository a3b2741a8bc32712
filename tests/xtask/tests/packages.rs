//! The packages that `cargo xtask package` makes of the programs that are built: twice the same bytes.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A number that no release has, so that nobody's packages are replaced.
const NUMBER: &str = "0.0.1";

fn pack() -> BTreeMap<String, Vec<u8>> {
    let packing = [
        "package",
        "--profile",
        "dev",
        "--no-build",
        "--number",
        NUMBER,
    ];
    let packed = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(packing)
        .output()
        .unwrap();
    assert!(packed.status.success(), "{packed:?}");
    let output = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/packages/dev")
        .join(NUMBER);
    let files = fs::read_dir(&output)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    fs::remove_dir_all(output).unwrap();
    files
}

#[test]
fn two_packings_of_one_commit_are_the_same_bytes() {
    let (first, second) = (pack(), pack());
    assert_eq!(first.len(), 4, "a .deb and an .rpm of each daemon");
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "{name} differs");
    }
}
