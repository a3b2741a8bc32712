//! The connections of one thread to one host: which takes the next stream, and when another is made.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use model::ids::{Digest, HostId};
use runtime::clock::random_seed;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use traffic::Dice;

use super::carried::{Carrier, Taken};
use super::detour::Detour;
use super::dialling::{self, Order, Target};
use super::manner::CONNECTIONS_PER_HOST_MAX;
use super::outages::Outages;
use super::transport::Transport;
use super::{SessionError, Sessions};
use crate::snapshot::Snapshots;

/// How long nothing is dialled after a failure, and up to half as long again: doubled with each, up to
/// the last.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(5);

/// What waiters are told of a connection that is being made.
type News = Option<Result<(), SessionError>>;

pub(super) struct HostPool {
    host: HostId,
    snapshots: Arc<Snapshots>,
    carriers: RefCell<Vec<Rc<Carrier>>>,
    /// One is made at a time, and everyone who needs it waits for the same.
    dialling: RefCell<Option<watch::Receiver<News>>>,
    detour: RefCell<Detour>,
    /// TCP is being tried beside the connections that there are.
    is_probing: Cell<bool>,
    is_closed: Cell<bool>,
}

impl HostPool {
    pub(super) fn new(host: HostId, snapshots: Arc<Snapshots>) -> Rc<Self> {
        Rc::new(Self {
            host,
            snapshots,
            carriers: RefCell::default(),
            dialling: RefCell::default(),
            detour: RefCell::default(),
            is_probing: Cell::new(false),
            is_closed: Cell::new(false),
        })
    }

    /// Returns a connection with room for one more stream.
    pub(super) async fn connection(
        self: Rc<Self>,
        sessions: &Sessions,
    ) -> Result<Taken, SessionError> {
        match self.take() {
            Some(taken) => {
                if taken.transport() == Transport::Quic {
                    self.look_for_tcp(sessions);
                }
                Ok(taken)
            }
            None => Box::pin(self.next_connection(sessions)).await,
        }
    }

    /// Waits for one.
    async fn next_connection(self: Rc<Self>, sessions: &Sessions) -> Result<Taken, SessionError> {
        loop {
            if let Some(taken) = self.take() {
                return Ok(taken);
            }
            if self.carriers.borrow().len() >= CONNECTIONS_PER_HOST_MAX {
                return Err(SessionError::Full);
            }
            let news = self.dialled(sessions);
            let told = match news {
                Ok(mut news) => match news.wait_for(Option::is_some).await {
                    Ok(told) => told.clone().expect("it was waited for"),
                    // Whoever was to tell is gone with the pool.
                    Err(_) => Err(SessionError::NoAddress),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                return self.take().ok_or_else(|| self.without_another(error));
            }
        }
    }

    /// Returns what it means that no other connection comes about: while there are some, that those are
    /// full, and nothing of whether the host is reached.
    fn without_another(&self, error: SessionError) -> SessionError {
        match self.is_connected() {
            true => SessionError::Full,
            false => error,
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.carriers
            .borrow()
            .iter()
            .any(|carrier| !carrier.is_over())
    }

    /// Returns how many connections there are over a transport.
    pub(super) fn count(&self, transport: Transport) -> usize {
        let carriers = self.carriers.borrow();
        let live = carriers.iter().filter(|carrier| !carrier.is_over());
        live.filter(|carrier| carrier.transport() == transport)
            .count()
    }

    /// Closes all connections to another key than this.
    pub(super) fn keep_only(&self, key: Option<Digest>) {
        self.is_closed.set(key.is_none());
        self.carriers.borrow_mut().retain(|carrier| {
            let is_right = key == Some(carrier.key);
            if !is_right {
                carrier.close();
            }
            is_right
        });
    }

    /// Takes a place on the fullest connection that has room, so that the others may become idle; on
    /// one over TCP, if there is any.
    fn take(&self) -> Option<Taken> {
        let mut carriers = self.carriers.borrow_mut();
        if carriers.iter().any(|carrier| carrier.is_over()) {
            carriers.retain(|carrier| !carrier.is_over());
        }
        let with_room = carriers.iter().filter(|carrier| carrier.has_room());
        with_room
            .max_by_key(|carrier| {
                let is_tcp = carrier.transport() == Transport::Tcp;
                (is_tcp, carrier.stream_count())
            })
            .map(Carrier::take)
    }

    fn dialled(
        self: &Rc<Self>,
        sessions: &Sessions,
    ) -> Result<watch::Receiver<News>, SessionError> {
        if let Some(error) = sessions.outages.error(self.host) {
            return Err(error);
        }
        if let Some(under_way) = &*self.dialling.borrow() {
            return Ok(under_way.clone());
        }
        let target = Target::of(self.host, sessions, self.session())?;
        let (tell, news) = watch::channel(None);
        self.dialling.replace(Some(news.clone()));
        let (pool, order) = (Rc::clone(self), self.order());
        let (outages, sessions) = (Arc::clone(&sessions.outages), sessions.this.clone());
        spawn_local(async move {
            let places = target.places().clone();
            let outcome = dialling::dial(target, order).await;
            let outcome = outcome.and_then(|carrier| pool.add(carrier));
            pool.dialling.replace(None);
            let begun = match &outcome {
                Ok(()) => {
                    outages.end(pool.host);
                    None
                }
                Err(_) if pool.is_closed.get() => None,
                Err(error) => outages.begin(pool.host, places, error.clone()),
            };
            let _ = tell.send(Some(outcome));
            if let Some(outage) = begun {
                pool.try_again(outage, &outages, sessions).await;
            }
        });
        Ok(news)
    }

    /// Tries the host beside the calls, which are refused meanwhile, until a session comes about or
    /// somebody else ends the outage.
    async fn try_again(&self, outage: u64, outages: &Outages, sessions: Weak<Sessions>) {
        let mut dice = Dice::from_seed(random_seed().unwrap_or_default());
        let mut pause = PAUSE_FIRST;
        let mut failure = None;
        while outages.go_on(self.host, outage, failure.take()) {
            sleep(pause + dice.up_to(pause / 2)).await;
            let target = match sessions.upgrade() {
                Some(sessions) => Target::of(self.host, &sessions, None),
                None => return,
            };
            let outcome = match target {
                Ok(target) => dialling::dial(target, self.order()).await,
                Err(error) => Err(error),
            };
            match outcome.and_then(|carrier| self.add(carrier)) {
                Ok(()) => return outages.end(self.host),
                Err(error) => failure = Some(error),
            }
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    fn order(&self) -> Order {
        match self.detour.borrow().first(Instant::now()) {
            Transport::Tcp => Order::TcpFirst,
            Transport::Quic => Order::QuicFirst,
        }
    }

    fn add(&self, carrier: Carrier) -> Result<(), SessionError> {
        if self.is_closed.get() {
            carrier.close();
            return Err(SessionError::NoAddress);
        }
        // The key may have changed since the dial began, and `keep_only` has not seen this one.
        if self.key() != Some(carrier.key) {
            carrier.close();
            // Whoever waits finds none, and dials anew.
            return Ok(());
        }
        let mut detour = self.detour.borrow_mut();
        detour.handle_reached(carrier.transport(), Instant::now());
        self.carriers.borrow_mut().push(Rc::new(carrier));
        Ok(())
    }

    /// Returns the key that the host has now.
    fn key(&self) -> Option<Digest> {
        let snapshot = self.snapshots.current();
        let host = snapshot.catalogue.hosts.get(&self.host);
        host.map(|host| host.tls_key_hash)
    }

    /// Tries TCP when it is time, so that later streams go by it; those that there are stay.
    fn look_for_tcp(self: &Rc<Self>, sessions: &Sessions) {
        let is_time = self.detour.borrow().wants_tcp(Instant::now());
        if !is_time || self.is_probing.get() || self.dialling.borrow().is_some() {
            return;
        }
        let Ok(target) = Target::of(self.host, sessions, None) else {
            return;
        };
        self.is_probing.set(true);
        let pool = Rc::clone(self);
        spawn_local(async move {
            let outcome = dialling::dial(target, Order::TcpOnly).await;
            pool.is_probing.set(false);
            if outcome.and_then(|carrier| pool.add(carrier)).is_err() {
                pool.detour.borrow_mut().handle_no_tcp(Instant::now());
            }
        });
    }

    /// Returns a session of QUIC that stands, for one stream more.
    fn session(&self) -> Option<quinn::Connection> {
        let carriers = self.carriers.borrow();
        carriers
            .iter()
            .find_map(|carrier| carrier.session().cloned())
    }
}
