//! How many packet threads the daemon has: as many as were asked for, or what fits the machine.

use std::str::FromStr;

use dataplane::Place;
use serde::Deserialize;

use crate::number_or_word::NumberOrWord;

/// The setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrWord")]
pub enum Shards {
    /// What fits the machine: applications need most of its cores.
    #[default]
    Auto,
    /// So many, a power of two.
    Count(u16),
}

impl Shards {
    /// Returns how many there are to be.
    pub fn count(self) -> u16 {
        match self {
            Self::Count(count) => count,
            Self::Auto => fitting(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }
}

/// A quarter to a half of the cores.
const fn fitting(cores: usize) -> u16 {
    match cores {
        0..=3 => 1,
        4..=7 => 2,
        8..=15 => 4,
        _ => 8,
    }
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count: &u16| {
            count.is_power_of_two() && (1..=Place::COUNT_MAX).contains(count)
        });
        count.map(Self::Count).ok_or_else(|| {
            format!(
                "shards {text}: write auto, or a power of two from 1 to {}",
                Place::COUNT_MAX
            )
        })
    }
}

impl TryFrom<NumberOrWord> for Shards {
    type Error = String;

    fn try_from(written: NumberOrWord) -> Result<Self, String> {
        written.0.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_auto_or_a_power_of_two() {
        assert_eq!("auto".parse(), Ok(Shards::Auto));
        for (text, is_good) in [
            ("1", true),
            ("4", true),
            ("64", true),
            ("0", false),
            ("3", false),
            ("128", false),
            ("many", false),
        ] {
            assert_eq!(text.parse::<Shards>().is_ok(), is_good, "{text}");
        }
        assert_eq!(Shards::Count(4).count(), 4);
    }

    #[test]
    fn small_machines_have_one_and_large_ones_leave_most_cores_to_others() {
        assert_eq!([1, 2, 3, 4, 8, 16, 128].map(fitting), [1, 1, 1, 2, 4, 8, 8]);
    }
}
