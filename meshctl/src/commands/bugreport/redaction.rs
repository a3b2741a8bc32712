//! Takes secrets out of texts, by their shape and by the word before them: what looks like one goes,
//! also when it is none. Addresses of the public network go too, where that is asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// What takes a secret's place.
const GONE: &str = "<redacted>";
/// Words before a value that make it a secret, in settings, logs and JSON.
const SECRET_WORDS: [&str; 8] = [
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "cookie",
    "private",
    "bearer",
];
/// How join tokens begin.
const TOKEN: &str = "mesh1";
/// How operators' credentials begin.
const CREDENTIAL: &str = "mesh-admin1.";
/// Characters that follow at least: they are far longer.
const TOKEN_CHARACTERS_MIN: usize = 24;
/// Base64 and hexadecimal characters from which on a word may be a key: 128 bits have 22 and 32.
const KEY_CHARACTERS_MIN: usize = 40;

/// What is taken out, and the names that stand for addresses.
pub(super) struct Redaction {
    addresses: bool,
    known: RefCell<BTreeMap<IpAddr, usize>>,
}

impl Redaction {
    pub(super) fn new(addresses: bool) -> Self {
        Self {
            addresses,
            known: RefCell::default(),
        }
    }

    /// Returns a text without what nobody else may see.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut in_key = false;
        for line in text.split_inclusive('\n') {
            if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
                in_key = true;
            }
            if in_key {
                if line.contains("-----END") {
                    in_key = false;
                    clean.push_str(GONE);
                    clean.push('\n');
                }
                continue;
            }
            clean.push_str(&self.line(&without_passwords(line)));
        }
        clean
    }

    fn line(&self, line: &str) -> String {
        let mut clean = String::with_capacity(line.len());
        let mut before = Before::Nothing;
        let mut clean_to = 0;
        for part in parts(line) {
            if !part.contains(|it: char| it.is_ascii_alphanumeric()) {
                clean_to += part.len();
                before = before.with(part);
                clean.push_str(part);
                continue;
            }
            let is_user = line[clean_to + part.len()..].starts_with('@');
            clean_to += part.len();
            if looks_secret(part) || before.makes_secret(part) {
                clean.push_str(GONE);
            } else {
                let kept = part.len() - secret_end(part, is_user);
                clean.push_str(&self.word(&part[..kept]));
                clean.push_str(if kept < part.len() { GONE } else { "" });
            }
            before = Before::of(part);
        }
        clean
    }

    /// Puts names in the place of the public addresses of a word, which may have anything around them:
    /// a port, a scheme and a path, a prefix length, the end of a sentence.
    fn word(&self, word: &str) -> String {
        if !self.addresses {
            return word.to_owned();
        }
        let mut clean = String::with_capacity(word.len());
        let mut rest = word;
        let mut is_inside = false;
        while let Some(first) = rest.chars().next() {
            let found = if is_inside { None } else { address_at(rest) };
            let length = found.map_or(first.len_utf8(), |(_, length)| length);
            let (text, left) = rest.split_at(length);
            match found {
                Some((address, _)) if is_public(address) => clean.push_str(&self.name(address)),
                _ => clean.push_str(text),
            }
            is_inside = text.ends_with(|it: char| it.is_ascii_alphanumeric());
            rest = left;
        }
        clean
    }

    fn name(&self, address: IpAddr) -> String {
        let mut known = self.known.borrow_mut();
        let next = known.len() + 1;
        let number = *known.entry(address).or_insert(next);
        format!("public-{number}")
    }
}

/// Characters of the longest address (RFC 4291 2.2: with an IPv4 address at its end).
const ADDRESS_CHARACTERS_MAX: usize = 45;

/// Returns the address that a text begins with, and how long it is there.
fn address_at(text: &str) -> Option<(IpAddr, usize)> {
    let is_of_address = |it: u8| it.is_ascii_hexdigit() || it == b'.' || it == b':';
    let bytes = text.as_bytes();
    let run = bytes.iter().take_while(|it| is_of_address(**it)).count();
    let ends = (2..=run.min(ADDRESS_CHARACTERS_MAX)).rev();
    let mut whole = ends.filter(|end| !bytes.get(*end).is_some_and(u8::is_ascii_alphanumeric));
    whole.find_map(|end| {
        let address: IpAddr = text[..end].parse().ok()?;
        Some((address.to_canonical(), end))
    })
}

/// Takes the passwords out of URLs, whatever they are written with: what lies between a user's name
/// and the last `@` before the path (RFC 3986 3.2.1).
fn without_passwords(line: &str) -> String {
    const AUTHORITY: &str = "://";
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(AUTHORITY) {
        let (scheme, from_authority) = rest.split_at(at + AUTHORITY.len());
        clean.push_str(scheme);
        rest = from_authority;
        let end = rest.find(|it: char| it == '/' || it.is_whitespace());
        let authority = &rest[..end.unwrap_or(rest.len())];
        let Some((user_info, _)) = authority.rsplit_once('@') else {
            continue;
        };
        if let Some((user, _)) = user_info.split_once(':') {
            clean.extend([user, ":", GONE]);
            rest = &rest[user_info.len()..];
        }
    }
    clean.push_str(rest);
    clean
}

/// Words and what is between them, in turns.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = is_of_word(first);
        let end = rest
            .find(|it| is_of_word(it) != is_word)
            .unwrap_or(rest.len());
        let (part, left) = rest.split_at(end);
        rest = left;
        Some(part)
    })
}

/// What keys, tokens and addresses are written with.
fn is_of_word(it: char) -> bool {
    it.is_ascii_alphanumeric() || "+/_-.:".contains(it)
}

/// What stands before a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A word that makes the next one a secret when it looks like one.
    SecretWord,
    /// The same, and what assigns: the next word is its value.
    Assignment,
}

impl Before {
    fn of(word: &str) -> Self {
        let name = word.to_ascii_lowercase();
        let name = name.trim_end_matches(':');
        match SECRET_WORDS.iter().any(|it| name.ends_with(it)) {
            true if word.ends_with(':') => Self::Assignment,
            true => Self::SecretWord,
            false => Self::Nothing,
        }
    }

    fn with(self, separator: &str) -> Self {
        let leads = separator.chars().all(|it| " \t:='\"\\".contains(it));
        match self {
            _ if !leads => Self::Nothing,
            Self::SecretWord if separator.contains(['=', ':']) => Self::Assignment,
            other => other,
        }
    }

    fn makes_secret(self, word: &str) -> bool {
        let is_plain = matches!(word, "true" | "false" | "null" | "none") || word.starts_with('/');
        let has_digit = || word.chars().any(|it| it.is_ascii_digit());
        match self {
            Self::Nothing => false,
            // "token expired" is a sentence, "token 0a1b2c" is none.
            Self::SecretWord => !is_plain && word.len() >= 6 && has_digit(),
            Self::Assignment => !is_plain,
        }
    }
}

/// Returns how many bytes at the end of a word are a secret: what a colon gives to a word that names
/// one, as in `password:hunter2`, and what follows a user's name before `@`, as in `//user:hunter2@`.
fn secret_end(word: &str, is_user: bool) -> usize {
    let named = word.match_indices(':').find_map(|(at, _)| {
        let (name, value) = (&word[..at], &word[at + 1..]);
        // Two colons are a path in a program.
        let is_path = value.starts_with(':') || name.ends_with(':');
        let is_secret = !is_path && Before::of(name) != Before::Nothing && !value.is_empty();
        (is_secret && Before::Assignment.makes_secret(value)).then_some(value.len())
    });
    let of_user = || match word.rsplit_once(':') {
        Some((_, secret)) if is_user && !secret.starts_with('/') => Some(secret.len()),
        _ => None,
    };
    named.or_else(of_user).unwrap_or(0)
}

fn looks_secret(word: &str) -> bool {
    let is_of_key = |it: char| it.is_ascii_alphanumeric() || "+/_-".contains(it);
    let is_token = word.split_once(TOKEN).is_some_and(|(_, rest)| {
        rest.chars().take_while(|it| is_of_key(*it)).count() >= TOKEN_CHARACTERS_MIN
    });
    let mut runs = word.split(|it| !is_of_key(it));
    is_token
        || word.contains(CREDENTIAL)
        || runs.any(|run| run.len() >= KEY_CHARACTERS_MIN && !is_path(run))
}

/// A path is long, too, and has hardly a capital letter; of a key's letters half are capitals.
fn is_path(run: &str) -> bool {
    let capitals = run.chars().filter(char::is_ascii_uppercase).count();
    run.contains('/') && capitals <= 2
}

fn is_public(address: IpAddr) -> bool {
    const OTHERS: [&str; 8] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    ];
    let is_other = |net: &&str| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    let is_nobody = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !is_nobody && !OTHERS.iter().any(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "kE4dHh0vS2l8aWc5b3VyIGtleSBpcyBzZWNyZXQhISE=";

    #[test]
    fn what_looks_like_a_secret_goes_wherever_it_stands() {
        let redaction = Redaction::new(false);
        for (text, secret) in [
            (format!("key = {KEY}\n"), &KEY[..40]),
            (format!("\"wireguard\":\"{KEY}\""), &KEY[..40]),
            (
                "join mesh1abcdefghijklmnopqrstuvwxyz now".into(),
                "abcdefgh",
            ),
            (
                "error: mesh-admin1.eve.abcdefghijklmnopqrstuvwxyz is refused".into(),
                "abcdefgh",
            ),
            (
                r#"{"message":"{\"secret\": \"opensesame\"}"}"#.into(),
                "sesame",
            ),
            ("# password: correct-horse".into(), "horse"),
            ("password:hunter2".into(), "hunter2"),
            ("db.password:correct:horse".into(), "horse"),
            ("{token:abc}".into(), "abc"),
            (
                "proxy http://ops:hunter2@proxy.example:3128/".into(),
                "hunter2",
            ),
            ("credential=opensesame".into(), "sesame"),
            ("Authorization: Bearer s3cr3t-value".into(), "s3cr3t"),
            ("password = \"hunter22\"".into(), "hunter22"),
            ("\"secret\": \"0a1b2c3d4e\"".into(), "0a1b2c"),
            (format!("hash {}", "ab".repeat(32)), "abababab"),
            (
                "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n".into(),
                "MC4CAQAw",
            ),
        ] {
            let clean = redaction.apply(&text);
            assert!(!clean.contains(secret), "{clean}");
            assert!(clean.contains(GONE), "{clean}");
        }
    }

    #[test]
    fn of_a_url_everything_but_the_password_stays() {
        let redaction = Redaction::new(false);
        for (text, clean) in [
            (
                "http://ops:p%40ssw0rd@proxy:3128/",
                "http://ops:<redacted>@proxy:3128/",
            ),
            ("http://ops:a:b@proxy", "http://ops:<redacted>@proxy"),
            ("http://ops:a@b@proxy/x", "http://ops:<redacted>@proxy/x"),
            (
                "http://ops:!$&'()*,;=~ä@[::1]:80",
                "http://ops:<redacted>@[::1]:80",
            ),
            ("redis://:hunter2@cache", "redis://:<redacted>@cache"),
            ("http://ops:a/b@proxy", "http://ops:<redacted>@proxy"),
            (
                "http://token:x!@one https://eve:y!@two",
                "http://token:<redacted>@one https://eve:<redacted>@two",
            ),
            (
                "ssh://git@host:22/a:b@c",
                "ssh://git@host:22/a:<redacted>@c",
            ),
        ] {
            assert_eq!(redaction.apply(text), clean);
        }
    }

    #[test]
    fn what_helps_stays() {
        let redaction = Redaction::new(false);
        for text in [
            "100.64.0.0/16 dev mesh0 proto 190 src 100.64.0.16\n",
            "DeviceAllow=/dev/net/tun rw\nFragmentPath=/usr/lib/systemd/system/meshd.service\n",
            "the token has expired; tokens create makes another\n",
            "mesh1-gateway joined; \"reason\": \"handshake_needs_cookie\", \"packets\": 1234567\n",
            "ExecStart=/opt/mesh/releases/current-release-of-today/bin/meshd\n",
            "id 01010101010101010101010101010101 at 2026-11-22T20:00:00Z\n",
            "endpoint 198.51.100.7:51820 2001:db8::7\n",
            "https://c1.example.com:7443/v1 ops@c1.example.com token::Parser\n",
        ] {
            assert_eq!(redaction.apply(text), text);
        }
    }

    #[test]
    fn public_addresses_get_names_that_stay_the_same() {
        let redaction = Redaction::new(true);
        let text =
            "198.51.100.7:51820 [2001:db8::7]:51820 10.0.0.1 100.64.0.16 fd00::1 198.51.100.7/32\n";
        assert_eq!(
            redaction.apply(text),
            "public-1:51820 [public-2]:51820 10.0.0.1 100.64.0.16 fd00::1 public-1/32\n"
        );
    }

    #[test]
    fn a_public_address_goes_whatever_is_around_it() {
        let redaction = Redaction::new(true);
        for (text, clean) in [
            ("no answer from 198.51.100.7.", "no answer from public-1."),
            ("198.51.100.7:51820: refused", "public-1:51820: refused"),
            ("https://198.51.100.7:7443/v1", "https://public-1:7443/v1"),
            ("https://[2001:db8::7]/v1", "https://[public-2]/v1"),
            ("from 2001:db8::7: refused", "from public-2: refused"),
            ("peer:198.51.100.7,2001:db8::7.", "peer:public-1,public-2."),
            ("udp/198.51.100.7-198.51.100.8", "udp/public-1-public-3"),
            ("::ffff:198.51.100.7", "public-1"),
            ("::ffff:10.0.0.1 10.0.0.1.", "::ffff:10.0.0.1 10.0.0.1."),
            (
                "at 20:00:00 aa:bb:cc:dd:ee:ff",
                "at 20:00:00 aa:bb:cc:dd:ee:ff",
            ),
        ] {
            assert_eq!(redaction.apply(text), clean);
        }
    }
}
