//! Where everything lies in the store.
//!
//! ```text
//! meta/fleet                   the trust statement and what was decided at the start
//! meta/pruned                  the revision up to which tombstones may be missing
//! meta/recovery                this store is behind its hosts, and they are being asked
//! meta/epoch                   when the epoch began, if it is not the first
//! statements/EPOCH-SERIAL      a trust statement that is no longer the last
//! believers/HOST               the statement whose newest root a host has moved to, while roots change
//! hosts/HOST                   a host with its signed record
//! names/NAME                   the host that has a name, or had it until a moment ago
//! wireguard-keys/HEX           the host that has a WireGuard key
//! tls-keys/HASH                the host that has a TLS key
//! addresses/INDEX              the host that has an address, or had it until a moment ago
//! tombstones/HOST              a host that is no more, signed
//! tokens/TOKEN                 a join token; its secret only as a hash
//! uses/TOKEN/SLOT              the host that used a token; a token of 5 uses has slots 0 to 4
//! policy/current               the version in force
//! policy/versions/NUMBER       one version: content, head, history
//! admins/NAME                  a credential of the admin API, only as a hash
//! audit/entries/NUMBER         an entry of the audit log
//! audit/tip/HASH               the hash of the last entry, as a key: who appends takes it away
//! ```
//!
//! Whatever may exist once only (a name, a key, an address, a slot of a token) has a key of its own
//! and is claimed by a transaction that compares this key: no two coordinators can give it twice.

use std::str::FromStr;

use model::ids::{Digest, HostId, PolicyVersion, TokenId};
use model::key::WireguardKey;
use model::name::Name;
use model::store::Key;

/// What a key of the store is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Fleet,
    Pruned,
    Recovery,
    Epoch,
    /// By epoch and serial.
    Statement(u64, u64),
    Believer(HostId),
    Host(HostId),
    Name(Name),
    WireguardKey(WireguardKey),
    TlsKey(Digest),
    Address(u32),
    Tombstone(HostId),
    Token(TokenId),
    Use(TokenId, u32),
    CurrentPolicy,
    PolicyVersion(PolicyVersion),
    Admin(Name),
    AuditEntry(u64),
    AuditTip(Digest),
}

impl Place {
    /// Returns the key of this place.
    pub(crate) fn key(&self) -> Key {
        let path = match self {
            Self::Fleet => "meta/fleet".to_owned(),
            Self::Pruned => "meta/pruned".to_owned(),
            Self::Recovery => "meta/recovery".to_owned(),
            Self::Epoch => "meta/epoch".to_owned(),
            Self::Statement(epoch, serial) => format!("statements/{epoch:020}-{serial:020}"),
            Self::Believer(id) => format!("believers/{id}"),
            Self::Host(id) => format!("hosts/{id}"),
            Self::Name(name) => format!("names/{name}"),
            Self::WireguardKey(key) => {
                format!(
                    "wireguard-keys/{}",
                    data_encoding::HEXLOWER.encode(key.as_bytes())
                )
            }
            Self::TlsKey(hash) => format!("tls-keys/{hash}"),
            Self::Address(index) => format!("addresses/{index:010}"),
            Self::Tombstone(id) => format!("tombstones/{id}"),
            Self::Token(id) => format!("tokens/{id}"),
            Self::Use(id, slot) => format!("uses/{id}/{slot:010}"),
            Self::CurrentPolicy => "policy/current".to_owned(),
            Self::PolicyVersion(version) => format!("policy/versions/{:020}", version.0),
            Self::Admin(name) => format!("admins/{name}"),
            Self::AuditEntry(number) => format!("audit/entries/{number:020}"),
            Self::AuditTip(hash) => format!("audit/tip/{hash}"),
        };
        Key::new(path).expect("ids, names and numbers are short words without slashes")
    }

    /// Returns what a key is about; `None` when it is not the fleet's.
    pub(crate) fn of(key: &Key) -> Option<Self> {
        let mut segments = key.as_str().split('/');
        let (folder, item) = (segments.next()?, segments.next()?);
        let sub = segments.next();
        if segments.next().is_some() {
            return None;
        }
        let place = match (folder, item, sub) {
            ("meta", "fleet", None) => Self::Fleet,
            ("meta", "pruned", None) => Self::Pruned,
            ("meta", "recovery", None) => Self::Recovery,
            ("meta", "epoch", None) => Self::Epoch,
            ("statements", number, None) => {
                let (epoch, serial) = number.split_once('-')?;
                Self::Statement(parse(epoch)?, parse(serial)?)
            }
            ("believers", id, None) => Self::Believer(parse(id)?),
            ("hosts", id, None) => Self::Host(parse(id)?),
            ("names", name, None) => Self::Name(parse(name)?),
            ("wireguard-keys", hex, None) => {
                let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
                Self::WireguardKey(WireguardKey::try_from(&bytes[..]).ok()?)
            }
            ("tls-keys", hash, None) => Self::TlsKey(parse(hash)?),
            ("addresses", index, None) => Self::Address(parse(index)?),
            ("tombstones", id, None) => Self::Tombstone(parse(id)?),
            ("tokens", id, None) => Self::Token(parse(id)?),
            ("uses", id, Some(slot)) => Self::Use(parse(id)?, parse(slot)?),
            ("policy", "current", None) => Self::CurrentPolicy,
            ("policy", "versions", Some(number)) => {
                Self::PolicyVersion(PolicyVersion(parse(number)?))
            }
            ("admins", name, None) => Self::Admin(parse(name)?),
            ("audit", "entries", Some(number)) => Self::AuditEntry(parse(number)?),
            ("audit", "tip", Some(hash)) => Self::AuditTip(parse(hash)?),
            _ => return None,
        };
        Some(place)
    }
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_keys() {
        let host = HostId::from_bytes([0xab; 16]);
        let token = TokenId::from_bytes([0xcd; 8]);
        for place in [
            Place::Fleet,
            Place::Pruned,
            Place::Recovery,
            Place::Epoch,
            Place::Statement(u64::MAX, 7),
            Place::Believer(host),
            Place::Host(host),
            Place::Name("vm-1".parse().unwrap()),
            Place::WireguardKey(WireguardKey::from_bytes([0xff; 32])),
            Place::TlsKey(Digest::from_bytes([0xed; 32])),
            Place::Address(u32::MAX),
            Place::Tombstone(host),
            Place::Token(token),
            Place::Use(token, 7),
            Place::CurrentPolicy,
            Place::PolicyVersion(PolicyVersion(u64::MAX)),
            Place::Admin("ops".parse().unwrap()),
            Place::AuditEntry(u64::MAX),
            Place::AuditTip(Digest::from_bytes([0xef; 32])),
        ] {
            assert_eq!(Place::of(&place.key()), Some(place));
        }
    }

    #[test]
    fn keys_of_others_are_nobodys() {
        for path in [
            "locks/leader",
            "hosts/zz",
            "policy/versions",
            "hosts/a/b/c",
            "meta/other",
        ] {
            assert_eq!(Place::of(&Key::new(path).unwrap()), None, "{path}");
        }
    }

    #[test]
    fn numbers_sort_as_their_keys_do() {
        let key = |version| Place::PolicyVersion(PolicyVersion(version)).key();
        assert!(key(9) < key(10) && key(10) < key(100));
    }
}
