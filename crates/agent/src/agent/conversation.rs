//! What is said on the sync channel, and what follows from it.

use model::control::{AES_256_GCM, Applied, FromHost, Goodbye, Hello, ToHost, Welcome};
use model::map::MapDelta;
use model::record::Tombstone;
use model::time::Now;

use super::{Agent, AgentConfig};
use crate::alarms::AlarmKind;
use crate::channel::Want;
use crate::enrolment::{Enrolment, check_chain};
use crate::event::{ChannelError, ChannelErrorKind};
use crate::map::Map;
use crate::output::{Output, StateFile};
use crate::skew::{CoordinatorClock, Skew};
use crate::sync::{Step, SyncError, Verifier};
use trust::enrolment::TlsKey;

/// What this agent can enforce, by name.
const FEATURES: [&str; 15] = [
    "allow",
    "deny",
    "services.tcp",
    "services.udp",
    "services.http",
    "services.grpc",
    "services.auto",
    "services.addresses",
    "services.settings",
    "workloads",
    "workloads.udp",
    "http",
    "when",
    "cipher.standard",
    "policy.steps",
];
/// It can tell what it remembers of its fleet.
const RECALL: &str = "recall";

/// Somebody else may answer there; or a rotation of the authority went by without this host.
const BELIEVED_NO_MORE: &str = "; if the fleet's authority was rotated, and its old root retired, \
    while this host was off, it cannot come back by itself: ask an operator, who sees it with \
    `meshctl authority show`, for `meshctl hosts remove` and a new token, then run `meshctl leave` \
    and `meshctl join TOKEN` here. If not, do nothing of that: somebody else answers there, or the \
    coordinator was restored from a backup that is older than a rotation";

impl AgentConfig {
    /// Returns what this host can do, by the names that the coordinator knows.
    pub(crate) fn features(&self) -> impl Iterator<Item = &'static str> + use<> {
        let aes = self.offers_aes_256_gcm.then_some(AES_256_GCM);
        FEATURES.into_iter().chain(aes)
    }
}

impl Agent {
    pub(super) fn tend_channel(&mut self, now: Now) {
        let want = self
            .channel
            .handle_timeout(now.monotonic, &mut self.dice, &mut self.out);
        let (Some(Want::Open), Some(member)) = (want, self.enrolment.member()) else {
            return;
        };
        let anchors = self.fleet.as_ref().map(|fleet| &fleet.anchors);
        self.out.push(Output::OpenSync {
            coordinators: member.coordinators.clone(),
            channel: member.channel_identity(anchors),
        });
    }

    pub(super) fn handle_opened(&mut self, now: Now) {
        if !self.channel.handle_opened(now.monotonic) {
            return;
        }
        let newest = self.staging.newest();
        // Who has nothing to tell is not waited for.
        let recall = newest.map(|_| RECALL);
        let newest = newest.filter(|_| !self.wants_whole_map);
        self.out.send(FromHost::Hello(Hello {
            trust: self.held_trust(),
            have: newest.map(|map| map.revision),
            software_version: self.config.software_version.clone(),
            features: self
                .config
                .features()
                .chain(recall)
                .map(str::to_owned)
                .collect(),
            boot_counter: self.high_water.boot_counter,
        }));
    }

    pub(super) fn handle_closed(&mut self, error: ChannelError, now: Now) {
        if let Some(renewal) = &mut self.renewal {
            renewal.handle_failure(now, &mut self.dice);
        }
        let was_online = self.channel.is_online();
        let is_news = self
            .channel
            .handle_closed(error.clone(), now.monotonic, &mut self.dice);
        if matches!(self.enrolment, Enrolment::Leaving(_)) {
            return self.finish_telling(false, now);
        }
        if !is_news {
            return;
        }
        let message = format!("no coordinator can be reached: {error}");
        match error.kind {
            ChannelErrorKind::Untrusted => self.alarms.raise(
                AlarmKind::Coordinator,
                format!("{message}{BELIEVED_NO_MORE}"),
                &mut self.out,
            ),
            ChannelErrorKind::Clock => self.alarms.raise(AlarmKind::Clock, message, &mut self.out),
            ChannelErrorKind::Rejected | ChannelErrorKind::Protocol => {
                self.alarms
                    .raise(AlarmKind::Coordinator, message, &mut self.out);
            }
            ChannelErrorKind::Unreachable | ChannelErrorKind::Interrupted if was_online => {
                self.out.warn(format!(
                    "the coordinator is gone: {error}; working from what is known"
                ));
            }
            ChannelErrorKind::Unreachable | ChannelErrorKind::Interrupted => {
                self.out
                    .warn(format!("{message}; working from what is known"));
            }
        }
    }

    pub(super) fn handle_message(&mut self, message: ToHost, now: Now) {
        if let ToHost::Welcome(welcome) = message {
            return self.handle_welcome(&welcome, now);
        }
        if let ToHost::Goodbye(goodbye) = message {
            return self.handle_goodbye(&goodbye, now);
        }
        if let ToHost::Recall = message {
            // Before any welcome: a coordinator that knows too little has none to say yet.
            return self.tell_memory();
        }
        if !self.channel.is_online() {
            return;
        }
        self.channel.handle_heard(now.monotonic);
        match message {
            ToHost::Map(delta) => self.handle_map(&delta, now),
            ToHost::Certificate(Ok(chain)) => self.handle_certificate(chain, now),
            ToHost::Certificate(Err(why)) => {
                self.out.warn(format!(
                    "the coordinator does not renew this host's certificate: {why}"
                ));
                if let Some(renewal) = &mut self.renewal {
                    renewal.handle_failure(now, &mut self.dice);
                }
            }
            ToHost::Explain { id, query, call } => {
                self.answer_coordinator(id, query, call.as_deref(), now);
            }
            ToHost::RotateKey => {
                self.out
                    .info("an operator wants this host to have another WireGuard key");
                if !self.rotation.is_awaited() {
                    self.start_rotation(None, now);
                }
            }
            ToHost::KeyRefused(why) => self.handle_key_refused(&why),
            ToHost::Pong(_) | ToHost::Welcome(_) | ToHost::Goodbye(_) | ToHost::Recall => {}
        }
    }

    fn handle_goodbye(&mut self, goodbye: &Goodbye, now: Now) {
        if let Some(tombstone) = self.own_tombstone(goodbye) {
            return self.handle_removed(&tombstone.reason, now);
        }
        if matches!(self.enrolment, Enrolment::Leaving(_)) {
            return self.finish_telling(false, now);
        }
        self.channel
            .handle_goodbye(goodbye, now.monotonic, &mut self.dice, &mut self.out);
    }

    /// Returns the fleet's word that this host is no member any more. A coordinator's word alone
    /// sends nobody away for good.
    fn own_tombstone(&mut self, goodbye: &Goodbye) -> Option<Tombstone> {
        let signed = goodbye.tombstone.as_ref()?;
        let (fleet, me) = (self.fleet.as_ref()?, self.enrolment.host()?);
        match fleet.anchors.verify_tombstone(signed) {
            Ok(tombstone) => (tombstone.host == me).then_some(tombstone),
            Err(why) => {
                self.out.warn(format!(
                    "a coordinator says that this host was removed, but what it shows for it does \
                     not hold: {why}"
                ));
                None
            }
        }
    }

    fn handle_welcome(&mut self, welcome: &Welcome, now: Now) {
        if self.enrolment.member().is_none() || !self.channel.handle_welcome(now.monotonic) {
            return;
        }
        if let Err(why) = self.take_trust(&welcome.earlier, &welcome.trust) {
            let why = format!("the coordinator's trust statement does not hold: {why}");
            self.alarms
                .raise(AlarmKind::Trust, why.clone(), &mut self.out);
            return self.distrust(why, now);
        }
        self.alarms.clear(AlarmKind::Trust, &mut self.out);
        self.alarms.clear(AlarmKind::Coordinator, &mut self.out);
        self.alarms.clear(AlarmKind::Clock, &mut self.out);
        self.coordinator_clock = Some(CoordinatorClock::new(welcome.unix, now.monotonic));
        self.tend_clock(now);
        if let Some(renewal) = &mut self.renewal {
            renewal.handle_coordinator_clock(welcome.unix, now);
        }
        self.out.info(format!(
            "in touch with a coordinator (version {}){}",
            welcome.software_version,
            welcome
                .observed
                .map_or_else(String::new, |ip| format!(", which sees this host at {ip}"))
        ));
        let fleet = self
            .fleet
            .as_ref()
            .expect("the welcome brought it, or it was there");
        self.endpoints
            .handle_welcome(&fleet.trusted.statement.overlay, &mut self.out);
        self.paths.handle_welcome(now.monotonic);
        self.rotation.handle_welcome(now.monotonic);
        self.report_applied(None);
    }

    /// Looks how far the clocks are apart now: somebody may have set one.
    pub(super) fn tend_clock(&mut self, now: Now) {
        let Some(clock) = &mut self.coordinator_clock else {
            return;
        };
        match clock.compare(now) {
            Skew::Alarm(message) => {
                self.alarms.raise(AlarmKind::Clock, message, &mut self.out);
            }
            Skew::Over => self.alarms.clear(AlarmKind::Clock, &mut self.out),
            Skew::Unchanged => {}
        }
    }

    fn handle_map(&mut self, delta: &MapDelta, now: Now) {
        let fleet = match self.fleet_of(delta) {
            Ok(Some(fleet)) => fleet,
            Ok(None) => return,
            Err(why) => return self.refuse_map(&why, now),
        };
        let Some(member) = self.enrolment.member() else {
            return;
        };
        let verifier = Verifier {
            anchors: &fleet.anchors,
            trust: &fleet.trusted,
            me: member.self_knowledge(),
            high_water: &self.high_water,
        };
        match verifier.step(self.staging.newest(), delta) {
            Ok(Step::Old) => {}
            Ok(Step::New(map)) => {
                self.wants_whole_map &= delta.base.is_some();
                for name in &map.left_out {
                    self.out.warn(format!(
                        "the coordinator's record of {name} is older than the one that this host \
                         had: {name} is no peer here until the coordinator has its latest record"
                    ));
                }
                self.fleet = Some(fleet);
                self.staging.offer(*map, &mut self.disk, &mut self.out);
            }
            Ok(Step::Hint(map)) => self.take_hint(*map, now),
            Ok(Step::Removed(tombstone)) => self.handle_removed(&tombstone.reason, now),
            Err(SyncError::Refused(why)) => self.refuse_map(&why, now),
            Err(error @ (SyncError::Gap { .. } | SyncError::Outdated { .. })) => {
                self.out.info(format!(
                    "a change of the map was lost ({error}); asking for all of it"
                ));
                self.wants_whole_map = true;
                self.channel.restart(now.monotonic, &mut self.out);
            }
        }
    }

    fn refuse_map(&mut self, why: &str, now: Now) {
        let why = format!("a map from the coordinator is refused: {why}");
        self.alarms
            .raise(AlarmKind::Map, why.clone(), &mut self.out);
        self.report_applied(Some(why.clone()));
        self.wants_whole_map = true;
        self.distrust(why, now);
    }

    /// Uses hints at once; the disk has time.
    fn take_hint(&mut self, map: Map, now: Now) {
        if let Some(map) = self.staging.take_hints(map, now.monotonic) {
            self.enforce(map, now);
        }
    }

    fn distrust(&mut self, why: String, now: Now) {
        self.channel
            .distrust(why, now.monotonic, &mut self.dice, &mut self.out);
    }

    /// Tells the coordinator what is in force here.
    pub(super) fn report_applied(&mut self, error: Option<String>) {
        if !self.channel.is_online() {
            return;
        }
        let in_force = self.staging.in_force();
        if in_force.is_none() && error.is_none() {
            return;
        }
        self.out.send(FromHost::Applied(Applied {
            trust: self.held_trust(),
            revision: in_force.map(|map| map.revision).unwrap_or_default(),
            policy: in_force.map(|map| map.policy_version()).unwrap_or_default(),
            error,
            trouble: self.trouble.clone(),
        }));
    }

    /// Tells the coordinator why a map is not in force yet.
    pub(super) fn report_undurable_map(&mut self, file: StateFile, why: String) {
        if self.staging.is_under_way() && file != StateFile::Identity {
            self.report_applied(Some(why));
        }
    }

    pub(super) fn tend_certificate(&mut self, now: Now) {
        let is_online = self.channel.is_online();
        let (Some(renewal), Some(member)) = (&mut self.renewal, self.enrolment.member()) else {
            return;
        };
        if renewal.handle_timeout(now, is_online, &mut self.dice) {
            let name = &member.membership.name;
            let request = TlsKey::from_seed(member.keys.tls.clone()).certificate_request(name);
            self.out.send(FromHost::Renew(request));
        }
        match renewal.alarm(now.unix) {
            Some(message) => self
                .alarms
                .raise(AlarmKind::Certificate, message, &mut self.out),
            None => self.alarms.clear(AlarmKind::Certificate, &mut self.out),
        }
    }

    fn handle_certificate(&mut self, chain: Vec<Vec<u8>>, now: Now) {
        let (Some(fleet), Some(renewal)) = (&self.fleet, &mut self.renewal) else {
            return;
        };
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        let roots = fleet.anchors.root_certificates();
        match check_chain(&chain, roots, &member.keys, &member.fleet_name) {
            Ok(validity) => {
                member.membership.certificate_chain = chain;
                member.validity = validity;
                renewal.handle_renewed(validity, now, &mut self.dice);
                self.save_certified();
                self.tend_belief(now);
                // It may have been signed just before the host got another name.
                self.tend_certified_name(now);
            }
            Err(why) => {
                renewal.handle_failure(now, &mut self.dice);
                self.out.warn(format!(
                    "the coordinator sent a certificate that does not hold: {why}"
                ));
            }
        }
    }
}
