//! What a transaction changes, read from the transaction itself: whatever is asked for, the log tells
//! what becomes of the store, and a new kind of change cannot be forgotten. Secrets are not in values,
//! so none gets here; what only keeps books (names, addresses, slots of tokens) is left out.

use model::admin::AuditChange;
use model::ids::{PolicyVersion, TokenId};
use model::name::{Labels, Name};
use model::record::{HostRecord, Signed, TrustStatement};
use model::rule::{Bundle, CipherDemand, Rule, Service, Workload};
use model::store::{Key, Operation, Transaction};

use crate::apply::decode_bundle;
use crate::clock_text;
use crate::keys::Place;
use crate::state::State;
use crate::stored::{
    StoredAdmin, StoredCurrentPolicy, StoredHost, StoredPolicy, StoredToken, decode,
};

/// Changes of one entry; what is more is only counted.
const CHANGES_MAX: usize = 64;
/// Characters of one text of a change.
const TEXT_MAX: usize = 256;

/// Returns what a transaction changes.
pub(super) fn changes(state: &State, transaction: &Transaction) -> Vec<AuditChange> {
    let mut changes = Changes::default();
    for operation in &transaction.operations {
        let place = Place::of(operation.key());
        match (place, operation) {
            (Some(place), Operation::Put { value, .. }) => changes.put(state, &place, value),
            (Some(place), Operation::Delete { .. }) => changes.delete(state, &place),
            (None, _) => changes.unknown(operation.key()),
        }
    }
    changes.finish()
}

#[derive(Default)]
struct Changes {
    list: Vec<AuditChange>,
    left_out: usize,
}

impl Changes {
    fn put(&mut self, state: &State, place: &Place, value: &[u8]) {
        match place {
            Place::Host(id) => {
                let before = state.hosts.get(id).map(|host| &host.record);
                let after = decode::<StoredHost>(value)
                    .and_then(|it| Signed::try_from(&it.record))
                    .and_then(|it| {
                        model::wire::decode_host_record(&it.payload).map_err(|it| it.to_string())
                    });
                if let Ok(after) = after {
                    self.host(before, &after);
                }
            }
            Place::Token(id) => {
                if let Ok(after) = decode::<StoredToken>(value) {
                    self.token(*id, state.tokens.get(id), &after);
                }
            }
            Place::CurrentPolicy => {
                if let Ok(after) = decode::<StoredCurrentPolicy>(value) {
                    let (before, after) = (state.policy.version, after.version);
                    self.differs("policy", "version", before.to_string(), after.to_string());
                }
            }
            Place::PolicyVersion(version) => {
                let after = decode::<StoredPolicy>(value).and_then(|it| decode_bundle(&it));
                if let Ok(after) = after {
                    self.policy(*version, &state.policy.bundle, &after);
                }
            }
            Place::Admin(name) => {
                if let Ok(after) = decode::<StoredAdmin>(value) {
                    self.admin(name, state.admins.get(name), &after);
                }
            }
            Place::Fleet => {
                let after = State::decode_trust(value).and_then(|it| {
                    model::wire::decode_trust_statement(&it.payload).map_err(|it| it.to_string())
                });
                if let Ok(after) = after {
                    let (before, after) = (roots(&state.statement), roots(&after));
                    self.differs("authority", "roots", before, after);
                }
            }
            Place::Statement(..)
            | Place::Believer(_)
            | Place::Name(_)
            | Place::WireguardKey(_)
            | Place::Address(_)
            | Place::Use(..)
            | Place::Tombstone(_)
            | Place::Pruned
            | Place::AuditEntry(_)
            | Place::AuditTip(_) => {}
            #[allow(unreachable_patterns)] // a place that has no words of its own here
            other => self.unknown(&other.key()),
        }
    }

    fn delete(&mut self, state: &State, place: &Place) {
        match place {
            Place::Host(id) => {
                if let Some(host) = state.hosts.get(id) {
                    let subject = format!("host {}", host.record.name);
                    self.push(&subject, "member", Some(id.to_string()), None);
                }
            }
            Place::Token(id) => self.push(
                &format!("token {id}"),
                "kept after its end",
                Some("yes".into()),
                None,
            ),
            Place::PolicyVersion(version) => {
                let subject = format!("policy version {version}");
                self.push(&subject, "kept", Some("yes".into()), None);
            }
            Place::Admin(name) => {
                let before = state.admins.get(name).map(role);
                self.push(&format!("admin {name}"), "role", before, None);
            }
            _ => {}
        }
    }

    fn host(&mut self, before: Option<&HostRecord>, after: &HostRecord) {
        let subject = format!("host {}", before.map_or(&after.name, |it| &it.name));
        let parts: [Part; 6] = [
            ("member", |it| it.host.to_string()),
            ("name", |it| it.name.to_string()),
            ("ipv4", |it| it.addresses.v4.to_string()),
            ("ipv6", |it| it.addresses.v6.to_string()),
            ("wireguard key", |it| it.wireguard_key.to_string()),
            ("tls key", |it| it.tls_key_hash.to_string()),
        ];
        for (field, of) in parts {
            let (before, after) = (before.map(of), Some(of(after)));
            if before != after {
                self.push(&subject, field, before, after);
            }
        }
        let offers = |offers: bool| Some(if offers { "offered" } else { "not offered" }.to_owned());
        let offered = before.is_some_and(|it| it.offers_aes_256_gcm);
        if offered != after.offers_aes_256_gcm {
            let field = model::control::AES_256_GCM;
            self.push(&subject, field, offers(offered), offers(!offered));
        }
        let none = Labels::new();
        let labels = before.map_or(&none, |it| &it.labels);
        self.labels(&subject, labels, &after.labels);
    }

    fn labels(&mut self, subject: &str, before: &Labels, after: &Labels) {
        let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let (before, after) = (before.get(key), after.get(key));
            if before != after {
                let text = |it: &model::name::LabelValue| it.to_string();
                let field = format!("labels.{key}");
                self.push(subject, &field, before.map(text), after.map(text));
            }
        }
    }

    fn token(&mut self, id: TokenId, before: Option<&StoredToken>, after: &StoredToken) {
        let subject = format!("token {id}");
        if before.is_some() {
            let state = |token: &StoredToken| match token.revoked {
                Some(_) => "revoked".to_owned(),
                None => "good".to_owned(),
            };
            return self.push(&subject, "state", before.map(state), Some(state(after)));
        }
        let uses = after.uses.map_or("unlimited".into(), |it| it.to_string());
        self.push(&subject, "uses", None, Some(uses));
        let expires = clock_text::utc(after.expires_secs);
        self.push(&subject, "expires", None, Some(expires));
        if !after.names.is_empty() {
            self.push(&subject, "names", None, Some(after.names.join(" ")));
        }
        if !after.comment.is_empty() {
            self.push(&subject, "comment", None, Some(after.comment.clone()));
        }
        self.labels(&subject, &Labels::new(), &after.labels);
    }

    fn policy(&mut self, version: PolicyVersion, before: &Bundle, after: &Bundle) {
        let subject = format!("policy version {version}");
        if before.cipher != after.cipher {
            let word = |bundle: &Bundle| match bundle.cipher {
                CipherDemand::AsOffered => None,
                CipherDemand::Standard => Some("standard".to_owned()),
            };
            self.push(&subject, "cipher", word(before), word(after));
        }
        self.parts(
            &subject,
            &before.deny,
            &after.deny,
            rule_name("deny"),
            |it| it.source.to_string(),
        );
        self.parts(
            &subject,
            &before.allow,
            &after.allow,
            rule_name("allow"),
            |it| it.source.to_string(),
        );
        let name = |it: &Service| format!("service {}", it.name);
        self.parts(&subject, &before.services, &after.services, name, |it| {
            it.source.to_string()
        });
        let name = |it: &Workload| format!("workload {}", it.name);
        self.parts(&subject, &before.workloads, &after.workloads, name, |it| {
            it.source.to_string()
        });
    }

    /// Tells of rules, services or workloads that came, went, or say something else, by where they stand.
    fn parts<T: PartialEq>(
        &mut self,
        subject: &str,
        before: &[T],
        after: &[T],
        name: impl Fn(&T) -> String,
        place: impl Fn(&T) -> String,
    ) {
        let index = |list: &[T]| -> std::collections::BTreeMap<String, usize> {
            list.iter()
                .enumerate()
                .map(|(at, it)| (name(it), at))
                .collect()
        };
        let (old, new) = (index(before), index(after));
        for (field, at) in &new {
            let old = old.get(field).map(|at| &before[*at]);
            if old != Some(&after[*at]) {
                self.push(subject, field, old.map(&place), Some(place(&after[*at])));
            }
        }
        for (field, at) in old.iter().filter(|(field, _)| !new.contains_key(*field)) {
            self.push(subject, field, Some(place(&before[*at])), None);
        }
    }

    fn admin(&mut self, name: &Name, before: Option<&StoredAdmin>, after: &StoredAdmin) {
        let subject = format!("admin {name}");
        if before.is_some_and(|it| it.secret_hash != after.secret_hash) {
            let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
            self.push(&subject, "credential", old, new);
        }
        if before.is_none_or(|it| it.role != after.role) {
            self.push(&subject, "role", before.map(role), Some(role(after)));
        }
        let expires = |it: &StoredAdmin| it.expires_secs.map(clock_text::utc);
        let (before, after) = (before.and_then(expires), expires(after));
        if before != after {
            self.push(&subject, "expires", before, after);
        }
    }

    fn unknown(&mut self, key: &Key) {
        self.push(key.as_str(), "value", None, Some("changed".to_owned()));
    }

    fn differs(&mut self, subject: &str, field: &str, before: String, after: String) {
        if before != after {
            self.push(subject, field, Some(before), Some(after));
        }
    }

    fn push(&mut self, subject: &str, field: &str, before: Option<String>, after: Option<String>) {
        if self.list.len() >= CHANGES_MAX {
            self.left_out += 1;
            return;
        }
        self.list.push(AuditChange {
            subject: clipped(subject.to_owned()),
            field: clipped(field.to_owned()),
            before: before.map(clipped),
            after: after.map(clipped),
        });
    }

    fn finish(mut self) -> Vec<AuditChange> {
        if self.left_out > 0 {
            self.list.push(AuditChange {
                subject: "more".into(),
                field: "changes left out here".into(),
                before: None,
                after: Some(self.left_out.to_string()),
            });
        }
        self.list
    }
}

fn rule_name(kind: &'static str) -> impl Fn(&Rule) -> String {
    move |rule| format!("{kind} {}", rule.id)
}

/// What a record says, and how it is written.
type Part = (&'static str, fn(&HostRecord) -> String);

fn role(admin: &StoredAdmin) -> String {
    admin.role.name().to_owned()
}

fn clipped(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
/// Names the roots that a statement lists, the oldest first.
fn roots(statement: &TrustStatement) -> String {
    let roots = statement.root_certificates.iter();
    let roots: Vec<String> = roots.map(|it| trust::sha256(it).to_string()).collect();
    roots.join(", ")
}
