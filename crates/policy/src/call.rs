//! What is asked of a policy about calls: who calls, from where, what, and how it is decided.

use model::ids::HostId;
use model::name::Name;
use model::time::UnixTime;

use crate::table::RuleIndex;

/// A question about a connection or a request between two hosts, or within one.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    /// Where the call comes from.
    pub from: HostId,
    /// Who on it calls, as that host says; `None`: it is not known, or nobody that the policy names.
    pub workload: Option<&'q Name>,
    /// Where the call goes.
    pub to: HostId,
    /// What is called there.
    pub target: Target<'q>,
    /// The request; `None`: bytes, or a request that was not seen yet.
    pub request: Option<RequestFacts<'q>>,
    /// When it is asked.
    pub at: UnixTime,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'t> {
    /// A service, at one of its endpoints.
    Service(&'t Name),
    /// A TCP port of the host.
    Port(u16),
}

/// What rules look at in a request.
#[derive(Clone, Copy)]
pub struct RequestFacts<'q> {
    /// As it was sent.
    pub method: &'q str,
    /// Decoded, without the query, and without anything that servers read differently: `//`, `.` and
    /// `..` segments, `\`, `;`, escaped slashes.
    pub path: &'q str,
    /// As it was sent, with or without a port.
    pub host: &'q str,
    /// All of them.
    pub headers: &'q dyn Headers,
}

/// The headers of a request.
pub trait Headers {
    /// Shows each value of a header, in any order. `name` is in lower case.
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8]));

    /// Whether it is known what a header says, or that it is not there. What is not known satisfies no
    /// allow that looks at it, and is what a deny means.
    fn knows(&self, _name: &str) -> bool {
        true
    }
}

/// Names in lower case with values.
impl Headers for [(&str, &str)] {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        let named = self.iter().filter(|(it, _)| *it == name);
        named.for_each(|(_, value)| look(value.as_bytes()));
    }
}

impl<const N: usize> Headers for [(&str, &str); N] {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        self.as_slice().each(name, look);
    }
}

/// What is to be done with a call, and which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling<R = RuleIndex> {
    /// Let it pass: this allow is the first that matches, and no deny does.
    Allow(R),
    /// Refuse it: this deny is the first that matches.
    DenyByRule(R),
    /// Refuse it: no rule allows it.
    DenyByDefault,
    /// Refuse it, since nobody knows who on the host calls: a deny of this rule may mean it, or this
    /// is the first allow that would allow it to one of its workloads.
    DenyUnknownWorkload(R),
}

impl<R: Copy> Ruling<R> {
    /// Returns whether the call may pass.
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Returns the rule that decided.
    pub const fn rule(self) -> Option<R> {
        match self {
            Self::Allow(rule) | Self::DenyByRule(rule) | Self::DenyUnknownWorkload(rule) => {
                Some(rule)
            }
            Self::DenyByDefault => None,
        }
    }
}

/// A process of this host, as its kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process<'p> {
    /// The unit of the system's systemd that it runs in; `None`: none, or that of a user or container.
    pub unit: Option<&'p str>,
    /// The name of its user, where it has one.
    pub user: Option<&'p str>,
    /// The number of its user.
    pub uid: u32,
}
