//! The task that does for the authority what the brain orders, in that order: writes its keys to the
//! disk, and shows and believes other roots at the TLS port. It keeps the port's certificate renewed.

use std::sync::Arc;
use std::time::Duration;

use fleet::KeepId;
use model::ids::Digest;
use model::name::Name;
use runtime::state_dir::StateDir;
use runtime::tls::ClientRoots;
use tokio::sync::mpsc;
use trust::{Authority, AuthorityKeys};

use crate::authority_file::AuthorityFile;
use crate::brain::{BrainHandle, Input};
use crate::credential_file;
use crate::former_keys;
use crate::server_certificate::ServerCertificate;

/// How often the wall clock is looked at: it may jump, as when it is set after boot.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// Orders that may wait; the fleet asks for one write at a time, and changes its roots twice a rotation.
pub(crate) const ORDERS_MAX: usize = 64;

/// What is to be done.
pub(crate) enum AuthorityOrder {
    /// Write these keys, and no others; the brain is told the outcome.
    Keep(KeepId, Vec<AuthorityKeys>),
    /// Issue with these keys, and believe their roots.
    Show(Vec<AuthorityKeys>),
}

/// The task's state.
pub(crate) struct AuthorityKeeper {
    pub(crate) state: Arc<StateDir>,
    pub(crate) fleet: Name,
    pub(crate) roots: Arc<ClientRoots>,
    pub(crate) certificate: ServerCertificate,
    /// Where the coordinator says that it is.
    pub(crate) advertise: Vec<String>,
    pub(crate) orders: mpsc::Receiver<AuthorityOrder>,
    pub(crate) brain: BrainHandle,
    /// What was the authority's file is still on the disk.
    pub(crate) has_left_over: bool,
}

impl AuthorityKeeper {
    /// Works until the future is dropped.
    pub(crate) async fn run(mut self) {
        self.erase_former().await;
        loop {
            tokio::select! {
                Some(order) = self.orders.recv() => self.carry_out(order).await,
                () = tokio::time::sleep(CLOCK_INTERVAL) => {
                    self.certificate.renew_if_due();
                    if self.has_left_over {
                        self.erase_former().await;
                    }
                }
            }
        }
    }

    async fn carry_out(&mut self, order: AuthorityOrder) {
        match order {
            AuthorityOrder::Keep(id, keys) => {
                let outcome = self.write(keys).await;
                self.erase_former().await;
                self.brain.tell(Input::AuthorityKept(id, outcome)).await;
            }
            AuthorityOrder::Show(keys) => self.show(keys),
        }
    }

    async fn write(&self, keys: Vec<AuthorityKeys>) -> Result<(), String> {
        let (state, fleet) = (Arc::clone(&self.state), self.fleet.clone());
        let write = move || AuthorityFile::replace(&state, &fleet, keys);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| error.to_string())?
    }

    /// Overwrites what was the authority's file, and tells the brain when that cannot be done: it may
    /// hold keys that nobody is to have any more.
    async fn erase_former(&mut self) {
        let state = Arc::clone(&self.state);
        let erased = tokio::task::spawn_blocking(move || former_keys::erase(&state)).await;
        let why = erased.unwrap_or_else(|error| Err(error.to_string())).err();
        if let Some(why) = &why {
            tracing::warn!(
                error = why,
                "what was the authority's file is still on the disk; overwriting it is tried every \
                 minute"
            );
        }
        if why.is_some() || self.has_left_over {
            self.has_left_over = why.is_some();
            self.brain.tell(Input::LeftOverKeys(why)).await;
        }
    }

    /// Lets the first admin's credential, if it still lies here, say where this coordinator is and
    /// which root it has. It is a copy for an operator: the fleet can do without.
    pub(crate) fn refresh_credential(&self, pin: Digest) {
        if let Err(error) = credential_file::refresh(&self.state, pin, &self.advertise) {
            tracing::warn!(
                %error,
                "the admin credential in the state directory does not say where this coordinator \
                 is now; remove the file, or make it writable"
            );
        }
    }

    fn show(&mut self, keys: Vec<AuthorityKeys>) {
        match Authority::load_all(keys) {
            Ok(authority) => {
                self.roots.replace(authority.root_certificates());
                self.refresh_credential(authority.root_pin());
                tracing::info!(
                    pin = %authority.root_pin(),
                    roots = authority.root_pins().len(),
                    "the fleet's authority is another"
                );
                self.certificate.change_authority(authority);
            }
            Err(error) => tracing::error!(%error, "the authority cannot be shown"),
        }
    }
}
