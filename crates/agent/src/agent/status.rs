//! What this host tells of itself: its state, and a row per peer.

use model::local::{HostDetail, HostState, HostStatus, PeerView};
use model::record::HostRecord;
use model::time::Now;

use super::Agent;
use crate::enrolment::{Enrolment, Member};

impl Agent {
    pub(super) fn host_summary(&self) -> HostStatus {
        HostStatus {
            version: self.config.software_version.clone(),
            state: self.host_state(),
            up: Some(self.enrolment.member().is_some() && self.staging.in_force().is_some()),
            detail: None,
        }
    }

    pub(super) fn host_status(&self, now: Now) -> HostStatus {
        let mut status = HostStatus {
            detail: match &self.enrolment {
                Enrolment::Member(member) => Some(self.member_detail(member)),
                Enrolment::Removed(member, reason) => {
                    let mut detail = self.member_detail(member);
                    detail
                        .alarms
                        .push(format!("removed from the fleet: {reason}"));
                    Some(detail)
                }
                Enrolment::Cloned(member) => {
                    let mut detail = self.member_detail(member);
                    detail.alarms.push(cloned(member));
                    Some(detail)
                }
                _ => None,
            },
            ..self.host_summary()
        };
        if let (Some(detail), Some(clock)) = (&mut status.detail, self.coordinator_clock) {
            detail.clock_ahead_secs = Some(clock.ahead_secs(now));
        }
        status
    }

    pub(super) fn host_state(&self) -> HostState {
        match &self.enrolment {
            Enrolment::Unenrolled(_) => HostState::Unenrolled,
            Enrolment::Describing(_) | Enrolment::Persisting(..) | Enrolment::Enrolling(..) => {
                HostState::Joining
            }
            Enrolment::Member(_) if self.channel.is_online() => HostState::Online,
            Enrolment::Member(_) | Enrolment::Leaving(_) => HostState::Autonomous,
            Enrolment::Removed(..) => HostState::Removed,
            Enrolment::Cloned(_) => HostState::Cloned,
        }
    }

    pub(super) fn member_detail(&self, member: &Member) -> HostDetail {
        let map = self.staging.in_force();
        let me = map.map(|map| map.me());
        let statement = self.fleet.as_ref().map(|fleet| &fleet.trusted.statement);
        HostDetail {
            name: member.membership.name.clone(),
            id: member.membership.host,
            fleet: member.fleet_name.clone(),
            dns_suffix: statement
                .map(|it| it.dns_suffix.clone())
                .unwrap_or_default(),
            interface: self.config.interface.clone(),
            addresses: me.map(addresses).unwrap_or_default(),
            labels: me.map(|me| me.labels.clone()).unwrap_or_default(),
            listen_port: self.config.listen_port,
            coordinators: member.coordinators.clone(),
            coordinator_error: self.channel.last_error().map(ToString::to_string),
            revision: map.map(|map| map.revision),
            policy: map.map(|map| map.policy_version()),
            peers: map.map_or(0, |map| map.peers.len()),
            certificate_expires_secs: Some(member.validity.not_after.as_secs()),
            alarms: self.alarms.messages(),
            drops: Vec::new(),
            shards: 0,
            clock_ahead_secs: None,
            binary_replaced: false,
            state_dir: None,
            nft_table: None,
            mtu: Some(self.config.mtu),
        }
    }

    pub(super) fn peer_views(&self, now: Now) -> Vec<PeerView> {
        let Some(map) = self.staging.in_force() else {
            return Vec::new();
        };
        let mut views: Vec<PeerView> = map
            .peer_records()
            .map(|record| self.peer_view(record, now))
            .collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }

    fn peer_view(&self, record: &HostRecord, now: Now) -> PeerView {
        let paths = self.paths.get(record.host);
        let path_mtu = paths.and_then(|paths| paths.path_mtu);
        PeerView {
            name: record.name.clone(),
            id: record.host,
            addresses: addresses(record),
            labels: record.labels.clone(),
            endpoint: paths.and_then(|paths| paths.endpoint()),
            candidates: paths
                .map(|paths| paths.candidates().collect())
                .unwrap_or_default(),
            cipher: paths
                .and_then(|paths| paths.cipher)
                .map(|cipher| cipher.name().to_owned()),
            mtu: path_mtu.map(|it| it.bytes),
            mtu_standing: path_mtu.map(|it| it.standing.name().to_owned()),
            black_holes: path_mtu.map_or(0, |it| it.black_holes),
            last_handshake_secs: paths
                .and_then(|paths| paths.last_handshake)
                .map(|at| (now.monotonic - at).as_secs()),
            lanes: paths.map_or(0, |paths| paths.sessions()),
            received_bytes: paths.map_or(0, |paths| paths.received_bytes()),
            sent_bytes: paths.map_or(0, |paths| paths.sent_bytes()),
        }
    }
}

/// Says that the state directory is another machine's, and what to do.
pub(super) fn cloned(member: &Member) -> String {
    format!(
        "the state directory is a copy of {}'s, which is another machine: was this one cloned from \
         it? Run `meshctl join` with a token to make this machine a host of its own",
        member.membership.name
    )
}

fn addresses(record: &HostRecord) -> Vec<std::net::IpAddr> {
    vec![record.addresses.v4.into(), record.addresses.v6.into()]
}
