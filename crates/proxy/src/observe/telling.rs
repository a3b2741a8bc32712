//! Who writes calls down elsewhere: a thread of its own takes records out of a bounded queue, so that
//! no disk and no collector delays a call. What finds the queue full is counted and left out.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::access_log::{AccessLog, LogWriter};
use super::otlp::{Collector, SpanExporter};
use super::record::Record;
use super::{Known, Observatory};
use crate::report::CallReport;

/// Records that wait to be written.
const WAITING_MAX: usize = 8192;
/// How long what is written may wait for more to go with it.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// What is written down elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Calls as lines of JSON.
    pub access_log: AccessLog,
    /// Where spans go; `None`: calls are not traced.
    pub collector: Option<Collector>,
}

/// The proxy threads' end of the queue.
#[derive(Debug)]
pub(super) struct Teller {
    settings: Telling,
    queue: SyncSender<Box<Record>>,
    lost: AtomicU64,
    spans_lost: Arc<AtomicU64>,
}

impl Teller {
    /// Starts the thread, unless there is nothing to write. It ends with the observatory.
    pub(super) fn start(settings: Telling, observatory: Weak<Observatory>) -> Option<Self> {
        if settings == Telling::default() {
            return None;
        }
        let (queue, records) = mpsc::sync_channel(WAITING_MAX);
        let spans_lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            log: LogWriter::new(settings.access_log.clone()),
            exporter: settings
                .collector
                .clone()
                .map(|collector| SpanExporter::start(collector, Arc::clone(&spans_lost))),
            observatory,
            flush_at: Instant::now() + FLUSH_AFTER,
        };
        let thread = std::thread::Builder::new().name("call-log".to_owned());
        if let Err(error) = thread.spawn(move || writer.run(&records)) {
            tracing::error!(%error, "no thread to write calls down: there is no access log, and there are no spans");
        }
        Some(Self {
            settings,
            queue,
            lost: AtomicU64::new(0),
            spans_lost,
        })
    }

    pub(super) const fn traces(&self) -> bool {
        self.settings.collector.is_some()
    }

    /// Passes a call on, if it is to be written anywhere.
    pub(super) fn tell(&self, report: &CallReport<'_>) {
        let is_traced = self.traces() && report.trace.is_some_and(|trace| trace.sampled);
        if !is_traced && !self.settings.access_log.wants(report.reason) {
            return;
        }
        match self.queue.try_send(Box::new(Record::of(report))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the calls that were not written because nobody took them in time, and the spans that
    /// no collector took.
    pub(super) fn lost(&self) -> (u64, u64) {
        let spans = self.spans_lost.load(Ordering::Relaxed);
        (self.lost.load(Ordering::Relaxed), spans)
    }
}

/// The other end.
struct Writer {
    log: LogWriter,
    exporter: Option<SpanExporter>,
    observatory: Weak<Observatory>,
    /// When spans have waited long enough.
    flush_at: Instant,
}

impl Writer {
    fn run(&mut self, records: &Receiver<Box<Record>>) {
        loop {
            let patience = self.flush_at.saturating_duration_since(Instant::now());
            let came = records.recv_timeout(patience);
            if self.turn(came, records, Instant::now()).is_break() {
                return;
            }
        }
    }

    /// Writes what came with what has come meanwhile, and passes spans on when it is time, however
    /// many records come.
    fn turn(
        &mut self,
        came: Result<Box<Record>, RecvTimeoutError>,
        more: &Receiver<Box<Record>>,
        now: Instant,
    ) -> ControlFlow<()> {
        match came {
            Ok(record) => {
                let known = self.known();
                let more = more.try_iter().take(WAITING_MAX);
                std::iter::once(record)
                    .chain(more)
                    .for_each(|record| self.write(&record, &known));
                self.log.flush();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                self.flush_spans();
                return ControlFlow::Break(());
            }
        }
        if now >= self.flush_at {
            self.flush_spans();
            self.flush_at = now + FLUSH_AFTER;
        }
        ControlFlow::Continue(())
    }

    fn flush_spans(&mut self) {
        if let Some(exporter) = &mut self.exporter {
            exporter.flush();
        }
    }

    fn known(&self) -> Vec<Known> {
        let observatory = self.observatory.upgrade();
        observatory.map_or_else(Vec::new, |it| it.known())
    }

    fn write(&mut self, record: &Record, known: &[Known]) {
        let catalogue = known.first().map(|it| &*it.catalogue);
        if self.log.settings().wants(record.reason) {
            self.log.write(record, known);
        }
        if let Some(exporter) = &mut self.exporter {
            exporter.take(record, catalogue);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::report;
    use super::*;
    use crate::refusal::Reason;

    fn teller(access_log: AccessLog, room: usize) -> (Teller, Receiver<Box<Record>>) {
        let (queue, records) = mpsc::sync_channel(room);
        let settings = Telling {
            access_log,
            collector: None,
        };
        let teller = Teller {
            settings,
            queue,
            lost: AtomicU64::new(0),
            spans_lost: Arc::default(),
        };
        (teller, records)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_delays_nobody() {
        let (teller, records) = teller(AccessLog::All(None), 2);
        (0..5).for_each(|id| teller.tell(&report(id)));
        assert_eq!(teller.lost(), (3, 0));
        assert_eq!(records.try_iter().count(), 2);
    }

    #[test]
    fn the_log_has_a_line_of_json_for_each_call_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let (teller, records) = teller(AccessLog::Denied(Some(path.clone())), 10);
        teller.tell(&report(1));
        let mut denied = report(2);
        (denied.status, denied.reason) = (403, Some(Reason::Denied));
        teller.tell(&denied);
        let mut writer = Writer {
            log: LogWriter::new(teller.settings.access_log.clone()),
            exporter: None,
            observatory: Weak::new(),
            flush_at: Instant::now(),
        };
        drop(teller);
        writer.run(&records);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [line] = &lines[..] else {
            panic!("{text}");
        };
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(line["id"], "0000000000000002");
        assert_eq!(line["reason"], "denied");
        assert_eq!(line["workload"], "web");
        assert_eq!(line["to"], "orders");
        assert_eq!(line["path"], "/v1/items");
        assert_eq!(line["status"], 403);
        assert_eq!(line["answer_micros"], 20_000);
        assert_eq!(line["first_byte_micros"], 15_000);
        assert_eq!(line["connect_micros"], Value::Null);
    }

    #[test]
    fn spans_go_out_in_time_though_records_keep_coming() {
        let (batches, sent) = mpsc::sync_channel(1);
        let began = Instant::now();
        let mut writer = Writer {
            log: LogWriter::new(AccessLog::Off),
            exporter: Some(SpanExporter::into_queue(batches, Arc::default())),
            observatory: Weak::new(),
            flush_at: began + FLUSH_AFTER,
        };
        let (_queue, none) = mpsc::sync_channel(0);
        let mut traced = report(1);
        traced.trace = Some(crate::observe::Trace {
            trace_id: 1,
            span_id: 2,
            parent_id: None,
            sampled: true,
        });
        for millis in [400, 900] {
            let now = began + Duration::from_millis(millis);
            let turn = writer.turn(Ok(Box::new(Record::of(&traced))), &none, now);
            assert!(turn.is_continue());
            assert!(sent.try_recv().is_err(), "{millis}");
        }
        let now = began + Duration::from_millis(1300);
        let turn = writer.turn(Ok(Box::new(Record::of(&traced))), &none, now);
        assert!(turn.is_continue());
        let (_, spans) = sent.try_recv().unwrap();
        assert_eq!(spans, 3);
        assert_eq!(writer.flush_at, now + FLUSH_AFTER);
    }
}
