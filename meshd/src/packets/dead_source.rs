//! A source address that no interface of the host has any more: remembered for a while, so that
//! each packet to a peer that was last heard there costs one system call and not four.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the kernel is not asked for an address again: an interface that flaps has it back soon.
const BELIEVED: Duration = Duration::from_secs(5);

/// The last one that the kernel refused.
#[derive(Debug, Default)]
pub(super) struct DeadSource(Option<(IpAddr, Instant)>);

impl DeadSource {
    /// Returns the address when it is worth a try. Asks for the time only where there is doubt.
    pub(super) fn unless_dead(
        &self,
        source: Option<IpAddr>,
        now: impl FnOnce() -> Instant,
    ) -> Option<IpAddr> {
        let source = source?;
        match self.0 {
            Some((dead, until)) if dead == source && now() < until => None,
            _ => Some(source),
        }
    }

    /// Takes that the kernel refused an address.
    pub(super) fn handle_refused(&mut self, source: Option<IpAddr>, now: Instant) {
        self.0 = source.map(|source| (source, now + BELIEVED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_address_is_not_tried_for_a_while_and_then_again() {
        let [gone, other] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse::<IpAddr>().ok());
        let (mut dead, now) = (DeadSource::default(), Instant::now());
        let unasked = || unreachable!("nothing is dead");
        assert_eq!(dead.unless_dead(gone, unasked), gone);
        dead.handle_refused(gone, now);
        assert_eq!(dead.unless_dead(gone, || now), None);
        assert_eq!(dead.unless_dead(other, unasked), other);
        assert_eq!(dead.unless_dead(gone, || now + BELIEVED), gone);
    }
}
