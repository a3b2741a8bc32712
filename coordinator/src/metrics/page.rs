//! Writes a page of the catalogue, as it is now.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use fleet::Figures;
use model::control::{Refusal, RefusalCode};
use model::local::MetricsText;
use model::time::UnixTime;
use runtime::local_socket::LocalPeer;
use runtime::metrics::{Format, Page, Source, process};
use runtime::tls_server::Census;

use super::tally::{KINDS, OUTCOMES, Tally};
use super::*;
use crate::admin::Failure;
use crate::brain::{BrainHandle, Input};

/// Whom a page is asked of.
#[derive(Clone)]
pub(crate) struct MetricsSource {
    pub(crate) brain: BrainHandle,
    pub(crate) tally: Arc<Tally>,
    pub(crate) own: Arc<Own>,
}

/// What neither the brain nor the tally knows.
pub(crate) struct Own {
    pub(crate) started: UnixTime,
    /// Who is at the TLS port.
    pub(crate) census: Arc<Census>,
    /// The store's file.
    pub(crate) store: PathBuf,
    /// What the brain told last.
    pub(crate) recent: Recent<Told>,
}

/// What the brain told, and how long it took.
#[derive(Clone)]
pub(crate) struct Told {
    figures: Arc<Figures>,
    waited: Duration,
}

/// Returns the route, for the local socket only.
pub(crate) fn router(source: MetricsSource) -> Router {
    Router::new()
        .route("/v1/metrics", get(show))
        .route("/metrics", get(show_text))
        .layer(middleware::from_fn(only_trusted))
        .method_not_allowed_fallback(|| async { Failure::no_such_method() })
        .with_state(source)
}

async fn only_trusted(
    Extension(peer): Extension<LocalPeer>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if !peer.trusted {
        let message = "only root and members of group mesh may do this; try sudo";
        return Err(Refusal::new(RefusalCode::Denied, message).into());
    }
    Ok(next.run(request).await)
}

async fn show(State(source): State<MetricsSource>) -> Result<Json<MetricsText>, Failure> {
    let stopping = || Refusal::new(RefusalCode::Unavailable, "the coordinator is stopping");
    let text = source.page(Format::Prometheus).await.ok_or_else(stopping)?;
    Ok(Json(MetricsText { text }))
}

async fn show_text(State(source): State<MetricsSource>, headers: HeaderMap) -> Response {
    runtime::metrics::answer(&source, &headers).await
}

impl Source for MetricsSource {
    async fn page(&self, format: Format) -> Option<String> {
        let told = self.own.recent.get(Instant::now, self.ask_brain());
        let Told { figures, waited } = told.await?;
        let mut page = Page::new(format);
        write_fleet(&mut page, &figures);
        self.write_network(&mut page, &figures);
        self.write_operators(&mut page, &figures);
        self.write_brain(&mut page, &figures);
        page.one(ANSWER_TIME, waited.as_secs_f64());
        self.write_store(&mut page);
        write_authority(&mut page, &figures);
        process::write(&mut page, self.own.started);
        Some(page.finish())
    }
}

fn write_fleet(page: &mut Page, figures: &Figures) {
    page.metric(BUILD).add([env!("CARGO_PKG_VERSION")], true);
    page.metric(HOSTS)
        .add(["online"], figures.hosts_well)
        .add(["in_trouble"], figures.hosts_in_trouble)
        .add(["offline"], figures.hosts_offline);
    page.one(HOSTS_IN_FORCE, figures.hosts_in_force);
    page.one(POLICY, figures.policy.0);
    page.one(REVISION, figures.revision.counter);
    page.one(EPOCH, figures.revision.epoch);
}

fn write_authority(page: &mut Page, figures: &Figures) {
    page.one(ROOTS, figures.roots);
    page.one(NOT_MOVED, figures.hosts_not_moved);
    page.one(RECOVERING, figures.is_recovering);
    page.one(RECOVERY_MISSING, figures.recovery_missing);
}

impl MetricsSource {
    async fn ask_brain(&self) -> Option<Told> {
        let asked = Instant::now();
        let figures = self.brain.ask(Input::Figures).await.ok()?;
        Some(Told {
            figures: Arc::new(figures),
            waited: asked.elapsed(),
        })
    }

    fn write_network(&self, page: &mut Page, figures: &Figures) {
        let (census, tally) = (&self.own.census, &self.tally);
        page.one(STREAMS, figures.streams);
        page.metric(CONNECTIONS)
            .add(["all"], census.connections())
            .add(["strangers"], census.strangers());
        page.metric(CONNECTIONS_REFUSED)
            .add(["no_place"], census.without_place())
            .add(["handshake"], census.without_handshake());
        write(page, ENROLMENTS, tally.enrolments.named(OUTCOMES));
        write(page, RENEWALS, tally.renewals.named(["granted", "refused"]));
        write(page, SENT, tally.sent.named(KINDS));
        write(page, SENT_BYTES, tally.sent_bytes.named(KINDS));
        page.one(UNREAD_BYTES, tally.unread());
        let told = tally.retry_after.named(["host", "operator"]);
        write(page, RETRY_AFTER, told);
    }

    fn write_operators(&self, page: &mut Page, figures: &Figures) {
        let tally = &self.tally;
        write(page, REQUESTS, tally.requests.named(OUTCOMES));
        let mut request_time = page.metric(REQUEST_TIME);
        request_time.add_histogram([], &tally.request_time);
        let unwelcome = tally.unwelcome.named(["unknown", "expired"]);
        write(page, UNWELCOME, unwelcome);
        write(page, AUDITED, tally.audited.named(["done", "refused"]));
        page.one(AUDIT_NUMBER, figures.audit_number);
    }

    fn write_brain(&self, page: &mut Page, figures: &Figures) {
        let (waiting, max) = self.brain.queue();
        page.one(QUEUE, waiting);
        page.one(QUEUE_MAX, max);
        let mut turn_time = page.metric(TURN_TIME);
        turn_time.add_histogram([], &self.tally.turn_time);
        page.one(POLICY_WORKS, figures.policy_works);
    }

    fn write_store(&self, page: &mut Page) {
        let tally = &self.tally;
        let commits = tally.commits.named(["done", "conflict", "failed"]);
        write(page, COMMITS, commits);
        let mut commit_time = page.metric(COMMIT_TIME);
        commit_time.add_histogram([], &tally.commit_time);
        let bytes = tally.commit_bytes.load(Ordering::Relaxed);
        page.one(COMMIT_BYTES, bytes);
        let file = std::fs::metadata(&self.own.store);
        page.perhaps(STORE_FILE, file.ok().map(|it| it.len()));
    }
}

/// Writes a metric with one label.
fn write(
    page: &mut Page,
    metric: runtime::metrics::Metric,
    counts: impl Iterator<Item = (&'static str, u64)>,
) {
    let mut series = page.metric(metric);
    for (name, count) in counts {
        series.add([name], count);
    }
}
