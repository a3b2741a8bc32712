//! What is large and repeats itself: compressed JSON, as base64. A policy of 10,000 rules has to
//! fit one value of the store.

use std::fmt::{self, Debug, Display};
use std::io::Read;
use std::marker::PhantomData;

use data_encoding::BASE64;
use flate2::read::DeflateDecoder;
use model::limits::Limits;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a damaged value may swell to at most: the files of a policy, or its leaves with all that
/// base64 adds.
const BYTES_MAX: u64 = 4 * Limits::BUNDLE_BYTES as u64;

/// A value that is kept as it is stored, and opened when it is looked at.
#[derive(Clone)]
pub(crate) struct Compressed<T> {
    deflated: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Compressed<T> {
    /// Compresses a value.
    pub(crate) fn new(value: &T) -> Self {
        Self {
            deflated: policy::deflated(value),
            of: PhantomData,
        }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// It is damaged, or larger than anything that was written.
    pub(crate) fn open(&self) -> Result<T, String> {
        let mut text = Vec::new();
        let mut decoder = DeflateDecoder::new(&self.deflated[..]).take(BYTES_MAX);
        let read = decoder.read_to_end(&mut text);
        let damaged = |why: &dyn Display| format!("it is damaged ({why})");
        read.map_err(|error| damaged(&error))?;
        serde_json::from_slice(&text).map_err(|error| damaged(&error))
    }
}

impl<T> Debug for Compressed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressed({} bytes)", self.deflated.len())
    }
}

impl<T> Serialize for Compressed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.deflated))
    }
}

/// As it is written, or as coordinators wrote it at first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<T> {
    Compressed(String),
    Plain(T),
}

impl<'de, T: Serialize + DeserializeOwned> Deserialize<'de> for Compressed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Compressed(text) => text,
            Written::Plain(value) => return Ok(Self::new(&value)),
        };
        let deflated = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        Ok(Self {
            deflated,
            of: PhantomData,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    type Value = Compressed<Vec<String>>;

    #[test]
    fn what_repeats_itself_becomes_small_and_comes_back() {
        let rules = (0..10_000).map(|it| {
            format!(
                "  - {{ id: rule-{it}, from: \"role=a{it}\", to: \"role=b{it}\", tcp: [{it}] }}"
            )
        });
        let rules: Vec<String> = rules.collect();
        let text = serde_json::to_vec(&Value::new(&rules)).unwrap();
        let plain: usize = rules.iter().map(String::len).sum();
        assert!(text.len() * 4 < plain, "{} of {plain} bytes", text.len());
        let kept = serde_json::from_slice::<Value>(&text).unwrap();
        assert!(kept.deflated.len() * 4 < plain, "{kept:?}");
        assert_eq!(kept.open().unwrap(), rules);
    }

    #[test]
    fn what_was_written_plain_is_read() {
        let plain = serde_json::from_str::<Value>("[\"a\"]").unwrap();
        assert_eq!(plain.open().unwrap(), ["a"]);
    }

    #[test]
    fn damage_is_an_error_and_a_bomb_is_cut() {
        for bad in ["\"%\"", "\"AAAA\"", "\"\""] {
            let read = serde_json::from_str::<Value>(bad).map_err(|it| it.to_string());
            assert!(read.and_then(|it| it.open()).is_err(), "{bad}");
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..(2 * BYTES_MAX) >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = serde_json::to_string(&BASE64.encode(&encoder.finish().unwrap())).unwrap();
        assert!(
            serde_json::from_str::<Value>(&bomb)
                .unwrap()
                .open()
                .is_err()
        );
    }
}
