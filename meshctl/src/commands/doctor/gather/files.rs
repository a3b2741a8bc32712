//! What files tell: settings, the state directory, the TUN device, ports in use.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::facts::{DaemonSettings, Known, StateDirectory, TunNode};

const CONFIG: &str = "/etc/mesh/meshd.toml";
const TUN: &str = "/dev/net/tun";

/// The keys of `meshd.toml` that are looked at.
#[derive(Deserialize)]
struct Keys {
    interface: Option<String>,
    nft_table: Option<String>,
    listen_port: Option<u16>,
    mtu: Option<Mtu>,
    state_dir: Option<PathBuf>,
}

/// A number, or `auto`, which only the daemon can tell the number of.
#[derive(Deserialize)]
#[serde(untagged)]
enum Mtu {
    Bytes(u16),
    #[allow(dead_code)] // What stands there is the daemon's to judge.
    Word(String),
}

pub(super) fn settings(config: Option<PathBuf>) -> Known<DaemonSettings> {
    let is_optional = config.is_none();
    let path = config.unwrap_or_else(|| CONFIG.into());
    let (keys, _): (Keys, _) =
        runtime::config::load(&path, is_optional).map_err(|error| error.to_string())?;
    let default = DaemonSettings::default();
    let set_mtu = match keys.mtu {
        Some(Mtu::Bytes(bytes)) => Some(bytes),
        Some(Mtu::Word(_)) | None => None,
    };
    Ok(DaemonSettings {
        interface: keys.interface.unwrap_or(default.interface),
        nft_table: keys.nft_table.unwrap_or(default.nft_table),
        listen_port: keys.listen_port.unwrap_or(default.listen_port),
        mtu: set_mtu.unwrap_or(default.mtu),
        set_mtu,
        state_dir: keys.state_dir.unwrap_or(default.state_dir),
    })
}

/// Whether there is a settings file at its place.
pub(super) fn has_settings() -> bool {
    Path::new(CONFIG).exists()
}

pub(super) fn text(path: &str) -> Known<String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

pub(super) fn state_dir(path: &Path) -> Known<StateDirectory> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(|error| failed(&error))?;
    let room = rustix::fs::statvfs(path).map_err(|error| failed(&error))?;
    let entries = fs::read_dir(path).map_err(|error| failed(&error))?;
    let exposed = entries.flatten().filter_map(|entry| {
        let mode = entry.metadata().ok()?.permissions().mode() & 0o777;
        let name = entry.file_name().to_string_lossy().into_owned();
        (mode & 0o077 != 0).then_some((name, mode))
    });
    Ok(StateDirectory {
        path: path.to_owned(),
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
        free_files: (room.f_files > 0).then_some(room.f_favail),
        is_read_only: room.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        mode: metadata.permissions().mode() & 0o777,
        exposed: exposed.collect(),
        is_foreign: metadata.uid() != 0,
    })
}

/// Opening the node makes no interface yet: that takes a further call.
pub(super) fn tun() -> TunNode {
    match fs::metadata(TUN) {
        Err(error) if error.kind() == ErrorKind::NotFound => return TunNode::Missing,
        Err(error) => return TunNode::Refused(error.to_string()),
        Ok(node) if !node.file_type().is_char_device() => return TunNode::NoDevice,
        Ok(_) => {}
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => TunNode::Opens,
        // ENXIO, ENODEV: nobody in the kernel has this number.
        Err(error) if matches!(error.raw_os_error(), Some(6 | 19)) => TunNode::NoDevice,
        Err(error) => TunNode::Refused(error.to_string()),
    }
}

pub(super) fn udp_ports() -> Known<BTreeSet<u16>> {
    let mut ports = ports_in(&text("/proc/net/udp")?);
    // Without IPv6 there is no such file.
    ports.extend(ports_in(&text("/proc/net/udp6").unwrap_or_default()));
    Ok(ports)
}

/// The second column is `ADDRESS:PORT` in hexadecimal (proc_net_udp(5)).
fn ports_in(table: &str) -> BTreeSet<u16> {
    let lines = table.lines().skip(1);
    let local = lines.filter_map(|line| line.split_whitespace().nth(1));
    local
        .filter_map(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_kernel_writes_them() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue
  123: 00000000:CA6C 00000000:0000 07 00000000:00000000
  456: 0100007F:0035 00000000:0000 07 00000000:00000000
";
        assert_eq!(ports_in(table), [53, 51820].into());
    }

    #[test]
    fn a_state_directory_tells_who_could_read_it() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::write(root.path().join("identity"), "keys").unwrap();
        set(&root.path().join("identity"), 0o640);
        set(root.path(), 0o750);
        let state = state_dir(root.path()).unwrap();
        assert_eq!(state.mode, 0o750);
        assert_eq!(state.exposed, [("identity".to_owned(), 0o640)]);
        assert!(!state.is_read_only && state.free_bytes > 0);
        assert!(state_dir(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn settings_of_a_file_win_over_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "listen_port = 4000\nlog_level = 'info'\n").unwrap();
        let read = settings(Some(file.path().to_owned())).unwrap();
        assert_eq!((read.listen_port, read.interface.as_str()), (4000, "mesh0"));
        for (text, set, mtu) in [
            ("mtu = 1300", Some(1300), 1300),
            ("mtu = 'auto'", None, 1420),
        ] {
            fs::write(file.path(), text).unwrap();
            let read = settings(Some(file.path().to_owned())).unwrap();
            assert_eq!((read.set_mtu, read.mtu), (set, mtu), "{text}");
        }
        fs::write(file.path(), "listen_port = 'many'\n").unwrap();
        assert!(settings(Some(file.path().to_owned())).is_err());
    }
}
