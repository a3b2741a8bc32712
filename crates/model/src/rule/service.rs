//! Services: names with endpoints, and how calls of them are balanced, repeated and limited.

use std::time::Duration;

use super::{Selector, Source, ip_protocol};
use crate::address::HostAddresses;
use crate::name::{Label, Name};

use super::http::{HeaderName, PathPattern};

/// A name with endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Resolves as `NAME.SUFFIX` to its own addresses, or else to the endpoints'.
    pub name: Name,
    /// Where its endpoints listen, not 0.
    pub port: u16,
    /// What they speak.
    pub protocol: Protocol,
    /// The hosts that offer it: `any`, hosts or labels, never a service. Those of the workloads
    /// that it was described with are among them.
    pub endpoints: Vec<Selector>,
    /// The workloads that offer it, if it was described with them.
    pub workloads: Vec<Name>,
    /// Its own addresses, that of no host. Given when a policy is applied; `None`: it is reached at
    /// its endpoints' addresses.
    pub addresses: Option<HostAddresses>,
    /// How calls of it are treated.
    pub settings: TrafficSettings,
    /// Where it was written.
    pub source: Source,
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Bytes over TCP.
    Tcp,
    /// Datagrams over UDP.
    Udp,
    /// HTTP/1.1 or HTTP/2, without TLS of the application.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP where a connection begins so, else bytes over TCP.
    Auto,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::Http, Self::Grpc, Self::Auto];

    /// Returns the IANA protocol number.
    pub const fn ip_protocol(self) -> u8 {
        match self {
            Self::Tcp | Self::Http | Self::Grpc | Self::Auto => ip_protocol::TCP,
            Self::Udp => ip_protocol::UDP,
        }
    }

    /// Returns the word of the policy language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }

    /// Returns whether every call of it is a request.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }
}

/// How calls of a service are treated; what is not set has the default of `traffic`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSettings {
    /// From the first byte of a request to the first of its answer's body, all attempts together.
    pub request_timeout: Option<Duration>,
    /// One attempt of a request.
    pub per_try_timeout: Option<PerTryTimeout>,
    /// Until an endpoint accepts.
    pub connect_timeout: Option<Duration>,
    /// Without a byte in either direction.
    pub idle_timeout: Option<Duration>,
    /// When a failed request is sent again.
    pub retry: RetrySettings,
    /// What keeps a caller at one endpoint.
    pub sticky: Option<Sticky>,
    /// When an endpoint is left alone for a while.
    pub breaker: BreakerSettings,
    /// How much of it one caller host may do at once.
    pub limits: LimitSettings,
    /// How endpoints are asked whether they are well; `None`: they are not.
    pub health: Option<HealthCheck>,
    /// Labels that an endpoint's host has to have, all of them, whatever else is down.
    pub residency: Vec<Label>,
    /// What is answered when no endpoint is left.
    pub fallback: Option<StaticAnswer>,
}

/// How long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerTryTimeout {
    /// By what was measured.
    Auto,
    /// So long.
    Fixed(Duration),
}

/// When a failed request is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetrySettings {
    /// Of a request, the first included; 1: never again.
    pub attempts: Option<u32>,
    /// Retries in per cent of requests.
    pub budget_percent: Option<u32>,
    /// Every request may be sent again after an answer of 502, 503 or 504, whatever its method.
    pub idempotent: bool,
}

/// What keeps a caller at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie, that the application sets.
    Cookie(String),
    /// Who calls: the workload and its host.
    Identity,
}

/// When an endpoint is left alone for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures one after the other.
    pub consecutive_failures: Option<u32>,
    /// Successes in per cent of requests, at the least.
    pub success_rate_percent: Option<u32>,
    /// For how long at first.
    pub penalty: Option<Duration>,
    /// Endpoints in per cent that may be left alone at once.
    pub ejected_percent_max: Option<u32>,
}

/// How much one caller host may do at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests that are not answered, or connections.
    pub in_flight: Option<u32>,
    /// Requests that wait to be sent.
    pub waiting: Option<u32>,
    /// How long one waits.
    pub wait: Option<Duration>,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// How often.
    pub interval: Option<Duration>,
    /// For how long an answer is waited for.
    pub timeout: Option<Duration>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether it answers this path with a status of 200 to 399.
    Http {
        /// Without `*`.
        path: PathPattern,
    },
    /// Whether the systemd unit of its workload is active.
    Unit,
}

/// What is answered in place of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticAnswer {
    /// From 200 to 599.
    pub status: u16,
    /// Of the body; empty where there is none.
    pub content_type: String,
    /// The text of it.
    pub body: String,
}
