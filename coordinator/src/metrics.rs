//! What this coordinator tells of itself in numbers: the catalogue, what counts beside the brain, and
//! who writes a page. There is no series for a host: a fleet has thousands, and their names are for
//! those who may see them. `meshctl hosts list` tells of them.

mod page;
mod recent;
mod tally;

pub(crate) use page::{MetricsSource, Own, router};
pub(crate) use recent::Recent;
pub(crate) use tally::{Asker, Sent, Tally};

runtime::catalogue! {
    /// The version that runs.
    BUILD: Info = "coordinator_build_info", by "version";
    /// Members: `online` with an open stream, `in_trouble` those that have one and say what is wrong (`meshctl hosts list` has it), `offline`.
    HOSTS: Gauge = "coordinator_hosts", by "state";
    /// Members that are online and say that the current policy is in force.
    HOSTS_IN_FORCE: Gauge = "coordinator_hosts_in_force";
    /// The current version of the policy.
    POLICY: Gauge = "coordinator_policy_version";
    /// The revision of the last change, within its epoch.
    REVISION: Gauge = "coordinator_map_revision";
    /// The epoch; raised at the end of a recovery.
    EPOCH: Gauge = "coordinator_map_epoch";

    /// Streams of hosts that are open, also of those that are not let in yet.
    STREAMS: Gauge = "coordinator_streams";
    /// Connections to the TLS port: `all`, and those of `strangers`, which have few places.
    CONNECTIONS: Gauge = "coordinator_connections", by "whose";
    /// Connections that came to nothing: `no_place` for one more, `handshake` of TLS that failed.
    CONNECTIONS_REFUSED: Counter = "coordinator_connections_refused_total", by "why";

    /// Hosts that asked to join, by what came of it: `done`, or the code of the refusal.
    ENROLMENTS: Counter = "coordinator_enrolments_total", by "outcome";
    /// Certificates that hosts asked for: `granted` or `refused`.
    RENEWALS: Counter = "coordinator_renewals_total", by "outcome";
    /// Messages that hosts took, by kind; a `map` tells what has changed.
    SENT: Counter = "coordinator_sent_messages_total", by "kind";
    /// Bytes of them, before TLS.
    SENT_BYTES: Counter = "coordinator_sent_bytes_total", by "kind";
    /// Bytes that wait for hosts to read them, about.
    UNREAD_BYTES: Gauge = "coordinator_unread_bytes";
    /// How often somebody was told when to come back: a `host` on its stream or a joining one, an `operator`.
    RETRY_AFTER: Counter = "coordinator_retry_after_total", by "told";

    /// What operators asked, by what came of it: `done`, or the code of the refusal.
    REQUESTS: Counter = "coordinator_admin_requests_total", by "outcome";
    /// How long they waited for it.
    REQUEST_TIME: Histogram = "coordinator_admin_request_seconds";
    /// Credentials that open nothing: `unknown` or `expired`.
    UNWELCOME: Counter = "coordinator_credentials_refused_total", by "why";
    /// New entries of the audit log since the start: something `done` or `refused`.
    AUDITED: Counter = "coordinator_audit_entries_total", by "outcome";
    /// The number of its last entry, over all starts.
    AUDIT_NUMBER: Gauge = "coordinator_audit_last_number";

    /// Inputs that wait for the brain, which takes one after the other.
    QUEUE: Gauge = "coordinator_brain_queue";
    /// How many may wait; then hosts and operators wait to be heard.
    QUEUE_MAX: Gauge = "coordinator_brain_queue_max";
    /// How long the brain took for each turn, in which it takes a portion of everything that waits.
    TURN_TIME: Histogram = "coordinator_brain_turn_seconds";
    /// How long the brain kept this page waiting.
    ANSWER_TIME: Gauge = "coordinator_brain_answer_seconds";
    /// Requests whose policies are being read, tested or planned, or wait for it.
    POLICY_WORKS: Gauge = "coordinator_policy_works";

    /// Changes that were given to the store: `done`, `conflict` when somebody else was first, `failed`.
    COMMITS: Counter = "coordinator_store_commits_total", by "outcome";
    /// How long they took to be durable, with those before them.
    COMMIT_TIME: Histogram = "coordinator_store_commit_seconds";
    /// Bytes of their keys and values.
    COMMIT_BYTES: Counter = "coordinator_store_written_bytes_total";
    /// Bytes of the store's file.
    STORE_FILE: Gauge = "coordinator_store_file_bytes";

    /// Roots that hosts believe; two while the authority is rotated.
    ROOTS: Gauge = "coordinator_authority_roots";
    /// Members that have not moved to the newest of them.
    NOT_MOVED: Gauge = "coordinator_authority_hosts_not_moved";
    /// Whether hosts are asked what they remember, after a restore; nothing is changed meanwhile.
    RECOVERING: Gauge = "coordinator_recovery_under_way";
    /// Members that have not told it.
    RECOVERY_MISSING: Gauge = "coordinator_recovery_hosts_missing";
}
