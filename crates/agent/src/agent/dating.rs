//! The dates of this host's handshakes, reserved on the disk before they are used: peers refuse one
//! that is not later than the last, also after a crash and with a clock that was set back meanwhile.

use std::time::Duration;

use model::time::Now;

use super::Agent;
use crate::output::StateFile;
use crate::persistence::Version;

/// How far ahead of the clock dates are reserved: further than the shard asks for by itself, which
/// it does only where the clock was set back.
const RESERVED: Duration = Duration::from_secs(3 * 3600);
/// How much of it must be left.
const RESERVED_MIN: Duration = Duration::from_secs(90 * 60);

impl Agent {
    /// Reserves dates of a member that starts, and keeps the shard waiting until that is durable.
    pub(super) fn reserve_first_dates(&mut self, now: Now) {
        self.high_water.handshake = self.high_water.handshake.max(now.unix + RESERVED);
        self.out.hold_shard();
        self.first_dates = Some(self.save_high_water());
    }

    /// Lets the shard begin at once: it goes on from the dates of another daemon's shard on this host,
    /// which are on the disk.
    pub fn inherit_dates(&mut self) {
        self.forget_first_dates();
    }

    /// Reserves more as time goes by, whatever the shard told and nobody heard.
    pub(super) fn tend_dates(&mut self, now: Now) {
        let is_short = now.unix + RESERVED_MIN > self.high_water.handshake;
        if self.enrolment.member().is_some() && is_short {
            self.high_water.handshake = now.unix + RESERVED;
            self.save_high_water();
        }
    }

    /// Lets the shard begin once its dates are on the disk.
    pub(super) fn handle_dates_durable(&mut self) {
        let is_durable = |version: &mut Version| {
            let file = StateFile::HighWater;
            self.disk.is_durable(file, *version)
        };
        if self.first_dates.take_if(is_durable).is_some() {
            self.out.release_shard();
        }
    }

    /// Lets the shard begin although the disk does not work: a full one keeps nobody out of the mesh.
    pub(super) fn handle_dates_undurable(&mut self, file: StateFile) {
        if file == StateFile::HighWater {
            self.forget_first_dates();
        }
    }

    /// Waits no more.
    pub(super) fn forget_first_dates(&mut self) {
        if self.first_dates.take().is_some() {
            self.out.release_shard();
        }
    }
}
