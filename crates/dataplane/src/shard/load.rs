//! How much handshake work there is, and when strangers must first prove their address.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use model::time::Instant;

use crate::config::Limits;
use crate::rate::Rate;

/// Handshakes a second of one address under load; 20 in other implementations too.
const PER_SOURCE_PER_SEC: u32 = 20;
/// Buckets for sources; two that share one share its rate.
const SOURCES: usize = 1024;

/// The handshake jobs that are out, and the rate at which handshakes come.
pub(super) struct Load {
    jobs: usize,
    jobs_max: usize,
    jobs_loaded: usize,
    rate: Rate,
    /// Empty until the first load.
    sources: Vec<Rate>,
    hasher: FixedState,
}

impl Load {
    pub(super) fn new(limits: &Limits, seed: u64) -> Self {
        Self {
            jobs: 0,
            jobs_max: limits.handshake_jobs,
            jobs_loaded: limits.handshake_jobs_loaded,
            rate: Rate::per_sec(limits.handshakes_per_sec_loaded),
            sources: Vec::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Counts a handshake message for our key and returns whether its sender must prove its
    /// address.
    pub(super) fn is_heavy(&mut self, now: Instant) -> bool {
        let is_fast = !self.rate.take(now);
        is_fast || self.is_busy()
    }

    /// Returns whether an address that proved to be real may have a handshake under load.
    pub(super) fn may_source(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.sources.is_empty() {
            self.sources
                .resize(SOURCES, Rate::per_sec(PER_SOURCE_PER_SEC));
        }
        // Whoever has one IPv6 address has a /64 of them.
        let network = match source.to_canonical() {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
        };
        let place = self.hasher.hash_one(network) % SOURCES as u64;
        self.sources[place as usize].take(now)
    }

    /// Returns whether there is room for one more job besides `reserved` ones.
    pub(super) fn has_room(&self, reserved: usize) -> bool {
        self.jobs + reserved < self.jobs_max
    }

    /// Returns how many jobs are out.
    pub(super) const fn jobs(&self) -> usize {
        self.jobs
    }

    /// Returns whether there are so many that strangers must prove their address.
    pub(super) const fn is_busy(&self) -> bool {
        self.jobs >= self.jobs_loaded
    }

    pub(super) fn job_left(&mut self) {
        self.jobs += 1;
    }

    pub(super) fn job_returned(&mut self) {
        self.jobs = self.jobs.saturating_sub(1);
    }
}
