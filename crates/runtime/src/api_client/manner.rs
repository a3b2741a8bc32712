//! How a client asks: whom, in the words of who uses it; how long it waits; whether it goes on when
//! the server starts anew.

use std::time::Duration;

/// How long a client waits when nobody says otherwise: the longest work of a server included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom a client asks, for its messages.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// What it is called: `the daemon`.
    pub name: &'static str,
    /// What to look at when it is silent.
    pub look: &'static str,
    /// What shows whether a change was made that it did not answer to.
    pub see: &'static str,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            name: "the daemon",
            look: "look at its log",
            see: "ask again what is so",
        }
    }
}

/// What a client does when a server that was there is gone: it may be starting anew.
#[derive(Clone, Copy, Debug)]
pub struct Persistence {
    /// How long it tries again.
    pub how_long: Duration,
    /// Is told once why, and that it is tried again.
    pub notice: fn(&str),
}

/// How a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) server: Server,
    /// How long the server may be silent.
    pub(super) patience: Duration,
    pub(super) persistence: Option<Persistence>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            server: Server::default(),
            patience: PATIENCE,
            persistence: None,
        }
    }
}

/// What a request does at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It changes nothing, and may be made twice.
    Question,
    /// It changes something, if it arrives.
    Order,
}

/// Why an attempt brought no answer.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The request did not leave: nothing was changed.
    NotSent(String),
    /// The same, and it would not another time either.
    Hopeless(String),
    /// The connection ended before the answer was whole.
    Broken(String),
    /// The server was silent for too long.
    Silent,
    /// The answer exceeds what is read.
    TooLarge(String),
}

impl Attempt {
    /// Whether another attempt may do better, and can do no harm.
    pub(super) fn may_be_repeated(&self, purpose: Purpose) -> bool {
        match self {
            Self::NotSent(_) => true,
            Self::Broken(_) => purpose == Purpose::Question,
            Self::Hopeless(_) | Self::Silent | Self::TooLarge(_) => false,
        }
    }

    /// Says what failed, what it leaves open, what to look at.
    pub(super) fn explain(&self, purpose: Purpose, target: &str, manner: &Manner) -> String {
        let Server { name, look, see } = manner.server;
        let (why, was_sent) = match self {
            Self::NotSent(why) | Self::Hopeless(why) => (why.clone(), false),
            Self::TooLarge(why) => (why.clone(), true),
            Self::Broken(why) => (format!("{name} at {target} hung up: {why}; {look}"), true),
            Self::Silent => {
                let secs = manner.patience.as_secs();
                (
                    format!(
                        "{name} at {target} did not answer within {secs} s: it is stopped, or overloaded; {look}"
                    ),
                    true,
                )
            }
        };
        match (was_sent, purpose) {
            (true, Purpose::Order) => {
                format!("{why}. Whether what was asked is done is not known: {see}")
            }
            _ => why,
        }
    }
}
