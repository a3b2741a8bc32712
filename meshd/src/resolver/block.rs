//! A marked block at the top of the host's own /etc/resolv.conf. What follows it stays byte for
//! byte, so that taking the block out restores the file, whoever else has edited it meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, StatxAttributes, StatxFlags, XattrFlags, access, fsetxattr, getxattr,
    statx,
};

use super::{HostFiles, HostResolver, ResolverError, Routing};

/// Where programs that are confined by SELinux may read depends on it.
const SECURITY_LABEL: &str = "security.selinux";

/// The block, and the file that it is in.
pub(super) struct BlockInFile {
    path: PathBuf,
    interface: String,
}

impl BlockInFile {
    /// Takes the host's file, when it is a file of its own that may be replaced.
    pub(super) fn of_host(files: &HostFiles, interface: &str) -> Result<Self, String> {
        let path = files.resolv_conf();
        let shown = path.display();
        let cannot = |error: io::Error| format!("{shown} cannot be used: {error}");
        let metadata = fs::symlink_metadata(&path).map_err(cannot)?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(cannot)?;
            return Err(format!(
                "{shown} is a link to {}, which another program writes; tell that program to ask mesh DNS first",
                target.display()
            ));
        }
        if !metadata.is_file() {
            return Err(format!("{shown} is no file"));
        }
        let found = statx(
            CWD,
            &path,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        )
        .map_err(|error| cannot(error.into()))?;
        if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(format!(
                "{shown} is mounted from elsewhere, as in containers, and is not this host's own"
            ));
        }
        let is_fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        if found.stx_attributes.intersects(is_fixed) {
            return Err(format!("{shown} is protected against changes (chattr)"));
        }
        let directory = path.parent().expect("the file is in a directory");
        access(directory, Access::WRITE_OK).map_err(|error| cannot(error.into()))?;
        Ok(Self {
            path,
            interface: interface.to_owned(),
        })
    }

    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> Result<T, ResolverError> {
        change().map_err(|error| ResolverError::new(format!("edit {}", self.path.display()), error))
    }
}

#[async_trait::async_trait]
impl HostResolver for BlockInFile {
    fn describe(&self) -> String {
        format!(
            "a block in {}, which names mesh DNS as the first server",
            self.path.display()
        )
    }

    async fn set(&mut self, routing: &Routing) -> Result<(), ResolverError> {
        self.change(|| {
            let text = fs::read(&self.path)?;
            let rest = without_block(&text, &self.interface).unwrap_or(text);
            let text = [block(routing).as_bytes(), &rest].concat();
            replace(&self.path, &text)
        })
    }

    async fn difference(&mut self, routing: &Routing) -> Result<Option<String>, ResolverError> {
        let shown = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => return Ok(Some(format!("{shown} cannot be read any more: {error}"))),
        };
        let stands = text.starts_with(block(routing).as_bytes());
        Ok((!stands).then(|| format!("another program took the block of meshd out of {shown}")))
    }

    async fn revert(&mut self, _routing: &Routing) -> Result<(), ResolverError> {
        remove(&self.path, &self.interface).map(drop)
    }

    fn may_repair(&self) -> bool {
        false
    }
}

/// Takes the block out of a file; returns whether there was one.
pub(super) fn remove(path: &Path, interface: &str) -> Result<bool, ResolverError> {
    let remove = || -> io::Result<bool> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match without_block(&text, interface) {
            Some(rest) => replace(path, &rest).map(|()| true),
            None => Ok(false),
        }
    };
    remove().map_err(|error| {
        ResolverError::new(
            format!("take the block of meshd out of {}", path.display()),
            error,
        )
    })
}

fn block(routing: &Routing) -> String {
    format!(
        "{}nameserver {}\n{}",
        first_mark(&routing.interface),
        routing.server.ip(),
        last_mark(&routing.interface)
    )
}

fn first_mark(interface: &str) -> String {
    format!("# begin of meshd {interface}: removed when meshd stops\n")
}

fn last_mark(interface: &str) -> String {
    format!("# end of meshd {interface}\n")
}

/// Returns what is left without the block; `None`: there is none. Lines between the marks that
/// are not ours stay, and so does everything when a mark is missing but the other mark.
pub(super) fn without_block(text: &[u8], interface: &str) -> Option<Vec<u8>> {
    let (first, last) = (first_mark(interface), last_mark(interface));
    let mut rest = Vec::with_capacity(text.len());
    let (mut found, mut inside) = (false, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line == first.as_bytes() {
            (found, inside) = (true, true);
        } else if line == last.as_bytes() {
            (found, inside) = (true, false);
        } else if inside && names_loopback(line) {
            // Ours comes first in the block: one more is somebody else's.
            inside = false;
        } else {
            rest.extend_from_slice(line);
        }
    }
    found.then_some(rest)
}

/// Mesh DNS answers on loopback only.
fn names_loopback(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let server = line.trim_end().strip_prefix("nameserver ");
    server.is_some_and(|server| {
        server
            .parse()
            .is_ok_and(|server: IpAddr| server.is_loopback())
    })
}

/// Replaces the file whole, with the owner, mode and label of the old one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let next = path.with_file_name(".resolv.conf.meshd");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(text)?;
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        copy_label(path, &file);
        file.set_permissions(old.permissions())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&next)))
}

/// Most hosts have none, and then there is nothing to copy.
fn copy_label(from: &Path, to: &File) {
    let mut label = [0u8; 1024];
    let Ok(length) = getxattr(from, SECURITY_LABEL, &mut label[..]) else {
        return;
    };
    if let Err(error) = fsetxattr(to, SECURITY_LABEL, &label[..length], XattrFlags::empty()) {
        tracing::debug!(%error, "the label of resolv.conf stays behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::host;
    use std::os::unix::fs::PermissionsExt;

    fn routing() -> Routing {
        Routing {
            interface: "mesh0".into(),
            index: 7,
            server: "127.0.0.150:53".parse().unwrap(),
            domains: vec!["mesh.internal".into()],
        }
    }

    fn of(files: &HostFiles) -> BlockInFile {
        BlockInFile::of_host(files, "mesh0").unwrap()
    }

    #[tokio::test]
    async fn the_file_is_restored_byte_for_byte() {
        for text in [
            "",
            "nameserver 192.0.2.1\n",
            "nameserver 192.0.2.1",
            "\n\n# begin of meshd mesh1: removed when meshd stops\r\n\tsearch x",
        ] {
            let (_root, files) = host(text);
            let path = files.resolv_conf();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let mut way = of(&files);
            way.set(&routing()).await.unwrap();
            way.set(&routing()).await.unwrap();
            let during = fs::read_to_string(&path).unwrap();
            assert!(during.starts_with("# begin of meshd mesh0"), "{during}");
            assert!(during.ends_with(text), "{during}");
            assert_eq!(during.matches("127.0.0.150").count(), 1);
            assert_eq!(way.difference(&routing()).await.unwrap(), None);
            way.revert(&routing()).await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o640);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[tokio::test]
    async fn an_edit_below_the_block_is_nobody_s_fault_and_stays() {
        let (_root, files) = host("nameserver 192.0.2.1\n");
        let path = files.resolv_conf();
        let mut way = of(&files);
        way.set(&routing()).await.unwrap();
        let edited = fs::read_to_string(&path)
            .unwrap()
            .replace("192.0.2.1", "192.0.2.2");
        fs::write(&path, edited).unwrap();
        assert_eq!(way.difference(&routing()).await.unwrap(), None);
        way.revert(&routing()).await.unwrap();
        let left = fs::read_to_string(&path).unwrap();
        assert_eq!(left, "nameserver 192.0.2.2\n");
    }

    #[tokio::test]
    async fn a_file_that_another_wrote_whole_is_told_and_left() {
        let (_root, files) = host("nameserver 192.0.2.1\n");
        let mut way = of(&files);
        way.set(&routing()).await.unwrap();
        fs::write(files.resolv_conf(), "# by dhclient\nnameserver 192.0.2.3\n").unwrap();
        let difference = way.difference(&routing()).await.unwrap().unwrap();
        assert!(difference.contains("took the block"), "{difference}");
        assert!(!way.may_repair());
        way.revert(&routing()).await.unwrap();
        let left = fs::read_to_string(files.resolv_conf()).unwrap();
        assert_eq!(left, "# by dhclient\nnameserver 192.0.2.3\n");
    }

    #[tokio::test]
    async fn an_ipv6_server_is_taken_out_too() {
        let (_root, files) = host("nameserver 192.0.2.1\n");
        let routing = Routing {
            server: "[::1]:53".parse().unwrap(),
            ..routing()
        };
        let mut way = of(&files);
        way.set(&routing).await.unwrap();
        let during = fs::read_to_string(files.resolv_conf()).unwrap();
        assert!(during.contains("nameserver ::1\n"), "{during}");
        way.revert(&routing).await.unwrap();
        let left = fs::read_to_string(files.resolv_conf()).unwrap();
        assert_eq!(left, "nameserver 192.0.2.1\n");
    }

    #[test]
    fn what_a_dead_daemon_left_is_found_by_its_marks() {
        let all = block(&routing()) + "search x\n";
        for (left, expected) in [
            (all.clone(), "search x\n"),
            // Somebody wrote into it, or cut it.
            (
                all.replace("# end", "options y\n# end"),
                "options y\nsearch x\n",
            ),
            (all.replace(&last_mark("mesh0"), ""), "search x\n"),
            (
                all.replace(&first_mark("mesh0"), ""),
                "nameserver 127.0.0.150\nsearch x\n",
            ),
        ] {
            let (_root, files) = host(&left);
            assert!(remove(&files.resolv_conf(), "mesh0").unwrap());
            assert_eq!(fs::read_to_string(files.resolv_conf()).unwrap(), expected);
            assert!(!remove(&files.resolv_conf(), "mesh0").unwrap());
        }
    }

    #[test]
    fn the_block_of_another_daemon_stays() {
        let (_root, files) = host(&block(&routing()));
        assert!(!remove(&files.resolv_conf(), "mesh1").unwrap());
    }
}
