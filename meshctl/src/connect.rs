//! Whom to ask: the daemon of this host by its socket, the coordinator by its socket or with an
//! operator's credential.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::admin::AdminCredential;
use runtime::api_client::ApiClient;
use runtime::tls::pinned_client;

use crate::arguments::Targets;
use crate::failure::Failure;

/// Where the daemon answers.
pub const DAEMON_SOCKET: &str = "/run/mesh/meshd.sock";
/// Where the coordinator answers on its own machine.
pub const COORDINATOR_SOCKET: &str = "/run/mesh/coordinator.sock";

/// Returns a client of this host's daemon.
pub fn daemon(targets: &Targets) -> ApiClient {
    ApiClient::unix(
        targets
            .socket
            .as_deref()
            .unwrap_or(Path::new(DAEMON_SOCKET)),
    )
}

/// Returns a client of the coordinator: with `--credential`, else over `--coordinator-socket`,
/// else with the operator's own credential file, else over the default socket.
///
/// # Errors
/// The credential cannot be used, or there is no way to a coordinator.
pub fn coordinator(targets: &Targets) -> Result<ApiClient, Failure> {
    let client = coordinator_client(targets)?;
    Ok(client.with_reason(targets.reason.as_deref().unwrap_or("")))
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
        _ if Path::new(COORDINATOR_SOCKET).exists() => Ok(ApiClient::unix(Path::new(COORDINATOR_SOCKET))),
        _ => Err(Failure::Unreachable(
            "this needs an operator's credential, and there is none here: put it at ~/.config/mesh/credential.json (mode 0600), give --credential FILE (or MESH_CREDENTIAL), or run this on the coordinator's machine".into(),
        )),
    }
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
