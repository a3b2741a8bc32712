//! The last changes of a store, and the watches that read them. There is one bounded log and no
//! queue per reader: a reader that falls behind the log is told to list the keys again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream;
use model::store::{Committed, Event, StoreRevision};
use tokio::sync::watch;

use super::{Compacted, StoreError, StoreLimits, WatchStream};

/// The log of changes and the bell that wakes its readers. Dropping it ends their streams.
#[derive(Debug)]
pub(super) struct History {
    log: Arc<Mutex<Log>>,
    latest: watch::Sender<StoreRevision>,
    places: Arc<()>,
}

impl History {
    /// Starts an empty log: everything up to revision `at` is unknown to it.
    pub(super) fn new(at: StoreRevision) -> Self {
        Self {
            log: Arc::new(Mutex::new(Log::new(at))),
            latest: watch::Sender::new(at),
            places: Arc::new(()),
        }
    }

    /// Adds a change, unless nothing changed.
    pub(super) fn push(&self, committed: &Committed) {
        if committed.events.is_empty() {
            return;
        }
        lock(&self.log).push(Arc::new(committed.clone()));
        self.latest.send_replace(committed.revision);
    }

    /// Forgets the changes up to and including `through`.
    pub(super) fn compact(&self, through: StoreRevision) {
        lock(&self.log).compact(through);
    }

    /// Forgets all changes; the next one follows revision `at`.
    pub(super) fn restart(&self, at: StoreRevision) {
        *lock(&self.log) = Log::new(at);
        self.latest.send_replace(at);
    }

    /// Returns the changes after revision `after`.
    pub(super) fn watch(&self, after: StoreRevision) -> Result<WatchStream, StoreError> {
        // One count is our own.
        if Arc::strong_count(&self.places) > StoreLimits::WATCHERS_MAX {
            return Err(StoreError::Full {
                what: "watches",
                max: StoreLimits::WATCHERS_MAX,
            });
        }
        let reader = Reader {
            log: Arc::clone(&self.log),
            latest: self.latest.subscribe(),
            seen: after,
            _place: Arc::clone(&self.places),
        };
        Ok(Box::pin(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await? {
                Ok(committed) => Some((Ok(committed), Some(reader))),
                Err(compacted) => Some((Err(compacted), None)),
            }
        })))
    }
}

/// One watch: what it has seen, and how it is woken.
struct Reader {
    log: Arc<Mutex<Log>>,
    latest: watch::Receiver<StoreRevision>,
    seen: StoreRevision,
    _place: Arc<()>,
}

impl Reader {
    /// Waits for the next change; `None` when the store is closed and all of it is read.
    async fn next(&mut self) -> Option<Result<Committed, Compacted>> {
        loop {
            // Marked as seen before the log is read: a change in between wakes us again.
            self.latest.borrow_and_update();
            let closed = self.latest.has_changed().is_err();
            let next = lock(&self.log).after(self.seen);
            match next {
                Ok(Some(committed)) => {
                    self.seen = committed.revision;
                    return Some(Ok((*committed).clone()));
                }
                Ok(None) if closed => return None,
                Ok(None) => drop(self.latest.changed().await),
                Err(compacted) => return Some(Err(compacted)),
            }
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().expect("nothing panics while it holds the log")
}

/// Changes without gaps from `forgotten` on.
#[derive(Debug)]
struct Log {
    forgotten: StoreRevision,
    changes: VecDeque<Arc<Committed>>,
    events: usize,
    bytes: usize,
}

impl Log {
    fn new(forgotten: StoreRevision) -> Self {
        Self {
            forgotten,
            changes: VecDeque::new(),
            events: 0,
            bytes: 0,
        }
    }

    fn push(&mut self, committed: Arc<Committed>) {
        debug_assert_eq!(
            committed.revision,
            self.last().next(),
            "changes follow one another"
        );
        self.events += committed.events.len();
        self.bytes += bytes_of(&committed);
        self.changes.push_back(committed);
        while self.events > StoreLimits::HISTORY_EVENTS_MAX
            || self.bytes > StoreLimits::HISTORY_BYTES_MAX
        {
            self.forget_oldest();
        }
    }

    fn compact(&mut self, through: StoreRevision) {
        while self
            .changes
            .front()
            .is_some_and(|oldest| oldest.revision <= through)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.events -= oldest.events.len();
            self.bytes -= bytes_of(&oldest);
            self.forgotten = oldest.revision;
        }
    }

    fn last(&self) -> StoreRevision {
        self.changes
            .back()
            .map_or(self.forgotten, |newest| newest.revision)
    }

    /// Returns the first change after `seen`, if there is one yet.
    fn after(&self, seen: StoreRevision) -> Result<Option<Arc<Committed>>, Compacted> {
        if seen < self.forgotten {
            return Err(Compacted {
                through: self.forgotten,
            });
        }
        let index = self
            .changes
            .partition_point(|change| change.revision <= seen);
        Ok(self.changes.get(index).map(Arc::clone))
    }
}

fn bytes_of(committed: &Committed) -> usize {
    let bytes = |event: &Event| match event {
        Event::Put(stored) => stored.key.as_str().len() + stored.value.len(),
        Event::Delete { key, .. } => key.as_str().len(),
    };
    committed.events.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use model::store::Key;

    use super::*;

    #[test]
    fn log_forgets_the_oldest_changes_beyond_its_limit() {
        let mut log = Log::new(StoreRevision::ZERO);
        let limit = u64::try_from(StoreLimits::HISTORY_EVENTS_MAX).unwrap();
        for revision in 1..=limit + 3 {
            log.push(change(revision));
        }
        assert_eq!(log.events, StoreLimits::HISTORY_EVENTS_MAX);
        assert_eq!(
            log.after(StoreRevision(2)),
            Err(Compacted {
                through: StoreRevision(3)
            })
        );
        let next = log.after(StoreRevision(3)).unwrap().unwrap();
        assert_eq!(next.revision, StoreRevision(4));
    }

    #[test]
    fn one_watch_too_many_is_refused_until_another_ends() {
        let history = History::new(StoreRevision::ZERO);
        let mut streams: Vec<_> = (0..StoreLimits::WATCHERS_MAX)
            .map(|_| history.watch(StoreRevision::ZERO).unwrap())
            .collect();
        assert!(matches!(
            history.watch(StoreRevision::ZERO),
            Err(StoreError::Full { .. })
        ));
        streams.pop();
        assert!(history.watch(StoreRevision::ZERO).is_ok());
    }

    fn change(revision: u64) -> Arc<Committed> {
        let mod_revision = StoreRevision(revision);
        let event = Event::Delete {
            key: Key::new("k").unwrap(),
            mod_revision,
        };
        Arc::new(Committed {
            revision: mod_revision,
            events: vec![event],
        })
    }
}
