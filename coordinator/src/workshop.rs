//! Where work on policies is done, off the threads that answer: one at a time, each within its time.
//! How many may wait is the fleet's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet::{PolicyDone, PolicyWork, WorkId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::brain::Input;

/// How long work may take. The largest policies take seconds; `meshctl` waits for a minute.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Takes orders for work, and tells the brain what came of it.
pub(crate) struct Workshop {
    // Weak, since the brain ends when nobody else has anything to tell it.
    brain: mpsc::WeakSender<Input>,
    bench: Arc<Semaphore>,
}

impl Workshop {
    pub(crate) fn new(brain: mpsc::WeakSender<Input>) -> Self {
        Self {
            brain,
            bench: Arc::new(Semaphore::new(1)),
        }
    }

    /// Has work done when its turn comes.
    pub(crate) fn order(&self, id: WorkId, work: PolicyWork) {
        let (brain, bench) = (self.brain.clone(), Arc::clone(&self.bench));
        tokio::spawn(async move {
            let done = do_in_turn(&bench, work).await;
            if let Some(brain) = brain.upgrade() {
                // The brain's end is the coordinator's end: nobody waits any more.
                let _ = brain.send(Input::PolicyDone(id, done)).await;
            }
        });
    }
}

/// What is late is answered at once. Its thread notices after the part that it is at, and keeps the
/// bench until then: never do two threads work.
async fn do_in_turn(bench: &Arc<Semaphore>, work: PolicyWork) -> PolicyDone {
    let place = match timeout(TIME_MAX, Arc::clone(bench).acquire_owned()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return PolicyDone::given_up("the coordinator is stopping"),
        // Whoever is before is late, too, and does not notice.
        Err(_) => return PolicyDone::late(),
    };
    let is_late = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&is_late);
    let working = spawn_blocking(move || {
        let done = work.run(&|| ask.load(Ordering::Relaxed));
        drop(place);
        done
    });
    match timeout(TIME_MAX, working).await {
        Ok(Ok(done)) => done,
        Ok(Err(broken)) => PolicyDone::given_up(&broken.to_string()),
        Err(_) => {
            is_late.store(true, Ordering::Relaxed);
            PolicyDone::late()
        }
    }
}
