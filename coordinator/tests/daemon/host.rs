//! A host made by hand: keys, proofs and messages, and no mind of its own.

use std::sync::Arc;

use model::control::{EnrolRequest, Enrolled, FromHost, Hello, ToHost};
use model::ids::Digest;
use model::key::Secret;
use model::name::Name;
use model::wire::generated as pb;
use runtime::control::{ControlClient, connect};
use runtime::tls;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trust::enrolment::{TlsKey, Transcript, wireguard_proof, wireguard_public};
use trust::{JoinToken, TrustAnchors};

use crate::stage::soon;

pub(crate) struct Keys {
    pub(crate) tls: Secret,
    pub(crate) wireguard: Secret,
}

impl Keys {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            tls: Secret::from_bytes([seed; 32]),
            wireguard: Secret::from_bytes([seed | 0x40; 32]),
        }
    }
}

/// A member with what it needs to come back.
pub(crate) struct Host {
    pub(crate) enrolled: Enrolled,
    pub(crate) anchors: TrustAnchors,
    fleet: Name,
    root: Vec<u8>,
    keys: Keys,
}

/// Connects to a coordinator that has this pin.
pub(crate) async fn stranger(at: &str, pin: Digest) -> ControlClient {
    soon(connect(&[at.to_owned()], tls::pinned_client(pin)))
        .await
        .unwrap()
        .client
}

/// Asks to become a member, as `meshd` does.
pub(crate) async fn join(
    at: &str,
    token: &JoinToken,
    name: &str,
    keys: Keys,
) -> Result<Host, Status> {
    join_with(at, token, name, keys, |_| {}).await
}

/// Asks to become a member with a request that was tampered with.
pub(crate) async fn join_with(
    at: &str,
    token: &JoinToken,
    name: &str,
    keys: Keys,
    tamper: impl FnOnce(&mut EnrolRequest),
) -> Result<Host, Status> {
    let mut client = stranger(at, token.pin).await;
    let about = pb::DescribeRequest {
        software_version: "test".into(),
    };
    let description = soon(client.describe(about)).await?.into_inner();
    let description: model::control::Description = description.try_into().unwrap();
    let (anchors, statement) =
        TrustAnchors::from_statement(&description.trust, &token.pin).unwrap();
    let name: Name = name.parse().unwrap();
    let certificate_request = TlsKey::from_seed(keys.tls.clone()).certificate_request(&name);
    let transcript = Transcript {
        fleet: statement.fleet,
        token: token.id,
        name: &name,
        wireguard_key: wireguard_public(&keys.wireguard),
        certificate_request: &certificate_request,
    };
    let proof = wireguard_proof(&keys.wireguard, &statement.enrolment_key, &transcript).unwrap();
    let mut request = EnrolRequest {
        token: token.id,
        token_secret: token.secret,
        name: name.clone(),
        wireguard_key: transcript.wireguard_key,
        wireguard_proof: proof,
        software_version: "test".into(),
        machine_id: String::new(),
        certificate_request: certificate_request.clone(),
        features: Vec::new(),
    };
    tamper(&mut request);
    let reply = soon(client.enrol(pb::EnrolRequest::from(request)))
        .await?
        .into_inner();
    let root = statement.root_certificates[0].clone();
    Ok(Host {
        enrolled: reply.try_into().unwrap(),
        anchors,
        fleet: statement.fleet_name,
        root,
        keys,
    })
}

impl Host {
    /// Opens the stream, without a word.
    pub(crate) async fn connect(&self, at: &str) -> Stream {
        let key = TlsKey::from_seed(self.keys.tls.clone());
        let config = tls::member_client(
            vec![self.root.clone()],
            self.fleet.clone(),
            &self.enrolled.certificate_chain,
            key.pkcs8_der().expose(),
        );
        let config: Arc<_> = config.unwrap();
        let mut client = soon(connect(&[at.to_owned()], config))
            .await
            .unwrap()
            .client;
        let (outgoing, queue) = mpsc::channel(16);
        let incoming = soon(client.sync(ReceiverStream::new(queue)))
            .await
            .unwrap()
            .into_inner();
        Stream {
            client,
            outgoing,
            incoming,
        }
    }

    /// Opens the stream and says hello.
    pub(crate) async fn open(&self, at: &str) -> Stream {
        let stream = self.connect(at).await;
        stream.say(hello()).await;
        stream
    }

    /// Asks for a certificate for the key that it has.
    pub(crate) fn renewal(&self, name: &str) -> FromHost {
        let key = TlsKey::from_seed(self.keys.tls.clone());
        FromHost::Renew(key.certificate_request(&name.parse().unwrap()))
    }
}

fn hello() -> FromHost {
    FromHost::Hello(Hello {
        trust: None,
        have: None,
        software_version: "test".into(),
        features: Vec::new(),
        boot_counter: 1,
    })
}

/// An open `Sync` stream.
pub(crate) struct Stream {
    /// Makes more calls over the same connection.
    pub(crate) client: ControlClient,
    pub(crate) outgoing: mpsc::Sender<pb::FromHost>,
    pub(crate) incoming: Streaming<pb::ToHost>,
}

impl Stream {
    /// Waits until the coordinator has closed the connection.
    pub(crate) async fn is_cut_off(&mut self) {
        let ask = pb::DescribeRequest::default;
        soon(async { while self.client.describe(ask()).await.is_ok() {} }).await;
    }

    pub(crate) async fn say(&self, message: FromHost) {
        self.outgoing.send(message.into()).await.unwrap();
    }

    /// Returns the next message; `None` when the coordinator ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<ToHost>, Status> {
        let message = soon(self.incoming.message()).await?;
        Ok(message.map(|message| message.try_into().unwrap()))
    }

    /// Returns the first message that is looked for, passing others over.
    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(ToHost) -> Option<T>) -> T {
        loop {
            let message = self.next().await.unwrap().expect("the stream goes on");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }
}
