//! Rules between the host `a` and its peer `b`, written as operators write them.

use model::admin::PolicyFile;
use model::rule::Bundle;

/// Which rules are in force.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rules {
    /// A few ports each way, and a deny among them.
    Some,
    /// Everything passes.
    All,
    /// Nothing passes.
    Nothing,
}

const SOME: &str = "
fleet: prod
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: out, from: a, to: b, tcp: [443], udp: [53] }
  - { id: in, from: b, to: a, tcp: [22, 8000-8100], udp: [5000] }
deny:
  - { id: not-this, from: b, to: a, tcp: [8080] }
";

const ALL: &str = "
fleet: prod
allow:
  - { id: all, from: any, to: any, tcp: any, udp: any, icmp: true }
";

const NOTHING: &str = "
fleet: prod
allow: []
";

impl Rules {
    pub(crate) fn bundle(self) -> Bundle {
        let text = match self {
            Self::Some => SOME,
            Self::All => ALL,
            Self::Nothing => NOTHING,
        };
        let file = PolicyFile {
            path: "policy.yaml".to_owned(),
            text: text.to_owned(),
        };
        policy::load(&[file])
            .expect("the rules above are good")
            .bundle
    }
}
