//! How much goes on at once: calls under way, and a line of those that wait for one to end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use model::time::Instant;

use crate::settings::LimitSettings;

/// How soon a call in line looks for room that another thread left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The calls of one service on this host, counted by all proxy threads together.
#[derive(Debug, Default)]
pub struct Gauge {
    in_flight: AtomicU32,
    waiting: AtomicU32,
}

impl Gauge {
    /// Returns the calls under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the calls in line.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Counts one more, unless there are as many as there may be.
fn enter(count: &AtomicU32, limit: u32) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < limit).then_some(now + 1)
        })
        .is_ok()
}

fn leave(count: &AtomicU32) {
    let before = count.fetch_sub(1, Ordering::Relaxed);
    debug_assert!(before > 0, "who leaves has entered");
}

/// Whether a call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is under way from now on.
    Go,
    /// It may not.
    Overflow(Overflow),
}

/// Why a call may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// As many wait as may.
    LineFull,
    /// It waited as long as one may, or as it had time.
    Waited,
}

/// A place in the line of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    /// When its holder has waited long enough.
    pub(crate) until: Instant,
}

/// One thread's share of the limit and its line, first come, first served.
#[derive(Debug)]
pub struct InFlight {
    gauge: Arc<Gauge>,
    line: VecDeque<(u64, Waker)>,
    /// Those of the line that were given room and have not taken it yet.
    granted: Vec<u64>,
    next: u64,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// It did not ask.
    #[default]
    Outside,
    /// It waits.
    InLine(Ticket),
    /// It is under way.
    Inside,
}

impl InFlight {
    /// Makes one that counts with the others that have the same gauge.
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self {
            gauge,
            line: VecDeque::new(),
            granted: Vec::new(),
            next: 0,
        }
    }

    /// Returns the gauge.
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Lets a call in, or puts it in line; `waker` is woken when its turn comes.
    pub(crate) fn poll_enter(
        &mut self,
        place: &mut Place,
        limits: &LimitSettings,
        deadline: Instant,
        waker: &Waker,
        now: Instant,
    ) -> Poll<Admission> {
        let ticket = match *place {
            Place::Inside => return Poll::Ready(Admission::Go),
            Place::InLine(ticket) => ticket,
            Place::Outside => {
                if self.line.is_empty() && enter(&self.gauge.in_flight, limits.in_flight) {
                    *place = Place::Inside;
                    return Poll::Ready(Admission::Go);
                }
                if !enter(&self.gauge.waiting, limits.waiting) {
                    return Poll::Ready(Admission::Overflow(Overflow::LineFull));
                }
                let until = (now + limits.wait_max).min(deadline);
                let ticket = self.join(waker, until);
                *place = Place::InLine(ticket);
                return Poll::Pending;
            }
        };
        self.serve(limits.in_flight);
        if let Some(granted) = self.granted.iter().position(|n| *n == ticket.number) {
            self.granted.swap_remove(granted);
            *place = Place::Inside;
            return Poll::Ready(Admission::Go);
        }
        if now >= ticket.until {
            self.step_out(ticket);
            *place = Place::Outside;
            return Poll::Ready(Admission::Overflow(Overflow::Waited));
        }
        if let Some((_, old)) = self.line.iter_mut().find(|(n, _)| *n == ticket.number) {
            old.clone_from(waker);
        }
        Poll::Pending
    }

    /// Lets a call out, whatever its place, and the next in.
    pub(crate) fn leave(&mut self, place: Place, limits: &LimitSettings) {
        match place {
            Place::Outside => return,
            Place::Inside => leave(&self.gauge.in_flight),
            Place::InLine(ticket) => match self.granted.iter().position(|n| *n == ticket.number) {
                Some(granted) => {
                    self.granted.swap_remove(granted);
                    leave(&self.gauge.in_flight);
                }
                None => self.step_out(ticket),
            },
        }
        self.serve(limits.in_flight);
    }

    /// Returns when a call in line has to look again at the latest.
    pub(crate) fn look_again_at(ticket: Ticket, now: Instant) -> Instant {
        ticket.until.min(now + LOOK_AGAIN)
    }

    fn join(&mut self, waker: &Waker, until: Instant) -> Ticket {
        let number = self.next;
        self.next += 1;
        self.line.push_back((number, waker.clone()));
        Ticket { number, until }
    }

    fn step_out(&mut self, ticket: Ticket) {
        if let Some(index) = self.line.iter().position(|(n, _)| *n == ticket.number) {
            self.line.remove(index);
            leave(&self.gauge.waiting);
        }
    }

    /// Gives the room there is to those at the head of the line.
    fn serve(&mut self, limit: u32) {
        while !self.line.is_empty() && enter(&self.gauge.in_flight, limit) {
            let (number, waker) = self.line.pop_front().expect("it is not empty");
            leave(&self.gauge.waiting);
            self.granted.push(number);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const FAR: Instant = Instant::from_start(Duration::from_secs(3600));

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn limits(in_flight: u32, waiting: u32) -> LimitSettings {
        LimitSettings {
            in_flight,
            waiting,
            ..LimitSettings::default()
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_is_woken() {
        let (mut calls, limits) = (InFlight::new(Arc::default()), limits(1, 2));
        let (bell, mut places) = (Arc::new(Bell::default()), [Place::Outside; 4]);
        let waker = Waker::from(bell.clone());
        let ask = |calls: &mut InFlight, place: &mut Place| {
            calls.poll_enter(place, &limits, FAR, &waker, at(0))
        };
        assert_eq!(ask(&mut calls, &mut places[0]), Poll::Ready(Admission::Go));
        assert_eq!(ask(&mut calls, &mut places[1]), Poll::Pending);
        assert_eq!(ask(&mut calls, &mut places[2]), Poll::Pending);
        let full = Poll::Ready(Admission::Overflow(Overflow::LineFull));
        assert_eq!(ask(&mut calls, &mut places[3]), full);

        calls.leave(places[0], &limits);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1, "one is woken");
        assert_eq!(
            ask(&mut calls, &mut places[2]),
            Poll::Pending,
            "not its turn"
        );
        assert_eq!(ask(&mut calls, &mut places[1]), Poll::Ready(Admission::Go));
        assert_eq!((calls.gauge().in_flight(), calls.gauge().waiting()), (1, 1));
    }

    #[test]
    fn who_waited_long_enough_is_sent_away_and_leaves_its_place() {
        let (mut calls, limits) = (InFlight::new(Arc::default()), limits(0, 1));
        let mut place = Place::Outside;
        let mut ask = |calls: &mut InFlight, millis| {
            calls.poll_enter(&mut place, &limits, FAR, Waker::noop(), at(millis))
        };
        assert_eq!(ask(&mut calls, 0), Poll::Pending);
        assert_eq!(ask(&mut calls, 999), Poll::Pending);
        let waited = Poll::Ready(Admission::Overflow(Overflow::Waited));
        assert_eq!(ask(&mut calls, 1_000), waited);
        assert_eq!(calls.gauge().waiting(), 0);
    }

    #[test]
    fn who_goes_away_when_its_turn_has_come_passes_it_on() {
        let (mut calls, limits) = (InFlight::new(Arc::default()), limits(1, 2));
        let mut places = [Place::Outside; 3];
        for place in &mut places {
            let _ = calls.poll_enter(place, &limits, FAR, Waker::noop(), at(0));
        }
        calls.leave(places[0], &limits);
        calls.leave(places[1], &limits);
        let admitted = calls.poll_enter(&mut places[2], &limits, FAR, Waker::noop(), at(1));
        assert_eq!(admitted, Poll::Ready(Admission::Go));
        calls.leave(places[2], &limits);
        assert_eq!((calls.gauge().in_flight(), calls.gauge().waiting()), (0, 0));
    }

    #[test]
    fn threads_count_together_and_room_that_one_leaves_is_found_by_the_other() {
        let (gauge, limits) = (Arc::new(Gauge::default()), limits(1, 2));
        let mut threads = [InFlight::new(gauge.clone()), InFlight::new(gauge.clone())];
        let mut places = [Place::Outside; 2];
        for (calls, place) in threads.iter_mut().zip(&mut places) {
            let _ = calls.poll_enter(place, &limits, FAR, Waker::noop(), at(0));
        }
        let Place::InLine(ticket) = places[1] else {
            panic!("{:?} does not wait for the other thread", places[1]);
        };
        assert_eq!(InFlight::look_again_at(ticket, at(0)), at(10));
        threads[0].leave(places[0], &limits);
        let found = threads[1].poll_enter(&mut places[1], &limits, FAR, Waker::noop(), at(10));
        assert_eq!(found, Poll::Ready(Admission::Go));
        assert_eq!(gauge.in_flight(), 1);
    }
}
