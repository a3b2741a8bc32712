//! Services and how calls of them are treated.

use std::time::Duration;

use crate::address::HostAddresses;
use crate::limits::Limits;
use crate::rule::{
    BreakerSettings, HealthCheck, HealthProbe, LimitSettings, PerTryTimeout, Protocol,
    RetrySettings, Service, StaticAnswer, Sticky, TrafficSettings,
};
use crate::wire::generated::{health_check, per_try_timeout, sticky};
use crate::wire::{WireError, field, generated};

impl From<Service> for generated::Service {
    fn from(service: Service) -> Self {
        let protocol = match service.protocol {
            Protocol::Tcp => generated::Protocol::Tcp,
            Protocol::Udp => generated::Protocol::Udp,
            Protocol::Http => generated::Protocol::Http,
            Protocol::Grpc => generated::Protocol::Grpc,
            Protocol::Auto => generated::Protocol::Auto,
        };
        let settings = service.settings;
        let addresses = service.addresses;
        Self {
            name: service.name.into(),
            port: service.port.into(),
            protocol: protocol.into(),
            endpoints: service.endpoints.into_iter().map(Into::into).collect(),
            source: Some(service.source.into()),
            workloads: service.workloads.into_iter().map(Into::into).collect(),
            virtual_v4: addresses.map_or_else(Vec::new, |it| it.v4.octets().to_vec()),
            virtual_v6: addresses.map_or_else(Vec::new, |it| it.v6.octets().to_vec()),
            settings: (settings != TrafficSettings::default()).then(|| settings.into()),
        }
    }
}

impl TryFrom<generated::Service> for Service {
    type Error = WireError;

    fn try_from(message: generated::Service) -> Result<Self, WireError> {
        if message.port == 0 {
            return Err(WireError::new(
                "Service.port",
                "0 is not a port to listen on",
            ));
        }
        let settings = message.settings.map(TryInto::try_into).transpose()?;
        Ok(Self {
            name: field::parsed("Service.name", &message.name)?,
            port: field::port("Service.port", message.port)?,
            protocol: protocol(message.protocol)?,
            endpoints: super::hosts("Service.endpoints", message.endpoints)?,
            workloads: field::list(
                "Service.workloads",
                message.workloads,
                Limits::SELECTORS_PER_LIST,
                |name| field::parsed("Service.workloads", &name),
            )?,
            addresses: addresses(&message.virtual_v4, &message.virtual_v6)?,
            settings: settings.unwrap_or_default(),
            source: field::required("Service.source", message.source)?.try_into()?,
        })
    }
}

fn protocol(value: i32) -> Result<Protocol, WireError> {
    match generated::Protocol::try_from(value) {
        Ok(generated::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(generated::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(generated::Protocol::Http) => Ok(Protocol::Http),
        Ok(generated::Protocol::Grpc) => Ok(Protocol::Grpc),
        Ok(generated::Protocol::Auto) => Ok(Protocol::Auto),
        Ok(generated::Protocol::Unspecified) | Err(_) => Err(WireError::new(
            "Service.protocol",
            format!("{value} is unknown"),
        )),
    }
}

fn addresses(v4: &[u8], v6: &[u8]) -> Result<Option<HostAddresses>, WireError> {
    if v4.is_empty() && v6.is_empty() {
        return Ok(None);
    }
    Ok(Some(HostAddresses {
        v4: field::array::<4>("Service.virtual_v4", v4)?.into(),
        v6: field::array::<16>("Service.virtual_v6", v6)?.into(),
    }))
}

impl From<TrafficSettings> for generated::TrafficSettings {
    fn from(settings: TrafficSettings) -> Self {
        let TrafficSettings {
            request_timeout,
            per_try_timeout,
            connect_timeout,
            idle_timeout,
            retry,
            sticky,
            breaker,
            limits,
            health,
            residency,
            fallback,
        } = settings;
        Self {
            request_timeout_ms: millis(request_timeout),
            per_try_timeout: per_try_timeout.map(Into::into),
            connect_timeout_ms: millis(connect_timeout),
            idle_timeout_ms: millis(idle_timeout),
            retry: (retry != RetrySettings::default()).then(|| retry.into()),
            sticky: sticky.map(Into::into),
            breaker: (breaker != BreakerSettings::default()).then(|| breaker.into()),
            limits: (limits != LimitSettings::default()).then(|| limits.into()),
            health: health.map(Into::into),
            residency: residency.into_iter().map(Into::into).collect(),
            fallback: fallback.map(Into::into),
        }
    }
}

impl TryFrom<generated::TrafficSettings> for TrafficSettings {
    type Error = WireError;

    fn try_from(message: generated::TrafficSettings) -> Result<Self, WireError> {
        Ok(Self {
            request_timeout: duration(message.request_timeout_ms),
            per_try_timeout: message.per_try_timeout.map(TryInto::try_into).transpose()?,
            connect_timeout: duration(message.connect_timeout_ms),
            idle_timeout: duration(message.idle_timeout_ms),
            retry: message
                .retry
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            sticky: message.sticky.map(TryInto::try_into).transpose()?,
            breaker: message
                .breaker
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            limits: message.limits.map(Into::into).unwrap_or_default(),
            health: message.health.map(TryInto::try_into).transpose()?,
            residency: field::list(
                "TrafficSettings.residency",
                message.residency,
                Limits::LABELS_PER_HOST,
                TryInto::try_into,
            )?,
            fallback: message.fallback.map(TryInto::try_into).transpose()?,
        })
    }
}

/// 0 stands for what is not set, and nothing lasts less than a millisecond.
fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |it| {
        u64::try_from(it.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}

fn duration(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}

fn counted(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

/// A share of a whole.
fn percent(field: &'static str, value: Option<u32>) -> Result<Option<u32>, WireError> {
    match value {
        Some(more) if more > 100 => Err(WireError::new(
            field,
            format!("{more} per cent, at most 100 there are"),
        )),
        value => Ok(value),
    }
}

impl From<PerTryTimeout> for generated::PerTryTimeout {
    fn from(timeout: PerTryTimeout) -> Self {
        let kind = match timeout {
            PerTryTimeout::Auto => per_try_timeout::Kind::Auto(true),
            PerTryTimeout::Fixed(fixed) => per_try_timeout::Kind::FixedMs(millis(Some(fixed))),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<generated::PerTryTimeout> for PerTryTimeout {
    type Error = WireError;

    fn try_from(message: generated::PerTryTimeout) -> Result<Self, WireError> {
        match field::required("PerTryTimeout.kind", message.kind)? {
            per_try_timeout::Kind::Auto(true) => Ok(Self::Auto),
            per_try_timeout::Kind::Auto(false) => {
                Err(WireError::new("PerTryTimeout.auto", "it is false"))
            }
            per_try_timeout::Kind::FixedMs(fixed) => {
                field::required("PerTryTimeout.fixed_ms", duration(fixed)).map(Self::Fixed)
            }
        }
    }
}

impl From<RetrySettings> for generated::RetrySettings {
    fn from(retry: RetrySettings) -> Self {
        Self {
            attempts: retry.attempts.unwrap_or_default(),
            budget_percent: retry.budget_percent,
            idempotent: retry.idempotent,
        }
    }
}

impl TryFrom<generated::RetrySettings> for RetrySettings {
    type Error = WireError;

    fn try_from(message: generated::RetrySettings) -> Result<Self, WireError> {
        Ok(Self {
            attempts: counted(message.attempts),
            budget_percent: percent("RetrySettings.budget_percent", message.budget_percent)?,
            idempotent: message.idempotent,
        })
    }
}

impl From<Sticky> for generated::Sticky {
    fn from(it: Sticky) -> Self {
        let kind = match it {
            Sticky::Header(name) => sticky::Kind::Header(name.into()),
            Sticky::Cookie(name) => sticky::Kind::Cookie(name),
            Sticky::Identity => sticky::Kind::Identity(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<generated::Sticky> for Sticky {
    type Error = WireError;

    fn try_from(message: generated::Sticky) -> Result<Self, WireError> {
        match field::required("Sticky.kind", message.kind)? {
            sticky::Kind::Header(name) => field::parsed("Sticky.header", &name).map(Self::Header),
            sticky::Kind::Cookie(name) => field::text("Sticky.cookie", name).map(Self::Cookie),
            sticky::Kind::Identity(true) => Ok(Self::Identity),
            sticky::Kind::Identity(false) => Err(WireError::new("Sticky.identity", "it is false")),
        }
    }
}

impl From<BreakerSettings> for generated::BreakerSettings {
    fn from(breaker: BreakerSettings) -> Self {
        Self {
            consecutive_failures: breaker.consecutive_failures.unwrap_or_default(),
            success_rate_percent: breaker.success_rate_percent,
            penalty_ms: millis(breaker.penalty),
            ejected_percent_max: breaker.ejected_percent_max,
        }
    }
}

impl TryFrom<generated::BreakerSettings> for BreakerSettings {
    type Error = WireError;

    fn try_from(message: generated::BreakerSettings) -> Result<Self, WireError> {
        Ok(Self {
            consecutive_failures: counted(message.consecutive_failures),
            success_rate_percent: percent(
                "BreakerSettings.success_rate_percent",
                message.success_rate_percent,
            )?,
            penalty: duration(message.penalty_ms),
            ejected_percent_max: percent(
                "BreakerSettings.ejected_percent_max",
                message.ejected_percent_max,
            )?,
        })
    }
}

impl From<LimitSettings> for generated::LimitSettings {
    fn from(limits: LimitSettings) -> Self {
        Self {
            in_flight: limits.in_flight.unwrap_or_default(),
            waiting: limits.waiting,
            wait_ms: millis(limits.wait),
        }
    }
}

impl From<generated::LimitSettings> for LimitSettings {
    fn from(message: generated::LimitSettings) -> Self {
        Self {
            in_flight: counted(message.in_flight),
            waiting: message.waiting,
            wait: duration(message.wait_ms),
        }
    }
}

impl From<HealthCheck> for generated::HealthCheck {
    fn from(health: HealthCheck) -> Self {
        let probe = match health.probe {
            HealthProbe::Tcp => health_check::Probe::Tcp(true),
            HealthProbe::Http { path } => health_check::Probe::HttpPath(path.into()),
            HealthProbe::Unit => health_check::Probe::Unit(true),
        };
        Self {
            probe: Some(probe),
            interval_ms: millis(health.interval),
            timeout_ms: millis(health.timeout),
        }
    }
}

impl TryFrom<generated::HealthCheck> for HealthCheck {
    type Error = WireError;

    fn try_from(message: generated::HealthCheck) -> Result<Self, WireError> {
        let probe = match field::required("HealthCheck.probe", message.probe)? {
            health_check::Probe::Tcp(true) => HealthProbe::Tcp,
            health_check::Probe::Unit(true) => HealthProbe::Unit,
            health_check::Probe::HttpPath(path) => HealthProbe::Http {
                path: field::parsed("HealthCheck.http_path", &path)?,
            },
            health_check::Probe::Tcp(false) | health_check::Probe::Unit(false) => {
                return Err(WireError::new("HealthCheck.probe", "it is false"));
            }
        };
        Ok(Self {
            probe,
            interval: duration(message.interval_ms),
            timeout: duration(message.timeout_ms),
        })
    }
}

impl From<StaticAnswer> for generated::StaticAnswer {
    fn from(answer: StaticAnswer) -> Self {
        Self {
            status: answer.status.into(),
            content_type: answer.content_type,
            body: answer.body,
        }
    }
}

impl TryFrom<generated::StaticAnswer> for StaticAnswer {
    type Error = WireError;

    fn try_from(message: generated::StaticAnswer) -> Result<Self, WireError> {
        let status = u16::try_from(message.status).ok();
        let status = status.filter(|status| (200..=599).contains(status));
        let status = status.ok_or_else(|| {
            let why = format!("{} is not the status of an answer", message.status);
            WireError::new("StaticAnswer.status", why)
        })?;
        field::at_most(
            "StaticAnswer.body",
            message.body.len(),
            Limits::FALLBACK_BODY_BYTES,
        )?;
        Ok(Self {
            status,
            content_type: field::text("StaticAnswer.content_type", message.content_type)?,
            body: message.body,
        })
    }
}
