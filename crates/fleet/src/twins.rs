//! Two machines with the keys of one host, as after a copy of a whole disk: each opens a stream and
//! closes the other's, in turn. Nothing else tells them from one machine.

use std::net::IpAddr;
use std::time::Duration;

use model::time::Instant;

/// Turns until it is no machine that moved to and fro.
const TURNS: u32 = 3;
/// Streams that follow each other more slowly are no struggle.
const TURN_WITHIN: Duration = Duration::from_secs(180);

/// The last time that a stream of a host closed another of the same host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struggle {
    loser: IpAddr,
    winner: IpAddr,
    at: Instant,
    turns: u32,
}

impl Struggle {
    /// Goes on from the struggle before, if there was one, when a stream from `winner` closes one
    /// that is alive from `loser`. `None`: there is none, since both are at one address.
    pub(crate) fn next(
        before: Option<Self>,
        loser: Option<IpAddr>,
        winner: Option<IpAddr>,
        now: Instant,
    ) -> Option<Self> {
        let (loser, winner) = loser
            .zip(winner)
            .filter(|(loser, winner)| loser != winner)?;
        let is_answer = |it: &Self| {
            let is_soon = now.saturating_since(it.at) <= TURN_WITHIN;
            is_soon && (it.loser, it.winner) == (winner, loser)
        };
        let turns = before.filter(is_answer).map_or(1, |it| it.turns + 1);
        Some(Self {
            loser,
            winner,
            at: now,
            turns,
        })
    }

    /// Returns whether the two can only be two machines.
    pub(crate) fn is_of_twins(&self) -> bool {
        self.turns >= TURNS
    }

    /// Returns whether nobody was told of these twins yet.
    pub(crate) fn is_news(&self) -> bool {
        self.turns == TURNS
    }

    /// Says what is the matter to the machine that is sent away.
    pub(crate) fn reason(&self) -> String {
        format!(
            "another machine, at {}, uses this host's keys: one was cloned from the other. On the \
             clone stop meshd, remove its state directory, start it and join anew",
            self.winner
        )
    }

    /// Says what is the matter to the operator.
    pub(crate) fn notice(&self, name: &str) -> String {
        format!(
            "two machines use the keys of {name}, at {} and {}: one was cloned from the other. On \
             the clone stop meshd, remove its state directory, start it and join anew",
            self.loser, self.winner
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(turns: &[(&str, &str, u64)]) -> Option<Struggle> {
        turns.iter().fold(None, |before, (loser, winner, secs)| {
            let (loser, winner) = (loser.parse().unwrap(), winner.parse().unwrap());
            let now = Instant::from_start(Duration::from_secs(*secs));
            Struggle::next(before, Some(loser), Some(winner), now)
        })
    }

    #[test]
    fn streams_that_close_each_other_in_turn_are_of_twins() {
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        let struggle = play(&[(a, b, 0), (b, a, 6), (a, b, 12)]).unwrap();
        assert!(struggle.is_of_twins() && struggle.is_news());
        let longer = play(&[(a, b, 0), (b, a, 6), (a, b, 12), (b, a, 18)]).unwrap();
        assert!(longer.is_of_twins() && !longer.is_news());
    }

    #[test]
    fn a_machine_that_moves_has_no_twin() {
        let (a, b, c) = ("192.0.2.1", "192.0.2.2", "192.0.2.3");
        assert!(!play(&[(a, b, 0), (b, a, 6)]).unwrap().is_of_twins());
        assert!(
            !play(&[(a, b, 0), (b, c, 6), (c, a, 12)])
                .unwrap()
                .is_of_twins()
        );
        assert!(
            !play(&[(a, b, 0), (b, a, 900), (a, b, 1800)])
                .unwrap()
                .is_of_twins()
        );
        assert!(play(&[(a, a, 0)]).is_none());
    }
}
