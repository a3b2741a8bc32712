//! Which of a host's shards one is, and what is whose. A peer belongs to one shard, with its
//! sessions, flows and timers; the receiver indices of its sessions say which.

use model::map::PeerIndex;

/// The shard that initiations go to: they name no session.
pub(crate) const FRONT_DESK: u16 = 0;

/// One shard's place among those of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    number: u16,
    count: u16,
}

impl Place {
    /// The most shards that a host may have.
    pub const COUNT_MAX: u16 = 64;

    /// Makes the place of shard `number` of `count`.
    ///
    /// # Panics
    /// The count is no power of two up to [`Self::COUNT_MAX`], or the number is not below it.
    pub const fn new(number: u16, count: u16) -> Self {
        // A power of two, so that the first byte of a receiver index is enough to tell.
        assert!(count.is_power_of_two() && count <= Self::COUNT_MAX && number < count);
        Self { number, count }
    }

    /// Returns the shard's number, from 0.
    pub const fn number(self) -> u16 {
        self.number
    }

    /// Returns how many shards the host has.
    pub const fn count(self) -> u16 {
        self.count
    }

    pub(crate) const fn is_alone(self) -> bool {
        self.count == 1
    }

    /// Returns the number of the shard that has the peer.
    pub const fn of_peer(self, peer: PeerIndex) -> u16 {
        self.of_receiver(peer.0)
    }

    /// Returns the number of the shard that gave out a receiver index.
    pub const fn of_receiver(self, index: u32) -> u16 {
        (index % self.count as u32) as u16
    }

    /// Returns the number of the shard that has a lane to the peer; lane 0 is the main session.
    pub(crate) const fn of_lane(self, peer: PeerIndex, lane: u16) -> u16 {
        (self.of_peer(peer) + lane) % self.count
    }

    pub(crate) const fn has(self, peer: PeerIndex) -> bool {
        self.of_peer(peer) == self.number
    }

    /// Makes a receiver index of this shard out of a random number.
    pub(crate) const fn mark(self, random: u32) -> u32 {
        let others = self.count as u32 - 1;
        random & !others | self.number as u32
    }
}

impl Default for Place {
    /// The only one.
    fn default() -> Self {
        Self::new(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_index_leads_back_and_so_does_its_first_byte_on_the_wire() {
        for count in [1, 2, 8, 64] {
            for number in 0..count {
                let place = Place::new(number, count);
                for random in [0, 1, 0xffff_ffff, 0x1234_5678] {
                    let index = place.mark(random);
                    assert_eq!(place.of_receiver(index), number);
                    assert_eq!(u16::from(index.to_le_bytes()[0]) % count, number);
                }
            }
        }
    }

    #[test]
    fn lanes_to_one_peer_are_in_different_shards_and_the_main_session_in_its_own() {
        let place = Place::new(0, 8);
        for peer in (0..20).map(PeerIndex) {
            let shards: Vec<u16> = (0..8).map(|lane| place.of_lane(peer, lane)).collect();
            assert_eq!(shards[0], place.of_peer(peer));
            assert!((0..8).all(|shard| shards.contains(&shard)));
        }
    }

    #[test]
    fn the_only_shard_changes_no_index() {
        assert_eq!(Place::default().mark(0x1234_5678), 0x1234_5678);
    }
}
