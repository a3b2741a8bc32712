//! What the packets of a pair are sealed with: both records have to offer it.

use agent::ChannelErrorKind;
use dataplane::{Command, DataCipher};
use model::rule::{Bundle, CipherDemand};

use crate::coordinator::Coordinator;
use crate::host::Host;

/// The ciphers of the peers that the shard was told, in the order of the commands.
fn chosen(host: &mut Host) -> Vec<DataCipher> {
    let commands = host.commands();
    let set = commands.iter().filter_map(|command| match command {
        Command::SetPeer { cipher, .. } => Some(*cipher),
        _ => None,
    });
    set.collect()
}

#[test]
fn a_pair_has_aes_while_both_records_offer_it() {
    let mut coordinator = Coordinator::new(1);
    let [able, unable] = ["able", "unable"].map(|name| coordinator.add_host(name));
    coordinator.change(able, |record| record.offers_aes_256_gcm = true);
    let mut host = Host::member_of(&mut coordinator);
    let standard = DataCipher::ChaCha20Poly1305;
    assert_eq!(chosen(&mut host), [standard; 2]);

    // The host's own record offers it from now on: only with whom that changes something is told.
    let own = host.id();
    let mut tell = |coordinator: &mut Coordinator, change: &[(model::ids::HostId, bool)]| {
        host.said.clear();
        let base = coordinator.revision;
        for (id, offers) in change {
            coordinator.change(*id, |record| record.offers_aes_256_gcm = *offers);
        }
        let mut delta = coordinator.delta(base);
        for (id, _) in change {
            match *id == own {
                true => delta.record = Some(coordinator.entry(own).record),
                false => delta.peers.push(coordinator.entry(*id)),
            }
        }
        host.map(delta);
        chosen(&mut host)
    };
    assert_eq!(
        tell(&mut coordinator, &[(own, true)]),
        [DataCipher::Aes256Gcm]
    );
    assert_eq!(
        tell(&mut coordinator, &[(unable, true)]),
        [DataCipher::Aes256Gcm]
    );
    assert_eq!(tell(&mut coordinator, &[(able, false)]), [standard]);
    assert_eq!(tell(&mut coordinator, &[(own, false)]), [standard]);
}

#[test]
fn a_record_of_before_talks_nobody_into_another_cipher() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    let own = host.id();
    let [old_own, old_db] = [own, db].map(|id| coordinator.entry(id));
    let base = coordinator.revision;
    for id in [own, db] {
        coordinator.change(id, |record| record.offers_aes_256_gcm = true);
    }
    let mut delta = coordinator.delta(base);
    delta.record = Some(coordinator.entry(own).record);
    delta.peers = vec![coordinator.entry(db)];
    host.said.clear();
    host.map(delta);
    assert_eq!(chosen(&mut host), [DataCipher::Aes256Gcm]);

    // Signed by the same hand, once: of a peer, and the host's own.
    for is_own in [false, true] {
        host.said.clear();
        coordinator.revision.counter += 1;
        let mut lie = coordinator.whole_map(own);
        match is_own {
            true => lie.record = Some(old_own.record.clone()),
            false => lie.peers = vec![old_db.clone()],
        }
        host.map(lie);
        assert_eq!(chosen(&mut host), [], "own: {is_own}");
        assert!(!host.detail().alarms.is_empty(), "and it is told");
        host.closed(ChannelErrorKind::Interrupted, "closed as asked");
        assert_eq!(host.connect(&coordinator), None);
    }
}

#[test]
fn a_policy_that_demands_the_standard_outweighs_what_records_offer() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    let own = host.id();
    let mut tell = |coordinator: &mut Coordinator, cipher: CipherDemand| {
        host.said.clear();
        let base = coordinator.revision;
        for id in [own, db] {
            coordinator.change(id, |record| record.offers_aes_256_gcm = true);
        }
        coordinator.apply(Bundle {
            cipher,
            ..policy::first_policy()
        });
        let mut delta = coordinator.delta(base);
        delta.record = Some(coordinator.entry(own).record);
        delta.peers = vec![coordinator.entry(db)];
        delta.policy = Some(coordinator.slice());
        host.map(delta);
        chosen(&mut host)
    };
    let standard = [DataCipher::ChaCha20Poly1305];
    // It has been so from the start, until the records came to offer more.
    assert_eq!(tell(&mut coordinator, CipherDemand::Standard), []);
    assert_eq!(
        tell(&mut coordinator, CipherDemand::AsOffered),
        [DataCipher::Aes256Gcm]
    );
    assert_eq!(tell(&mut coordinator, CipherDemand::Standard), standard);
}

#[test]
fn nobody_can_leave_out_that_the_policy_demands_a_cipher() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    let own = host.id();
    let base = coordinator.revision;
    for id in [own, db] {
        coordinator.change(id, |record| record.offers_aes_256_gcm = true);
    }
    coordinator.apply(Bundle {
        cipher: CipherDemand::Standard,
        ..policy::first_policy()
    });
    let mut delta = coordinator.delta(base);
    delta.record = Some(coordinator.entry(own).record);
    delta.peers = vec![coordinator.entry(db)];
    let mut without = coordinator.slice();
    without.leaves.remove(0);
    delta.policy = Some(without);
    host.said.clear();
    host.map(delta);
    assert_eq!(chosen(&mut host), [], "the map is refused");
    assert!(!host.detail().alarms.is_empty(), "and it is told");
}
