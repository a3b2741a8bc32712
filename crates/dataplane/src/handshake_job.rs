//! Public-key work, taken out of the packet path: owns what it needs, so that it can run on any
//! thread, and wipes its secrets when it is dropped.

use std::sync::Arc;

use model::map::PeerIndex;
use wireguard::{
    CompletionJob, ConsumedInitiation, CreatedInitiation, CreatedResponse, DataCipher,
    HandshakeError, Initiation, InitiationJob, KeyPair, ResponseJob, TransportKeys,
    consume_initiation,
};

use crate::outbox::Path;

/// A piece of public-key work, 50 to 200 µs long. Run it on any thread and hand the result to
/// [`crate::Shard::handle_handshake`] of the shard that it came from.
#[derive(Debug)]
pub struct HandshakeJob {
    pub(crate) ticket: Ticket,
    pub(crate) work: Box<Work>,
}

/// The result of a [`HandshakeJob`].
#[derive(Debug)]
pub struct HandshakeDone {
    pub(crate) ticket: Ticket,
    pub(crate) result: Done,
}

/// By what a shard knows a job again, whatever has happened in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The host's identity at that time.
    pub(crate) identity: u64,
    /// The peer, where it is known, and which of those that had this index.
    pub(crate) peer: Option<(PeerIndex, u64)>,
    /// The receiver index that was taken for it.
    pub(crate) local_index: Option<u32>,
    /// Where the message came from that the job is about.
    pub(crate) from: Option<Path>,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// We begin a handshake.
    Initiate {
        local: Arc<KeyPair>,
        job: InitiationJob,
    },
    /// Someone begins a handshake: who?
    Consume {
        local: Arc<KeyPair>,
        message: Box<Initiation>,
    },
    /// It is a peer: answer.
    Respond { job: ResponseJob },
    /// A peer answered.
    Complete {
        local: Arc<KeyPair>,
        job: CompletionJob,
    },
}

#[derive(Debug)]
pub(crate) enum Done {
    Initiated(Result<CreatedInitiation, HandshakeError>),
    Consumed(Result<Box<ConsumedInitiation>, HandshakeError>),
    Responded(Result<Box<CreatedResponse>, HandshakeError>),
    Completed(Result<TransportKeys, HandshakeError>),
}

impl HandshakeJob {
    /// Does the work.
    pub fn run(self) -> HandshakeDone {
        let result = match *self.work {
            Work::Initiate { local, job } => Done::Initiated(job.run(&local)),
            Work::Consume { local, message } => {
                Done::Consumed(consume_initiation(&local, &message, &DataCipher::ALL).map(Box::new))
            }
            Work::Respond { job } => Done::Responded(job.run().map(Box::new)),
            Work::Complete { local, job } => Done::Completed(job.run(&local)),
        };
        HandshakeDone {
            ticket: self.ticket,
            result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_results_may_cross_threads() {
        fn crosses<T: Send + 'static>() {}
        crosses::<HandshakeJob>();
        crosses::<HandshakeDone>();
    }
}
