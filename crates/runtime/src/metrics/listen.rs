//! The setting that says where metrics are asked for.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::Deserialize;

/// Where metrics are asked for, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MetricsListen {
    /// Nowhere but on the local socket.
    Off,
    /// Here.
    At(SocketAddr),
}

impl MetricsListen {
    /// Returns where to listen.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "" | "off") {
            return Ok(Self::Off);
        }
        let address: Option<SocketAddr> = text.parse().ok();
        let usable = address.filter(|it| it.port() != 0 && !it.ip().is_multicast());
        usable.map(Self::At).ok_or_else(|| {
            format!(
                "metrics {text:?} is not an address with a port: write one of this machine's as \
                 IP:PORT, where 127.0.0.1 is for programs of this machine alone, or \"off\""
            )
        })
    }
}

impl TryFrom<String> for MetricsListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_an_address_with_a_port_or_off() {
        let at = |text: &str| MetricsListen::At(text.parse().unwrap());
        for (text, expected) in [
            ("", Some(MetricsListen::Off)),
            ("off", Some(MetricsListen::Off)),
            ("127.0.0.1:7445", Some(at("127.0.0.1:7445"))),
            ("[fd00::1]:9100", Some(at("[fd00::1]:9100"))),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("224.0.0.1:9100", None),
            ("localhost:9100", None),
            ("on", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text:?}");
        }
        let error = "7445".parse::<MetricsListen>().unwrap_err();
        // Each daemon has a port of its own: none is named that may be another's.
        assert!(error.contains("\"7445\"") && error.contains("IP:PORT"));
        assert!(!error.contains(":7445"), "{error}");
    }
}
