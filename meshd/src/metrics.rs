//! What this daemon tells of itself in numbers: the catalogue, and who writes a page of it. Packet
//! threads are not asked: what they count is read where they write it.
//!
//! There is no series for a peer or a rule: a host may have thousands of the one, and names of both are
//! nobody's business who reaches a port of the host. `meshctl peers` and `meshctl why` tell of them.
//! Calls of services are counted by who calls what, since that is what is asked of them; the number of
//! such pairs is bounded.

mod calls;
mod page;

pub use page::MetricsSource;
pub(crate) use page::Own;

runtime::catalogue! {
    /// The version that runs, and the one that it took over from, if it did.
    BUILD: Info = "meshd_build_info", by "version", "taken_over_from";
    /// 1 for what the daemon is doing, else 0. `autonomous` is a member that reaches no coordinator.
    STATE: Gauge = "meshd_state", by "state";
    /// Things that an operator should look at; `meshctl status` names them.
    ALARMS: Gauge = "meshd_alarms";
    /// Whether the overlay stands on this host: interface, routes, firewall table. 0 as well for a host that is no member.
    OVERLAY_UP: Gauge = "meshd_overlay_up";

    /// Overlay packets: `out` sealed towards peers, `in` delivered to this host.
    OVERLAY_PACKETS: Counter = "meshd_overlay_packets_total", by "direction";
    /// Bytes of them, without what the tunnel adds.
    OVERLAY_BYTES: Counter = "meshd_overlay_bytes_total", by "direction";
    /// Packets that this host gave to the overlay, before anything was decided on them.
    OFFERED_PACKETS: Counter = "meshd_offered_packets_total";
    /// Bytes of them.
    OFFERED_BYTES: Counter = "meshd_offered_bytes_total";
    /// Datagrams that came from the network to the tunnels' port, whatever they were.
    DATAGRAMS: Counter = "meshd_datagrams_received_total";
    /// Bytes of them.
    DATAGRAM_BYTES: Counter = "meshd_datagram_received_bytes_total";
    /// Packets and datagrams that went no further, by reason; `meshctl drops` says of each what it means and what to try.
    DROPS: Counter = "meshd_dropped_packets_total", by "reason";
    /// Packets that the kernel dropped before this daemon saw them: `tun` when it did not read the interface fast enough, `socket` when it did not read the tunnels' port fast enough, `share` while it let in fair shares only, because more came than it could read: what was above a share, and also what found no room. Interface and sockets may be older than this daemon; what they dropped before it is not counted.
    KERNEL_DROPS: Counter = "meshd_kernel_dropped_packets_total", by "place";
    /// How often the kernel refused packets in one piece that it had offered to take so; they went one by one: `tun` to this host, `socket` to peers.
    OFFLOADS_REFUSED: Counter = "meshd_offloads_refused_total", by "place";
    /// Packets and handshake messages that wait for a session or a handshake.
    QUEUED: Gauge = "meshd_queued_packets";

    /// Flows that are remembered now.
    FLOWS: Gauge = "meshd_flows";
    /// How many may be.
    FLOWS_MAX: Gauge = "meshd_flows_max";
    /// Flows that were forgotten before their time, to make room for others.
    FLOWS_EVICTED: Counter = "meshd_flows_evicted_total";
    /// Flows of this host that a peer denied, as the peer said.
    DENIED_BY_PEERS: Counter = "meshd_flows_denied_by_peers_total";
    /// TCP resets and ICMP errors that told a program of this host at once that its packet is dropped.
    REFUSALS: Counter = "meshd_refusals_total";
    /// Probes that were sent to find how large packets to a peer may be.
    PATH_PROBES: Counter = "meshd_path_probes_total";
    /// Packets of this host, as its kernel gave them, that were cut smaller for their peer's path.
    PACKETS_CUT: Counter = "meshd_packets_cut_total";
    /// Answers that told a peer of a denial here.
    REJECTIONS: Counter = "meshd_rejections_total";

    /// Handshakes that this host began.
    HANDSHAKES_BEGUN: Counter = "meshd_handshakes_begun_total";
    /// Handshakes that ended in a session, whoever began them.
    HANDSHAKES_COMPLETED: Counter = "meshd_handshakes_completed_total";
    /// Handshakes that went wrong: `unanswered` ones of this host, `refused` ones of others (`meshd_dropped_packets_total` has why), `cookie` those whose sender must first prove its address because there are so many.
    HANDSHAKES_FAILED: Counter = "meshd_handshakes_failed_total", by "why";
    /// Peers: all that are `known`, and those with a `session` not older than three minutes. A peer that nobody talks with needs none.
    PEERS: Gauge = "meshd_peers", by "state";

    /// The version of the policy that is in force here.
    POLICY: Gauge = "meshd_policy_version";
    /// How far the map is that is in force here, within its epoch.
    REVISION: Gauge = "meshd_map_revision";
    /// The epoch of the map; raised when a coordinator is restored from a backup.
    EPOCH: Gauge = "meshd_map_epoch";
    /// When the host's certificate expires, in Unix time. It is renewed at half of its day.
    CERTIFICATE_EXPIRES: Gauge = "meshd_certificate_expires_timestamp_seconds";
    /// Whether a coordinator listens.
    CONNECTED: Gauge = "meshd_coordinator_connected";
    /// When a coordinator said something last, in Unix time; nothing where none did since the start.
    LAST_CONTACT: Gauge = "meshd_coordinator_last_contact_timestamp_seconds";
    /// By how much this machine's clock is ahead of the coordinator's.
    CLOCK_AHEAD: Gauge = "meshd_clock_ahead_seconds";

    /// Questions to mesh DNS: `answered` and `no_such_name` of the mesh's own names, `forwarded` others that the host's servers answered, `forward_failed` others that they did not, `refused`, and `malformed` ones.
    DNS: Counter = "meshd_dns_queries_total", by "outcome";
    /// Calls of services that have ended, by whose `part` this host had in them, `from` a workload or else a host, `to` a service or else a host and its port, class of the answer's `status` (`none` for connections of bytes), and the `reason` where the mesh answered or ended the call. What is above the pairs that are counted apart is `others`; what was called of a host in vain, where the policy has no service of that name or no program answered at that port, is `HOST:others`.
    CALLS: Counter = "meshd_service_calls_total", by "part", "from", "to", "status", "reason";
    /// How long calls took from their arrival to the head of their answer.
    CALL_SECONDS: Histogram = "meshd_service_call_seconds", by "part", "from", "to";
    /// How long calls were at what: `queue` until an endpoint had room for them, back-off included, `connect` until there was a session with its host, `tunnel` from one host to the other and back, `server_queue` until the endpoint's host had decided and connected a program, `first_byte` from then to the head of the program's answer, `body` from then to its end. Calls are counted in those stages that they came to; their source knows of all six, their destination of the last three.
    CALL_STAGE_SECONDS: Histogram = "meshd_service_call_stage_seconds", by "part", "from", "to", "stage";
    /// Bytes of bodies, and of connections of bytes: `request` from the caller, `answer` to it.
    CALL_BYTES: Counter = "meshd_service_call_bytes_total", by "part", "from", "to", "direction";
    /// Attempts after the first, of calls from this host.
    CALL_RETRIES: Counter = "meshd_service_call_retries_total", by "from", "to";
    /// Calls from this host that are under way: `sent`, and `waiting` until there is room for them.
    CALLS_UNDER_WAY: Gauge = "meshd_service_calls_under_way", by "to", "state";
    /// Calls that were not written down because more came than could be written: lines of the access `log`, and `spans` that no collector took.
    CALLS_NOT_TOLD: Counter = "meshd_service_calls_not_told_total", by "to";
    /// Endpoints of the services that are called from this host: `ready`, `ejected` for a while because they failed, `down` as their hosts' health checks say, and `unreachable` where no session with their hosts comes about.
    ENDPOINTS: Gauge = "meshd_service_endpoints", by "to", "state";
    /// Whether the programs on this host that services have checked pass their health checks.
    CHECKS_PASSING: Gauge = "meshd_service_check_passing", by "service";
    /// Connections from this host to others that carry calls: over `tcp`, and over `quic` where TCP does not get through.
    CONNECTIONS: Gauge = "meshd_service_connections", by "transport";

    /// Packet threads.
    SHARDS: Gauge = "meshd_shards";
    /// News of the packet threads that were lost because nobody took them in time.
    LOST_EVENTS: Counter = "meshd_lost_events_total";
    /// Hand-overs: 1 `taken_over` in a daemon that took over from another, and attempts of this one to hand over that `failed`.
    HAND_OVERS: Counter = "meshd_hand_overs_total", by "outcome";
}
