//! The one that goes: starts the installed program, gives it everything step by step, and takes it
//! all back when a step fails.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{BEQUEST_FORMAT, HANDSHAKES_APART, Shift};
use model::local::HandedOver;
use runtime::local_socket::SocketSharer;
use runtime::service_manager;
use runtime::state_dir::StateDir;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::blob;
use super::link::{Link, LinkError};
use super::message::{self, FromPredecessor, FromSuccessor, Kept, PROTOCOLS};
use super::program::Program;
use crate::brain::{BrainHandle, Input};
use crate::dns::DnsSockets;
use crate::overlay::{Inherited, OverlayHandle};
use crate::packets::crossing::Crossing;
use crate::packets::{Succession, WorkerHandle};

/// From the start of the program until it serves, whatever the steps take of it.
const ALL_WITHIN: Duration = Duration::from_secs(60);
/// From the start of the program to its threads; a slow disk must be read for it.
const EQUIP_WITHIN: Duration = Duration::from_secs(20);
/// To verify a map of a large fleet.
const LOAD_WITHIN: Duration = Duration::from_secs(20);
/// To agree on sessions with the peers that answer.
const SHAKE_WITHIN: Duration = Duration::from_secs(5);
/// To serve, while packets wait in the kernel's queues.
const SERVE_WITHIN: Duration = Duration::from_secs(3);
/// For this daemon's own parts to come to rest; a disk or another program may hold one up.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// For its packet threads to leave, while packets wait in the kernel's queues.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// For a successor that was killed to be gone. One that is not by then reads from a disk that hangs,
/// and will never run again.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// For this daemon's own parts to hear that they go on.
const RESUME_WITHIN: Duration = Duration::from_secs(10);
/// How long what peers sealed for this daemon is opened after it has left: longer than a peer that
/// missed the successor's handshake is tried again (WireGuard whitepaper 6.1: REKEY_TIMEOUT).
const DRAIN: Duration = Duration::from_secs(7);

/// What is given away.
pub(crate) struct Predecessor {
    pub(crate) program: Program,
    pub(crate) brain: BrainHandle,
    pub(crate) overlay: OverlayHandle,
    pub(crate) worker: WorkerHandle,
    pub(crate) state: Arc<StateDir>,
    pub(crate) api: SocketSharer,
    /// On loopback.
    pub(crate) dns: DnsSockets,
    /// The UDP sockets of each shard.
    pub(crate) sockets: Vec<(OwnedFd, Option<OwnedFd>)>,
    pub(crate) kept: Kept,
    pub(crate) shift: Shift,
}

/// The successor serves, and waits to be told that it is alone.
pub(crate) struct Serving {
    link: Link,
    child: Child,
    facts: HandedOver,
}

impl Predecessor {
    /// Hands over to the installed program, up to where both could go on.
    ///
    /// # Errors
    /// Why it did not come about: this daemon goes on as if nothing had been.
    pub(crate) async fn hand_over(self: Arc<Self>) -> Result<Serving, String> {
        let failed = |what: &str, error: String| format!("{what}: {error}");
        let path = self.program.path().display().to_string();
        let (link, other) =
            Link::pair().map_err(|error| failed("cannot make a socket", error.to_string()))?;
        let child = self
            .program
            .start(other)
            .map_err(|error| failed(&format!("cannot start {path}"), error.to_string()))?;
        tracing::info!(program = path, process = child.id(), "handing over");
        let mut attempt = Attempt {
            predecessor: Arc::clone(&self),
            link: Some(link),
            child: Some(child),
            reached: Reached::Started,
        };
        match in_all(ALL_WITHIN, attempt.lead()).await {
            Ok(facts) => Ok(attempt.succeed(facts)),
            Err(why) => {
                let why = attempt.take_back(why).await;
                tracing::error!("the new meshd was not handed over to: {why}; this one goes on");
                Err(why)
            }
        }
    }
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// The program runs.
    Started,
    /// The brain rests.
    Quiet,
    /// Handshakes rest.
    Peers,
    /// No packet is taken.
    Left,
    /// It serves.
    Done,
}

struct Attempt {
    predecessor: Arc<Predecessor>,
    link: Option<Link>,
    child: Option<Child>,
    reached: Reached,
}

impl Attempt {
    async fn lead(&mut self) -> Result<HandedOver, String> {
        let predecessor = Arc::clone(&self.predecessor);
        let FromSuccessor::Hello {
            oldest,
            newest,
            version,
            bequest_format,
        } = self.hear("start", EQUIP_WITHIN).await?
        else {
            return Err(out_of_turn());
        };
        let protocol = message::common((oldest, newest), PROTOCOLS)
            .filter(|_| bequest_format == BEQUEST_FORMAT)
            .ok_or_else(|| {
                format!(
                    "meshd {version} hands over in another way than this one; \
                     systemctl restart meshd changes to it, with a short gap"
                )
            })?;
        let standing = in_time("overlay", REST_WITHIN, predecessor.overlay.rest()).await?;
        let crossings = self.offer(protocol, &standing).await?;
        self.expect(&FromSuccessor::Equipped, "equip itself", EQUIP_WITHIN)
            .await?;

        self.reached = Reached::Quiet;
        let rested = in_time("disk", REST_WITHIN, predecessor.brain.ask(Input::Rest)).await?;
        rested.map_err(|gone| gone.to_string())??;
        let still = in_time("overlay", REST_WITHIN, predecessor.overlay.rest()).await?;
        if !is_same_device(&standing, &still) {
            return Err("the overlay has changed meanwhile; try again".into());
        }
        self.say(&FromPredecessor::Quiet, None).await?;
        self.expect(&FromSuccessor::Loaded, "load its state", LOAD_WITHIN)
            .await?;

        self.reached = Reached::Peers;
        let rested = predecessor.worker.rest(crossings);
        let left = in_time("handshakes", REST_WITHIN, rested).await?;
        let left = left.map_err(text)?;
        sleep(HANDSHAKES_APART).await;
        let peers = blob::write(&left).map_err(text)?;
        self.say(&FromPredecessor::Peers, Some(&peers)).await?;
        let FromSuccessor::Shaken { begun, answered } =
            self.hear("shake hands with peers", SHAKE_WITHIN).await?
        else {
            return Err(out_of_turn());
        };

        self.reached = Reached::Left;
        let left_at = Instant::now();
        let left = in_time("packets", LEAVE_WITHIN, predecessor.worker.leave()).await?;
        let left = left.map_err(text)?;
        let flows = blob::write(&left).map_err(text)?;
        self.say(&FromPredecessor::Go, Some(&flows)).await?;
        let FromSuccessor::Serving { flows } = self.hear("serve", SERVE_WITHIN).await? else {
            return Err(out_of_turn());
        };
        Ok(HandedOver {
            from: env!("CARGO_PKG_VERSION").into(),
            to: version,
            process: self.child.as_ref().and_then(Child::id).unwrap_or_default(),
            pause_micros: u64::try_from(left_at.elapsed().as_micros()).unwrap_or(u64::MAX),
            handshakes_begun: begun,
            handshakes_answered: answered,
            flows,
        })
    }

    /// Gives the descriptors, and returns this daemon's ends of the crossings.
    async fn offer(&self, protocol: u16, standing: &Inherited) -> Result<Vec<Crossing>, String> {
        let predecessor = &*self.predecessor;
        let servers: Vec<&DnsSockets> = std::iter::once(&predecessor.dns)
            .chain(&standing.dns)
            .collect();
        let offer = FromPredecessor::Offer {
            protocol,
            version: env!("CARGO_PKG_VERSION").into(),
            kept: predecessor.kept.clone(),
            is_second_shift: message::is_second(predecessor.shift.next()),
            dns: servers.iter().map(|it| it.address()).collect(),
            shards: predecessor.kept.shards,
            has_device: standing.device.is_some(),
        };
        let shared = servers.iter().map(|it| it.share());
        let shared = shared.collect::<std::io::Result<Vec<_>>>().map_err(text)?;
        let api = predecessor.api.share().map_err(text)?;
        let mut descriptors = vec![predecessor.state.lock(), api.as_fd()];
        descriptors.extend(shared.iter().flatten().map(AsFd::as_fd));
        let link = self.link();
        link.send(&offer, &descriptors).await.map_err(text)?;
        let mut crossings = Vec::new();
        for (number, (v4, v6)) in predecessor.sockets.iter().enumerate() {
            let (own, theirs) = Crossing::pair().map_err(text)?;
            let queue = standing.device.as_ref().and_then(|it| it.get(number));
            let shard = FromPredecessor::Shard {
                has_v6: v6.is_some(),
                has_device: queue.is_some(),
            };
            let mut descriptors = vec![theirs.as_fd(), v4.as_fd()];
            descriptors.extend(v6.as_ref().map(AsFd::as_fd));
            descriptors.extend(queue.map(|queue| queue.as_fd()));
            link.send(&shard, &descriptors).await.map_err(text)?;
            crossings.push(own);
        }
        Ok(crossings)
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("it is there until the end")
    }

    async fn say(&self, step: &FromPredecessor, file: Option<&OwnedFd>) -> Result<(), String> {
        let file: Vec<_> = file.into_iter().map(AsFd::as_fd).collect();
        self.link().send(step, &file).await.map_err(text)
    }

    async fn expect(
        &mut self,
        step: &FromSuccessor,
        to_do: &str,
        within: Duration,
    ) -> Result<(), String> {
        match self.hear(to_do, within).await? {
            heard if heard == *step => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    async fn hear(&mut self, to_do: &str, within: Duration) -> Result<FromSuccessor, String> {
        match self.link().receive(within).await {
            Ok((FromSuccessor::Failed { why }, _)) => Err(format!("it could not {to_do}: {why}")),
            Ok((heard, _)) => Ok(heard),
            Err(LinkError::Closed) => {
                let status = match &mut self.child {
                    Some(child) => timeout(SERVE_WITHIN, child.wait()).await.ok(),
                    None => None,
                };
                let how = status.and_then(Result::ok);
                let how = how.map_or_else(String::new, |status| format!(" ({status})"));
                Err(format!(
                    "it ended{how} when it was to {to_do}; its log says why"
                ))
            }
            Err(error) => Err(format!("when it was to {to_do}: {error}")),
        }
    }

    fn succeed(mut self, facts: HandedOver) -> Serving {
        self.reached = Reached::Done;
        Serving {
            link: self.link.take().expect("it is there until now"),
            child: self.child.take().expect("it is there until now"),
            facts,
        }
    }

    /// Ends the successor and goes on. Returns why, once more.
    async fn take_back(&mut self, why: String) -> String {
        self.link = None;
        if let Some(mut child) = self.child.take() {
            // Before anything is taken back: it may read the same sockets.
            let _ = timeout(KILL_WITHIN, child.kill()).await;
        }
        self.go_on().await;
        why
    }

    async fn go_on(&self) {
        let Predecessor {
            worker,
            overlay,
            brain,
            ..
        } = &*self.predecessor;
        match self.reached {
            Reached::Started | Reached::Quiet | Reached::Done => {}
            Reached::Peers => worker.resume(Succession::Begun),
            Reached::Left => {
                sleep(HANDSHAKES_APART).await;
                worker.resume(Succession::Served);
            }
        }
        let (overlay, brain) = (overlay.clone(), brain.clone());
        let told = async move { tokio::join!(overlay.resume(), brain.resume()) };
        // They are told even when this is not waited for: before a next attempt asks them to rest.
        if timeout(RESUME_WITHIN, tokio::spawn(told)).await.is_err() {
            tracing::error!(
                "this daemon does not come back from its rest within {} s; \
                 systemctl restart meshd ends that",
                RESUME_WITHIN.as_secs()
            );
        }
    }
}

/// This daemon is told to stop in the middle.
impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
    }
}

impl Serving {
    /// Leaves everything to the successor, and the word to the service manager. Nobody answers on
    /// this daemon's sockets or writes to its state any more when this is called.
    ///
    /// # Errors
    /// The successor has died in this very moment.
    pub(crate) async fn farewell(&mut self) -> Result<HandedOver, String> {
        if let Some(process) = self.child.id() {
            service_manager::main_process(process);
        }
        let told = self.link.send(&FromPredecessor::Farewell, &[]).await;
        told.map_err(|_| "the new meshd ended in the moment in which it took over".to_owned())?;
        Ok(self.facts.clone())
    }

    /// Waits as long as peers may still send what only this daemon can open.
    pub(crate) async fn drain(self) {
        let _ = timeout(DRAIN, self.link.closed()).await;
    }
}

/// Waits for the whole of a hand-over: steps that are all slow must not add up to more than whoever
/// asked for it waits.
async fn in_all<T>(
    within: Duration,
    leading: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let led = timeout(within, leading).await;
    led.unwrap_or_else(|_| {
        Err(format!(
            "it did not take over within {} s, although it answered in between: the machine is very \
             slow; try again",
            within.as_secs()
        ))
    })
}

/// Waits for a part of this daemon.
async fn in_time<T>(
    part: &str,
    within: Duration,
    done: impl Future<Output = T>,
) -> Result<T, String> {
    let done = timeout(within, done).await;
    done.map_err(|_| {
        format!(
            "the running meshd's {part} did not come to rest within {} s; \
             try again, and see whether its disk answers",
            within.as_secs()
        )
    })
}

fn is_same_device(one: &Inherited, other: &Inherited) -> bool {
    let same = |one: &Vec<Arc<OwnedFd>>, other: &Vec<Arc<OwnedFd>>| {
        let mut pairs = one.iter().zip(other);
        one.len() == other.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
    };
    match (&one.device, &other.device) {
        (Some(one), Some(other)) => same(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn out_of_turn() -> String {
    "it said something out of turn".into()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_hand_over_waits_until_it_is_done_or_taken_back() {
        let taken_back = KILL_WITHIN + HANDSHAKES_APART + RESUME_WITHIN;
        assert!(ALL_WITHIN + taken_back < model::local::RELOAD_WITHIN);
    }

    #[tokio::test]
    async fn a_hand_over_does_not_take_longer_than_it_may_in_all() {
        let led = in_all(ALL_WITHIN, std::future::ready(Ok(7))).await;
        assert_eq!(led, Ok(7));
        let slow = std::future::pending::<Result<(), String>>();
        let why = in_all(Duration::ZERO, slow).await.unwrap_err();
        assert!(why.contains("did not take over within 0 s"), "{why}");
    }

    #[tokio::test]
    async fn a_part_that_does_not_come_to_rest_is_not_waited_for() {
        let rested = in_time("disk", REST_WITHIN, std::future::ready(7)).await;
        assert_eq!(rested, Ok(7));
        let hangs = std::future::pending::<()>();
        let why = in_time("disk", Duration::ZERO, hangs).await.unwrap_err();
        assert!(why.contains("disk did not come to rest"), "{why}");
    }
}
