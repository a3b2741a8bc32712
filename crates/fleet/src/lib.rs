//! The brain of the coordinator: hosts, tokens, addresses, policies, sessions. It decides and signs;
//! the program stores what it asks to store, and carries its messages.
//!
//! The verbs, in `fleet`:
//!
//! ```text
//! bootstrap(&BootstrapConfig, &Authority, seed: [u8; 32], Now) -> Bootstrap { transaction, admin_credential }
//! Fleet::new(FleetConfig, Authority, loaded: Vec<KeyValue>, StoreRevision, seed: [u8; 32], Now) -> Result<Fleet, LoadError>
//! describe(Now) -> Description · authenticate_admin(&str) -> Option<Caller>
//! handle_enrol(RequestId, EnrolRequest, from: IpAddr, Now)
//! handle_admin(RequestId, Caller, AdminRequest, Now)
//! handle_session_opened(SessionId, SessionPeer { identity: SpiffeId, tls_key_hash: Digest }, observed: Option<IpAddr>, Now)
//! handle_session_message(SessionId, FromHost, Now) · handle_session_closed(SessionId, Now)
//! handle_commit(CommitId, Result<Committed, CommitError>, Now) · handle_watch(Committed, Now)
//! handle_timeout(Now) · poll_output() -> Option<Output> · poll_timeout() -> Option<(Instant, &'static str)>
//! ```

#![forbid(unsafe_code)]

mod output;
mod request;

pub use output::{CommitId, Output, Rejection, Reply, RequestId, SessionId};
pub use request::{AdminRequest, Caller};
