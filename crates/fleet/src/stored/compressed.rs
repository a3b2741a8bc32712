//! What is large and repeats itself: compressed JSON, as base64. A policy of 10,000 rules has to
//! fit one value of the store.

use std::io::{Read, Write};

use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use model::limits::Limits;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a damaged value may swell to at most: the files of a policy, or its leaves with all that
/// base64 adds.
const BYTES_MAX: u64 = 4 * Limits::BUNDLE_BYTES as u64;

pub(super) fn serialize<T: Serialize, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = serde_json::to_vec(value).map_err(serde::ser::Error::custom)?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(&text)
        .and_then(|()| encoder.finish())
        .map_err(serde::ser::Error::custom)
        .and_then(|bytes| serializer.serialize_str(&BASE64.encode(&bytes)))
}

/// As it is written, or as coordinators wrote it at first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<T> {
    Compressed(String),
    Plain(T),
}

pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = match Written::deserialize(deserializer)? {
        Written::Compressed(text) => text,
        Written::Plain(value) => return Ok(value),
    };
    let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
    let mut text = Vec::new();
    let mut decoder = DeflateDecoder::new(&bytes[..]).take(BYTES_MAX);
    decoder.read_to_end(&mut text).map_err(D::Error::custom)?;
    serde_json::from_slice(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Value(#[serde(with = "super")] Vec<String>);

    #[test]
    fn what_repeats_itself_becomes_small_and_comes_back() {
        let rules = (0..10_000).map(|it| {
            format!(
                "  - {{ id: rule-{it}, from: \"role=a{it}\", to: \"role=b{it}\", tcp: [{it}] }}"
            )
        });
        let value = Value(rules.collect());
        let text = serde_json::to_vec(&value).unwrap();
        let plain: usize = value.0.iter().map(String::len).sum();
        assert!(text.len() * 4 < plain, "{} of {plain} bytes", text.len());
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn what_was_written_plain_is_read() {
        let plain = serde_json::from_str::<Value>("[\"a\"]").unwrap();
        assert_eq!(plain, Value(vec!["a".into()]));
    }

    #[test]
    fn damage_is_an_error_and_a_bomb_is_cut() {
        for bad in ["\"%\"", "\"AAAA\"", "\"\""] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..(2 * BYTES_MAX) >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = serde_json::to_string(&BASE64.encode(&encoder.finish().unwrap())).unwrap();
        assert!(serde_json::from_str::<Value>(&bomb).is_err());
    }
}
