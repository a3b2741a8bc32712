//! The built program: its command line, and killed, on a full disk, or both.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

mod command_line;
mod full_disk;
mod kills;
mod place;
