//! The task that keeps the overlay standing: it does one thing at a time, looks after what it made
//! every few seconds, and tells in alarms what it cannot mend.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::address::{HostAddresses, OverlayPrefixes};
use model::local::ResolverState;
use runtime::state_dir::StateError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answering::OverlayDns;
use super::claims::Claims;
use super::health;
use super::probation::{Health, Loss, Probation, Step};
use super::repairs::{Difference, Part, Remedy, Repairs};
use super::{DnsSetup, Inherited, Order, OverlayParts};
use crate::dns::reverse;
use crate::linux::interface::{self, Interface, InterfaceError, OverlayConfig};
use crate::packets::WorkerMessage;
use crate::resolver::{ResolverKeeper, clean_up_after};
use crate::stored;

/// How often it is looked whether everything is as it was left.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Why the overlay does not stand.
#[derive(Debug, thiserror::Error)]
enum StandError {
    #[error(
        "the overlay's prefix {prefix} covers {server}, which this host asks for names; nothing was changed. Found the fleet with another prefix, or give the host another resolver"
    )]
    CoversResolver { prefix: String, server: IpAddr },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// What a broken host had taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Nothing,
    Resolver,
    Everything,
}

/// The task's state.
pub(super) struct Keeper {
    parts: OverlayParts,
    orders: mpsc::Receiver<Order>,
    alarms: Arc<ArcSwap<Vec<String>>>,
    setup: Arc<ArcSwap<DnsSetup>>,
    trouble_told: Arc<ArcSwap<Option<String>>>,
    wanted: Option<OverlayConfig>,
    standing: Option<Interface>,
    /// What may stand in the kernel, whether the interface does or not.
    claimed: Option<Claims>,
    dns: OverlayDns,
    resolver: ResolverKeeper,
    repairs: Repairs,
    probation: Probation,
    away: Away,
    failure: Option<String>,
    /// Why what should be caught is not.
    uncaught: Option<String>,
    /// There is no overlay to put up, but a former one to guard.
    guards: bool,
    /// What could not be taken back.
    remains: Option<String>,
    look_at: Instant,
    /// Another daemon is about to take over.
    is_resting: bool,
}

impl Keeper {
    pub(super) fn new(
        mut parts: OverlayParts,
        orders: mpsc::Receiver<Order>,
        alarms: Arc<ArcSwap<Vec<String>>>,
        setup: Arc<ArcSwap<DnsSetup>>,
        trouble_told: Arc<ArcSwap<Option<String>>>,
    ) -> Result<Self, StateError> {
        let claimed = Claims::load(&parts.state)?;
        let name = parts.interface.name.clone();
        if let Some(before) = claimed.as_ref().filter(|it| it.interface != name) {
            clean_up_after(&parts.files, &before.interface);
        }
        let resolver = ResolverKeeper::new(parts.files.clone(), name, parts.dns, parts.resolver);
        let dns = OverlayDns::new(
            Arc::clone(&parts.names),
            Arc::clone(&parts.dns_tally),
            parts.dns.port(),
            std::mem::take(&mut parts.inherited.dns),
        );
        Ok(Self {
            claimed,
            dns,
            resolver,
            parts,
            orders,
            alarms,
            setup,
            trouble_told,
            wanted: None,
            standing: None,
            repairs: Repairs::default(),
            probation: Probation::default(),
            away: Away::Nothing,
            failure: None,
            uncaught: None,
            guards: false,
            remains: None,
            look_at: Instant::now() + LOOK_INTERVAL,
            is_resting: false,
        })
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        self.ask_others().await;
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Stop(done)) => {
                        // What guards a former overlay is the next daemon's, until it has a map.
                        if !self.guards {
                            self.take_down().await;
                        }
                        let _ = done.send(());
                        return;
                    }
                    Some(Order::Abandon(done)) => {
                        self.resolver.revert().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(Order::Vanish(done)) => {
                        self.dns.stop();
                        let _ = done.send(());
                        return;
                    }
                    Some(order) => self.handle(order).await,
                    None => return,
                },
                () = sleep_until(self.look_at), if !self.is_resting => self.look_after().await,
            }
            self.tell_alarms();
            self.tell_dns();
        }
    }

    async fn handle(&mut self, order: Order) {
        match order {
            Order::Want(wanted, done) => {
                let wanted = wanted.map(|config| OverlayConfig {
                    addresses: config.addresses,
                    prefixes: config.prefixes,
                });
                self.guards = false;
                if self.wanted != wanted {
                    self.wanted = wanted;
                    self.begin_anew();
                }
                self.bring_about().await;
                let _ = done.send(());
                self.bring_resolver_about().await;
            }
            Order::Begin { .. } if self.wanted.is_some() => {}
            Order::Begin { is_member: false } => self.take_down().await,
            Order::Begin { is_member: true } => {
                self.guards = true;
                self.guard().await;
            }
            Order::Names => self.bring_resolver_about().await,
            Order::Intercept(wanted, done) => {
                self.parts.interception = wanted;
                // The next daemon has its own opinion, and the table is one.
                if !self.is_resting {
                    self.bring_interception_about().await;
                }
                let _ = done.send(());
            }
            Order::Reload(mode) => {
                self.resolver.set_mode(mode);
                self.begin_anew();
                // Before the agent knows an overlay, what guards the former one stays.
                if self.wanted.is_some() {
                    self.bring_about().await;
                }
                if self.resolver.difference().await.is_some() {
                    self.resolver.repair().await;
                }
                self.bring_resolver_about().await;
            }
            Order::Rest(answer) => {
                self.is_resting = true;
                let _ = answer.send(Inherited {
                    device: self.standing.as_ref().map(Interface::device),
                    dns: self.dns.share(),
                });
            }
            Order::Resume => self.is_resting = false,
            Order::Stop(_) | Order::Abandon(_) | Order::Vanish(_) => unreachable!("taken by run"),
        }
    }

    /// An operator has changed something: what was left alone is tried once more.
    fn begin_anew(&mut self) {
        self.probation.end();
        self.repairs.forget();
        self.away = Away::Nothing;
    }

    /// Brings interface and DNS to what is wanted.
    async fn bring_about(&mut self) {
        let wanted = self.wanted.filter(|_| self.away != Away::Everything);
        let standing = self.standing.as_ref().map(Interface::overlay);
        if standing == wanted && wanted.is_some() {
            return;
        }
        let claims = wanted.map(|it| Claims::of(&self.parts.interface, it.prefixes));
        if standing.is_some() || self.claimed != claims {
            self.take_down().await;
            if self.remains.is_some() {
                return;
            }
        }
        let Some((wanted, claims)) = wanted.zip(claims) else {
            self.failure = None;
            return;
        };
        let failure = self.stand_up(wanted, claims).await.err();
        let failure = failure.map(|error| error.to_string());
        if let Some(failure) = failure.as_ref().filter(|_| failure != self.failure) {
            tracing::error!("the overlay is not up: {failure}; it is tried again and again");
        }
        self.failure = failure;
    }

    async fn stand_up(&mut self, wanted: OverlayConfig, claims: Claims) -> Result<(), StandError> {
        if let Some(queues) = self.parts.inherited.device.clone() {
            return self.take_over(wanted, claims, queues).await;
        }
        self.refuse_covered_resolver(wanted.prefixes).await?;
        interface::refuse_clash(&self.parts.interface, wanted.prefixes).await?;
        interface::refuse_table(&self.parts.interface.table).await?;
        self.claim(claims);
        let health = health::look(self.resolver.files()).await;
        let (settings, caught) = (self.parts.interface.clone(), &self.parts.interception);
        let interface = Interface::up(settings, wanted, caught).await?;
        self.watch(health);
        let queues = interface.device();
        stored::store_device(&queues);
        self.to_worker(WorkerMessage::Device(queues));
        let HostAddresses { v4, v6 } = wanted.addresses;
        tracing::info!(interface = %self.parts.interface.name, %v4, %v6, "the overlay is up");
        self.standing = Some(interface);
        self.answer_dns().await;
        Ok(())
    }

    /// Goes on with a device that another daemon made, whose packets may have passed all the time.
    async fn take_over(
        &mut self,
        wanted: OverlayConfig,
        claims: Claims,
        queues: Vec<Arc<OwnedFd>>,
    ) -> Result<(), StandError> {
        self.claim(claims);
        let settings = self.parts.interface.clone();
        let caught = &self.parts.interception;
        match Interface::take_over(settings, wanted, caught, queues).await {
            Ok(interface) => {
                self.parts.inherited.device = None;
                let queues = interface.device();
                stored::store_device(&queues);
                self.to_worker(WorkerMessage::Device(queues));
                tracing::info!(interface = %self.parts.interface.name, "the overlay is taken over");
                self.standing = Some(interface);
                self.answer_dns().await;
                Ok(())
            }
            Err(error) => {
                // Another program may have removed it: the next try makes it anew.
                if !interface::exists(&self.parts.interface.name).await? {
                    self.let_go_of_inherited().await;
                }
                Err(error.into())
            }
        }
    }

    async fn let_go_of_inherited(&mut self) {
        if self.parts.inherited.device.take().is_some() {
            stored::forget_device(self.parts.interface.queues);
            self.parts.worker.release_device().await;
        }
    }

    /// Catches what is to be caught, once there is an overlay to catch it from.
    async fn bring_interception_about(&mut self) {
        let Some(standing) = &mut self.standing else {
            self.uncaught = None;
            return;
        };
        let caught = standing.intercept(&self.parts.interception).await;
        let why = caught.err().map(|error| error.to_string());
        let uncaught = why.or_else(|| standing.uncaught().map(str::to_owned));
        let uncaught = uncaught.map(|why| {
            format!(
                "calls of services cannot be caught on this host, and find no way: {why}; sets of addresses with ports take Linux 5.6"
            )
        });
        if let Some(what) = uncaught.as_ref().filter(|_| uncaught != self.uncaught) {
            tracing::error!("{what}");
        }
        self.uncaught = uncaught;
    }

    /// A member that lost its map lets nothing for the overlay out until it has another.
    async fn guard(&mut self) {
        let Some(claims) = &self.claimed else {
            return;
        };
        let Claims {
            interface,
            nft_table,
            prefixes,
        } = claims;
        let guarded = interface::guard(nft_table, interface, *prefixes).await;
        let failure = guarded.err().map(|error| {
            format!(
                "this host has no map, and what is for the overlay may leave in the clear: {error}"
            )
        });
        if let Some(failure) = failure.as_ref().filter(|_| failure != self.failure) {
            tracing::error!("{failure}");
        }
        self.failure = failure;
    }

    /// Servers that the host asks must stay where they are, which no route of the host would tell.
    async fn refuse_covered_resolver(&self, prefixes: OverlayPrefixes) -> Result<(), StandError> {
        let servers = self.resolver.asked_in_the_end().await;
        match servers.into_iter().find(|it| prefixes.contains(*it)) {
            Some(server) => Err(StandError::CoversResolver {
                prefix: match server {
                    IpAddr::V4(_) => prefixes.v4.to_string(),
                    IpAddr::V6(_) => prefixes.v6.to_string(),
                },
                server,
            }),
            None => Ok(()),
        }
    }

    /// A full disk keeps nobody out of the mesh: only the next daemon after a crash knows less.
    fn claim(&mut self, claims: Claims) {
        if self.claimed.as_ref() == Some(&claims) {
            return;
        }
        if let Err(error) = claims.store(&self.parts.state) {
            tracing::warn!(%error, "what is owned could not be written down");
        }
        self.claimed = Some(claims);
    }

    async fn answer_dns(&mut self) {
        if let Some(standing) = &self.standing {
            self.dns.bring_about(standing.addresses()).await;
        }
    }

    /// Brings the host's resolver to what stands.
    async fn bring_resolver_about(&mut self) {
        let names = self.parts.names.load_full();
        let is_away = self.away != Away::Nothing || names.suffix().is_empty();
        let wanted = self.standing.as_ref().filter(|_| !is_away).map(|standing| {
            let zones = reverse::zones(standing.overlay().prefixes);
            let zones = zones.iter().map(|zone| zone.to_ascii());
            let domains = zones.map(|zone| zone.trim_end_matches('.').to_owned());
            let own = std::iter::once(names.suffix().to_owned());
            (standing.index(), own.chain(domains).collect())
        });
        if !self.resolver.would_change(wanted.as_ref()) {
            return;
        }
        let health = health::look(self.resolver.files()).await;
        self.resolver.bring_about(wanted).await;
        if self.resolver.stands() {
            self.watch(health);
        }
        self.ask_others().await;
    }

    /// Names that are not the mesh's are asked of whom the host asks now.
    async fn ask_others(&self) {
        let servers = self.resolver.nameservers().await;
        self.parts.forwarder.set_upstreams(&servers);
    }

    /// Takes everything back. What could not be taken back is told, and tried again later.
    async fn take_down(&mut self) {
        self.resolver.revert().await;
        self.dns.stop();
        self.let_go_of_inherited().await;
        let withdrawn = if let Some(interface) = self.standing.take() {
            stored::forget_device(self.parts.interface.queues);
            self.parts.worker.release_device().await;
            let name = &self.parts.interface.name;
            tracing::info!(interface = %name, "the overlay goes down");
            interface.down().await
        } else if let Some(claims) = &self.claimed {
            withdraw(claims).await
        } else {
            Ok(())
        };
        let remains = withdrawn.err().map(|error| {
            format!("what guards the overlay could not be taken back: {error}; it is tried again")
        });
        if let Some(what) = remains.as_ref().filter(|_| remains != self.remains) {
            tracing::warn!("{what}");
        }
        self.remains = remains;
        if self.remains.is_none()
            && self.claimed.take().is_some()
            && let Err(error) = Claims::erase(&self.parts.state)
        {
            tracing::warn!(%error, "what was owned is still written down");
        }
    }

    /// Looks whether everything is as it was left, and mends what is not.
    async fn look_after(&mut self) {
        self.look_at = Instant::now() + LOOK_INTERVAL;
        self.ask_others().await;
        self.look_at_health().await;
        if self.guards {
            self.guard().await;
        } else if self.wanted.is_some() && self.standing.is_none() {
            self.bring_about().await;
        } else if self.remains.is_some() {
            self.take_down().await;
        } else if let Err(error) = self.look_at_interface().await {
            tracing::debug!(%error, "the overlay cannot be looked at");
        }
        self.bring_interception_about().await;
        self.answer_dns().await;
        self.look_at_resolver().await;
        self.bring_resolver_about().await;
    }

    /// Watches a change that was made on a host in this health.
    fn watch(&mut self, before: Option<Health>) {
        if let Some(before) = before {
            self.probation.begin(before, Instant::now());
        }
    }

    async fn look_at_health(&mut self) {
        let now = Instant::now();
        let mut step = self.probation.handle_timeout(now);
        if step == Step::Wait
            && self.probation.is_curious()
            && let Some(health) = health::look(self.resolver.files()).await
        {
            step = self.probation.handle_health(health, now);
        }
        match step {
            Step::Wait => {}
            Step::Revert(loss) => self.take_away(loss).await,
            Step::Restore => {
                tracing::info!("the change of before is made again");
                self.away = Away::Nothing;
                self.bring_about().await;
            }
        }
    }

    async fn take_away(&mut self, loss: Loss) {
        if let Some(alarm) = self.probation.alarm() {
            tracing::error!("{alarm}");
        }
        if loss == Loss::Resolution && self.resolver.stands() {
            self.away = Away::Resolver;
            self.resolver.revert().await;
        } else {
            self.away = Away::Everything;
            self.take_down().await;
        }
    }

    async fn look_at_interface(&mut self) -> Result<(), InterfaceError> {
        let Some(standing) = &self.standing else {
            return Ok(());
        };
        if !standing.is_there().await? {
            self.handle_lost_device().await;
            return Ok(());
        }
        let differences = standing.differences().await?;
        for part in Part::ALL.into_iter().filter(|it| *it != Part::Resolver) {
            let Some(difference) = differences.iter().find(|it| it.part == part) else {
                self.repairs.handle_calm(part, Instant::now());
                continue;
            };
            let remedy = self.decide(difference);
            if let (Remedy::Repair, Some(standing)) = (remedy, &self.standing)
                && let Err(error) = standing.repair(part).await
            {
                tracing::error!(%error, "it could not be made again");
            }
        }
        Ok(())
    }

    /// The device is made anew, with all that hangs on it; what guards the overlay stands meanwhile.
    async fn handle_lost_device(&mut self) {
        let lost = Difference {
            part: Part::Device,
            what: format!(
                "another program removed the interface {}",
                self.parts.interface.name
            ),
            may_repair: true,
        };
        if self.decide(&lost) == Remedy::Repair {
            self.dns.stop();
            stored::forget_device(self.parts.interface.queues);
            self.parts.worker.release_device().await;
            self.standing = None;
            self.bring_about().await;
        }
    }

    async fn look_at_resolver(&mut self) {
        if !self.resolver.stands() {
            return;
        }
        match self.resolver.difference().await {
            None => self.repairs.handle_calm(Part::Resolver, Instant::now()),
            Some((what, may_repair)) => {
                let difference = Difference {
                    part: Part::Resolver,
                    what,
                    may_repair,
                };
                if self.decide(&difference) == Remedy::Repair {
                    self.resolver.repair().await;
                }
            }
        }
    }

    fn decide(&mut self, difference: &Difference) -> Remedy {
        let (remedy, is_news) = self.repairs.handle_difference(difference, Instant::now());
        if is_news {
            let again = match remedy {
                Remedy::Repair => "it is made again",
                Remedy::LeaveAlone => "it is left alone",
            };
            tracing::warn!("{}; {again}", difference.what);
        }
        remedy
    }

    fn tell_alarms(&self) {
        let mut alarms: Vec<String> = self.failure.iter().cloned().collect();
        alarms.extend(self.remains.clone());
        alarms.extend(self.uncaught.clone());
        alarms.extend(self.probation.alarm());
        alarms.extend(self.repairs.alarms().cloned());
        alarms.extend(self.resolver.alarm());
        if **self.alarms.load() != alarms {
            self.alarms.store(Arc::new(alarms));
        }
        let trouble = self.trouble();
        if **self.trouble_told.load() != trouble {
            self.trouble_told.store(Arc::new(trouble));
        }
    }

    /// Why packets of the overlay do not pass, although they should.
    fn trouble(&self) -> Option<String> {
        let away = self.probation.alarm();
        let away = away.filter(|_| self.away == Away::Everything);
        let lost = self.repairs.alarm_of_what_is_left_alone();
        let failure = self.failure.clone().or(away).or(lost.cloned());
        failure.filter(|_| self.wanted.is_some() || self.guards)
    }

    fn tell_dns(&self) {
        let mut resolver = self.resolver.view();
        let changed = self.repairs.alarm_of(Part::Resolver);
        if let Some(changed) = changed.filter(|_| resolver.state == ResolverState::Set) {
            resolver.state = ResolverState::Changed;
            resolver.detail = changed.clone();
        }
        let listens = std::iter::once(self.parts.dns).chain(self.dns.addresses());
        let setup = DnsSetup {
            listens: listens.collect(),
            resolver,
        };
        if **self.setup.load() != setup {
            self.setup.store(Arc::new(setup));
        }
    }

    fn to_worker(&self, message: WorkerMessage) {
        // Without its packet thread the daemon ends: the brain sees to that.
        let _ = self.parts.worker.send(message);
    }
}

/// Takes back what stands without an interface. Where there is one, it is another daemon's, and so
/// is what guards it.
async fn withdraw(claims: &Claims) -> Result<(), InterfaceError> {
    if interface::exists(&claims.interface).await? {
        return Ok(());
    }
    interface::withdraw(&claims.nft_table, claims.prefixes).await
}
