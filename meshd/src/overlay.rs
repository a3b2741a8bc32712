//! The overlay on this host: interface, DNS on its addresses, and the host's resolver. A task of its
//! own brings them to what the agent wants, watches over them, and takes them back.

mod answering;
mod claims;
mod health;
mod keeper;
mod probation;
pub mod repairs;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agent::{InterfaceConfig, Names};
use arc_swap::ArcSwap;
use model::local::{ResolverState, ResolverView};
use runtime::state_dir::{StateDir, StateError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::dns::{DnsSockets, DnsTally, Forwarder};
use crate::linux::interception::Interception;
use crate::linux::interface::InterfaceSettings;
use crate::packets::WorkerHandle;
use crate::resolver::{HostFiles, ResolverMode};

use keeper::Keeper;

/// Orders that may wait.
const ORDERS_MAX: usize = 16;

/// What the overlay is made with.
pub struct OverlayParts {
    /// What the daemon makes in the kernel.
    pub interface: InterfaceSettings,
    /// What is caught on its way out, to begin with.
    pub interception: Interception,
    /// The packet thread.
    pub worker: WorkerHandle,
    /// Where it is written down what is owned.
    pub state: Arc<StateDir>,
    /// What DNS answers from.
    pub names: Arc<ArcSwap<Names>>,
    /// Where DNS answers on loopback; it has the same port on the overlay's addresses.
    pub dns: SocketAddr,
    /// What came of the questions.
    pub dns_tally: Arc<DnsTally>,
    /// Who asks the host's own servers.
    pub forwarder: Arc<Forwarder>,
    /// Where the host keeps its settings.
    pub files: HostFiles,
    /// Whether the host's resolver is set up.
    pub resolver: ResolverMode,
    /// What another daemon left standing.
    pub inherited: Inherited,
}

/// What of an overlay outlives the daemon that made it.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The queues of the interface's device.
    pub device: Option<Vec<Arc<OwnedFd>>>,
    /// Where DNS answers on the overlay's addresses.
    pub dns: Vec<DnsSockets>,
}

/// What the task is told.
enum Order {
    /// The overlay as it should be; `None`: none at all.
    Want(Option<InterfaceConfig>, oneshot::Sender<()>),
    /// The agent has said what it wants, or wants nothing; with whether the host is a member.
    Begin { is_member: bool },
    /// The snapshot of names is another.
    Names,
    /// What is caught on its way out from now on.
    Intercept(Interception, oneshot::Sender<()>),
    /// An operator has changed the settings.
    Reload(ResolverMode),
    /// The daemon stops.
    Stop(oneshot::Sender<()>),
    /// The daemon ends by itself, as in a crash, or is started again: what guards the overlay stays.
    Abandon(oneshot::Sender<()>),
    /// Another daemon is about to take over: nothing is mended meanwhile. Answered with what stands.
    Rest(oneshot::Sender<Inherited>),
    /// It has failed.
    Resume,
    /// It has taken over: everything is left to it.
    Vanish(oneshot::Sender<()>),
}

/// Talks to the task.
#[derive(Clone)]
pub struct OverlayHandle {
    orders: mpsc::Sender<Order>,
    alarms: Arc<ArcSwap<Vec<String>>>,
    setup: Arc<ArcSwap<DnsSetup>>,
    trouble: Arc<ArcSwap<Option<String>>>,
}

/// Where mesh DNS answers, and how the host comes to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSetup {
    /// Loopback first.
    pub listens: Vec<SocketAddr>,
    /// The host's own resolver.
    pub resolver: ResolverView,
}

impl OverlayHandle {
    /// Starts the task, which ends when it is told to stop. Nothing of the overlay is touched before it is told to, but what a daemon
    /// that died left in the host's files is taken back.
    ///
    /// # Errors
    /// It cannot be read what an earlier daemon left.
    pub fn start(parts: OverlayParts) -> Result<(Self, JoinHandle<()>), StateError> {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let alarms: Arc<ArcSwap<Vec<String>>> = Arc::default();
        let setup = Arc::new(ArcSwap::from_pointee(DnsSetup {
            listens: vec![parts.dns],
            resolver: ResolverView {
                state: ResolverState::Waiting,
                detail: String::new(),
            },
        }));
        let trouble: Arc<ArcSwap<Option<String>>> = Arc::default();
        let keeper = Keeper::new(
            parts,
            orders,
            Arc::clone(&alarms),
            Arc::clone(&setup),
            Arc::clone(&trouble),
        )?;
        let running = tokio::spawn(keeper.run());
        let handle = Self {
            orders: sender,
            alarms,
            setup,
            trouble,
        };
        Ok((handle, running))
    }

    /// Brings the overlay to what the agent wants, and waits until it stands or cannot; `None`:
    /// nothing.
    pub async fn want(&self, wanted: Option<InterfaceConfig>) {
        let (done, awaited) = oneshot::channel();
        self.tell(Order::Want(wanted, done)).await;
        let _ = awaited.await;
    }

    /// Tells that the agent has been asked: what a daemon that died left, and is not wanted any
    /// more, is taken back. A member that knows no overlay, because its map is lost, keeps what
    /// guards it.
    pub async fn begin(&self, is_member: bool) {
        self.tell(Order::Begin { is_member }).await;
    }

    /// Tells that the snapshot of names is another.
    pub async fn names_changed(&self) {
        self.tell(Order::Names).await;
    }

    /// Changes what is caught on its way out, and waits until it is, or cannot be.
    pub async fn intercept(&self, interception: Interception) {
        let (done, awaited) = oneshot::channel();
        self.tell(Order::Intercept(interception, done)).await;
        let _ = awaited.await;
    }

    /// Takes another setting, and begins anew with all that was left alone.
    pub async fn reload(&self, resolver: ResolverMode) {
        self.tell(Order::Reload(resolver)).await;
    }

    /// Takes everything back and ends the task. Once it has ended, this does nothing.
    pub async fn stop(&self) {
        let (done, awaited) = oneshot::channel();
        self.tell(Order::Stop(done)).await;
        let _ = awaited.await;
    }

    /// Leaves what guards the overlay, as a crash would and for who comes next, but no resolver that
    /// asks a dead daemon;
    /// ends the task. Once it has ended, this does nothing.
    pub async fn abandon(&self) {
        let (done, awaited) = oneshot::channel();
        self.tell(Order::Abandon(done)).await;
        let _ = awaited.await;
    }

    /// Mends nothing from now on, and returns what a daemon that takes over needs.
    pub async fn rest(&self) -> Inherited {
        let (answer, answered) = oneshot::channel();
        self.tell(Order::Rest(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Goes on, after a daemon has failed to take over.
    pub async fn resume(&self) {
        self.tell(Order::Resume).await;
    }

    /// Leaves everything to the daemon that has taken over, and ends the task.
    pub async fn vanish(&self) {
        let (done, awaited) = oneshot::channel();
        self.tell(Order::Vanish(done)).await;
        let _ = awaited.await;
    }

    /// Returns what an operator should look at.
    pub fn alarms(&self) -> Vec<String> {
        self.alarms.load().to_vec()
    }

    /// Returns why packets of the overlay do not pass, when they should.
    pub fn trouble(&self) -> Option<String> {
        (**self.trouble.load()).clone()
    }

    /// Returns where mesh DNS answers, and how the host comes to ask it.
    pub fn dns_setup(&self) -> Arc<DnsSetup> {
        self.setup.load_full()
    }

    async fn tell(&self, order: Order) {
        // Its end is the daemon's end, which `daemon` sees to: nobody is left to tell.
        let _ = self.orders.send(order).await;
    }
}
