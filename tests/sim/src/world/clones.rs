//! Machines that run from a copy of another's disk: two with one host's keys, until somebody does
//! what the coordinator advises, and gives the copy an empty disk.

use model::local::HostState;

use super::World;
use crate::event::{Event, HostIndex, Who};
use crate::operator::Errand;

impl World {
    /// A machine that is no member starts from a copy of a member's disk.
    pub(super) fn clone_a_disk(&mut self) {
        let choose = |is_right: &dyn Fn(&crate::host::Host) -> bool| -> Vec<HostIndex> {
            let honest = self.hosts.iter().filter(|it| !it.is_clone && !it.is_rogue);
            honest
                .filter(|it| is_right(it))
                .map(|it| it.index)
                .collect()
        };
        let members = choose(&|host| host.is_member(self.now));
        let blanks = choose(&|host| host.state(self.now) == Some(HostState::Unenrolled));
        let (Some(original), Some(clone)) =
            (self.fate.pick_any(&members), self.fate.pick_any(&blanks))
        else {
            return;
        };
        self.say(
            Who::Fault,
            format!("{clone} starts from a copy of the disk of {original}"),
        );
        self.crash_host(clone, false);
        let copy = self.host(original).disk.copy();
        self.host_mut(original).copied = self.host(original).identity();
        let is_whole = self.fate.chance(600);
        let host = self.host_mut(clone);
        (host.disk, host.is_clone) = (copy, true);
        // With its system's disk a machine is copied whole; with its state alone it notices.
        if is_whole {
            host.machine = original;
        }
        self.start_host(clone);
        let ends = self.fate.secs(30, 200);
        self.push_in(ends, Event::CloneIsWiped(clone));
    }

    /// Somebody does what the coordinator advises: the clone gets an empty disk. Who was copied whole
    /// joins anew: two machines had its keys, and its peers may have heard handshakes of the copy
    /// that are dated later than its own.
    pub(crate) fn wipe_clone(&mut self, index: HostIndex) {
        if !self.host(index).is_clone {
            return;
        }
        if self.host(index).running.is_some() {
            self.crash_host(index, false);
        }
        let original = self.host(index).machine;
        self.host_mut(index).wipe();
        if original != index {
            self.push_errand(Errand::JoinAnew(original), 10);
        }
        self.say(Who::Fault, format!("{index} gets an empty disk"));
        self.start_host(index);
    }
}
