//! What a thread shows in handshakes. Made anew when the host's certificate is another one.

use std::cell::RefCell;
use std::sync::Arc;

use model::catalogue::StreamIdentity;
use runtime::tls;
use rustls::{ClientConfig, ServerConfig};

/// Both ends of TLS, for the identity that they were made from.
#[derive(Clone)]
struct Made {
    from: Arc<StreamIdentity>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The last that was made.
#[derive(Default)]
pub(super) struct Identities {
    made: RefCell<Option<Made>>,
}

impl Identities {
    /// Returns the connecting end.
    pub(super) fn client(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.of(identity).map(|made| made.client)
    }

    /// Returns the accepting end.
    pub(super) fn server(
        &self,
        identity: &Arc<StreamIdentity>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        self.of(identity).map(|made| made.server)
    }

    fn of(&self, identity: &Arc<StreamIdentity>) -> Result<Made, rustls::Error> {
        if let Some(made) = &*self.made.borrow()
            && Arc::ptr_eq(&made.from, identity)
        {
            return Ok(made.clone());
        }
        let made = make(identity)?;
        *self.made.borrow_mut() = Some(made.clone());
        Ok(made)
    }
}

fn make(identity: &Arc<StreamIdentity>) -> Result<Made, rustls::Error> {
    let StreamIdentity {
        chain,
        private_key,
        roots,
        fleet_name,
    } = &**identity;
    let key = private_key.expose();
    Ok(Made {
        from: Arc::clone(identity),
        client: tls::stream_client(roots.clone(), fleet_name.clone(), chain, key)?,
        server: tls::stream_server(roots.clone(), fleet_name.clone(), chain, key)?,
    })
}
