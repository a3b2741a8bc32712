//! Who costs how much: what came in while somebody sends too much, by session where a datagram names
//! one, else by the network that it came from. Bounded, and told nothing while all is well.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::plan::{NETWORKS_MAX, Network, Plan, SESSIONS_MAX};

/// What a datagram costs beside its bytes, in bytes: a small one takes about as long as so many bytes
/// are sealed in.
const DATAGRAM_COST: f64 = 1024.0;
/// Sessions that are counted: those that a plan names, and as many that come anew.
const SESSIONS_COUNTED_MAX: usize = 2 * SESSIONS_MAX;
/// Places for networks that no plan names. Many that share one leave it to whoever sends most.
const PLACES: usize = 256;

/// Costs since they were last taken.
#[derive(Debug)]
pub(super) struct Arrivals {
    sessions: HashMap<u32, Tally>,
    named: Vec<(Network, Tally)>,
    places: Vec<Place>,
    hasher: RandomState,
    /// Of whoever is not in the plan.
    others: Tally,
}

/// What came of one sender.
#[derive(Clone, Copy, Debug)]
struct Tally {
    /// The part that the kernel lets in.
    part: f64,
    cost: f64,
}

/// One network of those whose hash leads here: the one that sends more than the others together.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    network: Option<Network>,
    votes: f64,
    cost: f64,
}

/// What was asked for, whether it was let in or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims {
    pub(super) sessions: Vec<(u32, f64)>,
    /// Of strangers.
    pub(super) networks: Vec<(Network, f64)>,
    /// Of strangers whose networks are not among those.
    pub(super) others: f64,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            sessions: HashMap::with_capacity(SESSIONS_COUNTED_MAX),
            named: Vec::with_capacity(NETWORKS_MAX),
            places: vec![Place::default(); PLACES],
            hasher: RandomState::new(),
            others: Tally::of(1.0),
        }
    }

    /// Begins anew, under a plan that is in force from here on.
    pub(super) fn begin(&mut self, plan: &Plan) {
        self.sessions.clear();
        for (index, part) in &plan.sessions {
            self.sessions.insert(*index, Tally::of(*part));
        }
        self.named.clear();
        let named = plan.networks.iter();
        self.named
            .extend(named.map(|(network, part)| (*network, Tally::of(*part))));
        self.places.fill(Place::default());
        self.others = Tally::of(plan.others);
    }

    /// Takes a datagram that came in, and the session of ours that it names.
    pub(super) fn charge(&mut self, session: Option<u32>, network: Network, bytes: usize) {
        let cost = DATAGRAM_COST + bytes as f64;
        let named = self.named.iter_mut().find(|(it, _)| *it == network);
        let tally = named.map(|(_, tally)| tally);
        if let Some(index) = session {
            if let Some(tally) = self.sessions.get_mut(&index) {
                tally.cost += cost;
                return;
            }
            if self.sessions.len() < SESSIONS_COUNTED_MAX {
                let part = tally.map_or(self.others.part, |tally| tally.part);
                self.sessions.insert(index, Tally { part, cost });
                return;
            }
        }
        if let Some(tally) = tally {
            tally.cost += cost;
            return;
        }
        self.others.cost += cost;
        let place = self.place_of(network);
        self.places[place].charge(network, cost);
    }

    /// Strangers do not know who shares a place with whom.
    fn place_of(&self, network: Network) -> usize {
        (self.hasher.hash_one(network) % PLACES as u64) as usize
    }

    /// Returns all that came in.
    pub(super) fn cost(&self) -> f64 {
        let named = self.named.iter().map(|(_, tally)| tally);
        let tallies = self.sessions.values().chain(named).chain([&self.others]);
        tallies.map(|tally| tally.cost).sum()
    }

    /// Returns what everybody asked for: `factor` times what came in, where their part is what the
    /// plan gave them.
    pub(super) fn claims(&self, factor: f64) -> Claims {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|(index, tally)| (*index, tally.claim() * factor));
        let named = self.named.iter();
        let named = named.map(|(network, tally)| (*network, tally.claim() * factor));
        let mut found: Vec<&Place> = self.places.iter().filter(|it| it.cost > 0.0).collect();
        found.sort_by(|one, other| other.cost.total_cmp(&one.cost));
        let room = NETWORKS_MAX - self.named.len();
        let (mut networks, mut others) = (named.collect::<Vec<_>>(), self.others.cost);
        for place in found.into_iter().take(room) {
            let Some(network) = place.network else {
                continue;
            };
            let tally = Tally {
                cost: place.cost,
                ..self.others
            };
            networks.push((network, tally.claim() * factor));
            others -= place.cost;
        }
        let others = Tally {
            cost: others.max(0.0),
            ..self.others
        };
        Claims {
            sessions: sessions.collect(),
            networks,
            others: others.claim() * factor,
        }
    }
}

impl Tally {
    const fn of(part: f64) -> Self {
        Self { part, cost: 0.0 }
    }

    fn claim(&self) -> f64 {
        self.cost / self.part
    }
}

impl Place {
    fn charge(&mut self, network: Network, cost: f64) {
        if self.network == Some(network) {
            self.votes += cost;
            self.cost += cost;
        } else if self.votes >= cost {
            self.votes -= cost;
        } else {
            *self = Self {
                network: Some(network),
                votes: cost,
                cost,
            };
        }
    }
}

impl Claims {
    pub(super) fn of_strangers(&self) -> f64 {
        let networks = self.networks.iter().map(|(_, claim)| claim);
        networks.sum::<f64>() + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Network {
        let address = std::net::Ipv4Addr::from(number);
        Network::of((address, 9).into())
    }

    fn total(claims: &Claims) -> f64 {
        let sessions = claims.sessions.iter().map(|(_, claim)| claim);
        sessions.sum::<f64>() + claims.of_strangers()
    }

    /// Of `number` datagrams of so many bytes.
    fn cost(number: usize, bytes: usize) -> f64 {
        number as f64 * (DATAGRAM_COST + bytes as f64)
    }

    #[test]
    fn sessions_have_their_own_and_strangers_that_of_their_network() {
        let mut arrivals = Arrivals::new();
        let place = arrivals.place_of(network(1));
        let elsewhere = (2..=255)
            .map(network)
            .find(|it| arrivals.place_of(*it) != place);
        let elsewhere = elsewhere.expect("not all have one place");
        for _ in 0..3 {
            arrivals.charge(Some(7), network(1), 100);
            arrivals.charge(None, network(1), 200);
        }
        arrivals.charge(None, elsewhere, 300);
        let claims = arrivals.claims(2.0);
        assert_eq!(claims.sessions, [(7, 2.0 * cost(3, 100))]);
        let expected = [
            (network(1), 2.0 * cost(3, 200)),
            (elsewhere, 2.0 * cost(1, 300)),
        ];
        assert_eq!(claims.networks, expected);
        assert_eq!(claims.others, 0.0);
        let all = cost(3, 100) + cost(3, 200) + cost(1, 300);
        assert_eq!((arrivals.cost(), total(&claims)), (all, 2.0 * all));
    }

    #[test]
    fn what_a_plan_let_in_stands_for_what_it_did_not() {
        let mut arrivals = Arrivals::new();
        arrivals.begin(&Plan {
            sessions: vec![(7, 0.25), (8, 1.0)],
            networks: vec![(network(1), 0.5)],
            others: 0.125,
        });
        arrivals.charge(Some(7), network(1), 100);
        arrivals.charge(Some(9), network(1), 100);
        arrivals.charge(Some(10), network(2), 100);
        arrivals.charge(None, network(1), 100);
        arrivals.charge(None, network(2), 100);
        let mut claims = arrivals.claims(1.0);
        claims.sessions.sort_by_key(|(index, _)| *index);
        let one = cost(1, 100);
        let sessions = [(7, 4.0 * one), (8, 0.0), (9, 2.0 * one), (10, 8.0 * one)];
        assert_eq!(claims.sessions, sessions);
        let networks = [(network(1), 2.0 * one), (network(2), 8.0 * one)];
        assert_eq!(claims.networks, networks);
        arrivals.begin(&Plan::OPEN);
        assert_eq!(arrivals.claims(1.0), Claims::default());
    }

    #[test]
    fn who_sends_most_is_found_among_many_and_memory_is_bounded() {
        let mut arrivals = Arrivals::new();
        for number in 0..100_000 {
            // A tenth comes from one place, the rest from everywhere, and some names sessions.
            arrivals.charge(None, network(1000 + number), 100);
            if number % 9 == 0 {
                arrivals.charge(None, network(1), 100);
                arrivals.charge(Some(number), network(1000 + number), 100);
            }
        }
        let claims = arrivals.claims(1.0);
        assert_eq!(
            (claims.sessions.len(), claims.networks.len()),
            (SESSIONS_COUNTED_MAX, NETWORKS_MAX)
        );
        let (first, most) = claims.networks[0];
        assert_eq!(first, network(1));
        assert!(most > 0.8 * cost(100_000 / 9, 100), "{most}");
        let seen = total(&claims) / arrivals.cost();
        assert!((0.999..1.001).contains(&seen), "{seen}");
    }
}
