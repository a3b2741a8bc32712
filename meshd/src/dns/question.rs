//! Questions of an operator to mesh DNS: what a program of this host would be answered, without the
//! way there.

use std::net::IpAddr;

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use model::control::{Refusal, RefusalCode};
use model::local::{DnsAnswer, DnsQuestion, DnsRecord};

use super::Responder;

impl Responder {
    /// Answers as a program of this host is answered.
    ///
    /// # Errors
    /// The name or the type is none.
    pub async fn look_up(&self, question: &DnsQuestion) -> Result<DnsAnswer, Refusal> {
        let (name, default_type) = whole_name(&question.name, self.names.load().suffix())?;
        let kind = match &question.record_type {
            None => default_type,
            Some(text) => text.to_ascii_uppercase().parse().map_err(|_| {
                invalid(format!(
                    "{text:?} is no record type: A, AAAA, SRV, PTR, TXT …"
                ))
            })?,
        };
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.recursion_desired = true;
        self.answer(&Query::query(name.clone(), kind), &mut message)
            .await;
        let records = message.answers.iter().map(|record| DnsRecord {
            name: shown(&record.name),
            ttl_secs: record.ttl,
            record_type: record.record_type().to_string(),
            data: record.data.to_string(),
        });
        Ok(DnsAnswer {
            name: shown(&name),
            record_type: kind.to_string(),
            code: format!("{:?}", message.metadata.response_code),
            authoritative: message.metadata.authoritative,
            records: records.collect(),
        })
    }
}

/// What people write for a name, whole: an address is its reverse name, a single word is the mesh's.
fn whole_name(text: &str, suffix: &str) -> Result<(Name, RecordType), Refusal> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Name::from(address), RecordType::PTR));
    }
    let is_service = text.starts_with('_');
    let whole = if text.contains('.') && !(is_service && text.matches('.').count() == 1) {
        format!("{}.", text.trim_end_matches('.'))
    } else {
        format!("{text}.{suffix}.")
    };
    let kind = if is_service {
        RecordType::SRV
    } else {
        RecordType::A
    };
    let name = Name::from_ascii(&whole)
        .map_err(|error| invalid(format!("{text:?} is not a name: {error}")))?;
    Ok((name, kind))
}

fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn invalid(message: String) -> Refusal {
    Refusal::new(RefusalCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::dns::Forwarder;
    use crate::dns::zone::tests::fleet;

    async fn ask(name: &str, kind: Option<&str>) -> Result<DnsAnswer, Refusal> {
        let responder = Responder {
            names: Arc::new(ArcSwap::from_pointee(fleet())),
            forwarder: Some(Arc::new(Forwarder::default())),
            tally: Arc::default(),
        };
        let question = DnsQuestion {
            name: name.into(),
            record_type: kind.map(str::to_owned),
        };
        responder.look_up(&question).await
    }

    #[tokio::test]
    async fn words_addresses_and_whole_names_are_understood() {
        for (asked, whole, kind, data) in [
            ("alpha", "alpha.mesh.internal", "A", "100.64.0.16"),
            (
                "ALPHA.mesh.internal.",
                "ALPHA.mesh.internal",
                "A",
                "100.64.0.16",
            ),
            (
                "100.64.0.16",
                "16.0.64.100.in-addr.arpa",
                "PTR",
                "alpha.mesh.internal.",
            ),
            (
                "_orders._tcp",
                "_orders._tcp.mesh.internal",
                "SRV",
                "0 1 8080 alpha.mesh.internal.",
            ),
        ] {
            let answer = ask(asked, None).await.unwrap();
            assert_eq!(
                (answer.name.as_str(), answer.record_type.as_str()),
                (whole, kind)
            );
            assert!(
                answer.authoritative && answer.code == "NoError",
                "{answer:?}"
            );
            assert_eq!(answer.records[0].data, data);
        }
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_not_ours_differ() {
        let nobody = ask("nobody", Some("aaaa")).await.unwrap();
        assert_eq!(
            (
                nobody.code.as_str(),
                nobody.authoritative,
                nobody.records.len()
            ),
            ("NXDomain", true, 0)
        );
        let other = ask("example.org", None).await.unwrap();
        assert_eq!(
            (other.code.as_str(), other.authoritative),
            ("Refused", false)
        );
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused() {
        for (name, kind) in [("a..b", None), ("alpha", Some("WHAT"))] {
            let refusal = ask(name, kind).await.unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Invalid, "{refusal}");
        }
    }
}
