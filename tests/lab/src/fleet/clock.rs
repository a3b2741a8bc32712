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
        launch
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME", format!("{:+}d", self.days))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // It would leave files in /dev/shm when its program is killed.
            .env("FAKETIME_DISABLE_SHM", "1")
    }
}
