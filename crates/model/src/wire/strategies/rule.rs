//! Arbitrary leaves of policy bundles. Boxed where they are large: a test has 2 MiB of stack.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{host, label_pair, name, rule_id, text};
use crate::address::HostAddresses;
use crate::name::Label;
use crate::rule::{
    BreakerSettings, CipherDemand, Days, Denies, HeaderMatch, HeaderName, HeaderText, HeaderValue,
    HealthCheck, HealthProbe, Hours, HttpMatch, Leaf, LimitSettings, PerTryTimeout, PortRange,
    Protocol, RetrySettings, Rule, Selector, Service, Source, StaticAnswer, Sticky, TimeOfDay,
    Traffic, TrafficSettings, When, Workload,
};

pub(super) fn source() -> impl Strategy<Value = Source> {
    (text(), any::<u32>()).prop_map(|(file, line)| Source { file, line })
}

fn endpoint_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::Any),
        (name(), option::of(host())).prop_map(|(name, id)| Selector::Host { name, id }),
        vec(label_pair().prop_map(Label::from), 1..4).prop_map(Selector::Labels),
    ]
}

fn service_selector() -> impl Strategy<Value = Selector> {
    name().prop_map(Selector::Service)
}

fn port_ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    });
    vec(range, 0..4)
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        Just(Traffic::All),
        (port_ranges(), port_ranges()).prop_map(|(tcp, udp)| {
            let icmp = tcp.is_empty() && udp.is_empty();
            Traffic::Ports { tcp, udp, icmp }
        }),
    ]
}

fn rule() -> BoxedStrategy<Rule> {
    let selector = || prop_oneof![endpoint_selector(), service_selector()];
    let plain = (vec(selector(), 1..4), traffic());
    let to_services = vec(service_selector(), 1..4).prop_map(|to| (to, Traffic::Service));
    let from = vec(
        prop_oneof![selector(), name().prop_map(Selector::Workload)],
        1..4,
    );
    let words = (rule_id(), from, prop_oneof![plain, to_services], source());
    (words, vec(http_match(), 0..3), option::of(when()))
        .prop_map(|((id, from, (to, traffic), source), http, when)| Rule {
            id,
            from,
            to,
            traffic,
            http,
            when,
            source,
        })
        .boxed()
}

fn http_match() -> BoxedStrategy<HttpMatch> {
    let methods = vec("[A-Z]{3,7}".prop_map(|text| text.parse().unwrap()), 0..3);
    let path = "(/[a-z0-9é-]{1,5}|/\\*){1,4}(/\\*\\*)?".prop_map(|text| text.parse().unwrap());
    let host =
        option::of("(\\*\\.)?[a-z0-9]{1,9}\\.[a-z]{2,3}".prop_map(|text| text.parse().unwrap()));
    let headers = vec((header_name(), header_value()), 0..3).prop_map(|headers| {
        let header = |(name, value)| HeaderMatch { name, value };
        headers.into_iter().map(header).collect()
    });
    (methods, path, host, headers)
        .prop_map(|(methods, path, host, headers)| HttpMatch {
            methods,
            path,
            host,
            headers,
        })
        .boxed()
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z0-9-]{1,9}".prop_map(|text| text.parse().unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let text = || "[a-zA-Z0-9=;]{1,9}".prop_map(|text| text.parse::<HeaderText>().unwrap());
    prop_oneof![
        Just(HeaderValue::Present),
        text().prop_map(HeaderValue::Exact),
        text().prop_map(HeaderValue::Prefix),
    ]
}

fn when() -> BoxedStrategy<When> {
    let time = || (0..TimeOfDay::MINUTES).prop_map(|it| TimeOfDay::from_minutes(it).unwrap());
    let hours = option::of((time(), time()).prop_map(|(from, until)| Hours { from, until }));
    let days = (1u8..128).prop_map(|bits| Days::from_bits(bits).unwrap());
    (days, hours)
        .prop_map(|(days, hours)| When {
            days,
            hours,
            zone: "Europe/Paris".parse().unwrap(),
        })
        .boxed()
}

fn workload() -> BoxedStrategy<Workload> {
    let unit = "[a-z]{1,9}@?\\*?\\.service".prop_map(|text| text.parse().unwrap());
    let user = option::of("[a-z]{1,9}".prop_map(|text| text.parse().unwrap()));
    let hosts = vec(endpoint_selector(), 1..4);
    (name(), unit, user, hosts, source())
        .prop_map(|(name, unit, user, hosts, source)| Workload {
            name,
            unit: Some(unit),
            user,
            hosts,
            source,
        })
        .boxed()
}

fn some_time() -> impl Strategy<Value = Option<Duration>> {
    option::of((1u64..100_000).prop_map(Duration::from_millis))
}

fn retry_and_breaker() -> BoxedStrategy<(RetrySettings, BreakerSettings, LimitSettings)> {
    let percent = || option::of(0u32..=100);
    let count = || option::of(1u32..9);
    (
        (count(), percent(), any::<bool>()),
        (count(), percent(), some_time(), percent()),
        (count(), option::of(0u32..9), some_time()),
    )
        .prop_map(|(retry, breaker, limits)| {
            let (attempts, budget_percent, idempotent) = retry;
            let (consecutive_failures, success_rate_percent, penalty, ejected_percent_max) =
                breaker;
            let (in_flight, waiting, wait) = limits;
            (
                RetrySettings {
                    attempts,
                    budget_percent,
                    idempotent,
                },
                BreakerSettings {
                    consecutive_failures,
                    success_rate_percent,
                    penalty,
                    ejected_percent_max,
                },
                LimitSettings {
                    in_flight,
                    waiting,
                    wait,
                },
            )
        })
        .boxed()
}

fn settings() -> BoxedStrategy<TrafficSettings> {
    let per_try = prop_oneof![
        Just(PerTryTimeout::Auto),
        (1u64..9999).prop_map(|ms| PerTryTimeout::Fixed(Duration::from_millis(ms))),
    ];
    let sticky = prop_oneof![
        header_name().prop_map(Sticky::Header),
        "[a-z]{1,9}".prop_map(Sticky::Cookie),
        Just(Sticky::Identity),
    ];
    let probe = prop_oneof![
        Just(HealthProbe::Tcp),
        Just(HealthProbe::Unit),
        Just(HealthProbe::Http {
            path: "/healthz".parse().unwrap()
        }),
    ];
    let health =
        (probe, some_time(), some_time()).prop_map(|(probe, interval, timeout)| HealthCheck {
            probe,
            interval,
            timeout,
        });
    let fallback =
        (200u16..600, text(), text()).prop_map(|(status, content_type, body)| StaticAnswer {
            status,
            content_type,
            body,
        });
    let residency = vec(label_pair().prop_map(Label::from), 0..3);
    let times = (some_time(), option::of(per_try), some_time(), some_time());
    (
        times,
        retry_and_breaker(),
        option::of(sticky),
        option::of(health),
        residency,
        option::of(fallback),
    )
        .prop_map(
            |(times, (retry, breaker, limits), sticky, health, residency, fallback)| {
                let (request_timeout, per_try_timeout, connect_timeout, idle_timeout) = times;
                TrafficSettings {
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
                }
            },
        )
        .boxed()
}

fn service() -> BoxedStrategy<Service> {
    let addresses = (any::<[u8; 4]>(), any::<[u8; 16]>()).prop_map(|(v4, v6)| HostAddresses {
        v4: v4.into(),
        v6: v6.into(),
    });
    let words = (
        name(),
        1..u16::MAX,
        select(Protocol::ALL.to_vec()),
        source(),
    );
    let endpoints = (vec(endpoint_selector(), 0..4), vec(name(), 0..3));
    (words, endpoints, option::of(addresses), settings())
        .prop_map(
            |((name, port, protocol, source), (endpoints, workloads), addresses, settings)| {
                Service {
                    name,
                    port,
                    protocol,
                    endpoints,
                    workloads,
                    addresses,
                    settings,
                    source,
                }
            },
        )
        .boxed()
}

fn cipher_demand() -> impl Strategy<Value = CipherDemand> {
    prop_oneof![Just(CipherDemand::AsOffered), Just(CipherDemand::Standard)]
}

pub(in crate::wire) fn leaf() -> BoxedStrategy<Leaf> {
    prop_oneof![
        (vec(rule(), 0..4), cipher_demand())
            .prop_map(|(rules, cipher)| Leaf::Denies(Denies { rules, cipher })),
        rule().prop_map(Leaf::Allow),
        service().prop_map(Leaf::Service),
        workload().prop_map(Leaf::Workload),
    ]
    .boxed()
}
