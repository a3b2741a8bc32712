//! The built program: killed, on a full disk, or both.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

mod full_disk;
mod kills;
mod place;
