//! The brain of the coordinator: hosts, tokens, addresses, policies, sessions. It decides and signs;
//! the program stores what it asks to store, and carries its messages.
//!
//! Read `fleet` first, the verbs, then `requests`, how a request goes from question to answer.
//! `apply` is the one place where durable state changes, `commits` keeps many changes under way
//! right, `keys` says where everything lies in the store. Who is told what is `interest` (who is
//! concerned by what), `news` (what a host does not know yet) and `maps`. The other files are nouns.

#![forbid(unsafe_code)]

mod abilities;
mod addresses;
mod admins;
mod allowance;
mod apply;
mod audit;
mod authority;
mod ciphers;
mod clock_text;
mod commits;
mod config;
mod conversation;
mod enrolment;
mod explain;
mod figures;
mod fleet;
mod former_names;
mod hints;
mod hosts;
mod interest;
mod key_changes;
mod keys;
mod maps;
mod news;
mod output;
mod pace;
mod planning;
mod policies;
mod policy_work;
mod presence;
mod recovery;
mod removal;
mod renaming;
mod request;
mod requests;
mod rotation;
mod service_addresses;
mod sessions;
mod state;
mod stored;
mod tokens;
mod turnstile;
mod twins;
mod verify;
mod work;

pub use admins::Unwelcome;
pub use authority::{Bootstrap, bootstrap};
pub use clock_text::utc as time_text;
pub use config::{BootstrapConfig, FleetConfig, FleetLimits, LoadError};
pub use figures::Figures;
pub use fleet::{CommitError, Fleet};
pub use output::{CommitId, KeepId, Output, Rejection, Reply, RequestId, SessionId};
pub use policy_work::{PolicyDone, PolicyWork, WorkId};
pub use recovery::{Hearsay, Testimony, restored};
pub use request::{AdminRequest, Caller};
pub use sessions::SessionPeer;
pub use turnstile::Admission;
pub use verify::{Verified, stored_overlay, verify};
