//! How many connections show certificates of one key. A certificate alone is no reason to be let in, and no
//! reason to take the room of all others: its host may have been removed since, or be in bad hands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use model::ids::Digest;

use super::strangers::leave;

/// The connections of each key.
#[derive(Clone, Debug)]
pub struct Keys {
    connections_max: usize,
    shown: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

/// One of the connections of a key, until it is dropped.
#[derive(Debug)]
pub struct OfKey {
    keys: Keys,
    key: Digest,
}

impl Keys {
    /// Lets each key have so many.
    pub fn new(connections_max: usize) -> Self {
        let shown = Arc::default();
        Self {
            connections_max,
            shown,
        }
    }

    /// Counts a connection that shows a certificate of a key; `None`: there are too many.
    pub fn show(&self, key: Digest) -> Option<OfKey> {
        let mut shown = self.shown();
        let of_key = shown.entry(key).or_default();
        if *of_key >= self.connections_max {
            return None;
        }
        *of_key += 1;
        let keys = self.clone();
        Some(OfKey { keys, key })
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        self.shown.lock().expect("nobody panics with the lock held")
    }
}

impl Drop for OfKey {
    fn drop(&mut self) {
        leave(&mut self.keys.shown(), self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_has_few_connections() {
        let keys = Keys::new(4);
        let key = Digest::from_bytes([1; 32]);
        let greedy: Vec<_> = std::iter::from_fn(|| keys.show(key)).collect();
        assert_eq!(greedy.len(), 4);
        assert!(keys.show(Digest::from_bytes([2; 32])).is_some());
        drop(greedy);
        assert!(keys.show(key).is_some());
        assert!(keys.shown().is_empty());
    }
}
