//! Join tokens: all that `meshctl join` needs. A token says who may be believed (the pin) and where
//! to ask (the addresses), and carries a secret that the coordinator keeps only as a hash.
//!
//! Written as `mesh1` and lower-case base32 of (lengths in bytes):
//!
//! ```text
//! id 8 | secret 16 | pin 32 | addresses: count 1, then each: length 2 (big endian), text | checksum 4
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use model::address::split_host_port;
use model::ids::{Digest, TokenId};
use model::limits::Limits;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::digest::digest;

/// What every token begins with; the version is the one character behind it.
const PREFIX: &str = "mesh";
const VERSION: char = '1';
/// Longer than any token with `Limits::COORDINATOR_ADDRESSES` of the longest DNS names.
const TEXT_BYTES_MAX: usize = 4096;
const CHECKSUM_BYTES: usize = 4;

/// A join token. Whoever has it can join a host.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token; not secret.
    pub id: TokenId,
    /// Proves that the token is known.
    pub secret: [u8; 16],
    /// SHA-256 of the authority's root certificate.
    pub pin: Digest,
    /// Where coordinators are, `host:port`; from 1 to `Limits::COORDINATOR_ADDRESSES`.
    pub addresses: Vec<String>,
}

/// A text that is not a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else.
    #[error(
        "this is not a join token: a token begins with mesh1; make one with `meshctl tokens create`"
    )]
    NotAToken,
    /// A version that this program does not know.
    #[error("this join token has version {0:?}, this program knows version 1; upgrade it")]
    UnknownVersion(char),
    /// The checksum does not match.
    #[error(
        "this join token is truncated or mistyped (its checksum does not match); copy it again, whole"
    )]
    Damaged,
}

impl JoinToken {
    /// Writes the token down. Addresses beyond `Limits::COORDINATOR_ADDRESSES` are left out.
    pub fn encode(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX));
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(self.pin.as_bytes());
        let count = self.addresses.len().min(Limits::COORDINATOR_ADDRESSES);
        bytes.push(u8::try_from(count).expect("the limit is below 256"));
        for address in &self.addresses[..count] {
            let length = u16::try_from(address.len()).expect("a host:port is short");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(address.as_bytes());
        }
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        format!(
            "{PREFIX}{VERSION}{}",
            BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
        )
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("pin", &self.pin)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Reads a token in either case, with white space around and inside it as terminals and mail
    /// programs break lines.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::NotAToken);
        }
        let text: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace())
                .map(|c| c.to_ascii_lowercase())
                .collect(),
        );
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let version = rest.chars().next().ok_or(TokenError::Damaged)?;
        match version {
            VERSION => parse_body(&rest[VERSION.len_utf8()..]),
            other if other.is_ascii_digit() => Err(TokenError::UnknownVersion(other)),
            _ => Err(TokenError::NotAToken),
        }
    }
}

fn parse_body(text: &str) -> Result<JoinToken, TokenError> {
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    let bytes = Zeroizing::new(
        BASE32_NOPAD
            .decode(upper.as_bytes())
            .map_err(|_| TokenError::Damaged)?,
    );
    let (body, sum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(TokenError::Damaged)?;
    if checksum(body) != *sum {
        return Err(TokenError::Damaged);
    }
    parse_fields(body).ok_or(TokenError::Damaged)
}

fn parse_fields(body: &[u8]) -> Option<JoinToken> {
    let (id, rest) = body.split_first_chunk::<8>()?;
    let (secret, rest) = rest.split_first_chunk::<16>()?;
    let (pin, rest) = rest.split_first_chunk::<32>()?;
    Some(JoinToken {
        id: TokenId::from_bytes(*id),
        secret: *secret,
        pin: Digest::from_bytes(*pin),
        addresses: parse_addresses(rest)?,
    })
}

fn parse_addresses(bytes: &[u8]) -> Option<Vec<String>> {
    let (&count, mut rest) = bytes.split_first()?;
    if !(1..=Limits::COORDINATOR_ADDRESSES).contains(&usize::from(count)) {
        return None;
    }
    let mut addresses = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (address, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let address = std::str::from_utf8(address).ok()?;
        split_host_port(address)?;
        addresses.push(address.to_owned());
        rest = tail;
    }
    rest.is_empty().then_some(addresses)
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let sum = digest(b"mesh.v1.join-token", body);
    *sum.as_bytes().first_chunk().expect("a digest has 32 bytes")
}

/// Returns the hash under which a coordinator keeps a token's secret. The secret has 128 random
/// bits, so that one round of SHA-256 is enough.
pub fn secret_hash(secret: &[u8; 16]) -> Digest {
    digest(b"mesh.v1.token-secret", secret)
}

/// Returns whether a secret has this hash, in constant time.
pub fn secret_matches(secret: &[u8; 16], hash: &Digest) -> bool {
    secret_hash(secret).as_bytes().ct_eq(hash.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId::from_bytes([1; 8]),
            secret: [171; 16],
            pin: Digest::from_bytes([3; 32]),
            addresses: vec!["c1.example.com:7443".into(), "[fd00::1]:7443".into()],
        }
    }

    proptest! {
        #[test]
        fn tokens_survive_text(
            id: [u8; 8], secret: [u8; 16], pin: [u8; 32],
            addresses in vec("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}:[1-9][0-9]{0,3}", 1..=8),
        ) {
            let pin = Digest::from_bytes(pin);
            let token = JoinToken { id: TokenId::from_bytes(id), secret, pin, addresses };
            prop_assert_eq!(token.encode().parse(), Ok(token));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in "(mesh1)?\\PC{0,300}") {
            let _ = text.parse::<JoinToken>();
        }
    }

    #[test]
    fn the_longest_addresses_fit() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}:65535", "a".repeat(61));
        let mut token = token();
        token.addresses = vec![longest; 8];
        assert_eq!(token.encode().parse(), Ok(token));
    }

    #[test]
    fn a_truncated_token_says_so() {
        let text = token().encode();
        for length in PREFIX.len()..text.len() {
            assert_eq!(
                text[..length].parse::<JoinToken>(),
                Err(TokenError::Damaged),
                "{length}"
            );
        }
    }

    #[test]
    fn a_mistyped_token_says_so() {
        let text = token().encode();
        for position in "mesh1".len()..text.len() {
            let mut mistyped = text.clone();
            let other = if &text[position..=position] == "a" {
                "b"
            } else {
                "a"
            };
            mistyped.replace_range(position..=position, other);
            assert_eq!(
                mistyped.parse::<JoinToken>(),
                Err(TokenError::Damaged),
                "{position}"
            );
        }
    }

    #[test]
    fn white_space_and_capitals_do_not_matter() {
        let text = token().encode().to_ascii_uppercase();
        let (first, second) = text.split_at(40);
        assert_eq!(format!("  {first}\n {second}\n").parse(), Ok(token()));
    }

    #[test]
    fn something_else_is_not_a_token() {
        for text in [
            "",
            "web-1",
            "tskey-auth-k123",
            "mes",
            "meshctl",
            &"x".repeat(5000),
        ] {
            assert_eq!(
                text.parse::<JoinToken>(),
                Err(TokenError::NotAToken),
                "{text}"
            );
        }
    }

    #[test]
    fn a_later_version_says_so() {
        let later = token().encode().replacen("mesh1", "mesh2", 1);
        assert_eq!(
            later.parse::<JoinToken>(),
            Err(TokenError::UnknownVersion('2'))
        );
    }

    #[test]
    fn a_token_does_not_print_its_secret() {
        let printed = format!("{:?}", token());
        assert!(
            !printed.contains("171") && !printed.contains("ab"),
            "{printed}"
        );
    }

    #[test]
    fn a_secret_matches_its_own_hash_only() {
        let hash = secret_hash(&[7; 16]);
        assert!(secret_matches(&[7; 16], &hash));
        assert!(!secret_matches(&[8; 16], &hash));
        assert_ne!(hash, crate::sha256(&[7; 16]));
    }
}
