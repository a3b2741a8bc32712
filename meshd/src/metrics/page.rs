//! Writes a page of the catalogue, as it is now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::Figures;
use dataplane::{Counters, DropReason, ShardConfig};
use model::local::HostState;
use model::time::UnixTime;
use runtime::metrics::{Format, Page, Source, Trouble, process};

use super::*;
use crate::brain::{BrainHandle, Input};
use crate::dns::DnsTally;
use crate::drops::KernelDrops;
use crate::overlay::OverlayHandle;
use crate::packets::WorkerHandle;
use crate::services::ServicesHandle;

/// Every state, with what the page calls it.
const STATES: [(HostState, &str); 6] = [
    (HostState::Unenrolled, "unenrolled"),
    (HostState::Joining, "joining"),
    (HostState::Online, "online"),
    (HostState::Autonomous, "autonomous"),
    (HostState::Removed, "removed"),
    (HostState::Cloned, "cloned"),
];

/// Whom a page is asked of.
#[derive(Clone)]
pub struct MetricsSource {
    pub(crate) brain: BrainHandle,
    pub(crate) worker: WorkerHandle,
    pub(crate) overlay: OverlayHandle,
    pub(crate) dns: Arc<DnsTally>,
    pub(crate) services: ServicesHandle,
    pub(crate) own: Arc<Own>,
}

/// What nobody else knows.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) started: UnixTime,
    /// The version of the daemon that this one has taken over from.
    pub(crate) taken_over_from: Option<String>,
    /// Hand-overs that failed.
    pub(crate) hand_overs_failed: AtomicU64,
    /// Why nobody is answered at the port.
    pub(crate) trouble: Trouble,
    pub(crate) kernel_drops: Arc<KernelDrops>,
}

impl MetricsSource {
    /// Where it is noted why nobody is answered at the port.
    pub(crate) fn trouble(&self) -> Trouble {
        self.own.trouble.clone()
    }

    /// Counts a hand-over that failed.
    pub(crate) fn hand_over_failed(&self) {
        self.own.hand_overs_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds something up over all shards.
    fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.worker.counters().map(count).sum()
    }

    fn write_host(&self, page: &mut Page, figures: &Figures) {
        let before = self.own.taken_over_from.as_deref().unwrap_or("");
        page.metric(BUILD)
            .add([env!("CARGO_PKG_VERSION"), before], true);
        let mut states = page.metric(STATE);
        for (state, name) in STATES {
            states.add([name], figures.state == state);
        }
        let around = self
            .overlay
            .alarms()
            .into_iter()
            .chain(self.services.alarms())
            .chain(self.own.trouble.told());
        page.one(ALARMS, figures.alarms + around.count());
        let stands = figures.revision.is_some() && self.overlay.trouble().is_none();
        page.one(OVERLAY_UP, stands);
    }

    fn write_packets(&self, page: &mut Page) {
        let both = |count: fn(&Counters) -> (u64, u64)| {
            [self.sum(|it| count(it).0), self.sum(|it| count(it).1)]
        };
        let [sent, sent_bytes] = both(Counters::sent);
        let [delivered, delivered_bytes] = both(Counters::delivered);
        let [offered, offered_bytes] = both(Counters::overlay_received);
        let [datagrams, datagram_bytes] = both(Counters::datagrams_received);
        page.metric(OVERLAY_PACKETS)
            .add(["out"], sent)
            .add(["in"], delivered);
        page.metric(OVERLAY_BYTES)
            .add(["out"], sent_bytes)
            .add(["in"], delivered_bytes);
        page.one(OFFERED_PACKETS, offered);
        page.one(OFFERED_BYTES, offered_bytes);
        page.one(DATAGRAMS, datagrams);
        page.one(DATAGRAM_BYTES, datagram_bytes);
        self.write_drops(page);
        page.one(QUEUED, self.sum(Counters::queued));
    }

    fn write_drops(&self, page: &mut Page) {
        let mut drops = page.metric(DROPS);
        for reason in DropReason::ALL {
            drops.add([reason.name()], self.worker.dropped(*reason));
        }
        for (reason, packets) in self.worker.failures().by_reason() {
            drops.add([reason], packets);
        }
        let by_kernel = &self.own.kernel_drops;
        page.metric(KERNEL_DROPS)
            .add(["tun"], by_kernel.overlay_queue_full())
            .add(["socket"], by_kernel.underlay_queue_full())
            .add(["share"], by_kernel.underlay_above_share());
        let failures = self.worker.failures();
        page.metric(OFFLOADS_REFUSED)
            .add(["tun"], failures.joins_refused())
            .add(["socket"], failures.runs_refused());
    }

    fn write_flows(&self, page: &mut Page) {
        let shards = self.worker.shard_count();
        page.one(FLOWS, self.sum(Counters::flows));
        page.one(FLOWS_MAX, shards * ShardConfig::default().limits.flows);
        page.one(FLOWS_EVICTED, self.sum(Counters::flows_evicted));
        page.one(DENIED_BY_PEERS, self.worker.denied_by_peers());
        page.one(REFUSALS, self.sum(Counters::refusals));
        page.one(REJECTIONS, self.sum(Counters::rejections));
        page.one(PATH_PROBES, self.sum(Counters::path_probes));
        page.one(PACKETS_CUT, self.sum(Counters::packets_cut));
    }

    fn write_handshakes(&self, page: &mut Page, figures: &Figures) {
        page.one(HANDSHAKES_BEGUN, self.sum(Counters::handshakes_started));
        page.one(
            HANDSHAKES_COMPLETED,
            self.sum(Counters::handshakes_completed),
        );
        let dropped = |reasons: &[DropReason]| {
            let dropped = reasons.iter().map(|reason| self.worker.dropped(*reason));
            dropped.sum::<u64>()
        };
        page.metric(HANDSHAKES_FAILED)
            .add(["unanswered"], self.sum(Counters::handshakes_unanswered))
            .add(["refused"], dropped(REFUSED))
            .add(["cookie"], dropped(&[DropReason::HandshakeNeedsCookie]));
        page.metric(PEERS)
            .add(["known"], figures.peers)
            .add(["session"], figures.peers_with_session);
    }

    fn write_control(&self, page: &mut Page, figures: &Figures) {
        page.perhaps(POLICY, figures.policy.map(|it| it.0));
        page.perhaps(REVISION, figures.revision.map(|it| it.counter));
        page.perhaps(EPOCH, figures.revision.map(|it| it.epoch));
        let expires = figures.certificate_expires.map(|it| it.as_secs());
        page.perhaps(CERTIFICATE_EXPIRES, expires);
        page.one(CONNECTED, figures.state == HostState::Online);
        page.perhaps(LAST_CONTACT, figures.last_contact.map(|it| it.as_secs()));
        let ahead = figures.clock_ahead_secs.map(|secs| secs as f64);
        page.perhaps(CLOCK_AHEAD, ahead);
    }

    fn write_rest(&self, page: &mut Page) {
        let mut queries = page.metric(DNS);
        for (outcome, count) in self.dns.counts() {
            queries.add([outcome], count);
        }
        page.one(SHARDS, self.worker.shard_count());
        page.one(LOST_EVENTS, self.sum(Counters::lost_events));
        let failed = self.own.hand_overs_failed.load(Ordering::Relaxed);
        page.metric(HAND_OVERS)
            .add(["taken_over"], self.own.taken_over_from.is_some())
            .add(["failed"], failed);
        process::write(page, self.own.started);
    }
}

/// Handshakes of others that went no further, but for those that shall come again with a cookie.
const REFUSED: &[DropReason] = &[
    DropReason::HandshakeBadMac,
    DropReason::HandshakeOverload,
    DropReason::HandshakeUnknownKey,
    DropReason::HandshakeForged,
    DropReason::HandshakeReplayed,
    DropReason::HandshakeTooFrequent,
    DropReason::HandshakeUnexpected,
];

impl Source for MetricsSource {
    async fn page(&self, format: Format) -> Option<String> {
        let figures = self.brain.ask(Input::Figures).await.ok()?;
        let mut page = Page::new(format);
        self.write_host(&mut page, &figures);
        self.write_packets(&mut page);
        self.write_flows(&mut page);
        self.write_handshakes(&mut page, &figures);
        self.write_control(&mut page, &figures);
        calls::write(&mut page, self.services.observatory());
        self.write_rest(&mut page);
        Some(page.finish())
    }
}
