//! Debian's HAProxy.

use std::path::Path;

use lab::LabError;

use super::pair::{self, Half, SERVER};
use super::{Contender, Standing};
use crate::link::Link;

/// Two threads as there are cores to share; connections to the next are kept and shared by all clients.
const COMMON: &str = "\
global
    nbthread 2
    maxconn 12000
    no strict-limits
defaults
    mode http
    http-reuse always
    option redispatch
    retries 2
    timeout connect 1s
    timeout client 5m
    timeout server 5m
";

const TLS: &str = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

pub(super) struct Haproxy {
    name: &'static str,
    between: &'static str,
    /// What the two agree to speak.
    protocol: &'static str,
}

impl Haproxy {
    /// As it carries most requests.
    pub(super) fn over_http2() -> Self {
        Self {
            name: "HAProxy",
            between: "TLS 1.3, HTTP/2",
            protocol: "h2",
        }
    }

    /// As it is run more often.
    pub(super) fn over_http1() -> Self {
        Self {
            name: "HAProxy, HTTP/1.1",
            between: "TLS 1.3, HTTP/1.1",
            protocol: "http/1.1",
        }
    }

    fn settings(&self, half: &Half<'_>) -> String {
        let (listen, next) = (half.listen, half.next);
        let joined = half.certificate.joined.display();
        let root = half.certificate.root.display();
        let tls = format!(
            "ssl crt {joined} ca-file {root} verify required {TLS} alpn {}",
            self.protocol
        );
        let (bind, server) = match half.is_near() {
            true => (String::new(), format!("{tls} verifyhost {SERVER}")),
            false => (tls, String::new()),
        };
        format!(
            "{COMMON}frontend in\n    bind {listen} {bind}\n    default_backend out\n\
         backend out\n    server next {next} {server} pool-max-conn -1\n"
        )
    }
}

impl Contender for Haproxy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn between(&self) -> &'static str {
        self.between
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        let line = pair::version(Path::new("haproxy"), "-v")?;
        Ok(line.map(|line| line.split(" 20").next().unwrap_or_default().to_owned()))
    }

    fn stand(&self, link: Link) -> Result<Standing, LabError> {
        pair::stand(link, |half| {
            let file = half.write("haproxy.cfg", &self.settings(half))?;
            Ok(half.launch("haproxy").args(["-db", "-f"]).arg(file))
        })
    }
}
