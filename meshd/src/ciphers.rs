//! Which data ciphers this host offers to its peers: what its processor does best, or what was set.

use std::str::FromStr;

use dataplane::DataCipher;
use serde::Deserialize;

/// The setting. Both hosts of a pair have to offer AES-256-GCM for it to be used between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum CipherOffer {
    /// AES-256-GCM, where the processor has instructions for it: it is the faster then.
    #[default]
    Auto,
    /// Nothing but WireGuard's own ChaCha20-Poly1305.
    Standard,
    /// AES-256-GCM, also where it is slow.
    Aes256Gcm,
}

impl CipherOffer {
    /// Returns whether AES-256-GCM is offered.
    pub fn offers_aes_256_gcm(self) -> bool {
        match self {
            Self::Auto => has_aes_instructions(),
            Self::Standard => false,
            Self::Aes256Gcm => true,
        }
    }
}

impl FromStr for CipherOffer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "standard" => Ok(Self::Standard),
            text if text == DataCipher::Aes256Gcm.name() => Ok(Self::Aes256Gcm),
            _ => Err(format!(
                "cipher {text:?}: write auto, standard or {}",
                DataCipher::Aes256Gcm.name()
            )),
        }
    }
}

impl TryFrom<String> for CipherOffer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Without carry-less multiplication the authentication would take longer than it saves.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_forced_either_way_by_its_word() {
        let offers = |text: &str| text.parse().map(CipherOffer::offers_aes_256_gcm);
        assert_eq!(offers("standard"), Ok(false));
        assert_eq!(offers("aes-256-gcm"), Ok(true));
        assert_eq!(offers("auto"), Ok(has_aes_instructions()));
        assert!(offers("AES").unwrap_err().contains("aes-256-gcm"));
    }
}
