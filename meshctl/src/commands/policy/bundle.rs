//! Where a bundle comes from: a directory of this machine, or a version of the fleet.

use std::path::PathBuf;

use model::admin::PolicyContent;
use model::ids::PolicyVersion;
use policy::Checked;
use runtime::api_client::ApiClient;

use super::check::rendered;
use crate::failure::Failure;

/// Names a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Directory(PathBuf),
    Version(PolicyVersion),
    InForce,
}

impl Origin {
    /// Reads digits as a version, and anything else as a directory.
    pub(super) fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(version) => Self::Version(PolicyVersion(version)),
            Err(_) => Self::Directory(text.into()),
        }
    }
}

/// Asks for a version and checks it again.
pub(super) async fn fetch(client: &ApiClient, origin: &Origin) -> Result<Fetched, Failure> {
    let path = match origin {
        Origin::Version(version) => format!("/v1/policy/versions/{version}"),
        _ => "/v1/policy".to_owned(),
    };
    let content: PolicyContent = client.get(&path).await?;
    let checked = policy::load(&content.files).map_err(|diagnostics| {
        Failure::Failed(format!(
            "{}\nversion {} was written for another version of this program; \
             `meshctl policy show {1}` shows its files",
            rendered(&diagnostics),
            content.view.version
        ))
    })?;
    Ok(Fetched {
        version: content.view.version,
        checked,
    })
}

/// A version of the fleet.
pub(super) struct Fetched {
    pub(super) version: PolicyVersion,
    pub(super) checked: Checked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_version() {
        assert_eq!(Origin::parse("12"), Origin::Version(PolicyVersion(12)));
        assert_eq!(Origin::parse("./12"), Origin::Directory("./12".into()));
        assert_eq!(Origin::parse("prod"), Origin::Directory("prod".into()));
    }
}
