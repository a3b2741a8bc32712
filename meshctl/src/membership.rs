//! Whether this host is a member of a fleet: many a question makes sense of a member only.

use model::local::{HostState, HostStatus};
use runtime::api_client::ApiClient;

use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;

/// Returns a client of this host's daemon, for what only a member can tell.
///
/// # Errors
/// The daemon does not answer, or this host is no member; says what to do.
pub async fn member(targets: &Targets) -> Result<ApiClient, Failure> {
    let client = connect::daemon(targets);
    let status: HostStatus = client.get("/v1/status").await?;
    lacks(status.state).map_or(Ok(client), |why| Err(Failure::Failed(why.to_owned())))
}

/// Returns why a host in this state is no member, and what to do; nothing when it is one.
pub(crate) fn lacks(state: HostState) -> Option<&'static str> {
    match state {
        HostState::Online | HostState::Autonomous => None,
        HostState::Unenrolled => Some("this host is in no fleet; run meshctl join TOKEN"),
        HostState::Joining => {
            Some("this host is joining, and no member yet; meshctl wait-online waits for it")
        }
        HostState::Removed => {
            Some("this host was removed from its fleet; run meshctl join with a new token")
        }
        HostState::Cloned => Some("this host is a clone of another; run meshctl join TOKEN"),
    }
}
