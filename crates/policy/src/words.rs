//! Parts of a bundle as the language writes them, on one line: for a bundle that is written anew, and
//! for what differs between two.

use std::time::Duration;

use model::rule::{
    BreakerSettings, HeaderValue, HealthCheck, HealthProbe, HttpMatch, LimitSettings,
    PerTryTimeout, RetrySettings, StaticAnswer, Sticky, TrafficSettings, When,
};

use crate::document::Shown;

/// Returns a text in quotes, whatever is in it.
pub(crate) fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("texts have no failing serialisers")
}

/// Returns `{ key: value, … }` of what is there.
pub(crate) fn mapping<'k>(parts: impl IntoIterator<Item = (&'k str, Option<String>)>) -> String {
    let there = parts
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
    format!("{{ {} }}", there.collect::<Vec<_>>().join(", "))
}

/// Returns an entry of `http`: in the short form where that says all.
pub(crate) fn http(entry: &HttpMatch) -> String {
    if entry.host.is_none() && entry.headers.is_empty() {
        return quote(&entry.to_string());
    }
    let methods = entry.methods.iter().map(|method| quote(method.as_str()));
    let methods: Vec<String> = methods.collect();
    let headers = entry.headers.iter().map(|header| {
        let value = match &header.value {
            HeaderValue::Present => "*".to_owned(),
            HeaderValue::Exact(text) => text.to_string(),
            HeaderValue::Prefix(text) => format!("{text}*"),
        };
        format!("{}: {}", quote(header.name.as_str()), quote(&value))
    });
    let headers: Vec<String> = headers.collect();
    mapping([
        (
            "methods",
            (!methods.is_empty()).then(|| format!("[{}]", methods.join(", "))),
        ),
        ("path", Some(quote(entry.path.as_str()))),
        ("host", entry.host.as_ref().map(|host| quote(host.as_str()))),
        (
            "headers",
            (!headers.is_empty()).then(|| format!("{{ {} }}", headers.join(", "))),
        ),
    ])
}

/// Returns when a rule holds.
pub(crate) fn when(when: &When) -> String {
    let time = when
        .hours
        .map(|hours| quote(&format!("{}-{}", hours.from, hours.until)));
    mapping([
        ("days", Some(quote(&when.days.to_string()))),
        ("time", time),
        ("zone", Some(quote(when.zone.as_str()))),
    ])
}

/// Returns the settings of a service that are set, by their keys.
pub(crate) fn settings(settings: &TrafficSettings) -> Vec<(&'static str, String)> {
    let TrafficSettings {
        request_timeout,
        per_try_timeout,
        connect_timeout,
        idle_timeout,
        retry,
        sticky: kept_by,
        breaker,
        limits,
        health: checked_by,
        residency,
        fallback: answer,
    } = settings;
    let per_try = per_try_timeout.map(|it| match it {
        PerTryTimeout::Auto => "auto".to_owned(),
        PerTryTimeout::Fixed(fixed) => Shown(fixed).to_string(),
    });
    let timeouts = [
        ("request", time(*request_timeout)),
        ("per_try", per_try),
        ("connect", time(*connect_timeout)),
        ("idle", time(*idle_timeout)),
    ];
    let has_timeouts = timeouts.iter().any(|(_, value)| value.is_some());
    let labels: Vec<String> = residency.iter().map(ToString::to_string).collect();
    let parts = [
        ("timeout", has_timeouts.then(|| mapping(timeouts))),
        ("retry", retrying(retry)),
        ("sticky", kept_by.as_ref().map(sticky)),
        ("breaker", breaking(breaker)),
        ("limits", limiting(limits)),
        ("health", checked_by.as_ref().map(health)),
        (
            "residency",
            (!labels.is_empty()).then(|| quote(&labels.join(","))),
        ),
        ("fallback", answer.as_ref().map(fallback)),
    ];
    parts
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

fn time(duration: Option<Duration>) -> Option<String> {
    duration.map(|it| Shown(it).to_string())
}

fn percent(share: Option<u32>) -> Option<String> {
    share.map(|it| format!("{it}%"))
}

fn number(count: Option<u32>) -> Option<String> {
    count.map(|it| it.to_string())
}

fn retrying(retry: &RetrySettings) -> Option<String> {
    (*retry != RetrySettings::default()).then(|| {
        mapping([
            ("attempts", number(retry.attempts)),
            ("budget", percent(retry.budget_percent)),
            ("idempotent", retry.idempotent.then(|| "true".to_owned())),
        ])
    })
}

fn sticky(kept_by: &Sticky) -> String {
    match kept_by {
        Sticky::Header(name) => quote(&format!("header:{name}")),
        Sticky::Cookie(name) => quote(&format!("cookie:{name}")),
        Sticky::Identity => "identity".to_owned(),
    }
}

fn breaking(breaker: &BreakerSettings) -> Option<String> {
    (*breaker != BreakerSettings::default()).then(|| {
        mapping([
            ("failures", number(breaker.consecutive_failures)),
            ("success_rate", percent(breaker.success_rate_percent)),
            ("penalty", time(breaker.penalty)),
            ("ejected_max", percent(breaker.ejected_percent_max)),
        ])
    })
}

fn limiting(limits: &LimitSettings) -> Option<String> {
    (*limits != LimitSettings::default()).then(|| {
        mapping([
            ("in_flight", number(limits.in_flight)),
            ("waiting", number(limits.waiting)),
            ("wait", time(limits.wait)),
        ])
    })
}

fn health(check: &HealthCheck) -> String {
    let probe = match &check.probe {
        HealthProbe::Tcp => "tcp".to_owned(),
        HealthProbe::Unit => "unit".to_owned(),
        HealthProbe::Http { path } => quote(&format!("http {path}")),
    };
    mapping([
        ("check", Some(probe)),
        ("interval", time(check.interval)),
        ("timeout", time(check.timeout)),
    ])
}

fn fallback(answer: &StaticAnswer) -> String {
    let text = |text: &str| (!text.is_empty()).then(|| quote(text));
    mapping([
        ("status", Some(answer.status.to_string())),
        ("type", text(&answer.content_type)),
        ("body", text(&answer.body)),
    ])
}
