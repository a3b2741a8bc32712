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
