//! Handing over and taking over, as the packet threads are told of it: all of them together.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use dataplane::Bequest;
use tokio::sync::oneshot;

use super::crossing::Crossing;
use super::packet_loop::{Succession, ToLoop};
use super::worker::{WorkerGone, WorkerHandle};

/// The daemon that goes.
impl WorkerHandle {
    /// Lets handshakes rest while a successor agrees on sessions of its own, and returns what it
    /// should know of the peers. Packets still pass here.
    ///
    /// # Errors
    /// A packet thread is gone.
    pub(crate) async fn rest(&self, crossings: Vec<Crossing>) -> Result<Bequest, WorkerGone> {
        let mut crossings = crossings.into_iter();
        self.gather(|answer| {
            let crossing = crossings.next().expect("there is one for each shard");
            ToLoop::Rest(crossing, answer)
        })
        .await
    }

    /// Takes no packet any more, and returns all that the successor should know.
    ///
    /// # Errors
    /// A packet thread is gone.
    pub(crate) async fn leave(&self) -> Result<Bequest, WorkerGone> {
        self.gather(ToLoop::Leave).await
    }

    /// Goes on as before, after a successor has failed.
    pub(crate) fn resume(&self, successor: Succession) {
        for shard in &*self.shards {
            // The brain sees a thread that is gone, and ends the daemon.
            let _ = shard.send(ToLoop::Resume(successor));
        }
    }

    async fn gather(
        &self,
        mut ask: impl FnMut(oneshot::Sender<Bequest>) -> ToLoop,
    ) -> Result<Bequest, WorkerGone> {
        let mut whole = Bequest::default();
        for left in self.ask_all(&mut ask)? {
            whole.merge(left.await.map_err(|_| WorkerGone)?);
        }
        Ok(whole)
    }
}

/// The daemon that comes.
impl WorkerHandle {
    /// Begins handshakes with the peers that matter, and returns with how many.
    ///
    /// # Errors
    /// A packet thread is gone.
    pub(crate) async fn inherit(&self, left: Bequest) -> Result<usize, WorkerGone> {
        let left = Arc::new(left);
        self.sum(|answer| ToLoop::Inherit(Arc::clone(&left), answer))
            .await
    }

    /// Serves from now on, and returns how many flows were taken.
    ///
    /// # Errors
    /// A packet thread is gone.
    pub(crate) async fn take_up(
        &self,
        left: Bequest,
        device: Option<Vec<Arc<OwnedFd>>>,
    ) -> Result<usize, WorkerGone> {
        let left = Arc::new(left);
        let mut queues = device.into_iter().flatten();
        self.sum(|done| ToLoop::TakeUp {
            left: Arc::clone(&left),
            device: queues.next(),
            done,
        })
        .await
    }

    async fn sum(
        &self,
        mut ask: impl FnMut(oneshot::Sender<usize>) -> ToLoop,
    ) -> Result<usize, WorkerGone> {
        let mut sum = 0;
        for number in self.ask_all(&mut ask)? {
            sum += number.await.map_err(|_| WorkerGone)?;
        }
        Ok(sum)
    }
}

/// Any daemon.
impl WorkerHandle {
    /// Returns when every packet thread has shown that it lives.
    ///
    /// # Errors
    /// A packet thread is gone.
    pub async fn beat(&self) -> Result<(), WorkerGone> {
        for beat in self.ask_all(&mut ToLoop::Beat)? {
            beat.await.map_err(|_| WorkerGone)?;
        }
        Ok(())
    }

    /// Asks all threads at once; they answer when they come to it.
    fn ask_all<T>(
        &self,
        ask: &mut impl FnMut(oneshot::Sender<T>) -> ToLoop,
    ) -> Result<Vec<oneshot::Receiver<T>>, WorkerGone> {
        let mut answers = Vec::new();
        for shard in &*self.shards {
            let (answer, answered) = oneshot::channel();
            shard.send(ask(answer))?;
            answers.push(answered);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use dataplane::ShardConfig;
    use runtime::clock::Clock;

    use super::*;
    use crate::linux::classic_bpf::{RETURN, filter, step, unfilter};
    use crate::packets::{PacketWorker, UdpSockets};

    /// One packet thread, and its socket once more, as a successor has it.
    fn started() -> (PacketWorker, OwnedFd) {
        let sockets = UdpSockets::bind(0).unwrap();
        let (shared, _) = sockets.share().unwrap();
        let (news, _) = tokio::sync::mpsc::channel(16);
        let config = ShardConfig::default();
        let clock = Clock::start();
        let worker = PacketWorker::start(config, vec![sockets], [1; 32], clock, news).unwrap();
        (worker, shared)
    }

    fn let_nothing_in(socket: &OwnedFd) {
        filter(socket, &mut [step(RETURN, 0, 0, 0)]).unwrap();
    }

    #[tokio::test]
    async fn what_a_failed_successor_filtered_comes_again() {
        let (worker, shared) = started();
        let handle = worker.handle();
        let (crossing, _successor) = Crossing::pair().unwrap();
        handle.rest(vec![crossing]).await.unwrap();
        handle.leave().await.unwrap();
        let_nothing_in(&shared);
        handle.resume(Succession::Served);
        handle.beat().await.unwrap();
        assert!(unfilter(&shared).is_err(), "there is none");
        worker.stop();
    }

    #[tokio::test]
    async fn a_daemon_that_stops_leaves_no_filter_but_its_successor_s() {
        let (worker, shared) = started();
        let_nothing_in(&shared);
        worker.stop();
        assert!(unfilter(&shared).is_err(), "there is none");

        let (worker, shared) = started();
        let (crossing, _successor) = Crossing::pair().unwrap();
        worker.handle().rest(vec![crossing]).await.unwrap();
        worker.handle().leave().await.unwrap();
        let_nothing_in(&shared);
        worker.stop();
        assert!(unfilter(&shared).is_ok(), "it is the successor's");
    }
}
