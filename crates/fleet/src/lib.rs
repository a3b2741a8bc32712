//! The brain of the coordinator: hosts, tokens, addresses, policies, sessions. It decides and signs;
//! the program stores what it asks to store, and carries its messages.
//!
//! Read `fleet` first, the verbs, then `requests`, how a request goes from question to answer.
//! `apply` is the one place where durable state changes, `commits` keeps many changes under way
//! right, `keys` says where everything lies in the store. Who is told what is `interest` (who is
//! concerned by what), `news` (what a host does not know yet) and `maps`. The other files are nouns.

#![forbid(unsafe_code)]

mod addresses;
mod admins;
mod apply;
mod audit;
mod authority;
mod clock_text;
mod commits;
mod config;
mod conversation;
mod enrolment;
mod explain;
mod fleet;
mod hosts;
mod interest;
mod keys;
mod maps;
mod news;
mod output;
mod policies;
mod presence;
mod request;
mod requests;
mod sessions;
mod state;
mod stored;
mod tokens;
mod twins;
mod work;

pub use authority::{Bootstrap, bootstrap};
pub use config::{BootstrapConfig, FleetConfig, FleetLimits, LoadError};
pub use fleet::{CommitError, Fleet};
pub use output::{CommitId, Output, Rejection, Reply, RequestId, SessionId};
pub use request::{AdminRequest, Caller};
pub use sessions::SessionPeer;
