//! A new credential for an admin whose credential is lost: made by the running coordinator for whoever
//! is root on its machine, written to a file that `meshctl` takes. The old one opens nothing from then
//! on, and the audit log tells of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use model::admin::{
    AdminCredential, AdminView, CoordinatorStatus, CreateAdmin, CreatedAdmin, Role,
};
use model::name::Name;
use runtime::api_client::{ApiClient, ApiError};
use runtime::clock::Clock;

use crate::credential_file;
use crate::settings::Settings;

/// Why it was done, for the audit log.
const REASON: &str = "a lost credential, recovered on the coordinator's machine";
/// HTTP: there is none.
const NOT_FOUND: u16 = 404;

/// Makes a new credential for the admin `name`, or the admin where there is none of this name, and
/// writes it to `out`, or in the place of the first one. Returns what to tell the operator.
///
/// # Errors
/// A sentence that says what failed, why, and what to try.
pub async fn recover(
    settings: &Settings,
    name: &Name,
    out: Option<&Path>,
) -> Result<String, String> {
    let client = ApiClient::unix(&settings.socket).with_reason(REASON);
    let path = match out {
        Some(path) => path.to_owned(),
        None => settings.state_dir.join(credential_file::FILE),
    };
    // Before anything is changed: a credential that cannot be written is lost at once.
    let file = Unfinished::create(&path).map_err(|error| cannot_write(&path, &error))?;
    let created = replace(&client, name).await.map_err(advice)?;
    let status: CoordinatorStatus = client.get("/v1/status").await.map_err(advice)?;
    let root_pin = status.root_pin.parse();
    let credential = AdminCredential {
        fleet: status.fleet_name,
        addresses: status.addresses,
        root_pin: root_pin.map_err(|error| format!("the coordinator's root: {error}"))?,
        name: name.to_string(),
        secret: created.credential,
    };
    file.finish(&credential_file::encode(&credential))
        .map_err(|error| cannot_write(&path, &error))?;
    Ok(format!(
        "{}: the new credential of {name} ({}); the old one opens nothing any more. Copy it to the \
         operator's machine as ~/.config/mesh/credential.json, mode 0600",
        path.display(),
        created.view.role.name(),
    ))
}

async fn replace(client: &ApiClient, name: &Name) -> Result<CreatedAdmin, ApiError> {
    let path = format!("/v1/admins/{name}/credential");
    match client.post(&path, &serde_json::json!({})).await {
        Err(ApiError::Refused { status, .. }) if status == NOT_FOUND => {
            create(client, name, Role::Admin).await
        }
        Err(refused @ ApiError::Refused { .. }) => match expired(client, name).await? {
            // One that has expired is not prolonged: it goes, and another of its name comes.
            Some(expired) => {
                client
                    .delete::<AdminView>(&format!("/v1/admins/{name}"))
                    .await?;
                create(client, name, expired.role).await
            }
            None => Err(refused),
        },
        answer => answer,
    }
}

async fn create(client: &ApiClient, name: &Name, role: Role) -> Result<CreatedAdmin, ApiError> {
    let create = CreateAdmin {
        name: name.clone(),
        role,
        valid_for_secs: None,
    };
    client.post("/v1/admins", &create).await
}

/// Returns the admin of that name, if its credential has expired.
async fn expired(client: &ApiClient, name: &Name) -> Result<Option<AdminView>, ApiError> {
    let admins: Vec<AdminView> = client.get("/v1/admins").await?;
    let now_secs = Clock::start().now().unix.as_secs();
    let mut admins = admins.into_iter().filter(|it| it.name == *name);
    Ok(admins.find(|it| it.expires_secs.is_some_and(|at| at <= now_secs)))
}

fn advice(error: ApiError) -> String {
    match error {
        ApiError::Unreachable(why) => {
            format!("{why}; a credential is made by the coordinator while it runs: start it first")
        }
        other => other.to_string(),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!(
        "cannot write {}: {error}; run this as root, or choose another file with --out",
        path.display()
    )
}

/// A file that has its name when it is complete, private to its owner.
struct Unfinished {
    file: fs::File,
    path: PathBuf,
    unfinished: PathBuf,
}

impl Unfinished {
    fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let unfinished = PathBuf::from(name);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&unfinished)?;
        let path = path.to_owned();
        Ok(Self {
            file,
            path,
            unfinished,
        })
    }

    fn finish(mut self, contents: &[u8]) -> io::Result<()> {
        self.file.write_all(contents)?;
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was finished.
        let _ = fs::remove_file(&self.unfinished);
    }
}
