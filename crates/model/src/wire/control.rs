//! The messages of the control channel: what a host asks and reports, what a coordinator answers.

use std::fmt;
use std::time::Duration;

use super::generated::{from_host, to_host};
use super::map::heard_from;
use super::question::{verdict_from_wire, verdict_to_wire};
use super::{WireError, field, generated};
use crate::control::{
    Applied, Description, EndpointReport, EnrolRequest, Enrolled, Explanation, FromHost, Goodbye,
    HeldTrust, Hello, NewKey, ToHost, Welcome,
};
use crate::ids::PolicyVersion;
use crate::limits::Limits;
use crate::rule::FlowQuery;
use crate::time::UnixTime;

impl From<Description> for generated::DescribeReply {
    fn from(description: Description) -> Self {
        Self {
            trust: Some(description.trust.into()),
            software_version: field::clipped(&description.software_version),
            unix_secs: description.unix.as_secs(),
        }
    }
}

impl TryFrom<generated::DescribeReply> for Description {
    type Error = WireError;

    fn try_from(message: generated::DescribeReply) -> Result<Self, WireError> {
        Ok(Self {
            trust: field::required("DescribeReply.trust", message.trust)?.try_into()?,
            software_version: field::text(
                "DescribeReply.software_version",
                message.software_version,
            )?,
            unix: UnixTime::from_secs(message.unix_secs),
        })
    }
}

impl From<EnrolRequest> for generated::EnrolRequest {
    fn from(request: EnrolRequest) -> Self {
        Self {
            token_id: request.token.as_bytes().to_vec(),
            token_secret: request.token_secret.to_vec(),
            name: request.name.into(),
            wireguard_key: request.wireguard_key.as_bytes().to_vec(),
            certificate_request: request.certificate_request,
            wireguard_proof: request.wireguard_proof.to_vec(),
            software_version: field::clipped(&request.software_version),
            machine_id: field::clipped(&request.machine_id),
            features: request.features,
        }
    }
}

impl TryFrom<generated::EnrolRequest> for EnrolRequest {
    type Error = WireError;

    fn try_from(message: generated::EnrolRequest) -> Result<Self, WireError> {
        Ok(Self {
            token: field::id("EnrolRequest.token_id", &message.token_id)?,
            token_secret: field::array("EnrolRequest.token_secret", &message.token_secret)?,
            name: field::parsed("EnrolRequest.name", &message.name)?,
            wireguard_key: field::id("EnrolRequest.wireguard_key", &message.wireguard_key)?,
            certificate_request: certificate_request(
                "EnrolRequest.certificate_request",
                message.certificate_request,
            )?,
            wireguard_proof: field::array(
                "EnrolRequest.wireguard_proof",
                &message.wireguard_proof,
            )?,
            software_version: field::text(
                "EnrolRequest.software_version",
                message.software_version,
            )?,
            machine_id: field::text("EnrolRequest.machine_id", message.machine_id)?,
            features: features("EnrolRequest.features", message.features)?,
        })
    }
}

/// The token's secret is not shown.
impl fmt::Debug for generated::EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("token_id", &self.token_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn features(name: &'static str, features: Vec<String>) -> Result<Vec<String>, WireError> {
    field::list(name, features, Limits::FEATURES, |feature| {
        field::text(name, feature)
    })
}

fn certificate_request(field: &'static str, der: Vec<u8>) -> Result<Vec<u8>, WireError> {
    field::blob(field, der, Limits::CERTIFICATE_REQUEST_BYTES)
}

impl From<Enrolled> for generated::EnrolReply {
    fn from(enrolled: Enrolled) -> Self {
        Self {
            host: enrolled.host.as_bytes().to_vec(),
            record: Some(enrolled.record.into()),
            certificate_chain: enrolled.certificate_chain,
        }
    }
}

impl TryFrom<generated::EnrolReply> for Enrolled {
    type Error = WireError;

    fn try_from(message: generated::EnrolReply) -> Result<Self, WireError> {
        Ok(Self {
            host: field::id("EnrolReply.host", &message.host)?,
            record: field::required("EnrolReply.record", message.record)?.try_into()?,
            certificate_chain: field::chain(
                "EnrolReply.certificate_chain",
                message.certificate_chain,
            )?,
        })
    }
}

impl From<FromHost> for generated::FromHost {
    fn from(message: FromHost) -> Self {
        let message = match message {
            FromHost::Hello(hello) => from_host::Message::Hello(hello.into()),
            FromHost::Endpoints(report) => from_host::Message::Endpoints(report.into()),
            FromHost::Observation { peer, address } => {
                from_host::Message::Observation(generated::PeerObservation {
                    peer: peer.as_bytes().to_vec(),
                    address: address.to_string(),
                })
            }
            FromHost::Applied(applied) => from_host::Message::Applied(applied.into()),
            FromHost::Renew(certificate_request) => {
                from_host::Message::Renew(generated::RenewRequest {
                    certificate_request,
                })
            }
            FromHost::Explanation(explanation) => {
                from_host::Message::Explanation(explanation.into())
            }
            FromHost::Leave => from_host::Message::Leave(generated::Leave {}),
            FromHost::Ping(nonce) => from_host::Message::Ping(generated::Ping { nonce }),
            FromHost::NewKey(new) => from_host::Message::NewKey(generated::NewKey {
                wireguard_key: new.wireguard_key.as_bytes().to_vec(),
                proof: new.proof.to_vec(),
            }),
            FromHost::Memory(memory) => from_host::Message::Memory((*memory).into()),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<generated::FromHost> for FromHost {
    type Error = WireError;

    fn try_from(message: generated::FromHost) -> Result<Self, WireError> {
        match field::required("FromHost.message", message.message)? {
            from_host::Message::Hello(hello) => hello.try_into().map(Self::Hello),
            from_host::Message::Endpoints(report) => report.try_into().map(Self::Endpoints),
            from_host::Message::Observation(observation) => Ok(Self::Observation {
                peer: field::id("PeerObservation.peer", &observation.peer)?,
                address: heard_from("PeerObservation.address", &observation.address)?,
            }),
            from_host::Message::Applied(applied) => applied.try_into().map(Self::Applied),
            from_host::Message::Renew(renew) => certificate_request(
                "RenewRequest.certificate_request",
                renew.certificate_request,
            )
            .map(Self::Renew),
            from_host::Message::Explanation(explanation) => {
                explanation.try_into().map(Self::Explanation)
            }
            from_host::Message::Leave(generated::Leave {}) => Ok(Self::Leave),
            from_host::Message::Ping(ping) => Ok(Self::Ping(ping.nonce)),
            from_host::Message::NewKey(new) => Ok(Self::NewKey(NewKey {
                wireguard_key: field::id("NewKey.wireguard_key", &new.wireguard_key)?,
                proof: field::array("NewKey.proof", &new.proof)?,
            })),
            from_host::Message::Memory(memory) => memory
                .try_into()
                .map(|memory| Self::Memory(Box::new(memory))),
        }
    }
}

impl From<Hello> for generated::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            have: hello.have.map(Into::into),
            software_version: field::clipped(&hello.software_version),
            features: hello.features,
            boot_counter: hello.boot_counter,
            trust: hello.trust.map(Into::into),
        }
    }
}

impl TryFrom<generated::Hello> for Hello {
    type Error = WireError;

    fn try_from(message: generated::Hello) -> Result<Self, WireError> {
        Ok(Self {
            have: message.have.map(Into::into),
            software_version: field::text("Hello.software_version", message.software_version)?,
            features: features("Hello.features", message.features)?,
            boot_counter: message.boot_counter,
            trust: message.trust.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<HeldTrust> for generated::HeldTrust {
    fn from(held: HeldTrust) -> Self {
        Self {
            epoch: held.epoch,
            serial: held.serial,
            certified_by: held.certified_by.as_bytes().to_vec(),
        }
    }
}

impl TryFrom<generated::HeldTrust> for HeldTrust {
    type Error = WireError;

    fn try_from(message: generated::HeldTrust) -> Result<Self, WireError> {
        Ok(Self {
            epoch: message.epoch,
            serial: message.serial,
            certified_by: field::id("HeldTrust.certified_by", &message.certified_by)?,
        })
    }
}

impl From<EndpointReport> for generated::EndpointReport {
    fn from(report: EndpointReport) -> Self {
        Self {
            endpoints: report.endpoints.into_iter().map(Into::into).collect(),
            listen_port: report.listen_port.into(),
            stream_port: report.stream_port.unwrap_or(0).into(),
        }
    }
}

impl TryFrom<generated::EndpointReport> for EndpointReport {
    type Error = WireError;

    fn try_from(message: generated::EndpointReport) -> Result<Self, WireError> {
        Ok(Self {
            endpoints: field::list(
                "EndpointReport.endpoints",
                message.endpoints,
                Limits::ENDPOINTS_PER_HOST,
                TryInto::try_into,
            )?,
            listen_port: field::port("EndpointReport.listen_port", message.listen_port)?,
            stream_port: field::port_if_told("EndpointReport.stream_port", message.stream_port)?,
        })
    }
}

impl From<Applied> for generated::Applied {
    fn from(applied: Applied) -> Self {
        Self {
            revision: Some(applied.revision.into()),
            policy_version: applied.policy.0,
            error: applied
                .error
                .as_deref()
                .map_or_else(String::new, field::reason),
            trouble: applied
                .trouble
                .as_deref()
                .map_or_else(String::new, field::reason),
            trust: applied.trust.map(Into::into),
        }
    }
}

impl TryFrom<generated::Applied> for Applied {
    type Error = WireError;

    fn try_from(message: generated::Applied) -> Result<Self, WireError> {
        Ok(Self {
            revision: field::required("Applied.revision", message.revision)?.into(),
            policy: PolicyVersion(message.policy_version),
            error: field::optional_text("Applied.error", message.error)?,
            trouble: field::optional_text("Applied.trouble", message.trouble)?,
            trust: message.trust.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Explanation> for generated::Explanation {
    fn from(explanation: Explanation) -> Self {
        Self {
            id: explanation.id,
            policy_version: explanation.policy.0,
            allowed: explanation.allowed,
            rule: explanation.rule.map_or_else(String::new, Into::into),
            source: explanation.source.map(Into::into),
            notes: explanation
                .notes
                .iter()
                .take(Limits::NOTES)
                .map(|note| field::clipped(note))
                .collect(),
            pair: explanation.pair.map(Into::into),
            verdict: explanation
                .verdict
                .map_or(generated::Verdict::Unspecified, verdict_to_wire)
                .into(),
            depends_on: explanation
                .depends_on
                .iter()
                .take(Limits::NOTES)
                .map(|what| field::clipped(what))
                .collect(),
        }
    }
}

impl TryFrom<generated::Explanation> for Explanation {
    type Error = WireError;

    fn try_from(message: generated::Explanation) -> Result<Self, WireError> {
        let rule = match message.rule.as_str() {
            "" => None,
            id => Some(field::parsed("Explanation.rule", id)?),
        };
        let verdict = verdict_from_wire(message.verdict());
        Ok(Self {
            id: message.id,
            policy: PolicyVersion(message.policy_version),
            allowed: message.allowed,
            rule,
            source: message.source.map(TryInto::try_into).transpose()?,
            notes: field::list("Explanation.notes", message.notes, Limits::NOTES, |note| {
                field::text("Explanation.notes", note)
            })?,
            pair: message.pair.map(TryInto::try_into).transpose()?,
            verdict,
            depends_on: field::list(
                "Explanation.depends_on",
                message.depends_on,
                Limits::NOTES,
                |what| field::text("Explanation.depends_on", what),
            )?,
        })
    }
}

impl From<ToHost> for generated::ToHost {
    fn from(message: ToHost) -> Self {
        let message = match message {
            ToHost::Welcome(welcome) => to_host::Message::Welcome(welcome.into()),
            ToHost::Map(delta) => to_host::Message::Map(delta.into()),
            ToHost::Certificate(outcome) => to_host::Message::Certificate(outcome.into()),
            ToHost::Explain { id, query, call } => to_host::Message::Explain(generated::Explain {
                id,
                query: Some(query.into()),
                call: call.map(|call| (*call).into()),
            }),
            ToHost::Goodbye(goodbye) => to_host::Message::Goodbye(goodbye.into()),
            ToHost::Pong(nonce) => to_host::Message::Pong(generated::Pong { nonce }),
            ToHost::RotateKey => to_host::Message::RotateKey(generated::RotateKey {}),
            ToHost::KeyRefused(reason) => to_host::Message::KeyRefused(generated::KeyRefused {
                reason: field::clipped(&reason),
            }),
            ToHost::Recall => to_host::Message::Recall(generated::Recall {}),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<generated::ToHost> for ToHost {
    type Error = WireError;

    fn try_from(message: generated::ToHost) -> Result<Self, WireError> {
        match field::required("ToHost.message", message.message)? {
            to_host::Message::Welcome(welcome) => welcome.try_into().map(Self::Welcome),
            to_host::Message::Map(delta) => delta.try_into().map(Self::Map),
            to_host::Message::Certificate(certificate) => {
                renewal(certificate).map(Self::Certificate)
            }
            to_host::Message::Explain(explain) => Ok(Self::Explain {
                id: explain.id,
                query: field::required("Explain.query", explain.query)?.try_into()?,
                call: match explain.call {
                    Some(call) => Some(Box::new(call.try_into()?)),
                    None => None,
                },
            }),
            to_host::Message::Goodbye(goodbye) => goodbye.try_into().map(Self::Goodbye),
            to_host::Message::Pong(pong) => Ok(Self::Pong(pong.nonce)),
            to_host::Message::RotateKey(generated::RotateKey {}) => Ok(Self::RotateKey),
            to_host::Message::KeyRefused(refused) => {
                field::text("KeyRefused.reason", refused.reason).map(Self::KeyRefused)
            }
            to_host::Message::Recall(generated::Recall {}) => Ok(Self::Recall),
        }
    }
}

impl From<Welcome> for generated::Welcome {
    fn from(welcome: Welcome) -> Self {
        Self {
            trust: Some(welcome.trust.into()),
            observed_address: welcome
                .observed
                .map_or_else(String::new, |ip| ip.to_string()),
            software_version: field::clipped(&welcome.software_version),
            unix_secs: welcome.unix.as_secs(),
            earlier: welcome.earlier.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<generated::Welcome> for Welcome {
    type Error = WireError;

    fn try_from(message: generated::Welcome) -> Result<Self, WireError> {
        let observed = match message.observed_address.as_str() {
            "" => None,
            address => Some(field::parsed("Welcome.observed_address", address)?),
        };
        Ok(Self {
            trust: field::required("Welcome.trust", message.trust)?.try_into()?,
            observed,
            software_version: field::text("Welcome.software_version", message.software_version)?,
            unix: UnixTime::from_secs(message.unix_secs),
            earlier: field::list(
                "Welcome.earlier",
                message.earlier,
                Limits::STATEMENTS,
                TryInto::try_into,
            )?,
        })
    }
}

impl From<Result<Vec<Vec<u8>>, String>> for generated::Certificate {
    fn from(outcome: Result<Vec<Vec<u8>>, String>) -> Self {
        match outcome {
            Ok(chain) => Self {
                chain,
                error: String::new(),
            },
            Err(error) => Self {
                chain: Vec::new(),
                error: field::reason(&error),
            },
        }
    }
}

/// A chain or a reason why there is none, never both.
fn renewal(message: generated::Certificate) -> Result<Result<Vec<Vec<u8>>, String>, WireError> {
    match field::optional_text("Certificate.error", message.error)? {
        None => field::chain("Certificate.chain", message.chain).map(Ok),
        Some(error) if message.chain.is_empty() => Ok(Err(error)),
        Some(_) => Err(WireError::new(
            "Certificate.error",
            "there is a chain as well",
        )),
    }
}

impl From<FlowQuery> for generated::FlowQuery {
    fn from(query: FlowQuery) -> Self {
        Self {
            from: query.from.as_bytes().to_vec(),
            to: query.to.as_bytes().to_vec(),
            ip_protocol: query.ip_protocol.into(),
            port: query.port.into(),
        }
    }
}

impl TryFrom<generated::FlowQuery> for FlowQuery {
    type Error = WireError;

    fn try_from(message: generated::FlowQuery) -> Result<Self, WireError> {
        let number = message.ip_protocol;
        Ok(Self {
            from: field::id("FlowQuery.from", &message.from)?,
            to: field::id("FlowQuery.to", &message.to)?,
            ip_protocol: u8::try_from(number).map_err(|_| {
                WireError::new(
                    "FlowQuery.ip_protocol",
                    format!("{number} is not a protocol"),
                )
            })?,
            port: field::port("FlowQuery.port", message.port)?,
        })
    }
}

impl From<Goodbye> for generated::Goodbye {
    fn from(goodbye: Goodbye) -> Self {
        Self {
            reason: field::clipped(&goodbye.reason),
            retry_after_millis: u64::try_from(goodbye.retry_after.as_millis()).unwrap_or(u64::MAX),
            tombstone: goodbye.tombstone.map(Into::into),
        }
    }
}

impl TryFrom<generated::Goodbye> for Goodbye {
    type Error = WireError;

    fn try_from(message: generated::Goodbye) -> Result<Self, WireError> {
        Ok(Self {
            reason: field::text("Goodbye.reason", message.reason)?,
            retry_after: Duration::from_millis(message.retry_after_millis),
            tombstone: message.tombstone.map(TryInto::try_into).transpose()?,
        })
    }
}
