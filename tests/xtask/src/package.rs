//! `cargo xtask package`: the .deb and .rpm of both daemons, with the tools that make them.
//!
//! The same commit gives the same bytes: programs are built without paths of this machine, every
//! file has the commit's time, and nothing else of the machine gets in.

mod build;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::cargo::{cargo, passes};
use crate::failure::{Doing, Failure};
use crate::workspace;
use build::Building;

/// What makes the packages: the package on crates.io has the name of its program.
const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];
/// The crates that a package is made of carry its metadata.
const PACKAGES: [&str; 2] = ["meshd", "coordinator"];
/// Debian's revision of the packaging, as cargo-deb and cargo-generate-rpm count.
const REVISION: &str = "1";
/// What the tests of upgrades know as the next version.
const NEWER: &str = "99.0.0";

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Debian, Ubuntu
    Deb,
    /// RHEL, Fedora, SUSE
    Rpm,
}

/// What to make.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Packaging {
    /// How the programs are built: dev is for tests.
    #[arg(long, default_value = "release", value_parser = ["dev", "release"])]
    profile: String,
    /// Which kinds of packages.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "deb,rpm")]
    format: Vec<Format>,
    /// Another version number than that of the sources, for tests of upgrades.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    number: String,
    /// Link the programs against the glibc of this machine, instead of an older one with zig.
    #[arg(long)]
    native: bool,
    /// Pack the programs as they were built before.
    #[arg(long)]
    no_build: bool,
}

impl Packaging {
    /// What the tests under systemd install.
    pub(crate) fn for_tests() -> Self {
        Self {
            profile: "dev".to_owned(),
            format: vec![Format::Deb, Format::Rpm],
            number: env!("CARGO_PKG_VERSION").to_owned(),
            native: false,
            no_build: true,
        }
    }

    /// What they upgrade it to.
    pub(crate) fn newer_for_tests() -> Self {
        Self {
            number: NEWER.to_owned(),
            ..Self::for_tests()
        }
    }

    fn is_native(&self) -> bool {
        self.native || self.profile == "dev"
    }

    fn has(&self, format: Format) -> bool {
        self.format.contains(&format)
    }
}

/// Builds the programs and packs them; prints where the packages are.
pub(crate) fn run(what: &Packaging) -> Result<(), Failure> {
    let root = workspace::root();
    let directory = root.join("target/packages");
    let tools = install_tools(&root)?;
    let epoch = commit_time()?;
    let own = directory.join("build");
    let building = Building {
        profile: &what.profile,
        is_native: what.is_native(),
        epoch: &epoch,
    };
    if !what.no_build {
        building.run(&own)?;
    }
    let programs = building.output(&own);
    building.check(&programs)?;
    stage::lay_out(&programs, &directory.join("stage"), &epoch)?;
    let output = directory.join(&what.profile).join(&what.number);
    let unfinished = directory.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished).doing(format_args!("make {}", unfinished.display()))?;
    for package in PACKAGES {
        if what.has(Format::Deb) {
            passes(deb(&tools, package, what, &unfinished, &epoch))?;
        }
        if what.has(Format::Rpm) {
            passes(rpm(&tools, package, what, &unfinished, &epoch))?;
        }
    }
    replace(&output, &unfinished)?;
    report(&output)
}

/// Whole, and at once: packages of earlier commits would be taken for those of this one, and who looks
/// meanwhile finds all of them.
fn replace(output: &Path, unfinished: &Path) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(output);
    let parent = output.parent().expect("packages lie below the target");
    fs::create_dir_all(parent)
        .and_then(|()| fs::rename(unfinished, output))
        .doing(format_args!("write {}", output.display()))
}

/// Installs what is missing into the target directory; cargo leaves the right version as it is.
fn install_tools(root: &Path) -> Result<PathBuf, Failure> {
    let tools = root.join("target/tools");
    for (name, version) in TOOLS {
        let mut install = cargo("install --locked --quiet");
        install
            .args([name, "--version", version, "--root"])
            .arg(&tools);
        passes(install)?;
    }
    Ok(tools.join("bin"))
}

/// When the commit was made, in seconds: the only time that a package knows.
fn commit_time() -> Result<String, Failure> {
    let output = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(workspace::root())
        .output()
        .doing("ask git when the commit was made")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text);
    }
    Err(Failure::new(
        "packages are dated as their commit, and git knows none here; is this a clone with its history?",
    ))
}

fn deb(tools: &Path, package: &str, what: &Packaging, output: &Path, epoch: &str) -> Command {
    let mut command = Command::new(tools.join("cargo-deb"));
    command
        .current_dir(workspace::root())
        .args(["--no-build", "--no-strip", "--locked", "--quiet"])
        .args(["--package", package, "--profile", &what.profile])
        .args(["--deb-version", &format!("{}-{REVISION}", what.number)])
        .arg("--output")
        .arg(output)
        .env("SOURCE_DATE_EPOCH", epoch);
    if what.is_native() {
        command.args(["--variant", "native"]);
    }
    if what.profile == "dev" {
        command.arg("--fast");
    }
    command
}

fn rpm(tools: &Path, package: &str, what: &Packaging, output: &Path, epoch: &str) -> Command {
    let mut command = Command::new(tools.join("cargo-generate-rpm"));
    command
        .current_dir(workspace::root())
        .args(["--package", package, "--profile", &what.profile])
        .args(["--set-metadata", &format!("version = \"{}\"", what.number)])
        .args(["--set-metadata", &format!("release = \"{REVISION}\"")])
        .args(["--auto-req", "builtin", "--source-date", epoch])
        .arg("--output")
        .arg(output);
    if what.profile == "dev" {
        command.args(["--payload-compress", "gzip"]);
    }
    command
}

fn report(output: &Path) -> Result<(), Failure> {
    let mut files: Vec<PathBuf> = fs::read_dir(output)
        .doing("list the packages")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        let bytes = fs::metadata(&file).map_or(0, |it| it.len());
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        println!("{mebibytes:6.1} MiB  {}", file.display());
    }
    Ok(())
}
