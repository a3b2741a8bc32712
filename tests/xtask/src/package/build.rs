//! The programs that are packed, built so that neither the machine nor the place shows in them, and
//! linked against a glibc that older distributions have, by `zig cc` as the linker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{cargo, passes};
use crate::failure::{Doing, Failure};
use crate::workspace;

/// Debian 11's; RHEL 9 and Ubuntu 22.04 have newer ones.
const GLIBC: &str = "2.31";
/// Cargo's packages that have them.
const PROGRAMS: &str = "--package meshd --package meshctl --package coordinator --bins";
const NAMES: [&str; 3] = ["meshd", "meshctl", "mesh-coordinator"];
/// What `pip` is to install, with checksums.
const ZIG: &str = "packaging/zig.txt";

/// How programs are built.
pub(super) struct Building<'a> {
    pub(super) profile: &'a str,
    /// Against the glibc of this machine.
    pub(super) is_native: bool,
    pub(super) epoch: &'a str,
}

impl Building<'_> {
    /// Where the programs are, once they are built. What tests install is what they built already.
    pub(super) fn output(&self, own: &Path) -> PathBuf {
        match (self.profile, self.is_native) {
            ("dev", _) => workspace::root().join("target/debug"),
            (profile, true) => own.join(profile),
            (profile, false) => own.join(target()).join(profile),
        }
    }

    /// Builds them.
    pub(super) fn run(&self, own: &Path) -> Result<(), Failure> {
        let Self { profile, epoch, .. } = self;
        let arguments = format!("--locked --profile {profile} {PROGRAMS}");
        // Not dated: build scripts of others would run again with each commit.
        if *profile == "dev" {
            return passes(cargo(&format!("build {arguments}")));
        }
        let mut command = match self.is_native {
            true => cargo(&format!("build {arguments}")),
            false => zigbuild(&arguments)?,
        };
        let (root, home) = (workspace::root(), cargo_home()?);
        let pairs = [(root.as_path(), "/usr/src/mesh"), (&home, "/usr/src/cargo")];
        let for_rust =
            pairs.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        let for_c = pairs.map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
        command
            .arg("--target-dir")
            .arg(own)
            .env("SOURCE_DATE_EPOCH", epoch)
            .env("CARGO_ENCODED_RUSTFLAGS", for_rust.join("\u{1f}"))
            .env("CFLAGS", for_c.join(" "));
        passes(command)
    }
}

impl Building<'_> {
    /// Sees that the programs ask for no newer glibc than the packages do.
    pub(super) fn check(&self, programs: &Path) -> Result<(), Failure> {
        if self.is_native {
            return Ok(());
        }
        for name in NAMES {
            let path = programs.join(name);
            let output = Command::new("objdump").arg("-T").arg(&path).output();
            let output = output.doing(format_args!("look at {}", path.display()))?;
            let symbols = String::from_utf8_lossy(&output.stdout);
            let asked = newest_glibc(&symbols).ok_or_else(|| {
                Failure::new(format!("{} asks for no glibc at all", path.display()))
            })?;
            if asked > number(GLIBC) {
                let (major, minor) = asked;
                return Err(Failure::new(format!(
                    "{} asks for glibc {major}.{minor}, and the packages for {GLIBC}",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// The newest version that `objdump -T` shows.
fn newest_glibc(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split("GLIBC_").skip(1).map(number);
    versions.max()
}

/// Major and minor of a version that a text begins with.
fn number(text: &str) -> (u32, u32) {
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.');
    let mut parts = text[..end.unwrap_or(text.len())].split('.');
    let mut part = || parts.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    (part(), part())
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn zigbuild(arguments: &str) -> Result<Command, Failure> {
    let tools = workspace::root().join("target/tools/zig");
    install_zig(&tools)?;
    let mut command = cargo(&format!(
        "zigbuild {arguments} --target {}.{GLIBC}",
        target()
    ));
    let own = [tools.join("bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = own.into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).doing("put zig into PATH")?;
    command
        .env("PATH", path)
        .env("CARGO_ZIGBUILD_ZIG_PATH", tools.join("ziglang/zig"))
        .env("CARGO_ZIGBUILD_CACHE_DIR", tools.join("cache"))
        .env("ZIG_GLOBAL_CACHE_DIR", tools.join("cache"));
    Ok(command)
}

/// Installs zig once for each list of versions.
fn install_zig(tools: &Path) -> Result<(), Failure> {
    let list = workspace::root().join(ZIG);
    let wanted = fs::read(&list).doing(format_args!("read {}", list.display()))?;
    let installed = tools.join("installed.txt");
    if fs::read(&installed).is_ok_and(|it| it == wanted) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(tools);
    let mut install = Command::new("python3");
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--require-hashes", "--no-deps", "--target"])
        .arg(tools)
        .arg("--requirement")
        .arg(&list);
    passes(install).map_err(|failure| {
        Failure::new(format!(
            "cannot install zig ({failure}); it takes Debian's python3-pip, or build with --native"
        ))
    })?;
    fs::write(&installed, wanted).doing(format_args!("write {}", installed.display()))
}

fn cargo_home() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    named
        .or_else(usual)
        .ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_told_by_number() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.2.5) memcpy\n\
                       0000 DF *UND* 0000 (GLIBC_2.30) gettid\n\
                       0000 DF *UND* 0000 (GLIBC_2.4) __stack_chk_fail\n";
        assert_eq!(newest_glibc(symbols), Some((2, 30)));
        assert!(number(GLIBC) > number("2.4"));
        assert_eq!(newest_glibc("nothing"), None);
    }
}
