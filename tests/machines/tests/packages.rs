//! The packages as files: two packings of one commit are the same bytes, and `dnf` installs and removes
//! the rpms with what they say that they need.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::LabError;
use machines::Packages;

fn run(command: &mut Command) -> Result<String, LabError> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| LabError::new(format!("cannot run {shown}: {error}")))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    let (out, errors) = (said(&output.stdout), said(&output.stderr));
    Err(LabError::new(format!("{shown} failed: {out}{errors}")))
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> LabError + '_ {
    move |error| LabError::new(format!("cannot {what}: {error}"))
}

/// An rpm that provides what a distribution has, and of which nothing is installed: exactly what the
/// given packages ask for and do not bring themselves.
fn distribution(directory: &Path, packages: &[&Path]) -> Result<std::path::PathBuf, LabError> {
    let mut query = Command::new("rpm");
    let wanted = run(query.args(["-qp", "--requires"]).args(packages))?;
    let mut names: Vec<&str> = wanted
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("rpmlib(") && !line.starts_with("config("))
        .collect();
    names.sort_unstable();
    names.dedup();
    let provides: String = names
        .iter()
        .map(|name| format!("Provides: {name}\n"))
        .collect();
    let spec = format!(
        "Name: distribution\nVersion: 1\nRelease: 1\nSummary: What a distribution has\nLicense: none\n\
         BuildArch: noarch\n{provides}%description\nWhat a distribution has.\n%files\n"
    );
    let path = directory.join("distribution.spec");
    fs::write(&path, spec).map_err(failed("write a spec file"))?;
    let define = format!("_topdir {}", directory.display());
    run(Command::new("rpmbuild")
        .args(["--quiet", "-bb", "--define", &define])
        .arg(&path))?;
    Ok(directory.join("RPMS/noarch/distribution-1-1.noarch.rpm"))
}

/// Puts a shell, and what it is linked with, into a root: scriptlets are run by it.
fn give_shell(root: &Path) -> Result<(), LabError> {
    let script = "mkdir -p \"$1/bin\" \"$1/dev\"
        mknod -m 666 \"$1/dev/null\" c 1 3
        for program in sh rm rmdir; do
            cp \"$(readlink -f /bin/$program)\" \"$1/bin/$program\"
            for library in $(ldd /bin/$program | grep -o '/[^ ]*'); do
                cp --parents -L \"$library\" \"$1\"
            done
        done";
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(root)).map(drop)
}

#[test]
fn dnf_installs_and_removes_the_rpms_with_what_they_need() -> Result<(), LabError> {
    let packages = Packages::find()?;
    let both = [&*packages.meshd_rpm, &*packages.coordinator_rpm];
    let directory = std::env::temp_dir().join(format!("mesh-rpm-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(failed("make a directory"))?;
    let outcome = install_and_remove(&directory, both);
    let _ = fs::remove_dir_all(&directory);
    outcome
}

fn install_and_remove(directory: &Path, both: [&Path; 2]) -> Result<(), LabError> {
    let root = directory.join("root");
    let dnf = |verb: &str| {
        let mut command = Command::new("dnf");
        command
            .arg(format!("--installroot={}", root.display()))
            .args([
                "--disablerepo=*",
                "--setopt=reposdir=/nonexistent",
                "--releasever=9",
            ])
            .args(["--assumeyes", "--quiet", verb]);
        command
    };
    // Without what a distribution brings it is refused, and what is missing is named.
    let refused = run(dnf("install").args(both))
        .err()
        .map(|it| it.to_string());
    let refused = refused.unwrap_or_default();
    assert!(refused.contains("nftables"), "{refused}");

    let base = distribution(directory, &both)?;
    give_shell(&root)?;
    run(dnf("install").arg(base).args(both))?;
    let installed = |path: &str| root.join(path).exists();
    for path in [
        "usr/bin/meshd",
        "usr/bin/meshctl",
        "usr/bin/mesh-coordinator",
        "usr/lib/systemd/system/meshd.service",
        "usr/share/man/man8/meshd.8",
        "etc/mesh/meshd.toml",
    ] {
        assert!(installed(path), "{path} is not installed");
    }
    let mut verify = Command::new("rpm");
    run(verify
        .arg("--root")
        .arg(&root)
        .args(["-V", "meshd", "mesh-coordinator"]))?;
    run(dnf("remove").args(["meshd", "mesh-coordinator"]))?;
    let mut find = Command::new("find");
    let left = run(find
        .arg(&root)
        .args(["-name", "*mesh*", "!", "-path", "*/var/*"]))?;
    assert_eq!(left, "");
    Ok(())
}
