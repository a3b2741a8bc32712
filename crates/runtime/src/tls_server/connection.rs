//! One connection as the program sees it, and how long it may stay: a stranger's for a while, a
//! member's for as long as its program wants, and one that is over until what was sent has arrived.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use trust::certificate::CertificateFacts;

use super::strangers::Place;

/// How long a stranger's connection lives: long enough for any request.
const STRANGER_LIFETIME: Duration = Duration::from_secs(300);
/// How long a client may take to read the last that it is sent.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection that a request came by; in the extensions of each request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// What the client's certificate says; it may be expired, or of a host that was removed. `None`:
    /// it showed none.
    pub certificate: Option<CertificateFacts>,
    standing: Arc<watch::Sender<Standing>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Stranger,
    Member,
    Over,
}

impl Connection {
    /// Makes a stranger's connection.
    pub(super) fn new(
        remote: SocketAddr,
        certificate: Option<CertificateFacts>,
        place: Place,
    ) -> (Self, Stay) {
        let standing = Arc::new(watch::Sender::new(Standing::Stranger));
        let stay = Stay {
            changes: standing.subscribe(),
            _standing: Arc::clone(&standing),
            place: Some(place),
            is_ending: false,
            until: Some(Instant::now() + STRANGER_LIFETIME),
        };
        let connection = Self {
            remote,
            certificate,
            standing,
        };
        (connection, stay)
    }

    /// Lets it stay, and gives its place among strangers to others.
    pub fn admit(&self) {
        self.standing.send_if_modified(|standing| {
            let is_news = *standing == Standing::Stranger;
            if is_news {
                *standing = Standing::Member;
            }
            is_news
        });
    }

    /// Closes it once what was sent has arrived, or does not arrive.
    pub fn end(&self) {
        self.standing.send_replace(Standing::Over);
    }
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Take no more requests, and close it after the last answer.
    End,
    /// Close it now.
    Close,
}

/// How long a connection may stay.
pub(super) struct Stay {
    changes: watch::Receiver<Standing>,
    /// So that waiting for changes is never the end.
    _standing: Arc<watch::Sender<Standing>>,
    place: Option<Place>,
    is_ending: bool,
    until: Option<Instant>,
}

impl Stay {
    /// Waits until something is to be done.
    pub(super) async fn next(&mut self) -> Turn {
        loop {
            let standing = *self.changes.borrow_and_update();
            if self.has_ended(standing, Instant::now()) {
                return Turn::End;
            }
            tokio::select! {
                () = reach(self.until) => return Turn::Close,
                _ = self.changes.changed() => {}
            }
        }
    }

    /// Takes how the connection stands; returns whether it has ended now.
    fn has_ended(&mut self, standing: Standing, now: Instant) -> bool {
        match standing {
            Standing::Member => {
                self.place = None;
                self.until = None;
                false
            }
            Standing::Over if !self.is_ending => {
                self.is_ending = true;
                self.until = Some(now + FAREWELL_TIMEOUT);
                true
            }
            Standing::Stranger | Standing::Over => false,
        }
    }
}

async fn reach(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::strangers::Strangers;
    use super::*;

    fn visit(strangers: &Strangers) -> (Connection, Stay) {
        let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let place = strangers.take(remote.ip()).unwrap();
        Connection::new(remote, None, place)
    }

    #[test]
    fn who_is_not_let_in_stays_a_while() {
        let now = Instant::now();
        let (_connection, mut stay) = visit(&Strangers::default());
        assert!(!stay.has_ended(Standing::Stranger, now));
        assert!(stay.until >= Some(now + STRANGER_LIFETIME));
    }

    #[tokio::test]
    async fn what_is_over_is_not_let_in() {
        let (connection, mut stay) = visit(&Strangers::default());
        connection.admit();
        connection.end();
        connection.admit();
        assert_eq!(stay.next().await, Turn::End);
    }

    #[test]
    fn who_is_let_in_leaves_its_place_and_stays() {
        let strangers = Strangers::default();
        let (_connection, mut stay) = visit(&strangers);
        assert_eq!(strangers.count(), 1);
        assert!(!stay.has_ended(Standing::Member, Instant::now()));
        assert_eq!((stay.until, strangers.count()), (None, 0));
    }

    #[test]
    fn what_is_over_ends_once_and_is_closed_soon() {
        let (_connection, mut stay) = visit(&Strangers::default());
        let now = Instant::now();
        assert!(!stay.has_ended(Standing::Member, now));
        assert!(stay.has_ended(Standing::Over, now));
        assert!(!stay.has_ended(Standing::Over, now + FAREWELL_TIMEOUT));
        assert_eq!(stay.until, Some(now + FAREWELL_TIMEOUT));
    }
}
