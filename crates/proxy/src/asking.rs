//! Who calls what: put to the policy when a call begins, and again whenever the policy has changed
//! while it goes on.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use model::ids::HostId;
use model::name::Name;
use model::time::UnixTime;
use policy::{Gate, Headers, Question, RequestFacts, RuleIndex, Ruling, Target};

use crate::marks::Aim;
use crate::path::{self, AmbiguousPath};
use crate::refusal::Reason;
use crate::snapshot::Snapshot;
use crate::surroundings::Caller;

/// Who calls.
#[derive(Debug)]
pub(crate) struct Origin {
    host: HostId,
    who: Who,
}

#[derive(Debug)]
enum Who {
    /// A process of this host; which workload it is, the policy says.
    Process {
        caller: Caller,
        known: RefCell<Option<Known>>,
    },
    /// Whom another host vouches for; `None`: itself.
    Claimed(Option<Rc<Name>>),
}

/// What one policy says of a process.
#[derive(Debug)]
struct Known {
    /// Kept, so that no other policy takes its place in memory.
    gate: Arc<Gate>,
    workload: Option<Rc<Name>>,
}

impl Origin {
    /// A process of this host.
    pub(crate) fn process(me: HostId, caller: Caller) -> Rc<Self> {
        Rc::new(Self {
            host: me,
            who: Who::Process {
                caller,
                known: RefCell::default(),
            },
        })
    }

    /// Another host, for one of its workloads or itself.
    pub(crate) fn claimed(host: HostId, workload: Option<Name>) -> Rc<Self> {
        Rc::new(Self {
            host,
            who: Who::Claimed(workload.map(Rc::new)),
        })
    }

    /// Returns where the call comes from.
    pub(crate) const fn host(&self) -> HostId {
        self.host
    }

    /// Returns the number of the user whose process of this host it is; `None`: nobody knows.
    pub(crate) const fn uid(&self) -> Option<u32> {
        match &self.who {
            Who::Process {
                caller: Caller::Process { uid, .. },
                ..
            } => Some(*uid),
            Who::Process { .. } | Who::Claimed(_) => None,
        }
    }

    /// Returns the workload, as far as the policy knows one.
    pub(crate) fn workload(&self, gate: &Arc<Gate>) -> Option<Rc<Name>> {
        match &self.who {
            Who::Claimed(workload) => workload.clone(),
            Who::Process { caller, known } => {
                let mut known = known.borrow_mut();
                if let Some(known) = known
                    .as_ref()
                    .filter(|known| Arc::ptr_eq(&known.gate, gate))
                {
                    return known.workload.clone();
                }
                let workload = caller
                    .process()
                    .and_then(|process| gate.workload_of(&process))
                    .map(|name| Rc::new(name.clone()));
                let said = Known {
                    gate: Arc::clone(gate),
                    workload: workload.clone(),
                };
                *known = Some(said);
                workload
            }
        }
    }

    /// Returns whether the source may speak for the workload that it names.
    fn is_vouched_for(&self, gate: &Gate) -> bool {
        match &self.who {
            Who::Process { .. } | Who::Claimed(None) => true,
            Who::Claimed(Some(workload)) => gate.may_vouch(self.host, workload),
        }
    }
}

/// A call, as policy sees it, for as long as it goes on.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Who calls.
    pub origin: Rc<Origin>,
    /// What.
    pub aim: Rc<Aim>,
    /// Whom.
    pub to: HostId,
    /// The request, where it is one.
    pub request: Option<AskedRequest>,
}

/// What policy reads of a request. Of its headers those are kept that a rule has looked at: as many
/// as rules name, and no more than the head held. What the others said is not known any more when
/// the call is decided again, and a deny that looks at one ends it.
#[derive(Debug)]
pub(crate) struct AskedRequest {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    /// `None`: it was not there.
    looked_at: RefCell<Vec<(HeaderName, Option<HeaderValue>)>>,
}

impl AskedRequest {
    /// Takes what policy reads.
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: parts.headers.get(HOST).cloned(),
            looked_at: RefCell::default(),
        }
    }

    /// Returns the method.
    pub(crate) const fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path as it was sent.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    fn host(&self) -> &str {
        self.host
            .as_ref()
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default()
    }
}

/// The headers of a request while it is there, and what was looked at when it is gone.
struct Shown<'r> {
    request: &'r AskedRequest,
    headers: Option<&'r HeaderMap>,
}

impl Headers for Shown<'_> {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        let Some(headers) = self.headers else {
            let looked_at = self.request.looked_at.borrow();
            let named = looked_at.iter().filter(|(known, _)| known == name);
            let values = named.filter_map(|(_, value)| value.as_ref());
            values.for_each(|value| look(value.as_bytes()));
            return;
        };
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return;
        };
        let mut looked_at = self.request.looked_at.borrow_mut();
        let is_known = looked_at.iter().any(|(known, _)| *known == name);
        for value in headers.get_all(&name) {
            look(value.as_bytes());
            if !is_known {
                looked_at.push((name.clone(), Some(value.clone())));
            }
        }
        if !is_known && !headers.contains_key(&name) {
            looked_at.push((name, None));
        }
    }

    fn knows(&self, name: &str) -> bool {
        let looked_at = || self.request.looked_at.borrow();
        self.headers.is_some() || looked_at().iter().any(|(known, _)| known == name)
    }
}

/// Why a call may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum No {
    /// The policy decided so; the rule, if there is one.
    Ruled(Reason, Option<RuleIndex>),
    /// The path cannot be decided on.
    Ambiguous(AmbiguousPath),
    /// Nobody offers the service, so that there is no host to decide about.
    Unoffered,
}

impl No {
    /// Returns the reason that the caller is told.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Ruled(reason, _) => reason,
            Self::Ambiguous(_) => Reason::AmbiguousPath,
            Self::Unoffered => Reason::NoEndpoint,
        }
    }

    /// Returns the rule that decided so.
    pub(crate) const fn rule(self) -> Option<RuleIndex> {
        match self {
            Self::Ruled(_, rule) => rule,
            Self::Ambiguous(_) | Self::Unoffered => None,
        }
    }

    /// Returns what there is to say beside the reason.
    pub(crate) fn detail(self) -> String {
        match self {
            Self::Ruled(..) => String::new(),
            Self::Ambiguous(why) => why.to_string(),
            Self::Unoffered => "no host offers it".to_owned(),
        }
    }
}

impl Asked {
    /// Returns the host whose port is dialled; `None`: a service is called.
    pub(crate) fn dialled(&self) -> Option<HostId> {
        matches!(*self.aim, Aim::Port(_)).then_some(self.to)
    }

    /// Decides. `headers` are those of the request while it is there.
    ///
    /// # Errors
    /// It may not go on.
    pub(crate) fn decide(
        &self,
        gate: &Arc<Gate>,
        headers: Option<&HeaderMap>,
        at: UnixTime,
    ) -> Result<RuleIndex, No> {
        self.decide_for(self.to, gate, headers, at)
    }

    /// Decides as if it went to that host.
    ///
    /// # Errors
    /// It may not go there.
    pub(crate) fn decide_for(
        &self,
        to: HostId,
        gate: &Arc<Gate>,
        headers: Option<&HeaderMap>,
        at: UnixTime,
    ) -> Result<RuleIndex, No> {
        if !self.origin.is_vouched_for(gate) {
            return Err(No::Ruled(Reason::ClaimRefused, None));
        }
        let target = target(&self.aim);
        let workload = self.origin.workload(gate);
        let question = |request| Question {
            from: self.origin.host,
            workload: workload.as_deref(),
            to,
            target,
            request,
            at,
        };
        let ruling = match self.request.as_ref().filter(|_| gate.needs_request(target)) {
            None => gate.decide(&question(None)),
            Some(request) => {
                let path = if gate.needs_path(target) {
                    path::normalise(request.uri.path()).map_err(No::Ambiguous)?
                } else {
                    Cow::Borrowed(request.uri.path())
                };
                gate.decide(&question(Some(RequestFacts {
                    method: request.method.as_str(),
                    path: &path,
                    host: request.host(),
                    headers: &Shown { request, headers },
                })))
            }
        };
        match ruling {
            Ruling::Allow(rule) => Ok(rule),
            Ruling::DenyByRule(rule) => Err(No::Ruled(Reason::Denied, Some(rule))),
            Ruling::DenyByDefault => Err(No::Ruled(Reason::Denied, None)),
            Ruling::DenyUnknownWorkload(rule) => {
                Err(No::Ruled(Reason::UnknownWorkload, Some(rule)))
            }
        }
    }

    /// Says why a call may not go on that no host is known for. The catalogue has the services that a
    /// host offers whom this one may call, or that a rule lets it call by their name: one that it has
    /// no more is denied, unless another rule would allow it.
    pub(crate) fn unoffered(
        &self,
        snapshot: &Snapshot,
        headers: Option<&HeaderMap>,
        at: UnixTime,
    ) -> No {
        let Aim::Service(name) = &*self.aim else {
            return No::Unoffered;
        };
        let is_known = snapshot.catalogue.services.contains_key(name);
        if is_known || self.would_be_allowed(&snapshot.gate, headers, at) {
            No::Unoffered
        } else {
            No::Ruled(Reason::Denied, None)
        }
    }

    /// Returns whether a request that nobody takes would be allowed at any host that took it.
    pub(crate) fn would_be_allowed(
        &self,
        gate: &Arc<Gate>,
        headers: Option<&HeaderMap>,
        at: UnixTime,
    ) -> bool {
        let Some(request) = &self.request else {
            return false;
        };
        let Ok(path) = path::normalise(request.uri.path()) else {
            return false;
        };
        let headers = &Shown { request, headers };
        gate.would_allow(&Question {
            from: self.origin.host,
            workload: self.origin.workload(gate).as_deref(),
            to: self.to,
            target: target(&self.aim),
            request: Some(RequestFacts {
                method: request.method.as_str(),
                path: &path,
                host: request.host(),
                headers,
            }),
            at,
        })
    }
}

/// Returns what is called, as policy puts it.
pub(crate) const fn target(aim: &Aim) -> Target<'_> {
    match aim {
        Aim::Service(name) => Target::Service(name),
        Aim::Port(port) => Target::Port(*port),
    }
}
