//! The identity file: this host's keys, and where it stands between no member, joining, member and
//! removed. What is in it after the frame is `model::wire::stored`'s.
//!
//! ```text
//! offset  size  what
//!      0     8  "meshid" 0x00 0x01
//!      8     1  standing: 0 none or member, 1 joining, 2 removed
//!      9    32  SHA-256 of all that follows: a file that was cut is no file of a host without a fleet
//!     41     4  bytes of the note, big-endian
//!     45     n  note, UTF-8: joining: NAME, line feed, TOKEN; removed: the reason
//!   45+n     4  bytes of the machine's id, big-endian
//!   49+n     m  the id of the machine that made the keys, hashed, UTF-8; empty when it had none
//! 49+n+m        a StoredIdentity
//! ```

use model::ids::Digest;
use model::key::{Secret, SecretBytes};
use model::name::Name;
use model::time::UnixTime;
use model::wire::stored::{Membership, SpareKey, StoredIdentity, decode_identity, encode_identity};
use trust::sha256;
use zeroize::{Zeroize, Zeroizing};

/// What the identity file says.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) wireguard_key: Secret,
    pub(crate) wireguard_made: UnixTime,
    /// The WireGuard key after or before that one, while it changes.
    pub(crate) spare_key: Option<SpareKey>,
    pub(crate) tls_key: Secret,
    pub(crate) coordinators: Vec<String>,
    /// The machine that made the keys, hashed; empty when it had no id.
    pub(crate) machine_id: String,
    pub(crate) standing: Standing,
}

impl Identity {
    /// Returns whether the file was copied here: its keys are those of another machine. One
    /// without an id is given the benefit of the doubt.
    pub(crate) fn is_of_another_machine(&self, machine_id: &str) -> bool {
        !self.machine_id.is_empty() && !machine_id.is_empty() && self.machine_id != machine_id
    }
}

/// Where the host stood when the file was written.
#[derive(Clone)]
pub(crate) enum Standing {
    /// It has keys from a join that did not succeed, and uses them again for the next one.
    Keys,
    /// The enrolment was about to be asked for, or was: it has to be asked for again.
    Joining {
        name: Name,
        token: Zeroizing<String>,
    },
    /// A member.
    Member(Membership),
    /// It was a member until it was told that it no longer is.
    Removed {
        membership: Membership,
        reason: String,
    },
}

const MAGIC: [u8; 8] = *b"meshid\0\x01";
const HEADER_BYTES: usize = MAGIC.len() + 1 + Digest::LEN;
const LENGTH_BYTES: usize = 4;

const NONE_OR_MEMBER: u8 = 0;
const JOINING: u8 = 1;
const REMOVED: u8 = 2;

pub(crate) fn encode(identity: &Identity) -> SecretBytes {
    let (standing, membership, note) = match &identity.standing {
        Standing::Keys => (NONE_OR_MEMBER, None, Zeroizing::default()),
        Standing::Member(membership) => (NONE_OR_MEMBER, Some(membership), Zeroizing::default()),
        Standing::Joining { name, token } => (
            JOINING,
            None,
            Zeroizing::new(format!("{name}\n{}", token.as_str())),
        ),
        Standing::Removed { membership, reason } => {
            (REMOVED, Some(membership), Zeroizing::new(reason.clone()))
        }
    };
    let stored = encode_identity(&StoredIdentity {
        wireguard_private_key: identity.wireguard_key.clone(),
        tls_private_key: identity.tls_key.clone(),
        wireguard_key_made: identity.wireguard_made,
        spare_key: identity.spare_key.clone(),
        membership: membership.cloned(),
        coordinators: identity.coordinators.clone(),
    });
    let machine = identity.machine_id.as_bytes();
    let length = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len());
        length.expect("names, tokens, reasons and machine ids are bounded")
    };
    // Exactly as large as needed: a buffer that grows would leave secrets behind.
    let texts = LENGTH_BYTES + note.len() + LENGTH_BYTES + machine.len();
    let size = HEADER_BYTES + texts + stored.expose().len();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(standing);
    bytes.extend_from_slice(&[0; Digest::LEN]);
    for text in [note.as_bytes(), machine] {
        bytes.extend_from_slice(&length(text).to_be_bytes());
        bytes.extend_from_slice(text);
    }
    bytes.extend_from_slice(stored.expose());
    let digest = sha256(&bytes[HEADER_BYTES..]);
    bytes[HEADER_BYTES - Digest::LEN..HEADER_BYTES].copy_from_slice(digest.as_bytes());
    SecretBytes::new(bytes)
}

/// Reads an identity file.
///
/// # Errors
/// Says in words what is wrong with the bytes; never a secret.
pub(crate) fn decode(mut bytes: Vec<u8>) -> Result<Identity, String> {
    let identity = parse(&bytes);
    bytes.zeroize();
    identity
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    if is_newer(bytes) {
        return Err("it is of a newer version of meshd; was this program downgraded?".to_owned());
    }
    let parts = split(bytes).ok_or("it is damaged, or not an identity file")?;
    let stored = decode_identity(parts.stored).map_err(|error| error.to_string())?;
    let note = str::from_utf8(parts.note).map_err(|_| "its note is not text")?;
    let machine_id = str::from_utf8(parts.machine).map_err(|_| "its machine id is not text")?;
    let standing = match (parts.standing, stored.membership) {
        (NONE_OR_MEMBER, None) => Standing::Keys,
        (NONE_OR_MEMBER, Some(membership)) => Standing::Member(membership),
        (JOINING, _) => joining(note)?,
        (REMOVED, Some(membership)) => Standing::Removed {
            membership,
            reason: note.to_owned(),
        },
        (REMOVED, None) => return Err("it says removed, but not what from".to_owned()),
        (other, _) => return Err(format!("standing {other} is unknown to this version")),
    };
    Ok(Identity {
        wireguard_key: stored.wireguard_private_key,
        wireguard_made: stored.wireguard_key_made,
        spare_key: stored.spare_key,
        tls_key: stored.tls_private_key,
        coordinators: stored.coordinators,
        machine_id: machine_id.to_owned(),
        standing,
    })
}

/// The file, taken apart and not looked into.
struct Parts<'b> {
    standing: u8,
    note: &'b [u8],
    machine: &'b [u8],
    stored: &'b [u8],
}

/// The last byte of the magic is the format, which only goes up.
fn is_newer(bytes: &[u8]) -> bool {
    let (format, name) = MAGIC.split_last().expect("the magic has bytes");
    bytes
        .strip_prefix(name)
        .and_then(|rest| rest.first())
        .is_some_and(|theirs| theirs > format)
}

fn split(bytes: &[u8]) -> Option<Parts<'_>> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (&standing, rest) = rest.split_first()?;
    let (digest, rest) = rest.split_first_chunk::<{ Digest::LEN }>()?;
    if sha256(rest).as_bytes() != digest {
        return None;
    }
    let (note, rest) = split_text(rest)?;
    let (machine, stored) = split_text(rest)?;
    Some(Parts {
        standing,
        note,
        machine,
        stored,
    })
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

fn joining(note: &str) -> Result<Standing, String> {
    let (name, token) = note.split_once('\n').ok_or("its join has no token")?;
    let name = name.parse::<Name>().map_err(|error| error.to_string())?;
    Ok(Standing::Joining {
        name,
        token: Zeroizing::new(token.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::HostId;

    fn identity(standing: Standing) -> Identity {
        Identity {
            wireguard_key: Secret::from_bytes([1; 32]),
            wireguard_made: UnixTime::from_secs(1_800_000_000),
            spare_key: Some(SpareKey {
                private_key: Secret::from_bytes([9; 32]),
                former_until: None,
            }),
            tls_key: Secret::from_bytes([2; 32]),
            coordinators: vec!["10.0.0.1:7443".to_owned()],
            machine_id: "machine".to_owned(),
            standing,
        }
    }

    fn membership() -> Membership {
        Membership {
            host: HostId::from_bytes([3; 16]),
            name: "web-1".parse().unwrap(),
            root_pin: Digest::from_bytes([4; 32]),
            certificate_chain: vec![vec![5; 10], vec![6; 10]],
        }
    }

    fn again(standing: Standing) -> Identity {
        decode(encode(&identity(standing)).expose().to_vec()).unwrap()
    }

    #[test]
    fn every_standing_survives_the_disk() {
        assert!(matches!(again(Standing::Keys).standing, Standing::Keys));
        assert!(matches!(
            again(Standing::Member(membership())).standing,
            Standing::Member(back) if back == membership()
        ));
        let token = Zeroizing::new("mesh1abc".to_owned());
        let joining = Standing::Joining {
            name: "web-1".parse().unwrap(),
            token,
        };
        assert!(matches!(
            again(joining).standing,
            Standing::Joining { name, token } if name.as_str() == "web-1" && *token == "mesh1abc"
        ));
        let removed = Standing::Removed {
            membership: membership(),
            reason: "gone".to_owned(),
        };
        assert!(matches!(
            again(removed).standing,
            Standing::Removed { reason, .. } if reason == "gone"
        ));
    }

    #[test]
    fn a_copy_is_told_from_the_original_where_machines_have_ids() {
        let mut original = again(Standing::Keys);
        assert!(!original.is_of_another_machine("machine"));
        assert!(original.is_of_another_machine("clone"));
        assert!(!original.is_of_another_machine(""));
        original.machine_id.clear();
        assert!(!original.is_of_another_machine("clone"));
    }

    #[test]
    fn a_file_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut bytes = encode(&identity(Standing::Keys)).expose().to_vec();
        bytes[MAGIC.len() - 1] += 1;
        let said = decode(bytes).err().unwrap();
        assert!(said.contains("newer version"), "{said}");
    }

    #[test]
    fn every_cut_is_refused_in_words() {
        let bytes = encode(&identity(Standing::Member(membership())))
            .expose()
            .to_vec();
        for length in 0..bytes.len() {
            assert!(decode(bytes[..length].to_vec()).is_err(), "cut to {length}");
        }
        assert!(
            decode(b"not an identity".to_vec())
                .err()
                .unwrap()
                .contains("damaged")
        );
    }
}
