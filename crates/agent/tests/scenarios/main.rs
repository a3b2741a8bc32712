//! One host's brain from outside: against a coordinator that signs for real, a disk that may fail,
//! and clocks that may jump. Nothing here waits for real time.

// Helpers of tests are tests to us, though not to the lint.
#![allow(clippy::unwrap_used)]

mod believing;
mod calling;
mod ciphers;
mod clocks;
mod coordinator;
mod denying;
mod disks;
mod host;
mod joining;
mod leaving;
mod lies;
mod maps;
mod naming;
mod random;
mod reachable_names;
mod reaching;
mod recalling;
mod restarts;
mod rotating;
