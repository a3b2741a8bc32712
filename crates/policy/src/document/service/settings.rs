//! How calls of a service are treated: `timeout`, `retry`, `sticky`, `breaker`, `limits`, `health`,
//! `residency`, `fallback`. A value that would hurt is refused with the reason, and one that the
//! protocol cannot hold too.

use std::time::Duration;

use model::limits::Limits;
use model::name::Label;
use model::rule::{
    BreakerSettings, HealthCheck, HealthProbe, LimitSettings, PerTryTimeout, Protocol,
    RetrySettings, StaticAnswer, Sticky, TrafficSettings,
};

use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::document::http::header_name;
use crate::document::quantity::{Bounds, Shown, count, duration, percent};
use crate::document::reader::{Fields, Section, present, text};
use crate::document::selector;
use crate::yaml::{Node, Value};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const REQUEST: Bounds<Duration> = Bounds {
    least: millis(10),
    most: secs(3600),
    why: "less would fail every request, more keeps what never answers; streams end by `idle`",
};
const CONNECT: Bounds<Duration> = Bounds {
    least: millis(10),
    most: secs(30),
    why: "a host that accepts nothing for longer is down: another endpoint is tried",
};
const IDLE: Bounds<Duration> = Bounds {
    least: secs(1),
    most: secs(24 * 3600),
    why: "less would cut connections that only pause, more keeps what nobody uses",
};
const ATTEMPTS: Bounds<u32> = Bounds {
    least: 1,
    most: 5,
    why: "each attempt more multiplies the load when a service fails; 1 sends nothing again",
};
const BUDGET: Bounds<u32> = Bounds {
    least: 0,
    most: 100,
    why: "retries beyond the requests themselves keep a service down that is failing",
};
const FAILURES: Bounds<u32> = Bounds {
    least: 1,
    most: 1000,
    why: "an endpoint that fails more often in a row is tried all the same",
};
const SUCCESS_RATE: Bounds<u32> = Bounds {
    least: 1,
    most: 99,
    why: "100% would leave out every endpoint at its first error",
};
const PENALTY: Bounds<Duration> = Bounds {
    least: millis(100),
    most: secs(300),
    why: "less tries a broken endpoint over and over, more leaves out one that is well again",
};
const EJECTED: Bounds<u32> = Bounds {
    least: 0,
    most: 90,
    why: "with more left out, the few that are left would break next",
};
const IN_FLIGHT: Bounds<u32> = Bounds {
    least: 1,
    most: 1_000_000,
    why: "0 would refuse every request: deny it instead",
};
const WAITING: Bounds<u32> = Bounds {
    least: 0,
    most: 100_000,
    why: "what waits takes memory, and was given up by its caller long before",
};
const WAIT: Bounds<Duration> = Bounds {
    least: millis(1),
    most: secs(30),
    why: "a caller that waits longer has given up",
};
const INTERVAL: Bounds<Duration> = Bounds {
    least: millis(500),
    most: secs(600),
    why: "less is load of its own, more says nothing of now",
};
const CHECK_TIMEOUT: Bounds<Duration> = Bounds {
    least: millis(10),
    most: secs(60),
    why: "what takes longer is not well",
};

/// Reads all settings of a service.
pub(super) fn read(
    fields: &Fields<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> Option<TrafficSettings> {
    let times = present(fields, "timeout", report, |node, report| {
        timeout(node, protocol, report)
    });
    let retry = present(fields, "retry", report, retry);
    let sticky = present(fields, "sticky", report, |node, report| {
        sticky_by(node, protocol, report)
    });
    let breaker = present(fields, "breaker", report, breaker);
    let limits = present(fields, "limits", report, limits);
    let health = present(fields, "health", report, health);
    let residency = present(fields, "residency", report, residency);
    let fallback = present(fields, "fallback", report, fallback);
    let times = times?.unwrap_or_default();
    let fits = protocol.is_none_or(|protocol| check_protocol(fields, protocol, report));
    fits.then_some(TrafficSettings {
        request_timeout: times.request,
        per_try_timeout: times.per_try,
        connect_timeout: times.connect,
        idle_timeout: times.idle,
        retry: retry?.unwrap_or_default(),
        sticky: sticky?,
        breaker: breaker?.unwrap_or_default(),
        limits: limits?.unwrap_or_default(),
        health: health?,
        residency: residency?.unwrap_or_default(),
        fallback: fallback?,
    })
}

/// What only requests have.
const OF_REQUESTS: [&str; 2] = ["retry", "fallback"];

const OF_ALL: [&str; 8] = [
    "timeout",
    "retry",
    "sticky",
    "breaker",
    "limits",
    "health",
    "residency",
    "fallback",
];

fn check_protocol(fields: &Fields<'_>, protocol: Protocol, report: &mut Report<'_>) -> bool {
    let (cannot, why): (&[&str], &str) = match protocol {
        Protocol::Http | Protocol::Grpc | Protocol::Auto => return true,
        Protocol::Tcp => (
            &OF_REQUESTS,
            "it is about requests, and the service speaks tcp",
        ),
        Protocol::Udp => (&OF_ALL, "datagrams go straight to the endpoints"),
    };
    let mut fits = true;
    for key in cannot {
        if let Some(node) = fields.node(key) {
            let message = format!(
                "`{key}` cannot hold for a service of protocol {}: {why}",
                protocol.as_str()
            );
            let help = format!("remove `{key}`, or say `protocol: http` (or `auto`)");
            report.error(node.place, Complaint::new(message).help(help));
            fits = false;
        }
    }
    fits
}

#[derive(Default)]
struct Times {
    request: Option<Duration>,
    per_try: Option<PerTryTimeout>,
    connect: Option<Duration>,
    idle: Option<Duration>,
}

fn timeout(node: &Node, protocol: Option<Protocol>, report: &mut Report<'_>) -> Option<Times> {
    let has_requests = protocol != Some(Protocol::Tcp);
    let times = match node.value {
        Value::Map(_) => {
            let fields = Fields::read(node, Section::Timeout, report)?;
            let mut time = |key: &str, bounds: &Bounds<Duration>| {
                present(&fields, key, report, |node, report| {
                    duration(node, key, bounds, report)
                })
            };
            let (request, connect, idle) = (
                time("request", &REQUEST),
                time("connect", &CONNECT),
                time("idle", &IDLE),
            );
            let per_try = present(&fields, "per_try", report, per_try);
            Times {
                request: request?,
                per_try: per_try?,
                connect: connect?,
                idle: idle?,
            }
        }
        _ => Times {
            request: Some(duration(node, "timeout", &REQUEST, report)?),
            ..Times::default()
        },
    };
    if !has_requests && (times.request.is_some() || times.per_try.is_some()) {
        let message = "a timeout of requests cannot hold for a service of protocol tcp";
        let help = "say `connect` or `idle`, or `protocol: http` (or `auto`)";
        report.error(node.place, Complaint::new(message).help(help));
        return None;
    }
    if let (Some(PerTryTimeout::Fixed(one)), Some(all)) = (times.per_try, times.request)
        && one >= all
    {
        let message = format!(
            "`per_try` is {}, which leaves no time for another try within {}",
            Shown(one),
            Shown(all)
        );
        let help = "make it less than `request`, or write `auto`";
        report.error(node.place, Complaint::new(message).help(help));
        return None;
    }
    Some(times)
}

fn per_try(node: &Node, report: &mut Report<'_>) -> Option<PerTryTimeout> {
    match &node.value {
        Value::Text { text, .. } if &**text == "auto" => Some(PerTryTimeout::Auto),
        _ => duration(node, "per_try", &REQUEST, report).map(PerTryTimeout::Fixed),
    }
}

fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::Text { text, .. } if matches!(&**text, "off" | "false"))
}

fn retry(node: &Node, report: &mut Report<'_>) -> Option<RetrySettings> {
    if is_off(node) {
        return Some(RetrySettings {
            attempts: Some(1),
            ..RetrySettings::default()
        });
    }
    let fields = Fields::read(node, Section::Retry, report)?;
    let attempts = present(&fields, "attempts", report, |node, report| {
        count(node, "attempts", &ATTEMPTS, report)
    });
    let budget = present(&fields, "budget", report, |node, report| {
        percent(node, "budget", &BUDGET, report)
    });
    let idempotent = present(&fields, "idempotent", report, |node, report| {
        crate::document::rule::truth(node, "idempotent", report)
    });
    Some(RetrySettings {
        attempts: attempts?,
        budget_percent: budget?,
        idempotent: idempotent?.unwrap_or_default(),
    })
}

fn sticky_by(node: &Node, protocol: Option<Protocol>, report: &mut Report<'_>) -> Option<Sticky> {
    let written = text(node, "`sticky`", report)?;
    let parsed = match written.split_once(':') {
        None if written == "identity" => Ok(Sticky::Identity),
        Some(("header", name)) => header_name(name.trim()).map(Sticky::Header),
        Some(("cookie", name)) => cookie(name.trim()),
        _ => Err(
            Complaint::new(format!("{} keeps nobody at an endpoint", quoted(written)))
                .help("write `\"header:x-user\"`, `\"cookie:session\"` or `identity`"),
        ),
    };
    let sticky = report.check(node.place, parsed)?;
    if protocol == Some(Protocol::Tcp) && sticky != Sticky::Identity {
        let message = format!(
            "{} cannot hold for a service of protocol tcp",
            quoted(written)
        );
        let help = "write `sticky: identity`, or say `protocol: http` (or `auto`)";
        report.error(node.place, Complaint::new(message).help(help));
        return None;
    }
    Some(sticky)
}

fn cookie(name: &str) -> Result<Sticky, Complaint> {
    // A token of RFC 6265 4.1.1.
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        Ok(Sticky::Cookie(name.to_owned()))
    } else {
        Err(Complaint::new(format!(
            "{} is not the name of a cookie",
            quoted(name)
        )))
    }
}

fn breaker(node: &Node, report: &mut Report<'_>) -> Option<BreakerSettings> {
    let fields = Fields::read(node, Section::Breaker, report)?;
    let failures = present(&fields, "failures", report, |node, report| {
        count(node, "failures", &FAILURES, report)
    });
    let success_rate = present(&fields, "success_rate", report, |node, report| {
        percent(node, "success_rate", &SUCCESS_RATE, report)
    });
    let penalty = present(&fields, "penalty", report, |node, report| {
        duration(node, "penalty", &PENALTY, report)
    });
    let ejected = present(&fields, "ejected_max", report, |node, report| {
        percent(node, "ejected_max", &EJECTED, report)
    });
    Some(BreakerSettings {
        consecutive_failures: failures?,
        success_rate_percent: success_rate?,
        penalty: penalty?,
        ejected_percent_max: ejected?,
    })
}

fn limits(node: &Node, report: &mut Report<'_>) -> Option<LimitSettings> {
    let fields = Fields::read(node, Section::Limits, report)?;
    let mut number = |key: &str, bounds: &Bounds<u32>| {
        present(&fields, key, report, |node, report| {
            count(node, key, bounds, report)
        })
    };
    let (in_flight, waiting) = (number("in_flight", &IN_FLIGHT), number("waiting", &WAITING));
    let wait = present(&fields, "wait", report, |node, report| {
        duration(node, "wait", &WAIT, report)
    });
    Some(LimitSettings {
        in_flight: in_flight?,
        waiting: waiting?,
        wait: wait?,
    })
}

fn health(node: &Node, report: &mut Report<'_>) -> Option<HealthCheck> {
    let Value::Map(_) = node.value else {
        return Some(HealthCheck {
            probe: probe(node, report)?,
            interval: None,
            timeout: None,
        });
    };
    let fields = Fields::read(node, Section::Health, report)?;
    let check = fields.required("check", node.place, report, || {
        Complaint::new("`health` does not say what is asked")
            .help("add `check: tcp`, `check: unit` or `check: \"http /healthz\"`")
    });
    let probe = check.and_then(|node| probe(node, report));
    let mut time = |key: &str, bounds: &Bounds<Duration>| {
        present(&fields, key, report, |node, report| {
            duration(node, key, bounds, report)
        })
    };
    let (interval, timeout) = (time("interval", &INTERVAL), time("timeout", &CHECK_TIMEOUT));
    Some(HealthCheck {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
    })
}

fn probe(node: &Node, report: &mut Report<'_>) -> Option<HealthProbe> {
    let written = text(node, "`health`", report)?;
    let parsed = match written.split_once(' ') {
        None if written == "tcp" => Ok(HealthProbe::Tcp),
        None if written == "unit" => Ok(HealthProbe::Unit),
        Some(("http", path)) if !path.contains('*') => {
            let parsed = path.trim().parse();
            let parsed = parsed.map_err(|error: model::name::InvalidName| {
                Complaint::new(error.to_string()).help("write `http /healthz`")
            });
            parsed.map(|path| HealthProbe::Http { path })
        }
        _ => Err(
            Complaint::new(format!("{} is not a check", quoted(written)))
                .help("write `tcp`, `unit` or `\"http /healthz\"`"),
        ),
    };
    report.check(node.place, parsed)
}

fn residency(node: &Node, report: &mut Report<'_>) -> Option<Vec<Label>> {
    let written = text(node, "`residency`", report)?;
    report.check(node.place, selector::labels(written))
}

fn fallback(node: &Node, report: &mut Report<'_>) -> Option<StaticAnswer> {
    const STATUS: Bounds<u32> = Bounds {
        least: 200,
        most: 599,
        why: "it is the status of an answer",
    };
    let fields = Fields::read(node, Section::Fallback, report)?;
    let status = fields.required("status", node.place, report, || {
        Complaint::new("`fallback` has no `status`").help("for example `status: 503`")
    });
    let status = status.and_then(|node| count(node, "status", &STATUS, report));
    let content_type = present(&fields, "type", report, |node, report| {
        let written = text(node, "`type`", report)?;
        let is_right = written.contains('/')
            && written.len() <= 128
            && written.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        is_right.then(|| written.to_owned()).or_else(|| {
            let message = format!("{} is not a type of content", quoted(written));
            report.error(
                node.place,
                Complaint::new(message).help("for example `application/json`"),
            );
            None
        })
    });
    let body = present(&fields, "body", report, |node, report| {
        let written = text(node, "`body`", report)?;
        if let Some(status @ (204 | 205 | 304)) = status
            && !written.is_empty()
        {
            // RFC 9110, 15.3.5, 15.3.6 and 15.4.5.
            let message = format!("an answer with the status {status} has no body");
            let help = "leave `body` out, or answer with `status: 200`";
            report.error(node.place, Complaint::new(message).help(help));
            return None;
        }
        check_length(written, node.place, report).then(|| written.to_owned())
    });
    let body = body?.unwrap_or_default();
    let plain = || {
        if body.is_empty() {
            ""
        } else {
            "text/plain; charset=utf-8"
        }
    };
    Some(StaticAnswer {
        status: u16::try_from(status?).ok()?,
        content_type: content_type?.unwrap_or_else(|| plain().to_owned()),
        body,
    })
}

fn check_length(body: &str, place: Place, report: &mut Report<'_>) -> bool {
    let fits = body.len() <= Limits::FALLBACK_BODY_BYTES;
    if !fits {
        let most = Limits::FALLBACK_BODY_BYTES;
        let message = format!(
            "{} bytes are too many: an answer has at most {most}",
            body.len()
        );
        report.error(place, Complaint::new(message));
    }
    fits
}
