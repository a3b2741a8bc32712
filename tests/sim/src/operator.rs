//! Operators: what they want done, what they asked, and what became of it. They work at the
//! coordinator's own socket, so that a request is lost only with the coordinator.

use std::collections::BTreeSet;

use fleet::{AdminRequest, Rejection, Reply, RequestId};
use model::admin::{CreateToken, SetLabels};
use model::control::RefusalCode;
use model::ids::{PolicyVersion, TokenId};
use model::name::{Labels, Name};

use crate::changes::Change;
use crate::dice::Dice;
use crate::event::{Event, HostIndex, Run, Who};
use crate::policies::{self, ENVIRONMENTS};
use crate::truth::Policies;
use crate::world::{Phase, World};

/// Something that an operator sets out to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Makes a machine a member.
    Join(HostIndex),
    /// Wants a machine to be a member again.
    WantBack(HostIndex),
    /// Has a machine leave, so that it joins anew with new keys.
    JoinAnew(HostIndex),
    /// Gives a host other labels.
    Relabel(HostIndex),
    /// Wants a host to have another WireGuard key.
    RotateKey(HostIndex),
    /// Removes whoever has a name.
    Remove(Name),
    /// Applies another policy.
    Apply,
    /// Goes back to an older policy.
    RollBack,
    /// Takes a token back.
    RevokeToken,
    /// Has the fleet's authority get other keys.
    RotateAuthority,
}

/// A request that the coordinator has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    TokenFor(HostIndex),
    Labels(Name, Labels),
    KeyRotation(Name),
    Removal(Name),
    Policy(Change),
    Revocation(TokenId),
    Rotation,
    Retirement,
}

/// What the operators remember.
pub(crate) struct Operator {
    pub(crate) dice: Dice,
    /// Tokens that may still be good.
    tokens: Vec<(TokenId, String)>,
    /// Machines that a token is made for.
    pub(crate) joining: BTreeSet<HostIndex>,
    changes: u64,
    roles: Vec<String>,
    /// Errands that somebody is about to run.
    plans: Vec<Errand>,
    pub(crate) policies: Policies,
}

impl Operator {
    pub(crate) fn new(dice: Dice, sites: u32) -> Self {
        Self {
            dice,
            roles: policies::roles(sites),
            tokens: Vec::new(),
            joining: BTreeSet::new(),
            changes: 0,
            plans: Vec::new(),
            policies: Policies::new(),
        }
    }

    /// The coordinator was restored from a backup: what it knows is not what it acknowledged.
    pub(crate) fn restored(&mut self) {
        self.tokens.clear();
        self.policies = Policies::new();
    }

    /// Their tokens open nothing any more.
    pub(crate) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }

    fn labels(&mut self) -> Labels {
        let mut labels = Labels::new();
        let mut set = |key: &str, value: &str| {
            let (key, value) = (key.parse().expect("a key"), value.parse().expect("a value"));
            labels.insert(key, value);
        };
        set("role", self.dice.pick::<String>(&self.roles));
        set("env", self.dice.pick::<&str>(&ENVIRONMENTS));
        labels
    }

    fn message(&mut self, what: &str) -> String {
        self.changes += 1;
        format!("{what} {}", self.changes)
    }
}

impl World {
    /// Does what an operator set out to do, if it can be done now.
    pub(crate) fn run_errand(&mut self, errand: Errand) {
        let is_at_machine = matches!(errand, Errand::WantBack(_) | Errand::JoinAnew(_));
        if self.coordinator.running.is_none() && !is_at_machine {
            return;
        }
        match errand {
            Errand::Join(host) => self.join(host),
            // Who stays out at the end is decided then.
            Errand::WantBack(host) if self.phase == Phase::Faults => {
                self.host_mut(host).is_wanted = true;
            }
            Errand::WantBack(_) => {}
            Errand::JoinAnew(host) => {
                let is_member = self.host(host).is_member(self.now);
                if self.host(host).running.is_none() || is_member && !self.leave(host) {
                    self.push_errand(Errand::JoinAnew(host), 10);
                }
            }
            Errand::Relabel(host) => {
                let (name, labels) = (self.host(host).name.clone(), self.operator.labels());
                let set = SetLabels {
                    labels: labels.clone(),
                    base: None,
                };
                let request = AdminRequest::SetLabels {
                    host: name.clone(),
                    set,
                };
                self.ledger.may_be_labelled(&name, &labels);
                self.order(Order::Labels(name, labels), request);
            }
            Errand::RotateKey(host) => {
                let name = self.host(host).name.clone();
                let request = AdminRequest::RotateHostKey(name.clone());
                self.order(Order::KeyRotation(name), request);
            }
            Errand::Remove(name) => {
                self.ledger.name_may_be_removed(&name);
                self.order(Order::Removal(name.clone()), AdminRequest::RemoveHost(name));
            }
            Errand::Apply => {
                // Nobody is a member before the first have joined.
                let machines = self.hosts.iter();
                let hosts: Vec<String> = machines
                    .filter(|host| host.last_run > Run::default())
                    .map(|host| host.name.to_string())
                    .collect();
                let files =
                    policies::generate(&mut self.operator.dice, &hosts, self.scenario.sites);
                let message = self.operator.message("change");
                self.apply_policy(message, files);
            }
            Errand::RollBack => {
                let newest = self.operator.policies.newest();
                let newest = usize::try_from(newest.0).expect("few versions");
                // Not to the first, when that is not for a fleet of this size.
                let first = if self.scenario.sites > 1 { 2 } else { 1 };
                let count = (newest + 1).saturating_sub(first).max(1);
                let to = PolicyVersion((first + self.operator.dice.below(count)) as u64);
                self.roll_policy_back(to);
            }
            Errand::RotateAuthority => {
                self.order(Order::Rotation, AdminRequest::RotateAuthority);
            }
            Errand::RevokeToken => {
                let ids: Vec<TokenId> = self.operator.tokens.iter().map(|(id, _)| *id).collect();
                if let Some(id) = self.operator.dice.pick_any(&ids) {
                    self.order(Order::Revocation(id), AdminRequest::RevokeToken(id));
                }
            }
        }
    }

    /// Gets a machine a token, old or new, and has it join.
    fn join(&mut self, host: HostIndex) {
        let can_join = self.host(host).is_wanted && self.host(host).running.is_some();
        if !can_join
            || self.host(host).is_clone
            || self.operator.joining.contains(&host)
            || self.host(host).is_member(self.now)
        {
            return;
        }
        if self.operator.dice.chance(400) && !self.operator.tokens.is_empty() {
            let position = self.operator.dice.below(self.operator.tokens.len());
            let token = self.operator.tokens[position].1.clone();
            return self.join_with(host, token);
        }
        let create = CreateToken {
            labels: self.operator.labels(),
            uses: *self.operator.dice.pick(&[Some(1), Some(1), Some(3), None]),
            valid_for_secs: *self.operator.dice.pick(&[60, 600, 86_400]),
            names: Vec::new(),
            comment: format!("for {host}"),
        };
        if self.order(Order::TokenFor(host), AdminRequest::CreateToken(create)) {
            self.operator.joining.insert(host);
        }
    }

    /// Puts a request to the coordinator; returns whether it runs.
    pub(crate) fn order(&mut self, order: Order, request: AdminRequest) -> bool {
        let id = self.coordinator.new_request();
        let now = self.coordinator.now(self.now);
        let Some(steward) = &mut self.coordinator.running else {
            return false;
        };
        steward.orders.insert(id, order);
        steward.ask(id, request, now);
        self.drive_coordinator();
        true
    }

    /// Takes the answer to an order.
    pub(crate) fn handle_order_answered(&mut self, order: Order, result: Result<Reply, Rejection>) {
        if let Order::TokenFor(host) = &order {
            self.operator.joining.remove(host);
        }
        match (order, result) {
            (order, Err(rejection)) => self.note_rejection(&order, &rejection),
            (Order::TokenFor(host), Ok(Reply::TokenCreated(created))) => {
                self.ledger.token_made(created.view.id);
                self.operator
                    .tokens
                    .push((created.view.id, created.token.clone()));
                if self.operator.tokens.len() > 20 {
                    self.operator.tokens.remove(0);
                }
                self.join_with(host, created.token);
            }
            (Order::Labels(..), Ok(Reply::Host(view))) => {
                self.ledger.labelled(view.id, view.labels);
            }
            // The host makes the key, and says so later.
            (Order::KeyRotation(_), Ok(Reply::Host(_))) => {}
            (Order::Rotation, Ok(Reply::Authority(_))) => {
                self.say(Who::Operator, "the authority is being rotated".to_owned());
            }
            (Order::Retirement, Ok(Reply::Authority(_))) => self.retired(),
            (Order::Removal(_), Ok(Reply::HostRemoved(view))) => {
                self.say(
                    Who::Operator,
                    format!("removed {} ({})", view.name, view.id),
                );
                self.ledger.removed(view.id);
            }
            (Order::Policy(change), Ok(Reply::PolicyApplied(applied))) => {
                self.policy_applied(change, &applied);
            }
            (Order::Revocation(id), Ok(Reply::Token(_))) => {
                self.ledger.token_revoked(id);
                self.operator.tokens.retain(|(token, _)| *token != id);
            }
            (order, Ok(reply)) => {
                self.violate(
                    "every order is answered in kind",
                    format!("{order:?}: {reply:?}"),
                );
            }
        }
    }

    /// The coordinator stopped: what it was asked may or may not have happened.
    pub(crate) fn forget_orders(&mut self) {
        self.operator.joining.clear();
    }

    fn note_rejection(&mut self, order: &Order, rejection: &Rejection) {
        let code = rejection.refusal.code;
        self.say(Who::Operator, format!("{order:?} is refused: {rejection}"));
        let is_possible = match order {
            Order::TokenFor(_) => matches!(code, RefusalCode::Unavailable),
            Order::Labels(..)
            | Order::KeyRotation(_)
            | Order::Removal(_)
            | Order::Rotation
            | Order::Retirement
            | Order::Revocation(_) => {
                matches!(
                    code,
                    RefusalCode::Unavailable | RefusalCode::NotFound | RefusalCode::Conflict
                )
            }
            // A bundle may name hosts that are not there.
            Order::Policy(_) => code != RefusalCode::Denied,
        };
        if !is_possible {
            self.violate(
                "orders are refused for a reason",
                format!("{order:?}: {rejection}"),
            );
        }
    }

    /// Asks the coordinator something that changes nothing.
    pub(crate) fn ask(&mut self, request: AdminRequest) -> Option<Reply> {
        self.ask_or_refused(request)?.ok()
    }

    /// Asks the coordinator; `None` when it has no answer yet.
    pub(crate) fn ask_or_refused(
        &mut self,
        request: AdminRequest,
    ) -> Option<Result<Reply, Rejection>> {
        let id: RequestId = self.coordinator.new_request();
        let now = self.coordinator.now(self.now);
        self.coordinator.running.as_mut()?.ask(id, request, now);
        self.drive_coordinator();
        self.coordinator.running.as_mut()?.answers.remove(&id)
    }

    /// Says what operators are about to change, or wait for.
    pub(crate) fn unfinished_errand(&self) -> Option<String> {
        let orders = self.coordinator.running.as_ref().map(|it| &it.orders);
        let order = orders.and_then(|orders| orders.values().next());
        if let Some(order) = order {
            return Some(format!("operators wait for an answer to {order:?}"));
        }
        // Who stays out at the end is decided: to want another back changes nothing any more.
        let mut plans = self.operator.plans.iter();
        let plan = plans.find(|plan| !matches!(plan, Errand::WantBack(_)))?;
        Some(format!("operators are about to {plan:?}"))
    }

    pub(crate) fn push_errand(&mut self, errand: Errand, within_secs: u64) {
        let at = self.now + self.operator.dice.secs(0, within_secs);
        self.operator.plans.push(errand.clone());
        self.queue.push(at, Event::Errand(errand));
    }

    /// Runs an errand whose time has come.
    pub(crate) fn errand_is_due(&mut self, errand: Errand) {
        let plans = &mut self.operator.plans;
        if let Some(position) = plans.iter().position(|plan| *plan == errand) {
            plans.remove(position);
        }
        self.run_errand(errand);
    }
}
