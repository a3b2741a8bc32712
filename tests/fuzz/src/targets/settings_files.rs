//! An operator's `meshd.toml`: whatever is in it, what is taken is safe to put into a rule set and
//! onto the network, and what is refused is refused by name.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use meshd::settings::{FileSettings, Flags, Settings};

use crate::Seed;

/// A file for one input, gone with it.
struct File(PathBuf);

impl File {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fuzz-settings-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).expect("the directory for temporary files can be written");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads bytes as the settings of a daemon.
pub fn target(bytes: &[u8]) {
    let file = File::new(bytes);
    match load(&file) {
        Ok(settings) => check(&settings),
        Err(message) => {
            let path = file.0.display().to_string();
            assert!(message.contains(&path), "{message} names no file");
        }
    }
}

fn load(file: &File) -> Result<Settings, String> {
    Settings::load(Flags {
        config: Some(file.0.clone()),
        plan: false,
        check: false,
        take_over: false,
        overrides: FileSettings::default(),
    })
}

fn check(settings: &Settings) {
    let is_word = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !text.is_empty() && text.bytes().all(is_plain)
    };
    let interface = &settings.interface;
    assert!(is_word(&interface.name) && interface.name.len() < 16);
    assert!(is_word(&interface.table), "it is put into a rule set");
    assert!(interface.mtu >= 1280, "RFC 8200, 5");
    assert!(interface.queues > 0);
    assert!(settings.listen_port > 0);
    assert!(settings.dns_listen.ip().is_loopback());
    for endpoint in &settings.endpoints {
        assert!(endpoint.port() > 0 && !endpoint.ip().is_unspecified());
    }
}

/// Nothing, everything, and values that are almost good.
pub(crate) fn seeds() -> Vec<Seed> {
    let everything = r#"
state_dir = "/var/lib/mesh/meshd"
socket = "/run/mesh/meshd.sock"
interface = "mesh0"
nft_table = "mesh"
listen_port = 51820
endpoints = ["203.0.113.7:51820", "[2001:db8::7]:51820"]
dns_listen = "127.0.0.150:53"
resolver = "auto"
mtu = 1420
rotate_key_days = 90
shards = 2
cipher = "aes-256-gcm"
metrics = "127.0.0.1:7445"
log_format = "json"
log_level = "info"
"#;
    vec![
        Seed::new("nothing", ""),
        Seed::new("everything", everything),
        Seed::new(
            "off",
            "metrics = \"off\"\nresolver = \"off\"\nshards = \"auto\"",
        ),
        Seed::new("rule-set", "nft_table = \"mesh { }\""),
        Seed::new("small-mtu", "mtu = 1279"),
        Seed::new("no-port", "listen_port = 0"),
        Seed::new("unknown", "listen_prot = 1"),
        Seed::new("public-dns", "dns_listen = \"0.0.0.0:53\""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_are_taken_and_the_others_refused() {
        let refused: Vec<_> = seeds()
            .into_iter()
            .filter(|seed| load(&File::new(&seed.bytes)).is_err())
            .map(|seed| seed.name)
            .collect();
        assert_eq!(
            refused,
            ["rule-set", "small-mtu", "no-port", "unknown", "public-dns"]
        );
    }
}
