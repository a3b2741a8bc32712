//! What is known of calls that are asked about, and what is answered, as messages.

use super::{WireError, field, generated};
use crate::limits::Limits;
use crate::question::{CallFacts, HeaderFact, Verdict};

impl From<CallFacts> for generated::CallFacts {
    fn from(facts: CallFacts) -> Self {
        fn text<T: Into<String>>(fact: Option<T>) -> String {
            fact.map_or_else(String::new, Into::into)
        }
        let headers = facts.headers.into_iter().take(Limits::FACT_HEADERS);
        Self {
            service: text(facts.service),
            workload: text(facts.workload),
            method: text(facts.method),
            path: text(facts.path),
            host: text(facts.host),
            headers: headers
                .map(|header| generated::HeaderFact {
                    name: header.name.into(),
                    value: header.value.map(Into::into),
                })
                .collect(),
            at_secs: facts.at_secs,
        }
    }
}

impl TryFrom<generated::CallFacts> for CallFacts {
    type Error = WireError;

    fn try_from(message: generated::CallFacts) -> Result<Self, WireError> {
        Ok(Self {
            service: field::optional("CallFacts.service", &message.service)?,
            workload: field::optional("CallFacts.workload", &message.workload)?,
            method: field::optional("CallFacts.method", &message.method)?,
            path: field::optional("CallFacts.path", &message.path)?,
            host: field::optional("CallFacts.host", &message.host)?,
            headers: field::list(
                "CallFacts.headers",
                message.headers,
                Limits::FACT_HEADERS,
                |header| {
                    Ok(HeaderFact {
                        name: field::parsed("HeaderFact.name", &header.name)?,
                        value: match &header.value {
                            Some(value) => Some(field::parsed("HeaderFact.value", value)?),
                            None => None,
                        },
                    })
                },
            )?,
            at_secs: message.at_secs,
        })
    }
}

/// Returns the number of a verdict.
pub(super) const fn verdict_to_wire(verdict: Verdict) -> generated::Verdict {
    match verdict {
        Verdict::Denied => generated::Verdict::Denied,
        Verdict::Depends => generated::Verdict::Depends,
        Verdict::Allowed => generated::Verdict::Allowed,
    }
}

/// Returns the verdict; `None`: nothing is said, as by older programs.
pub(super) const fn verdict_from_wire(verdict: generated::Verdict) -> Option<Verdict> {
    match verdict {
        generated::Verdict::Unspecified => None,
        generated::Verdict::Denied => Some(Verdict::Denied),
        generated::Verdict::Depends => Some(Verdict::Depends),
        generated::Verdict::Allowed => Some(Verdict::Allowed),
    }
}
