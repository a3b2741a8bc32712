//! What this host shows to others at the ends of streams: its certificate, as long as it is a member.

use std::sync::Arc;

use model::catalogue::StreamIdentity;
use trust::enrolment::TlsKey;

use super::Agent;
use crate::output::{ChannelIdentity, Output};

impl Agent {
    /// Tells the proxy who this host is, when that has changed.
    pub(super) fn tend_stream_identity(&mut self) {
        let anchors = self.fleet.as_ref().map(|fleet| &fleet.anchors);
        // Without a map there is nobody to believe yet, and nobody who would believe this host.
        let member = self.enrolment.member();
        let shown = member.filter(|_| self.staging.in_force().is_some());
        let identity = shown.map(|member| member.channel_identity(anchors));
        let is_same = match (&self.stream_identity, &identity) {
            (None, None) => true,
            (Some(told), Some(identity)) => shows(told, identity),
            _ => false,
        };
        if !is_same {
            self.stream_identity = identity.map(|identity| Arc::new(stream_identity(identity)));
            let told = self.stream_identity.clone();
            self.out.push(Output::StreamIdentity(told));
        }
    }
}

/// A host's TLS key never changes: its certificate does.
fn shows(told: &StreamIdentity, identity: &ChannelIdentity) -> bool {
    told.chain == identity.chain
        && told.roots == identity.roots
        && told.fleet_name == identity.fleet
}

fn stream_identity(identity: ChannelIdentity) -> StreamIdentity {
    StreamIdentity {
        chain: identity.chain,
        private_key: TlsKey::from_seed(identity.tls_key).pkcs8_der(),
        roots: identity.roots,
        fleet_name: identity.fleet,
    }
}
