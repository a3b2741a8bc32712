//! resolvconf(8), in both of its kinds, Debian's and openresolv: one record of ours among those of
//! the host's interfaces.

use std::path::{Path, PathBuf};

use super::{HostFiles, HostResolver, ResolverError, Routing, resolv_conf};
use crate::programs;

/// Our record. Debian puts records of the loopback first; openresolv is told to.
const RECORD: &str = "lo.meshd";
/// Debian's records, one file an interface.
const DEBIAN_RECORDS: &str = "run/resolvconf/interface";
const PROGRAMS: [&str; 4] = [
    "usr/sbin/resolvconf",
    "sbin/resolvconf",
    "usr/bin/resolvconf",
    "usr/local/sbin/resolvconf",
];

/// The program, where it is in charge of /etc/resolv.conf.
pub(super) struct Resolvconf {
    program: PathBuf,
    files: HostFiles,
}

impl Resolvconf {
    /// Finds it; `text` is what /etc/resolv.conf says.
    pub(super) fn of_host(files: &HostFiles, text: &[u8]) -> Option<Self> {
        let target = std::fs::read_link(files.resolv_conf()).unwrap_or_default();
        let is_in_charge = target.to_string_lossy().contains("resolvconf")
            || String::from_utf8_lossy(text)
                .lines()
                .any(|line| line.starts_with('#') && line.contains("resolvconf"));
        let program = program(files).filter(|_| is_in_charge)?;
        let files = files.clone();
        Some(Self { program, files })
    }

    fn is_debians(&self) -> bool {
        self.files.path().join(DEBIAN_RECORDS).is_dir()
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<(), ResolverError> {
        let what = format!("run `{} {}`", self.program.display(), arguments.join(" "));
        run(&self.program, arguments, input)
            .await
            .map(drop)
            .map_err(|why| ResolverError::new(what, why))
    }
}

#[async_trait::async_trait]
impl HostResolver for Resolvconf {
    fn describe(&self) -> String {
        format!(
            "resolvconf: the record {RECORD}, which names mesh DNS as the first server ({})",
            self.program.display()
        )
    }

    async fn set(&mut self, routing: &Routing) -> Result<(), ResolverError> {
        let record = format!("nameserver {}\n", routing.server.ip());
        if self.is_debians() {
            self.run(&["-a", RECORD], &record).await
        } else {
            // The lowest metric, and nobody else's servers beside: mesh DNS asks those.
            self.run(&["-m", "0", "-x", "-a", RECORD], &record).await
        }
    }

    async fn difference(&mut self, routing: &Routing) -> Result<Option<String>, ResolverError> {
        let text = std::fs::read(self.files.resolv_conf()).unwrap_or_default();
        let is_first = resolv_conf::configured(&text).first() == Some(&routing.server.ip());
        Ok((!is_first).then(|| "resolvconf does not name mesh DNS first any more".into()))
    }

    async fn revert(&mut self, _routing: &Routing) -> Result<(), ResolverError> {
        self.run(&["-d", RECORD], "").await
    }

    fn may_repair(&self) -> bool {
        true
    }
}

fn program(files: &HostFiles) -> Option<PathBuf> {
    let mut places = PROGRAMS.iter().map(|place| files.path().join(place));
    places.find(|program| program.is_file() && !is_resolvectl(program))
}

/// systemd has one of this name that only talks to systemd-resolved.
fn is_resolvectl(program: &Path) -> bool {
    std::fs::read_link(program).is_ok_and(|target| target.ends_with("resolvectl"))
}

/// Returns what the host's interfaces say, all records after each other, but ours.
pub(super) async fn records(files: &HostFiles) -> Vec<u8> {
    if let Ok(entries) = std::fs::read_dir(files.path().join(DEBIAN_RECORDS)) {
        let mut others: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| !path.ends_with(RECORD))
            .collect();
        others.sort();
        let texts = others.iter().filter_map(|path| std::fs::read(path).ok());
        return texts.collect::<Vec<_>>().concat();
    }
    match program(files) {
        Some(program) => run(&program, &["-l"], "").await.unwrap_or_default(),
        None => Vec::new(),
    }
}

async fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Vec<u8>, String> {
    let output = programs::run(program, arguments, input)
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("it failed ({}): {}", output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::host;
    use crate::resolver::{Choice, choose, nameservers};
    use std::fs;
    use std::net::IpAddr;
    use std::os::unix::fs::PermissionsExt;

    /// A program that keeps records as Debian's does, and puts ours first and alone.
    const DEBIANS: &str = r#"#!/bin/sh
cd "$(dirname "$0")/../.."
case "$1" in
-a) cat > run/resolvconf/interface/"$2" ;;
-d) rm -f run/resolvconf/interface/"$2" ;;
*) exit 99 ;;
esac
cd run/resolvconf
if [ -e interface/lo.meshd ]; then cat interface/lo.meshd; else cat interface/*; fi > resolv.conf
"#;

    fn debian() -> (tempfile::TempDir, HostFiles) {
        let (root, files) = host("");
        let records = root.path().join(DEBIAN_RECORDS);
        fs::create_dir_all(&records).unwrap();
        fs::write(records.join("eth0.dhclient"), "nameserver 192.0.2.1\n").unwrap();
        fs::write(
            root.path().join("run/resolvconf/resolv.conf"),
            "nameserver 192.0.2.1\n",
        )
        .unwrap();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        let program = root.path().join("usr/sbin/resolvconf");
        fs::write(&program, DEBIANS).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(files.resolv_conf()).unwrap();
        std::os::unix::fs::symlink("../run/resolvconf/resolv.conf", files.resolv_conf()).unwrap();
        (root, files)
    }

    fn routing() -> Routing {
        Routing {
            interface: "mesh0".into(),
            index: 7,
            server: "127.0.0.150:53".parse().unwrap(),
            domains: Vec::new(),
        }
    }

    #[tokio::test]
    async fn our_record_comes_first_and_goes_again() {
        let (_root, files) = debian();
        let Choice::Use(mut way) = choose(&files, "mesh0", routing().server).await else {
            panic!("resolvconf is in charge");
        };
        assert!(way.describe().starts_with("resolvconf"));
        way.set(&routing()).await.unwrap();
        assert_eq!(way.difference(&routing()).await.unwrap(), None);
        let text = || fs::read_to_string(files.resolv_conf()).unwrap();
        assert_eq!(text(), "nameserver 127.0.0.150\n");
        // The servers that the file does not name any more are still known.
        let others = nameservers(&files, routing().server).await;
        assert_eq!(others, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        way.revert(&routing()).await.unwrap();
        assert_eq!(text(), "nameserver 192.0.2.1\n");
        assert!(way.difference(&routing()).await.unwrap().is_some());
    }

    #[test]
    fn a_program_that_is_not_in_charge_is_not_used() {
        let (_root, files) = debian();
        fs::remove_file(files.resolv_conf()).unwrap();
        fs::write(files.resolv_conf(), "nameserver 192.0.2.1\n").unwrap();
        assert!(Resolvconf::of_host(&files, b"nameserver 192.0.2.1\n").is_none());
    }

    #[tokio::test]
    async fn what_a_program_says_is_told() {
        let (_root, files) = debian();
        let way = Resolvconf::of_host(&files, b"").unwrap();
        let error = way.run(&["-x"], "").await.unwrap_err().to_string();
        assert!(
            error.contains("resolvconf -x") && error.contains("99"),
            "{error}"
        );
    }
}
