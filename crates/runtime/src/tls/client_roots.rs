//! The roots whose certificates a server's clients may show. They change while the server runs, when
//! the fleet's authority is rotated; connections that stand are not asked again.

use std::sync::{Arc, RwLock};

/// The roots, DER.
#[derive(Debug)]
pub struct ClientRoots {
    current: RwLock<Arc<[Vec<u8>]>>,
}

impl ClientRoots {
    /// Believes these roots.
    pub fn new(roots: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(roots.into()),
        })
    }

    /// Believes others from now on.
    pub fn replace(&self, roots: Vec<Vec<u8>>) {
        *self
            .current
            .write()
            .expect("nobody panics with the lock held") = roots.into();
    }

    /// Returns those that are believed now.
    pub fn current(&self) -> Arc<[Vec<u8>]> {
        Arc::clone(
            &self
                .current
                .read()
                .expect("nobody panics with the lock held"),
        )
    }
}
