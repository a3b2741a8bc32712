//! Requests whose times are fixed beforehand. A request that has to wait, because all connections wait for
//! answers, waits from its time on: a slow answer cannot hide the ones behind it (coordinated omission).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use lab::{LabError, Namespace};
use rustix::thread::set_current_timer_slack;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::{Call, run};

/// Enough for 2,000 requests a second that take 16 ms.
const CONNECTIONS: usize = 32;
/// Requests that come first and do not count.
const WARM_UP_SHARE: usize = 8;
/// How late the kernel may wake who tells the times.
const TIMER_SLACK_NANOS: Option<NonZeroU64> = NonZeroU64::new(1000);

/// How long requests took, from their times on.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    sorted: Vec<Duration>,
}

impl Times {
    fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self { sorted: all }
    }

    /// What so many of a thousand do not take longer than, in µs.
    pub(crate) fn micros(&self, of_thousand: usize) -> f64 {
        let rank = (self.sorted.len() * of_thousand).div_ceil(1000).max(1);
        let time = self.sorted.get(rank - 1).copied().unwrap_or_default();
        time.as_nanos() as f64 / 1e3
    }
}

/// Calls at a steady pace for so many seconds, whether or not answers come.
pub(crate) fn timed(
    machine: &Namespace,
    call: Call,
    per_sec: u32,
    seconds: u32,
) -> Result<Times, LabError> {
    let every = Duration::from_secs(1) / per_sec;
    let counted = (per_sec * seconds) as usize;
    let count = counted + counted / WARM_UP_SHARE;
    run(machine, every * count as u32, async move || {
        let schedule = Rc::new(Schedule::default());
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = Connection::open(call).await?;
            connection.ask(drop).await?;
            let caller = call_when_due(connection, Rc::clone(&schedule));
            callers.push(tokio::task::spawn_local(caller));
        }
        hand_out(tell_times(every, count), &schedule, &callers).await;
        schedule.all_answered(count, &callers).await;
        for caller in callers.extract_if(.., |caller| caller.is_finished()) {
            caller.await.map_err(io::Error::other)??;
        }
        let taken = schedule.taken.borrow();
        Ok(Times::new(taken[count - counted..].to_vec()))
    })
}

/// What is due, and what came of what was.
#[derive(Default)]
struct Schedule {
    due: RefCell<VecDeque<Instant>>,
    told: Notify,
    taken: RefCell<Vec<Duration>>,
    answered: Notify,
}

impl Schedule {
    /// Waits for the last answer, or for a caller that gives up.
    async fn all_answered(&self, count: usize, callers: &[Caller]) {
        while self.taken.borrow().len() < count && !callers.iter().any(Caller::is_finished) {
            self.answered.notified().await;
        }
    }
}

type Caller = JoinHandle<io::Result<()>>;

async fn call_when_due(mut connection: Connection, schedule: Rc<Schedule>) -> io::Result<()> {
    loop {
        let due = loop {
            let next = schedule.due.borrow_mut().pop_front();
            match next {
                Some(due) => break due,
                None => schedule.told.notified().await,
            }
        };
        let outcome = connection.ask(drop).await;
        schedule.taken.borrow_mut().push(due.elapsed());
        schedule.answered.notify_one();
        outcome?;
    }
}

/// Hands out every time when it has come.
async fn hand_out(mut times: UnboundedReceiver<Instant>, schedule: &Schedule, callers: &[Caller]) {
    while let Some(due) = times.recv().await {
        if callers.iter().any(Caller::is_finished) {
            return;
        }
        schedule.due.borrow_mut().push_back(due);
        schedule.told.notify_one();
    }
}

/// Says when each time has come, from a thread of its own: the runtime's clock goes by milliseconds.
fn tell_times(every: Duration, count: usize) -> UnboundedReceiver<Instant> {
    let (tell, told) = mpsc::unbounded_channel();
    thread::spawn(move || {
        // Without it sleeps take a little longer, no more than that.
        let _ = set_current_timer_slack(TIMER_SLACK_NANOS);
        let mut due = Instant::now() + every;
        for _ in 0..count {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if tell.send(due).is_err() {
                return;
            }
            due += every;
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times_are_those_of_the_sorted_ones() {
        let times = Times::new((1..=1000).rev().map(Duration::from_micros).collect());
        assert_eq!(times.micros(500), 500.0);
        assert_eq!(times.micros(990), 990.0);
        assert_eq!(times.micros(999), 999.0);
        assert_eq!(Times::new(vec![Duration::from_micros(7)]).micros(500), 7.0);
    }
}
