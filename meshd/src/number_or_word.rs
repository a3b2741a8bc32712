//! A setting that is a number or a word, as `mtu = 1420` and `mtu = "auto"` are. Whatever stands there
//! is taken as it was written, so that the setting itself says what may.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberOrWord(pub(crate) String);

impl<'de> Deserialize<'de> for NumberOrWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl Visitor<'_> for Written {
    type Value = NumberOrWord;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a word")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<NumberOrWord, E> {
        Ok(NumberOrWord(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<NumberOrWord, E> {
        Ok(NumberOrWord(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<NumberOrWord, E> {
        Ok(NumberOrWord(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<NumberOrWord, E> {
        Ok(NumberOrWord(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<NumberOrWord, E> {
        Ok(NumberOrWord(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::mtu::Mtu;
    use crate::shards::Shards;

    #[derive(Debug, Deserialize)]
    struct File {
        mtu: Option<Mtu>,
        shards: Option<Shards>,
    }

    fn read(text: &str) -> Result<File, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let read = runtime::config::load(file.path(), false);
        read.map(|(file, _)| file)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_may_stand_there() {
        for written in ["-1", "true", "70000"] {
            let message = read(&format!("mtu = {written}")).unwrap_err();
            let said = format!("mtu {written} is out of range: write auto, or 1280 to 9000");
            assert!(message.contains(&said), "{message}");
            assert!(message.contains("line 1"), "{message}");
        }
    }

    #[test]
    fn what_is_no_count_is_refused_with_what_may_stand_there() {
        for written in ["-1", "true", "1.5", "3", "70000", "\"many\""] {
            let message = read(&format!("shards = {written}")).unwrap_err();
            let said = "write auto, or a power of two from 1 to 64";
            assert!(message.contains(said), "{message}");
        }
        let message = read("shards = [1]").unwrap_err();
        assert!(message.contains("a number or a word"), "{message}");
    }

    #[test]
    fn numbers_and_words_are_taken() {
        let file = read("mtu = 1300\nshards = 4").unwrap();
        assert_eq!(
            (file.mtu, file.shards),
            (Some(Mtu::Bytes(1300)), Some(Shards::Count(4)))
        );
        let file = read("mtu = \"auto\"\nshards = \"auto\"").unwrap();
        assert_eq!(
            (file.mtu, file.shards),
            (Some(Mtu::Auto), Some(Shards::Auto))
        );
    }
}
