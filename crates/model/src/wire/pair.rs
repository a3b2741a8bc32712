//! What one end of a flow knows of the way to the other end.

use std::net::IpAddr;

use super::{WireError, field, generated};
use crate::limits::Limits;
use crate::pair::{Listener, PairDrop, PairFacts};

impl From<PairFacts> for generated::PairFacts {
    fn from(facts: PairFacts) -> Self {
        let addresses = facts.addresses.iter().take(Limits::PAIR_ADDRESSES);
        Self {
            addresses: addresses.map(ToString::to_string).collect(),
            endpoint: facts
                .endpoint
                .map_or_else(String::new, |endpoint| endpoint.to_string()),
            answers: facts.answers,
            last_handshake_secs: facts.last_handshake_secs,
            last_drop: facts.last_drop.map(Into::into),
            listener: match facts.listener {
                None => generated::Listener::Unspecified,
                Some(Listener::Listening) => generated::Listener::Listening,
                Some(Listener::Elsewhere) => generated::Listener::Elsewhere,
                Some(Listener::Nothing) => generated::Listener::Nothing,
            }
            .into(),
        }
    }
}

impl TryFrom<generated::PairFacts> for PairFacts {
    type Error = WireError;

    fn try_from(message: generated::PairFacts) -> Result<Self, WireError> {
        let listener = message.listener();
        Ok(Self {
            addresses: field::list(
                "PairFacts.addresses",
                message.addresses,
                Limits::PAIR_ADDRESSES,
                |text| field::parsed::<IpAddr>("PairFacts.addresses", &text),
            )?,
            endpoint: match message.endpoint.as_str() {
                "" => None,
                text => Some(field::parsed("PairFacts.endpoint", text)?),
            },
            answers: message.answers,
            last_handshake_secs: message.last_handshake_secs,
            last_drop: message.last_drop.map(TryInto::try_into).transpose()?,
            // What a later version says of it is not understood here, and not told.
            listener: match listener {
                generated::Listener::Unspecified => None,
                generated::Listener::Listening => Some(Listener::Listening),
                generated::Listener::Elsewhere => Some(Listener::Elsewhere),
                generated::Listener::Nothing => Some(Listener::Nothing),
            },
        })
    }
}

impl From<PairDrop> for generated::PairDrop {
    fn from(drop: PairDrop) -> Self {
        Self {
            secs_ago: drop.secs_ago,
            inbound: drop.inbound,
            ip_protocol: drop.ip_protocol.into(),
            port: drop.port.into(),
            rule: drop.rule.map_or_else(String::new, Into::into),
        }
    }
}

impl TryFrom<generated::PairDrop> for PairDrop {
    type Error = WireError;

    fn try_from(message: generated::PairDrop) -> Result<Self, WireError> {
        Ok(Self {
            secs_ago: message.secs_ago,
            inbound: message.inbound,
            ip_protocol: u8::try_from(message.ip_protocol)
                .map_err(|_| WireError::new("PairDrop.ip_protocol", "it is above 255"))?,
            port: field::port("PairDrop.port", message.port)?,
            rule: match message.rule.as_str() {
                "" => None,
                id => Some(field::parsed("PairDrop.rule", id)?),
            },
        })
    }
}
