//! How large overlay packets are: as large as the underlay's largest interface takes them, or what
//! was asked for. How much of that a peer's path takes is found out by its packets' shard.

use std::str::FromStr;

use serde::Deserialize;

use crate::linux::underlay_mtu;
use crate::number_or_word::NumberOrWord;

/// IPv6's smallest (RFC 8200 5), and a jumbo frame less what is around a packet.
const RANGE: std::ops::RangeInclusive<u16> = 1280..=9000;
/// What is around a packet at most: IPv6 (40), UDP (8), WireGuard's header and tag (32).
const AROUND: u32 = 80;
/// What fits an Ethernet frame, when no interface says otherwise.
const COMMON: u16 = 1420;

/// The setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrWord")]
pub enum Mtu {
    /// What the underlay's largest interface takes.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u16),
}

impl Mtu {
    /// Returns the bytes of the largest overlay packet.
    pub fn of_interface(self, overlay_interface: &str) -> u16 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Auto => fitting(underlay_mtu::largest(overlay_interface)),
        }
    }

    /// Returns the bytes of the largest packet to a peer of whose path nothing is known. Who set a
    /// number knows the network; others get what they got before larger ones were tried.
    pub const fn assumed(self) -> u16 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Auto => COMMON,
        }
    }

    /// Refuses a number that no interface should have.
    ///
    /// # Errors
    /// Says which may be.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Bytes(bytes) if !RANGE.contains(&bytes) => Err(refusal(bytes)),
            _ => Ok(()),
        }
    }
}

fn refusal(what: impl std::fmt::Display) -> String {
    let (start, end) = (RANGE.start(), RANGE.end());
    format!("mtu {what} is out of range: write auto, or {start} to {end}")
}

fn fitting(underlay: Option<u32>) -> u16 {
    let Some(underlay) = underlay else {
        return COMMON;
    };
    // Larger frames than jumbo ones are not the underlay's but some machine's own.
    let largest = underlay.min(u32::from(*RANGE.end())).saturating_sub(AROUND);
    u16::try_from(largest).map_or(COMMON, |bytes| bytes.max(*RANGE.start()))
}

impl FromStr for Mtu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let bytes = text.parse().map_err(|_| refusal(text))?;
        let mtu = Self::Bytes(bytes);
        mtu.check().map(|()| mtu)
    }
}

impl TryFrom<NumberOrWord> for Mtu {
    type Error = String;

    fn try_from(written: NumberOrWord) -> Result<Self, String> {
        match written.0.parse() {
            // Checked with all other settings: a flag may outweigh it.
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(_) => written.0.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_auto_or_a_number_in_range() {
        assert_eq!("auto".parse(), Ok(Mtu::Auto));
        assert_eq!("8920".parse(), Ok(Mtu::Bytes(8920)));
        for text in ["1279", "9001", "many", "-1", ""] {
            assert!(text.parse::<Mtu>().is_err(), "{text}");
        }
    }

    #[test]
    fn packets_fit_the_largest_interface() {
        for (underlay, expected) in [
            (Some(1500), 1420),
            (Some(1460), 1380),
            (Some(9001), 8920),
            (Some(8896), 8816),
            (Some(65520), 8920),
            (Some(1300), 1280),
            (None, 1420),
        ] {
            assert_eq!(fitting(underlay), expected, "{underlay:?}");
        }
    }

    #[test]
    fn what_is_assumed_of_a_path_is_what_was_always_sent() {
        assert_eq!(Mtu::Auto.assumed(), 1420);
        assert_eq!(Mtu::Bytes(1300).assumed(), 1300);
    }
}
