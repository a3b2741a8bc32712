//! Join tokens, as people paste them, and as an attacker writes them with a right checksum.

use data_encoding::BASE32_NOPAD;
use trust::JoinToken;

use crate::Seed;
use crate::small_fleet::SmallFleet;

/// Reads bytes as a token's text, and as what is inside of one.
pub fn target(bytes: &[u8]) {
    read(&String::from_utf8_lossy(bytes));
    read(&wrapped(bytes));
}

fn read(text: &str) {
    match text.parse::<JoinToken>() {
        Ok(token) => {
            let again = token.encode().parse::<JoinToken>();
            assert_eq!(again.as_ref(), Ok(&token), "it survives being written");
            assert!(!token.addresses.is_empty(), "there is somebody to ask");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The bytes with the prefix and the checksum of a token.
fn wrapped(body: &[u8]) -> String {
    let sum = trust::digest(b"mesh.v1.join-token", body);
    let bytes = [body, &sum.as_bytes()[..4]].concat();
    format!("mesh1{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// A token as text, and the insides of tokens.
pub(crate) fn seeds() -> Vec<Seed> {
    let token = SmallFleet::new().token();
    let body = |addresses: &[&str]| {
        let mut body = [
            &[7; 8][..],
            &[9; 16],
            token.pin.as_bytes(),
            &[addresses.len() as u8],
        ]
        .concat();
        for address in addresses {
            body.extend((address.len() as u16).to_be_bytes());
            body.extend(address.bytes());
        }
        body
    };
    let broken = token
        .encode()
        .replacen("mesh1", " mesh1\n", 1)
        .to_uppercase();
    vec![
        Seed::new("text", token.encode()),
        Seed::new("text-broken-over-lines", broken),
        Seed::new(
            "text-of-a-later-version",
            token.encode().replacen('1', "2", 1),
        ),
        Seed::new("body", body(&["c1.example.com:7443"])),
        Seed::new(
            "body-with-all-kinds",
            body(&["c1:1", "10.0.0.4:443", "[fd00::1]:65535"]),
        ),
        Seed::new("body-without-addresses", body(&[])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_the_inside() {
        let seeds = seeds();
        let body = seeds.iter().find(|seed| seed.name == "body").unwrap();
        let token: JoinToken = wrapped(&body.bytes).parse().unwrap();
        assert_eq!(token.addresses, ["c1.example.com:7443"]);
    }
}
