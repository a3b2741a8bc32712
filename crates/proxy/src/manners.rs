//! Whether a connection lets its requests be answered.

use std::cell::Cell;

use tokio::sync::Notify;

/// How a connection behaves: who begins requests only to give them up makes work for nothing (rapid
/// reset, CVE-2023-44487).
#[derive(Debug, Default)]
pub(crate) struct Manners {
    /// Requests that were given up before they were answered, less those that were answered.
    given_up: Cell<u32>,
    too_bad: Notify,
}

/// One request as its connection's manners see it. Dropped, it is given up, unless it is answered.
pub(crate) struct Begun<'m> {
    manners: &'m Manners,
    most: u32,
    is_answered: bool,
}

impl Manners {
    /// Returns when the connection has given up more than anybody does in good faith.
    pub(crate) async fn too_bad(&self) {
        self.too_bad.notified().await;
    }

    /// Begins a request; `most` may be given up.
    pub(crate) const fn begin(&self, most: u32) -> Begun<'_> {
        Begun {
            manners: self,
            most,
            is_answered: false,
        }
    }
}

impl Begun<'_> {
    /// It was answered.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let given_up = self.manners.given_up.get();
        if self.is_answered {
            self.manners.given_up.set(given_up.saturating_sub(1));
            return;
        }
        self.manners.given_up.set(given_up + 1);
        if given_up >= self.most {
            self.manners.too_bad.notify_one();
        }
    }
}
