//! Which machine this is, and what it is called: by its id a state directory tells whether it was
//! copied elsewhere, and by its name it joins when nobody gives it another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::local::{HostState, JoinRequest};

/// What systemd writes into the file of an image that has not started yet (machine-id(5)).
const NOT_YET: &str = "uninitialized";

/// Names this machine without telling its id (machine-id(5) asks for that); empty when it has none
/// that outlives a reboot.
pub fn machine_id() -> String {
    id_in(Path::new("/etc/machine-id"), Path::new("/run/machine-id"))
}

/// `transient` is where systemd keeps an id that it could not write down.
fn id_in(path: &Path, transient: &Path) -> String {
    let id = match fs::read_to_string(path) {
        Ok(id) if !goes_with_a_reboot(path, transient).unwrap_or(true) => id,
        _ => return String::new(),
    };
    match id.trim() {
        "" | NOT_YET => String::new(),
        id => trust::digest(b"mesh.v1.machine-id", id.as_bytes()).to_string(),
    }
}

/// On a disk that cannot be written, systemd keeps a transient id and mounts it over the file
/// (machine-id(5)); some images have a link to it instead. Either way the two are one file. The next
/// start makes another one, and this would look like a clone.
fn goes_with_a_reboot(path: &Path, transient: &Path) -> io::Result<bool> {
    let identity = |file: fs::Metadata| (file.dev(), file.ino());
    let other = fs::metadata(transient).map(identity).ok();
    Ok(other == Some(identity(fs::metadata(path)?)))
}

/// Gives a join that names nobody the machine's name. It is asked now: cloud-init names a machine
/// when its daemons run already. A member has a name, and is asked for no other.
pub fn named(join: JoinRequest, state: HostState) -> JoinRequest {
    match state {
        HostState::Online | HostState::Autonomous => join,
        _ => JoinRequest {
            name: join.name.or_else(machine_name),
            ..join
        },
    }
}

/// The machine's host name up to the first dot, as names of the mesh are written.
fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    let node = uname.nodename().to_string_lossy().to_lowercase();
    let name = node.split('.').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine {
        root: tempfile::TempDir,
    }

    impl Machine {
        fn with(id: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("machine-id"), id).unwrap();
            Self { root }
        }

        fn id(&self) -> String {
            let file = |name| self.root.path().join(name);
            id_in(&file("machine-id"), &file("transient"))
        }
    }

    #[test]
    fn a_lasting_id_is_told_hashed() {
        let machine = Machine::with("0123456789abcdef0123456789abcdef\n");
        assert_eq!(machine.id().len(), 64);
        assert!(!machine.id().contains("0123456789abcdef"));
        fs::write(machine.root.path().join("transient"), "another file").unwrap();
        assert!(!machine.id().is_empty());
    }

    #[test]
    fn an_image_that_has_not_started_yet_has_no_id() {
        for id in ["uninitialized\n", "\n", ""] {
            assert_eq!(Machine::with(id).id(), "", "{id:?}");
        }
        let nowhere = Path::new("/nonexistent");
        assert_eq!(id_in(nowhere, nowhere), "");
    }

    #[test]
    fn an_id_that_is_only_in_memory_is_none() {
        let machine = Machine::with("0123456789abcdef0123456789abcdef\n");
        let file = |name| machine.root.path().join(name);
        fs::hard_link(file("machine-id"), file("transient")).unwrap();
        assert_eq!(machine.id(), "", "one file under two names");
        fs::remove_file(file("machine-id")).unwrap();
        std::os::unix::fs::symlink(file("transient"), file("machine-id")).unwrap();
        assert_eq!(machine.id(), "", "a link to it");
    }

    #[test]
    fn only_a_join_of_no_member_gets_the_machine_s_name() {
        let join = |name: Option<&str>| JoinRequest {
            token: "mesh1abc".to_owned(),
            name: name.map(str::to_owned),
        };
        assert_eq!(
            named(join(None), HostState::Unenrolled).name,
            machine_name()
        );
        let chosen = named(join(Some("web-1")), HostState::Removed);
        assert_eq!(chosen.name.as_deref(), Some("web-1"));
        for state in [HostState::Online, HostState::Autonomous] {
            assert_eq!(named(join(None), state).name, None, "{state:?}");
        }
    }
}
