//! `meshctl join --unattended`: with a token that an image, cloud-init or a provisioner left on the
//! machine. The token is wiped once the host is a member, and set aside when it is refused, so that
//! it is neither tried for ever nor lost.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use model::local::{JoinRequest, Joined};
use runtime::api_client::ApiError;

use super::join::read_token;
use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;

/// Where a token is left on the machine.
const TOKEN_FILE: &str = "/etc/mesh/join-token";
/// What systemd calls it: `LoadCredential=` of meshd-join.service.
const CREDENTIAL: &str = "mesh.join-token";

/// Where the token is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A file of this machine, which is ours to wipe.
    File(PathBuf),
    /// A credential, which is gone with the unit that has it.
    Credential(PathBuf),
}

/// Joins with the token that is there.
///
/// # Errors
/// There is none; the daemon or the coordinator cannot be reached, and the token stays; or the
/// coordinator refuses, and the token is set aside.
pub async fn join(name: Option<String>, targets: &Targets) -> Result<Joined, Failure> {
    let source = find(
        std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        Path::new(TOKEN_FILE),
    )?;
    let request = JoinRequest {
        token: read_token(
            fs::File::open(source.path()),
            &source.path().display().to_string(),
        )?
        .trim()
        .to_owned(),
        name,
    };
    let client = connect::awake(connect::daemon(targets)).await?;
    let asked = client.post::<Joined>("/v1/join", &request).await;
    match asked {
        Ok(joined) => source.wipe().map(|()| joined),
        Err(error) if is_final(&error) => Err(source.set_aside(error)),
        Err(error) => Err(error.into()),
    }
}

/// Whether asking again with the same token brings the same answer.
fn is_final(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { body, .. } => !["exhausted", "unavailable"].contains(&&*body.code),
        ApiError::Unreachable(_) | ApiError::Protocol(_) => false,
    }
}

/// A file goes before a credential: it was left on purpose, perhaps because the other was refused.
fn find(credentials: Option<PathBuf>, file: &Path) -> Result<Source, Failure> {
    if file.exists() {
        return Ok(Source::File(file.to_owned()));
    }
    let credential = credentials.map(|directory| directory.join(CREDENTIAL));
    match credential.filter(|path| path.exists()) {
        Some(path) => Ok(Source::Credential(path)),
        None => Err(Failure::Usage(format!(
            "there is no token in {}, nor a credential {CREDENTIAL}; `meshctl tokens create` makes one",
            file.display()
        ))),
    }
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }

    /// Overwrites and removes the token's file.
    fn wipe(&self) -> Result<(), Failure> {
        let Self::File(path) = self else {
            return Ok(());
        };
        let wipe = || {
            let bytes = usize::try_from(fs::metadata(path)?.len()).unwrap_or(0);
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.write_all(&vec![0; bytes])?;
            file.sync_all()?;
            fs::remove_file(path)
        };
        wipe().or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(Failure::Failed(format!(
                "this host is a member, but {} cannot be wiped ({error}): remove it yourself",
                path.display()
            ))),
        })
    }

    /// Moves a refused token away, so that it is not tried again.
    fn set_aside(&self, refusal: ApiError) -> Failure {
        let why = Failure::from(refusal).to_string();
        let Self::File(path) = self else {
            return Failure::Denied(format!("{why}; the token was the credential {CREDENTIAL}"));
        };
        let refused = path.with_extension("refused");
        Failure::Denied(match fs::rename(path, &refused) {
            Ok(()) => format!(
                "{why}; the token is now in {}: put a new one into {}",
                refused.display(),
                path.display()
            ),
            Err(error) => format!("{why}; {} cannot be set aside: {error}", path.display()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::admin::ErrorBody;

    fn refused(code: &str) -> ApiError {
        ApiError::Refused {
            status: 403,
            body: ErrorBody {
                code: code.into(),
                message: "the token is used up".into(),
                diagnostics: Vec::new(),
            },
        }
    }

    #[test]
    fn a_token_is_wiped_after_the_join() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("join-token");
        fs::write(&file, "mesh1secret").unwrap();
        let kept = directory.path().join("kept");
        fs::hard_link(&file, &kept).unwrap();
        let source = find(None, &file).unwrap();
        source.wipe().unwrap();
        assert!(!file.exists());
        assert_eq!(fs::read(&kept).unwrap(), [0; 11]);
        source.wipe().unwrap();
    }

    #[test]
    fn a_refused_token_is_set_aside_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("join-token");
        fs::write(&file, "mesh1secret").unwrap();
        let said = find(None, &file).unwrap().set_aside(refused("denied"));
        assert!(matches!(said, Failure::Denied(_)), "{said}");
        assert!(said.to_string().contains("used up"), "{said}");
        assert!(!file.exists() && file.with_extension("refused").exists());
    }

    #[test]
    fn only_what_cannot_change_by_itself_is_final() {
        assert!(is_final(&refused("denied")) && is_final(&refused("conflict")));
        assert!(!is_final(&refused("unavailable")) && !is_final(&refused("exhausted")));
        assert!(!is_final(&ApiError::Unreachable("no route".into())));
    }

    #[test]
    fn a_file_goes_before_a_credential_and_without_both_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let (file, credentials) = (directory.path().join("join-token"), directory.path());
        assert!(matches!(
            find(Some(credentials.into()), &file),
            Err(Failure::Usage(_))
        ));
        fs::write(credentials.join(CREDENTIAL), "mesh1").unwrap();
        assert!(matches!(
            find(Some(credentials.into()), &file),
            Ok(Source::Credential(_))
        ));
        fs::write(&file, "mesh1").unwrap();
        assert!(matches!(
            find(Some(credentials.into()), &file),
            Ok(Source::File(_))
        ));
    }
}
