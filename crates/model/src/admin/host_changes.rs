//! What operators do to hosts beside labels: rename, revoke; and what became of those that are gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::HostId;
use crate::name::Name;

/// `PUT /v1/hosts/NAME/name`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameHost {
    /// What the host is called from now on. The old name is kept from others for a day.
    pub name: Name,
}

/// One row of `GET /v1/removed`: a host that is no more, the last to go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedHostView {
    /// For ever.
    pub id: HostId,
    /// Its last name.
    pub name: Name,
    /// As the tombstone says.
    pub reason: String,
    /// Who removed it.
    pub removed_by: String,
    /// Unix seconds.
    pub removed_secs: u64,
    /// Its keys are never let in again.
    pub revoked: bool,
}

/// `GET /v1/removed/ID`: and where the news of it has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedHost {
    /// Its row.
    #[serde(flatten)]
    pub view: RemovedHostView,
    /// How many hosts have to know that it is gone, since a rule connected them with it.
    pub concerned: usize,
    /// How many of them have cut it off.
    pub arrived: usize,
    /// Online hosts that have not yet.
    pub pending: Vec<Name>,
    /// Hosts without a stream: they learn it first thing when they come back.
    pub offline: Vec<Name>,
}
