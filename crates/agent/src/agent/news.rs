//! From a verified, durable map to what is enforced; and what the shard tells about it.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::{Denial, Event};
use model::local::Joined;
use model::name::RuleId;
use model::rule::Direction;
use model::time::Now;

use super::{Agent, REPORT_EVERY, REPORT_SOON};
use crate::alarms::AlarmKind;
use crate::denials::{DeniedFlow, protocol_name};
use crate::map::Map;
use crate::names::Names;
use crate::output::{InterfaceConfig, Output, Reply};

impl Agent {
    /// Enforces what became durable.
    pub(super) fn handle_map_durable(&mut self, now: Now) {
        while let Some(map) =
            self.staging
                .handle_durable(&mut self.high_water, &mut self.disk, &mut self.out)
        {
            self.enforce(map, now);
            self.tend_belief(now);
            self.alarms.clear(AlarmKind::Map, &mut self.out);
            self.alarms.clear(AlarmKind::StoredState, &mut self.out);
            self.channel.handle_believed();
            self.report_applied(None);
            self.welcome_newcomer();
        }
    }

    /// Puts a map in force, whole: it is on the disk already.
    pub(super) fn enforce(&mut self, map: Map, now: Now) {
        self.take_name(&map.me().name, now);
        self.follow_record_key(map.me().wireguard_key, now);
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        let old = self.staging.in_force();
        let interface = interface_of(&map, self.config.mtu);
        if old.map(|old| interface_of(old, self.config.mtu)) != Some(interface) {
            self.out.push(Output::Interface(Some(interface)));
        }
        let commands =
            self.enforcement
                .change(old, &map, &member.keys, self.dates_floor, &mut self.paths);
        self.out.shard(commands);
        let names = Names::of(&map, |host, service| {
            self.enforcement
                .may_allow(Direction::Outbound, host, service)
        });
        // A proxy knows a service before anybody finds its name.
        let services = self.services.change(&map, &names, &self.enforcement);
        if services.is_some() {
            self.out.push(Output::Services(services));
        }
        if *self.names != names {
            self.names = Arc::new(names);
            self.out.push(Output::Names(self.names.clone()));
        }
        if old.is_none_or(|old| old.policy_version() != map.policy_version()) {
            self.out.info(format!(
                "policy version {} is in force",
                map.policy_version()
            ));
        }
        self.last_denials
            .retain(|peer| map.peers.contains_key(&peer));
        self.staging.set_in_force(map);
        self.report_at.get_or_insert(now.monotonic + REPORT_EVERY);
    }

    /// Answers the join that brought this host here.
    fn welcome_newcomer(&mut self) {
        let (Some(map), Some(member)) = (self.staging.in_force(), self.enrolment.member_mut())
        else {
            return;
        };
        let Some(newcomer) = member.newcomer.take() else {
            return;
        };
        let me = map.me();
        let joined = Joined {
            name: me.name.clone(),
            fleet: member.fleet_name.clone(),
            addresses: vec![me.addresses.v4.into(), me.addresses.v6.into()],
            dns_suffix: map.statement().dns_suffix.clone(),
            note: None,
        };
        self.out
            .reply(Some(newcomer.request), Ok(Reply::Joined(joined)));
    }

    pub(super) fn handle_news(&mut self, event: Event, now: Now) {
        match event {
            // Public-key work is the program's to run, on whichever thread it likes.
            Event::Handshake(_) => {}
            // So is asking the kernel whose a socket is.
            Event::WhoSends(_) => {}
            Event::PathUnanswered { peer: index, path } => {
                let Some(peer) = self.enforcement.host(index) else {
                    return;
                };
                if let Some(path) = self.paths.handle_unanswered(peer, path) {
                    self.out
                        .shard(vec![dataplane::Command::SetPath { index, path }]);
                }
            }
            Event::PeerMoved { peer, path } => {
                let Some(peer) = self.enforcement.host(peer) else {
                    return;
                };
                self.paths.handle_seen(peer, path, now.monotonic);
            }
            Event::SessionEstablished { peer, path } => {
                let Some(peer) = self.enforcement.host(peer) else {
                    return;
                };
                self.paths.handle_seen(peer, path, now.monotonic);
                if self.paths.handle_session(peer, now.monotonic) {
                    let soon = now.monotonic + REPORT_SOON;
                    self.report_at = self.report_at.map(|at| at.min(soon));
                }
            }
            Event::Denied(denial) => self.handle_denied(&denial, self.denial_line(&denial), now),
            Event::Rejected(denial) => {
                self.handle_denied(&denial, self.rejection_line(&denial), now);
            }
            Event::TimestampUsed(time) => {
                if time > self.high_water.handshake {
                    self.high_water.handshake = time;
                    self.save_high_water();
                }
            }
            Event::Report(report) => {
                for peer in &report.peers {
                    if let Some(host) = self.enforcement.host(peer.peer) {
                        self.paths.handle_report(host, peer);
                    }
                }
            }
        }
    }

    fn handle_denied(&mut self, denial: &Denial, line: String, now: Now) {
        let Some(peer) = self.enforcement.host(denial.peer) else {
            return;
        };
        let flow = DeniedFlow {
            direction: denial.direction,
            peer,
            ip_protocol: denial.ip_protocol,
            port: denial.destination.port(),
            rule: denial.rule.clone(),
            needs_workload: denial.needs_workload,
            version: denial.version,
        };
        self.last_denials.note(flow.clone(), now.monotonic);
        self.denials
            .handle_denied(flow, line, now.monotonic, &mut self.out);
    }

    fn denial_line(&self, denial: &Denial) -> String {
        let verdict = match &denial.rule {
            Some(rule) if denial.needs_workload => format!(
                "denied, since rule `{rule}`{} names workloads, and no workload of this policy is known to send it",
                self.written_at(rule)
            ),
            Some(rule) => format!("denied by rule `{rule}`{}", self.written_at(rule)),
            None => "denied, no rule allows it".to_owned(),
        };
        let sender = match &denial.workload {
            Some(workload) => format!(", sent by workload {workload}"),
            None => String::new(),
        };
        format!(
            "{verdict}: {} {} -> {}{sender} (policy version {})",
            protocol_name(denial.ip_protocol),
            self.shown_source(denial.source),
            self.shown_destination(denial.destination),
            denial.version
        )
    }

    /// Where the policy in force has a rule, in parentheses; nothing when it has none of that id.
    fn written_at(&self, id: &RuleId) -> String {
        let map = self.staging.in_force();
        let bundles = map.into_iter().map(Map::bundle);
        let mut rules = bundles.flat_map(|bundle| bundle.deny.iter().chain(&bundle.allow));
        rules
            .find(|rule| rule.id == *id)
            .map_or_else(String::new, |rule| format!(" ({})", rule.source))
    }

    /// A peer's word, and said to be that. Without a rule it tells nothing, not even its version.
    fn rejection_line(&self, denial: &Denial) -> String {
        let Denial {
            ip_protocol,
            source,
            destination,
            version,
            ..
        } = denial;
        let by = match self.names.reverse(destination.ip()) {
            Some(name) => name.to_string(),
            None => destination.ip().to_string(),
        };
        let flow = format!(
            "{} {} -> {}",
            protocol_name(*ip_protocol),
            self.shown_source(*source),
            self.shown_destination(*destination),
        );
        match &denial.rule {
            Some(rule) => {
                format!(
                    "{by} says: denied by rule `{rule}`: {flow} (policy version {version} there)"
                )
            }
            None => format!("{by} says: not allowed: {flow}"),
        }
    }

    fn shown_source(&self, source: SocketAddr) -> String {
        let shown = if source.port() == 0 {
            source.ip().to_string()
        } else {
            source.to_string()
        };
        match self.names.reverse(source.ip()) {
            Some(name) => format!("{name} ({shown})"),
            None => shown,
        }
    }

    fn shown_destination(&self, destination: SocketAddr) -> String {
        let (ip, port) = (destination.ip(), destination.port());
        match (self.names.reverse(ip), port) {
            (Some(name), 0) => name.to_string(),
            (Some(name), port) => format!("{name}:{port}"),
            (None, 0) => ip.to_string(),
            (None, _) => destination.to_string(),
        }
    }
}

fn interface_of(map: &Map, mtu: u16) -> InterfaceConfig {
    InterfaceConfig {
        addresses: map.me().addresses,
        prefixes: map.statement().overlay,
        mtu,
    }
}
