//! What is remembered of a host that only QUIC reaches: QUIC comes first for a while, and TCP is tried
//! again from time to time.

use std::time::Duration;

use tokio::time::Instant;

use super::transport::Transport;

/// When TCP is tried again: doubled each time that it does not get through, up to the last.
const TCP_AGAIN_FIRST: Duration = Duration::from_secs(10);
const TCP_AGAIN_LAST: Duration = Duration::from_secs(320);

/// The way to one host.
#[derive(Debug, Default)]
pub(super) struct Detour {
    /// Since the last connection came by QUIC; `None`: it came by TCP, or there was none.
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    pause: Duration,
    tcp_again: Instant,
}

impl Detour {
    /// Returns what to try first.
    pub(super) fn first(&self, now: Instant) -> Transport {
        match &self.taken {
            Some(taken) if now < taken.tcp_again => Transport::Quic,
            _ => Transport::Tcp,
        }
    }

    /// Returns whether TCP should be tried although there is a connection.
    pub(super) fn wants_tcp(&self, now: Instant) -> bool {
        let taken = self.taken.as_ref();
        taken.is_some_and(|taken| now >= taken.tcp_again)
    }

    /// Takes what a connection came by.
    pub(super) fn handle_reached(&mut self, by: Transport, now: Instant) {
        match by {
            Transport::Tcp => self.taken = None,
            Transport::Quic if self.first(now) == Transport::Tcp => self.handle_no_tcp(now),
            Transport::Quic => {}
        }
    }

    /// Takes that TCP did not get through.
    pub(super) fn handle_no_tcp(&mut self, now: Instant) {
        let doubled = |taken: &Taken| (taken.pause * 2).min(TCP_AGAIN_LAST);
        let pause = self.taken.as_ref().map_or(TCP_AGAIN_FIRST, doubled);
        self.taken = Some(Taken {
            pause,
            tcp_again: now + pause,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_comes_first_until_only_quic_got_through() {
        let (mut detour, now) = (Detour::default(), Instant::now());
        assert_eq!(detour.first(now), Transport::Tcp);
        assert!(!detour.wants_tcp(now), "nothing says that it is needed");
        detour.handle_reached(Transport::Quic, now);
        assert_eq!(detour.first(now), Transport::Quic);
        assert!(!detour.wants_tcp(now));
        let again = now + TCP_AGAIN_FIRST;
        assert!(detour.wants_tcp(again));
        assert_eq!(detour.first(again), Transport::Tcp);
        detour.handle_reached(Transport::Tcp, again);
        assert!(!detour.wants_tcp(again + TCP_AGAIN_LAST));
    }

    #[test]
    fn tcp_is_tried_more_and_more_seldom() {
        let (mut detour, mut now) = (Detour::default(), Instant::now());
        detour.handle_reached(Transport::Quic, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let mut pause = 0;
            while !detour.wants_tcp(now) {
                now += Duration::from_secs(1);
                pause += 1;
            }
            pauses.push(pause);
            detour.handle_no_tcp(now);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 320, 320]);
    }

    #[test]
    fn connections_by_quic_meanwhile_do_not_put_tcp_off() {
        let (mut detour, now) = (Detour::default(), Instant::now());
        detour.handle_reached(Transport::Quic, now);
        for second in 0..TCP_AGAIN_FIRST.as_secs() {
            detour.handle_reached(Transport::Quic, now + Duration::from_secs(second));
        }
        assert!(detour.wants_tcp(now + TCP_AGAIN_FIRST));
    }
}
