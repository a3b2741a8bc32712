//! Why nobody is answered who asks for metrics: they cannot tell it themselves.

use std::sync::{Arc, Mutex, PoisonError};

/// What keeps the port of the metrics closed that should be open. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Returns what an operator should know; nothing while all is well.
    pub fn told(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes how it is, and returns how it was.
    pub(super) fn set(&self, now: Option<String>) -> Option<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *told, now)
    }
}
