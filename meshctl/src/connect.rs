//! Whom to ask: the daemon of this host by its socket, the coordinator by its socket or with an
//! operator's credential.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::admin::AdminCredential;
use model::ids::Digest;
use runtime::api_client::{ApiClient, Persistence, Server};
use runtime::tls::pinned_client;

use crate::arguments::Targets;
use crate::failure::Failure;
use crate::private_file;

/// Where the daemon answers.
pub const DAEMON_SOCKET: &str = "/run/mesh/meshd.sock";
/// Where the coordinator answers on its own machine.
pub const COORDINATOR_SOCKET: &str = "/run/mesh/coordinator.sock";

/// How long an answer may take that a server has at hand.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take that is worked for: a policy on a large fleet, a join.
pub const WORK_PATIENCE: Duration = Duration::from_secs(60);
/// How long a coordinator may be gone that is started anew.
const PERSISTENCE: Duration = Duration::from_secs(6);

const DAEMON: Server = Server {
    name: "meshd",
    look: "see `systemctl status meshd` and `journalctl -u meshd -e`",
    see: "`meshctl status` shows how this host is",
};

const COORDINATOR: Server = Server {
    name: "the coordinator",
    look: "on its machine, see `systemctl status mesh-coordinator` and `journalctl -u mesh-coordinator -e`",
    see: "`meshctl audit` shows it once the coordinator answers",
};

/// Returns a client of this host's daemon.
pub fn daemon(targets: &Targets) -> ApiClient {
    ApiClient::unix(daemon_socket(targets))
        .with_server(DAEMON)
        .with_patience(PATIENCE)
}

/// Returns where this host's daemon listens.
pub fn daemon_socket(targets: &Targets) -> &Path {
    let socket = targets.socket.as_deref();
    socket.unwrap_or(Path::new(DAEMON_SOCKET))
}

/// Makes sure that a server answers at all, before it is asked for what may take long. A client that
/// waits long for work is returned.
///
/// # Errors
/// It does not; nothing was asked of it.
pub async fn awake(client: ApiClient) -> Result<ApiClient, Failure> {
    let _: serde_json::Value = client.get("/v1/status").await?;
    Ok(client.with_patience(WORK_PATIENCE))
}

/// Scripts read it too: it tells why a command takes longer than it should.
fn tell_that_it_goes_on(why: &str) {
    let secs = PERSISTENCE.as_secs();
    // Nobody reads standard error: then nobody is to be told.
    let _ = writeln!(
        io::stderr(),
        "meshctl: {why}\nmeshctl: trying again for {secs} s …"
    );
}

/// Returns a client of the coordinator: with `--credential`, else over `--coordinator-socket`,
/// else with the operator's own credential file, else over the default socket. Where a coordinator is
/// gone that may be starting anew, it tries again for a few seconds.
///
/// # Errors
/// The credential cannot be used, or there is no way to a coordinator.
pub fn coordinator(targets: &Targets) -> Result<ApiClient, Failure> {
    let client = in_the_manner(coordinator_client(targets)?);
    Ok(client.with_reason(targets.reason.as_deref().unwrap_or("")))
}

/// Returns a client of the coordinator behind a socket of this machine.
pub fn coordinator_at(socket: &Path) -> ApiClient {
    in_the_manner(ApiClient::unix(socket))
}

fn in_the_manner(client: ApiClient) -> ApiClient {
    client
        .with_server(COORDINATOR)
        .with_patience(PATIENCE)
        .with_persistence(Some(Persistence {
            how_long: PERSISTENCE,
            notice: tell_that_it_goes_on,
        }))
}

fn coordinator_client(targets: &Targets) -> Result<ApiClient, Failure> {
    if let Some(path) = &targets.credential {
        return with_credential(path);
    }
    if let Some(path) = &targets.coordinator_socket {
        return Ok(ApiClient::unix(path));
    }
    match own_credential() {
        Some(path) if path.exists() => with_credential(&path),
        // A link that leads nowhere is one to a coordinator that is being started.
        _ if Path::new(COORDINATOR_SOCKET).symlink_metadata().is_ok() => Ok(ApiClient::unix(Path::new(COORDINATOR_SOCKET))),
        _ => Err(Failure::Unreachable(
            "this needs an operator's credential, and there is none here: put it at ~/.config/mesh/credential.json (mode 0600), give --credential FILE (or MESH_CREDENTIAL), or run this on the coordinator's machine".into(),
        )),
    }
}

/// Puts the fleet's newest root in the operator's credential, when that names an older one and is what
/// `coordinator` uses: it was shown by a coordinator that the older one vouches for. Returns the file
/// when it was changed.
///
/// # Errors
/// It cannot be written.
pub fn follow_root(targets: &Targets, newest: Digest) -> Result<Option<PathBuf>, Failure> {
    let path = match (&targets.credential, &targets.coordinator_socket) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(_)) => None,
        (None, None) => own_credential().filter(|path| path.exists()),
    };
    let Some(path) = path else {
        return Ok(None);
    };
    let mut credential = read_credential(&path)?;
    if credential.root_pin == newest {
        return Ok(None);
    }
    credential.root_pin = newest;
    let mut text = serde_json::to_vec_pretty(&credential).expect("texts are JSON");
    text.push(b'\n');
    private_file::write(&path, &text).map_err(|error| {
        Failure::Failed(format!(
            "the credential {} still names the old root, and cannot be written: {error}; it opens \
             nothing once that is retired",
            path.display()
        ))
    })?;
    Ok(Some(path))
}

fn own_credential() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(Path::new(&home).join(".config/mesh/credential.json"))
}

fn with_credential(path: &Path) -> Result<ApiClient, Failure> {
    let credential = read_credential(path)?;
    Ok(ApiClient::tls(
        credential.addresses,
        pinned_client(credential.root_pin),
        credential.secret,
    ))
}

fn read_credential(path: &Path) -> Result<AdminCredential, Failure> {
    let failed = |why: String| {
        Failure::Failed(format!(
            "cannot use the credential {}: {why}",
            path.display()
        ))
    };
    let mode = fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(failed(
            "others can read it; run chmod 600 on it, and have a new one made if it was exposed"
                .into(),
        ));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(format!("it is not a credential ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let message = read_credential(file.path()).unwrap_err().to_string();
        assert!(message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_credential_follows_the_root_and_stays_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.json");
        let credential = AdminCredential {
            fleet: "prod".parse().unwrap(),
            addresses: vec!["c:7443".to_owned()],
            root_pin: Digest::from_bytes([1; 32]),
            name: "ops".to_owned(),
            secret: "s".to_owned(),
        };
        fs::write(&path, serde_json::to_vec(&credential).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let targets = Targets {
            credential: Some(path.clone()),
            ..Targets::default()
        };
        let next = Digest::from_bytes([2; 32]);
        assert_eq!(follow_root(&targets, next).unwrap(), Some(path.clone()));
        let read = read_credential(&path).unwrap();
        assert_eq!((read.root_pin, read.secret.as_str()), (next, "s"));
        assert_eq!(follow_root(&targets, next).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_credential_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{}").unwrap();
        assert!(
            read_credential(file.path())
                .unwrap_err()
                .to_string()
                .contains("not a credential")
        );
    }
}
