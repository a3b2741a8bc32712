//! The calls and connections under way on one thread. When the policy changes, or the time of day,
//! each is decided again, and those that are not allowed any more are cut.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use model::time::UnixTime;
use policy::Gate;

use crate::asking::Asked;

/// All that is under way.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Option<Slot>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    asked: Asked,
    is_cut: bool,
    waker: Option<Waker>,
}

/// One call's place; it is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Stand {
    standing: Rc<Standing>,
    index: usize,
}

impl Standing {
    /// Enters a call that was allowed.
    pub(crate) fn enter(self: &Rc<Self>, asked: Asked) -> Stand {
        let slot = Some(Slot {
            asked,
            is_cut: false,
            waker: None,
        });
        let mut slots = self.slots.borrow_mut();
        let index = match slots.free.pop() {
            Some(index) => {
                slots.all[index] = slot;
                index
            }
            None => {
                slots.all.push(slot);
                slots.all.len() - 1
            }
        };
        Stand {
            standing: Rc::clone(self),
            index,
        }
    }

    /// Decides all of them again, cuts those that may not go on, and returns how many.
    pub(crate) fn decide_again(&self, gate: &Arc<Gate>, at: UnixTime) -> usize {
        let mut wakers = Vec::new();
        let mut cut = 0;
        for slot in self.slots.borrow_mut().all.iter_mut().flatten() {
            if !slot.is_cut && slot.asked.decide(gate, None, at).is_err() {
                slot.is_cut = true;
                cut += 1;
                wakers.extend(slot.waker.take());
            }
        }
        // What is woken may leave at once.
        wakers.into_iter().for_each(Waker::wake);
        cut
    }
}

impl Stand {
    /// Returns whether the call may not go on; if it may, the task is woken when that changes.
    pub(crate) fn poll_cut(&self, context: &Context<'_>) -> bool {
        let mut slots = self.standing.slots.borrow_mut();
        let slot = slots.all[self.index]
            .as_mut()
            .expect("who stands has a slot");
        if !slot.is_cut
            && !slot
                .waker
                .as_ref()
                .is_some_and(|known| known.will_wake(context.waker()))
        {
            slot.waker = Some(context.waker().clone());
        }
        slot.is_cut
    }

    /// Lets something go on until it is done or cut; `None`: cut.
    pub(crate) async fn until_cut<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if self.poll_cut(context) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Looks at what was asked.
    pub(crate) fn with_asked<T>(&self, look: impl FnOnce(&Asked) -> T) -> T {
        let slots = self.standing.slots.borrow();
        look(
            &slots.all[self.index]
                .as_ref()
                .expect("who stands has a slot")
                .asked,
        )
    }

    /// Says to whom the call goes now.
    pub(crate) fn goes_to(&self, host: model::ids::HostId) {
        let mut slots = self.standing.slots.borrow_mut();
        slots.all[self.index]
            .as_mut()
            .expect("who stands has a slot")
            .asked
            .to = host;
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let mut slots = self.standing.slots.borrow_mut();
        slots.all[self.index] = None;
        slots.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use model::ids::{HostId, PolicyVersion};
    use model::rule::{
        Bundle, Days, Hours, HttpMatch, PathPattern, Rule, Selector, Source, TimeOfDay, Traffic,
        When,
    };

    use super::*;
    use crate::asking::{AskedRequest, Origin};
    use crate::marks::Aim;
    use crate::some_hosts::{host, record};
    use crate::surroundings::Caller;

    const ME: HostId = host(1);
    /// A Monday at noon, UTC.
    const NOON: UnixTime = UnixTime::from_secs(1_700_481_600);
    const HOUR: u64 = 3600;

    /// Allows everything on port 80, of which one rule that is about requests only between ten and two.
    fn gate() -> Arc<Gate> {
        let time = |hour: u16| TimeOfDay::from_minutes(hour * 60).unwrap();
        let rule = Rule {
            id: "office".parse().unwrap(),
            from: vec![Selector::Any],
            to: vec![Selector::Any],
            traffic: Traffic::All,
            http: vec![HttpMatch {
                methods: Vec::new(),
                path: PathPattern::any(),
                host: None,
                headers: Vec::new(),
            }],
            when: Some(When {
                days: Days::from_bits(1).unwrap(),
                hours: Some(Hours {
                    from: time(10),
                    until: time(14),
                }),
                zone: "UTC".parse().unwrap(),
            }),
            source: Source::default(),
        };
        let bundle = Bundle {
            allow: vec![rule],
            ..Bundle::default()
        };
        Arc::new(Gate::compile(&record(1), &[], &bundle, PolicyVersion(1)))
    }

    fn asked() -> Asked {
        let parts = Request::get("/").body(()).unwrap().into_parts().0;
        Asked {
            origin: Origin::process(ME, Caller::Unknown),
            aim: Rc::new(Aim::Port(80)),
            to: ME,
            request: Some(AskedRequest::new(&parts)),
        }
    }

    #[test]
    fn a_clock_that_jumps_out_of_a_window_cuts_what_it_let_in_and_does_not_revive_it() {
        let gate = gate();
        let hours_away = |hours: i64| {
            let secs = NOON.as_secs().checked_add_signed(hours * HOUR as i64);
            UnixTime::from_secs(secs.unwrap())
        };
        for jump in [-100_000, -3, 2, 24, 7 * 24 + 5] {
            let standing = Rc::<Standing>::default();
            let asked = asked();
            assert!(asked.decide(&gate, None, NOON).is_ok());
            let stand = standing.enter(asked);
            assert_eq!(standing.decide_again(&gate, NOON), 0);
            assert_eq!(standing.decide_again(&gate, hours_away(jump)), 1, "{jump}");
            // Set right again: what was cut stays so, and is not counted twice.
            assert_eq!(standing.decide_again(&gate, NOON), 0);
            assert!(stand.poll_cut(&Context::from_waker(Waker::noop())));
        }
        // A jump from one open window into another cuts nothing.
        let standing = Rc::<Standing>::default();
        let stand = standing.enter(asked());
        assert_eq!(standing.decide_again(&gate, hours_away(-7 * 24)), 0);
        assert_eq!(standing.decide_again(&gate, hours_away(1)), 0);
        assert!(!stand.poll_cut(&Context::from_waker(Waker::noop())));
    }

    #[test]
    fn what_wakes_is_told_once() {
        struct Bell(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let bell = Arc::new(Bell(0.into()));
        let waker = Waker::from(bell.clone());
        let standing = Rc::<Standing>::default();
        let stand = standing.enter(asked());
        assert!(!stand.poll_cut(&Context::from_waker(&waker)));
        let closed = Arc::new(Gate::default());
        let later = UnixTime::from_duration(NOON.since_epoch() + Duration::from_secs(1));
        assert_eq!(standing.decide_again(&closed, later), 1);
        assert_eq!(standing.decide_again(&closed, later), 0);
        assert_eq!(bell.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
