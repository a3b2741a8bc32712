//! What a coordinator says, at the agent of a member: it comes to rest, waits for a later moment,
//! and believes no name that nobody signed.

use std::time::Duration;

use model::control::ToHost;
use model::ids::Revision;
use model::wire;

use crate::Seed;
use crate::member::Member;
use crate::targets::control_messages;

/// Every name of the small fleet: hosts and services.
const NAMES: [&str; 4] = ["db", "db-1", "vm-3", "web-1"];
/// Longer than a host takes to come back to its coordinator.
const AFTERWARDS: Duration = Duration::from_secs(300);

/// Says bytes to a member, then nothing for a while.
pub fn target(bytes: &[u8]) {
    let Ok(message) = wire::decode_to_host(bytes) else {
        return;
    };
    let mut member = Member::new();
    assert!(member.is_connected());
    member.hear(message);
    member.wait(AFTERWARDS);
    for said in member.sent() {
        let written = wire::encode_from_host(&said);
        assert_eq!(
            wire::decode_from_host(&written),
            Ok(said),
            "others take what it says"
        );
    }
    for (name, _) in member.names().iter() {
        assert!(NAMES.contains(&name.as_str()), "nobody signed {name}");
    }
}

/// What coordinators say, and news for this very member.
pub(crate) fn seeds() -> Vec<Seed> {
    let fleet = Member::new().fleet;
    let mut next = control_messages::delta(&fleet, None);
    next.revision = Revision::new(1, 9);
    next.head = Some(fleet.map_head(next.revision));
    let mut change = control_messages::delta(&fleet, Some(Revision::new(1, 8)));
    change.revision = Revision::new(1, 9);
    change.head = Some(fleet.map_head(change.revision));
    let news = [("news-whole", next), ("news-change", change)];
    control_messages::to_host(&fleet)
        .into_iter()
        .chain(news.map(|(name, map)| (name, ToHost::Map(map))))
        .map(|(name, message)| Seed::new(name, wire::encode_to_host(&message)))
        .collect()
}

#[cfg(test)]
mod tests {
    use model::control::FromHost;

    use super::*;

    #[test]
    fn news_are_taken() {
        for name in ["news-whole", "news-change"] {
            let seed = seeds().into_iter().find(|seed| seed.name == name).unwrap();
            let mut member = Member::new();
            member.sent();
            member.hear(wire::decode_to_host(&seed.bytes).unwrap());
            let applied = member.sent().into_iter().any(
                |said| matches!(said, FromHost::Applied(it) if it.revision == Revision::new(1, 9)),
            );
            assert!(applied, "{name}");
        }
    }
}
