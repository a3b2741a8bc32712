//! Made-up questions about calls.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::name;
use crate::question::{CallFacts, HeaderFact, Verdict};

pub(super) fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![Verdict::Denied, Verdict::Depends, Verdict::Allowed])
}

pub(super) fn call_facts() -> impl Strategy<Value = CallFacts> {
    let parsed = |texts: [&'static str; 2]| option::of(select(texts.to_vec()));
    let header = ("x-[a-z]{1,8}", option::of("[!-~]{1,8}")).prop_map(|(name, value)| HeaderFact {
        name: name.parse().unwrap(),
        value: value.map(|value| value.parse().unwrap()),
    });
    (
        (option::of(name()), option::of(name())),
        parsed(["GET", "M-SEARCH"]),
        parsed(["/", "/v1/items"]),
        parsed(["orders", "orders.example:8080"]),
        vec(header, 0..4),
        option::of(any::<u64>()),
    )
        .prop_map(
            |((service, workload), method, path, host, headers, at_secs)| CallFacts {
                service,
                workload,
                method: method.map(|it| it.parse().unwrap()),
                path: path.map(|it| it.parse().unwrap()),
                host: host.map(|it| it.parse().unwrap()),
                headers,
                at_secs,
            },
        )
}
