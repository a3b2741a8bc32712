//! `meshctl admins`: credentials of operators. A new one is shown once, as the file that `meshctl` takes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use model::admin::{AdminCredential, AdminView, CoordinatorStatus, CreateAdmin, CreatedAdmin};
use model::name::Name;
use runtime::api_client::{ApiClient, ApiError};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{self, Admins, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, now_secs, time};

/// What `--json` shows of a new credential.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreatedAdmin")]
pub(crate) struct Made<'a> {
    #[serde(flatten)]
    view: &'a AdminView,
    /// Where it was written; `null`: it stands in `credential`.
    file: Option<&'a Path>,
    credential: Option<&'a AdminCredential>,
}

/// Runs a verb of `meshctl admins`.
///
/// # Errors
/// The coordinator does not answer or refuses, or the credential cannot be written.
pub async fn run(verb: Admins, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    match verb {
        Admins::Create(create) => {
            let order = request(&create);
            let made = client.post("/v1/admins", &order);
            hand_out(&client, create.out, made, output).await
        }
        Admins::Replace { name, out } => {
            let path = format!("/v1/admins/{name}/credential");
            let order = serde_json::json!({});
            let made = client.post(&path, &order);
            hand_out(&client, out, made, output).await
        }
        Admins::List => {
            let admins: Vec<AdminView> = client.get("/v1/admins").await?;
            output.show("AdminList", &admins, |output| table(&admins, output));
            Ok(())
        }
        Admins::Revoke { name } => revoke(&client, &name, output).await,
    }
}

fn request(create: &arguments::CreateAdmin) -> CreateAdmin {
    CreateAdmin {
        name: create.name.clone(),
        role: create.role.into(),
        valid_for_secs: create.valid_for,
    }
}

/// Has a credential made and gives it to the operator. The file is there before anything is changed:
/// a credential that cannot be written is lost at once.
async fn hand_out(
    client: &ApiClient,
    out: Option<PathBuf>,
    made: impl Future<Output = Result<CreatedAdmin, ApiError>>,
    output: &Output,
) -> Result<(), Failure> {
    let status: CoordinatorStatus = client.get("/v1/status").await?;
    let file = out.map(NewFile::create).transpose()?;
    let CreatedAdmin { credential, view } = made.await?;
    let credential = AdminCredential {
        fleet: status.fleet_name,
        addresses: status.addresses,
        root_pin: status.root_pin.parse().map_err(|error| {
            Failure::Failed(format!("the coordinator's root is no digest: {error}"))
        })?,
        name: view.name.to_string(),
        secret: credential,
    };
    let text = serde_json::to_string_pretty(&credential).expect("texts are JSON");
    let again = format!(
        "it opens the coordinator already, and nobody has it: `meshctl admins replace {} --out FILE` \
         makes another in its place",
        view.name
    );
    let written = file.map(|file| file.finish(&text, &again)).transpose()?;
    let made = Made {
        view: &view,
        file: written.as_deref(),
        credential: written.is_none().then_some(&credential),
    };
    output.show_once("CreatedAdmin", &made, &again, |output| match &written {
        Some(path) => format!(
            "{} {}: the credential of {}\n  copy it to the operator's machine as \
             ~/.config/mesh/credential.json, mode 0600, and remove it here",
            output.paint(Tone::Good, "✓"),
            path.display(),
            described(&view),
        ),
        None => {
            output.progress(&format!(
                "the credential of {}; it is shown this once, and belongs in \
                 ~/.config/mesh/credential.json, mode 0600",
                described(&view)
            ));
            text.clone()
        }
    });
    Ok(())
}

async fn revoke(client: &ApiClient, name: &Name, output: &Output) -> Result<(), Failure> {
    let revoked: AdminView = client.delete(&format!("/v1/admins/{name}")).await?;
    output.show("Admin", &revoked, |output| {
        format!(
            "{} the credential of {} opens nothing any more",
            output.paint(Tone::Good, "✓"),
            described(&revoked)
        )
    });
    Ok(())
}

fn described(view: &AdminView) -> String {
    let until = match view.expires_secs {
        Some(expires) => format!(", until {}", time(expires)),
        None => String::new(),
    };
    format!("{} ({}{until})", view.name, view.role.name())
}

fn table(admins: &[AdminView], output: &Output) -> String {
    let mut table = Table::new(&["NAME", "ROLE", "MADE", "BY", "EXPIRES"]);
    for admin in admins {
        let expires = match admin.expires_secs {
            Some(expires) if expires <= now_secs() => {
                output.paint(Tone::Faint, &format!("expired {}", time(expires)))
            }
            Some(expires) => time(expires),
            None => "-".to_owned(),
        };
        table.row([
            admin.name.to_string(),
            admin.role.name().to_owned(),
            time(admin.created_secs),
            admin.created_by.clone(),
            expires,
        ]);
    }
    table.text("nobody has a credential; `meshctl admins create` makes one")
}

/// A file that only its owner can read, and that goes again when it is not finished.
struct NewFile {
    file: File,
    path: PathBuf,
    is_finished: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self {
            file,
            path,
            is_finished: false,
        })
    }

    /// `again` says how to get another one.
    fn finish(mut self, text: &str, again: &str) -> Result<PathBuf, Failure> {
        let written = writeln!(self.file, "{text}").and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            Failure::Failed(format!(
                "cannot write the credential to {}: {error}; {again}",
                self.path.display()
            ))
        })?;
        self.is_finished = true;
        Ok(self.path.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // It is of no use to anybody; what failed is said.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot write {}: {error}; choose another file with --out",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_credential_goes_in_a_new_file_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        let written = NewFile::create(path.clone())
            .unwrap()
            .finish("{}", "")
            .unwrap();
        assert_eq!(fs::read_to_string(&written).unwrap(), "{}\n");
        let mode = fs::metadata(&written).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(NewFile::create(path).is_err(), "what is there stays");
    }

    #[test]
    fn a_file_for_a_credential_that_was_refused_goes_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        drop(NewFile::create(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
