//! Clocks that are wrong: what a program takes for the time of day, by libfaketime.

use crate::launch::Launch;

/// How a program's clock differs from the machine's. Its monotonic time is never touched: that
/// cannot be wrong on a real machine either.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    days: i32,
}

/// Found by the dynamic linker, wherever the package `libfaketime` has put it: `$LIB` is the
/// linker's own word for `lib/x86_64-linux-gnu` and the like.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";

impl Clock {
    pub(super) fn off_by_days(days: i32) -> Self {
        Self { days }
    }

    pub(super) fn set_for(self, launch: Launch) -> Launch {
        if self.days == 0 {
            return launch;
        }
        // The library keeps files in /dev/shm, and leaves them there when its program is killed.
        launch.prepared_by(&format!(
            "mount -t tmpfs tmpfs /dev/shm
             export FAKETIME={:+}d FAKETIME_DONT_FAKE_MONOTONIC=1
             export LD_PRELOAD='{LIBRARY}'",
            self.days
        ))
    }
}
