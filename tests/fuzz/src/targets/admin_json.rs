//! The admin API, the local API and the credential file as JSON: what is understood survives being
//! written again.

use std::fmt::Debug;

use model::address::OverlayPrefixes;
use model::admin::{
    AdminCredential, AdminView, AppliedPolicy, ApplyPolicy, AuthorityView, CoordinatorStatus,
    CreateAdmin, CreateToken, CreatedAdmin, CreatedToken, Decision, DiagnosticView, EndAnswer,
    EndReport, ErrorBody, FinishRecovery, HostView, PolicyContent, PolicyFile, PolicyVersionView,
    RecoveryStatus, RemovedHost, RemovedHostView, RetireAuthority, Role, RollbackPolicy, Rollout,
    RolloutFailure, RootView, SetLabels, StartRecovery, TokenView, UnmovedHost, WhyReport,
    WhyRequest,
};
use model::ids::{PolicyVersion, Revision};
use model::local::{
    DropCount, HostDetail, HostState, HostStatus, JoinRequest, Joined, Left, LocalWhyReport,
    LocalWhyRequest, PeerView, PingReply, PingRequest,
};
use model::pair::PairFacts;
use model::question::{CallFacts, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Seed;
use crate::small_fleet::{SmallFleet, name};

macro_rules! survive {
    ($bytes:ident, $($noun:ty)*) => {$( survives::<$noun>($bytes); )*};
}

/// Reads bytes as every body.
pub fn target(bytes: &[u8]) {
    survive! { bytes,
        ErrorBody CoordinatorStatus CreateToken CreatedToken TokenView HostView SetLabels
        PolicyFile ApplyPolicy RollbackPolicy AppliedPolicy DiagnosticView PolicyVersionView
        PolicyContent Rollout WhyRequest WhyReport Decision EndAnswer Role CreateAdmin
        CreatedAdmin AdminView AdminCredential HostStatus HostDetail JoinRequest Joined Left
        PeerView PingRequest PingReply LocalWhyRequest LocalWhyReport
        AuthorityView RetireAuthority RecoveryStatus StartRecovery FinishRecovery RemovedHost
        Vec<HostView> Vec<PeerView> Vec<TokenView> Vec<AdminView>
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&value).expect("our own nouns can be written");
    let again = serde_json::from_slice::<T>(&text).expect("what we write can be read");
    assert_eq!(again, value);
}

/// A body of each kind that is sent to a server, and the larger ones that come back.
pub(crate) fn seeds() -> Vec<Seed> {
    let fleet = SmallFleet::new();
    let mut seeds = questions(&fleet);
    seeds.extend(answers_of_coordinators(&fleet));
    seeds.extend(answers_of_hosts(&fleet));
    seeds
}

fn seed(name: &str, body: &impl Serialize) -> Seed {
    Seed::new(
        name,
        serde_json::to_vec(body).expect("our own nouns can be written"),
    )
}

fn questions(fleet: &SmallFleet) -> Vec<Seed> {
    let labels = fleet.hosts[0].labels.clone();
    let create_token = CreateToken {
        labels: labels.clone(),
        uses: Some(3),
        valid_for_secs: 3600,
        names: vec!["web-*".to_owned()],
        comment: "for the new rack".to_owned(),
    };
    let apply = ApplyPolicy {
        files: vec![file()],
        base: Some(PolicyVersion(2)),
        message: "open the database".to_owned(),
        dry_run: true,
    };
    let why = WhyRequest {
        from: "web-1".to_owned(),
        to: "db".to_owned(),
        protocol: "tcp".to_owned(),
        port: Some(5432),
        call: CallFacts::default(),
    };
    let credential = AdminCredential {
        fleet: name("prod"),
        addresses: vec!["c1.example.com:7443".to_owned()],
        root_pin: fleet.authority.root_pin(),
        name: "ada".to_owned(),
        secret: "secret".to_owned(),
    };
    let join = JoinRequest {
        token: fleet.token().encode(),
        name: Some("web-1".to_owned()),
    };
    let ping = PingRequest {
        host: "db-1".to_owned(),
        timeout_millis: 1000,
        packet_bytes: Some(1420),
    };
    let local_why = LocalWhyRequest {
        from: "web-1".to_owned(),
        to: "db".to_owned(),
        protocol: "udp".to_owned(),
        port: None,
        call: CallFacts::default(),
    };
    let create_admin = CreateAdmin {
        name: name("ada"),
        role: Role::PolicyEditor,
        valid_for_secs: None,
    };
    let rollback = RollbackPolicy {
        to: PolicyVersion(1),
        base: None,
        message: String::new(),
        dry_run: false,
    };
    let start_recovery = StartRecovery {
        why: "an operator says so".to_owned(),
    };
    vec![
        seed("create-token", &create_token),
        seed("set-labels", &SetLabels { labels, base: None }),
        seed("apply-policy", &apply),
        seed("rollback", &rollback),
        seed("why", &why),
        seed("create-admin", &create_admin),
        seed("retire-authority", &RetireAuthority { force: true }),
        seed("finish-recovery", &FinishRecovery { force: true }),
        seed("start-recovery", &start_recovery),
        seed("credential", &credential),
        seed("join", &join),
        seed("ping", &ping),
        seed("local-why", &local_why),
    ]
}

fn file() -> PolicyFile {
    PolicyFile {
        path: "policy.yaml".to_owned(),
        text: "fleet: prod\nallow: []\n".to_owned(),
    }
}

fn decision() -> Decision {
    Decision {
        allowed: false,
        verdict: Some(Verdict::Depends),
        depends_on: vec!["the method".to_owned()],
        rule: Some("quarantine".to_owned()),
        rule_source: Some("policy.yaml:9".to_owned()),
        version: PolicyVersion(3),
        notes: vec!["app-db would allow it from role=app".to_owned()],
    }
}

fn answers_of_coordinators(fleet: &SmallFleet) -> Vec<Seed> {
    let host = &fleet.hosts[0];
    let prefixes = OverlayPrefixes::derived_from(host.fleet);
    let status = CoordinatorStatus {
        version: "1.0.0".to_owned(),
        fleet: host.fleet,
        fleet_name: name("prod"),
        dns_suffix: "mesh.internal".to_owned(),
        overlay_v4: prefixes.v4,
        overlay_v6: prefixes.v6,
        root_pin: fleet.authority.root_pin().to_string(),
        revision: Revision::new(1, 8),
        hosts: 3,
        hosts_online: 2,
        policy: PolicyVersion(3),
        addresses: vec!["192.0.2.1:7443".to_owned()],
        disbelieving: 0,
        alarms: vec!["cannot answer for metrics".into()],
    };
    let view = HostView {
        id: host.host,
        name: host.name.clone(),
        labels: host.labels.clone(),
        addresses: host.addresses,
        wireguard_key: host.wireguard_key,
        online: true,
        joined_secs: 1_800_000_000,
        last_seen_secs: None,
        software_version: Some("1.0.0".to_owned()),
        endpoints: vec![fleet.entry(host).endpoints[0].address],
        applied_policy: Some(PolicyVersion(3)),
        apply_error: None,
        trouble: None,
    };
    let version = PolicyVersionView {
        version: PolicyVersion(3),
        created_secs: 1_800_000_000,
        author: "ada".to_owned(),
        message: "open the database".to_owned(),
        content_digest: fleet.authority.root_pin().to_string(),
        current: true,
    };
    let content = PolicyContent {
        view: version,
        files: vec![file()],
    };
    let rollout = Rollout {
        version: PolicyVersion(3),
        hosts: 3,
        in_force: 1,
        pending: vec![name("web-1")],
        offline: vec![],
        failed: vec![RolloutFailure {
            host: name("db-1"),
            error: "not signed".to_owned(),
        }],
    };
    let why = WhyReport {
        from: name("web-1"),
        to: name("db-1"),
        addresses: vec![[100, 64, 0, 17].into()],
        protocol: "tcp".to_owned(),
        port: 5432,
        service: None,
        policy: decision(),
        source: EndAnswer::Answered(Box::new(EndReport {
            decision: decision(),
            pair: Some(PairFacts::default()),
        })),
        destination: EndAnswer::Silent,
    };
    vec![
        seed("status", &status),
        seed("hosts", &[view]),
        seed("policy", &content),
        seed("rollout", &rollout),
        seed("why-report", &why),
    ]
    .into_iter()
    .chain(answers_about_membership(fleet))
    .collect()
}

fn answers_about_membership(fleet: &SmallFleet) -> Vec<Seed> {
    let host = &fleet.hosts[0];
    let token = TokenView {
        id: fleet.token().id,
        labels: host.labels.clone(),
        uses: Some(3),
        used: 1,
        created_secs: 1_800_000_000,
        expires_secs: 1_800_003_600,
        revoked: false,
        names: vec!["web-*".to_owned()],
        comment: "for the new rack".to_owned(),
    };
    let admin = AdminView {
        name: name("ada"),
        role: Role::Operator,
        created_secs: 1_800_000_000,
        created_by: "admin".to_owned(),
        expires_secs: Some(1_800_086_400),
    };
    let removed = RemovedHost {
        view: RemovedHostView {
            id: host.host,
            name: name("old-7"),
            reason: "revoked by ada".to_owned(),
            removed_by: "ada".to_owned(),
            removed_secs: 1_800_000_000,
            revoked: true,
        },
        concerned: 3,
        arrived: 1,
        pending: vec![name("db-1")],
        offline: vec![name("vm-3")],
    };
    let recovery = RecoveryStatus {
        under_way: true,
        why: Some("it was restored".to_owned()),
        epoch: 2,
        hosts: 3,
        heard: 1,
        missing: vec![name("db-1"), name("vm-3")],
        stored: 4,
        pending: 1,
        recalled_policy: Some(PolicyVersion(3)),
        disbelieving: 2,
    };
    let authority = AuthorityView {
        epoch: 1,
        serial: 2,
        roots: vec![RootView {
            pin: fleet.authority.root_pin(),
            name: "mesh fleet prod".to_owned(),
            made_secs: 1_800_000_000,
            expires_secs: 1_900_000_000,
        }],
        rotating: true,
        hosts: 3,
        moved: 2,
        missing: vec![UnmovedHost {
            name: name("vm-3"),
            online: false,
            last_seen_secs: Some(1_800_000_000),
            believes: true,
        }],
        to_sign: 4,
        to_erase: 1,
        erase_trouble: Some("no space left on device".to_owned()),
        left_behind: vec![name("vm-3")],
    };
    vec![
        seed("tokens", &[token]),
        seed("admins", &[admin]),
        seed("removed", &removed),
        seed("recovery", &recovery),
        seed("authority", &authority),
    ]
}

fn answers_of_hosts(fleet: &SmallFleet) -> Vec<Seed> {
    let host = &fleet.hosts[0];
    let addresses = vec![host.addresses.v4.into(), host.addresses.v6.into()];
    let detail = HostDetail {
        name: host.name.clone(),
        id: host.host,
        fleet: name("prod"),
        dns_suffix: "mesh.internal".to_owned(),
        interface: "mesh0".to_owned(),
        addresses: addresses.clone(),
        labels: host.labels.clone(),
        listen_port: 51820,
        coordinators: vec!["c1.example.com:7443".to_owned()],
        coordinator_error: None,
        revision: Some(Revision::new(1, 8)),
        policy: Some(PolicyVersion(3)),
        peers: 2,
        certificate_expires_secs: Some(1_800_086_400),
        alarms: vec![],
        drops: vec![DropCount {
            reason: "not_ip".to_owned(),
            packets: 7,
        }],
        shards: 2,
        clock_ahead_secs: Some(-3),
        binary_replaced: false,
        state_dir: Some("/var/lib/mesh/meshd".to_owned()),
        nft_table: Some("mesh".to_owned()),
        mtu: Some(1420),
    };
    let status = HostStatus {
        version: "1.0.0".to_owned(),
        state: HostState::Online,
        up: Some(true),
        detail: Some(detail),
    };
    let peer = PeerView {
        name: name("db-1"),
        id: fleet.hosts[1].host,
        addresses,
        labels: fleet.hosts[1].labels.clone(),
        endpoint: None,
        candidates: vec![fleet.entry(&fleet.hosts[1]).endpoints[0].address],
        mtu: Some(1420),
        mtu_standing: Some("proven".into()),
        black_holes: 0,
        last_handshake_secs: Some(5),
        lanes: 2,
        received_bytes: 1,
        sent_bytes: 2,
        cipher: Some("chacha20-poly1305".to_owned()),
    };
    vec![seed("host-status", &status), seed("peers", &[peer])]
}
