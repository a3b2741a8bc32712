//! Whether the systemd units of workloads run here, for services whose health is that of a unit.
//! systemd is asked for all of them in one question, each second while there are any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use model::name::Name;
use model::rule::UnitPattern;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use zbus::{Connection, OwnedObjectPath};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// Time between two questions: less than between two health checks, whose answer they are.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the last answer holds while there is no other: systemd answers nobody while it reads its
/// units anew.
const HOLDS: Duration = Duration::from_secs(15);
/// The states in which a unit does its work (systemctl(1), "is-active").
const ACTIVE: [&str; 3] = ["active", "reloading", "refreshing"];

/// The units of workloads, by the names of these.
pub(super) type UnitsWanted = BTreeMap<Name, UnitPattern>;

/// One unit, as systemd lists it: name, description, whether it is loaded, state, state of its kind,
/// what it follows, path, and its job's number, kind and path.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// Has systemd asked.
pub(super) struct Units {
    wanted: watch::Sender<UnitsWanted>,
    states: UnitStates,
    alarm: watch::Receiver<Option<String>>,
}

impl Units {
    /// Starts the task that asks, which ends with this.
    pub(super) fn start() -> Self {
        let (wanted, told) = watch::channel(UnitsWanted::default());
        let (alarms, alarm) = watch::channel(None);
        let states = UnitStates::default();
        tokio::spawn(ask_on(told, states.clone(), alarms));
        Self {
            wanted,
            states,
            alarm,
        }
    }

    /// Takes which units are asked for from now on.
    pub(super) fn want(&self, wanted: UnitsWanted) {
        self.wanted.send_if_modified(|before| {
            let is_other = *before != wanted;
            *before = wanted;
            is_other
        });
    }

    /// Returns where the answers are read.
    pub(super) fn states(&self) -> UnitStates {
        self.states.clone()
    }

    /// Says so while systemd does not answer.
    pub(super) fn alarm(&self) -> Option<String> {
        self.alarm.borrow().clone()
    }

    /// Waits until there is another alarm, or none any more.
    pub(super) async fn alarm_changed(&mut self) {
        if self.alarm.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// What systemd said last, by workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnitStates(Arc<ArcSwapOption<BTreeMap<Name, bool>>>);

impl UnitStates {
    /// Returns whether a unit of the workload is active; `None`: nobody has asked, or systemd does not
    /// answer.
    pub(crate) fn is_active(&self, workload: &Name) -> Option<bool> {
        self.0.load().as_ref()?.get(workload).copied()
    }
}

async fn ask_on(
    mut wanted: watch::Receiver<UnitsWanted>,
    states: UnitStates,
    alarm: watch::Sender<Option<String>>,
) {
    let mut connection = None;
    let mut answered_at = Instant::now();
    loop {
        let units = wanted.borrow_and_update().clone();
        if units.is_empty() {
            connection = None;
            states.0.store(None);
            tell(&alarm, None);
            if wanted.changed().await.is_err() {
                return;
            }
            answered_at = Instant::now();
            continue;
        }
        match ask(&mut connection, &units).await {
            Ok(active) => {
                answered_at = Instant::now();
                states.0.store(Some(Arc::new(active)));
                tell(&alarm, None);
            }
            Err(why) => {
                connection = None;
                tracing::debug!(%why, "systemd does not say which units run");
                if answered_at.elapsed() >= HOLDS {
                    states.0.store(None);
                    tell(&alarm, Some(alarm_of(&why)));
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            () = sleep(INTERVAL) => {}
        }
    }
}

fn tell(alarm: &watch::Sender<Option<String>>, text: Option<String>) {
    alarm.send_if_modified(|before| {
        let is_other = *before != text;
        *before = text;
        is_other
    });
}

fn alarm_of(why: &str) -> String {
    format!(
        "`health: unit` of services that this host offers is not checked, and what it offers is taken to be well: systemd does not say which units run ({why}); is dbus running?"
    )
}

async fn ask(
    connection: &mut Option<Connection>,
    units: &UnitsWanted,
) -> Result<BTreeMap<Name, bool>, String> {
    let asking = async {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::system().await?),
        };
        active(connection, units).await
    };
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Returns which of the units are active: of those that a pattern means, any. systemd lists what it
/// has loaded, and unloads what does not run.
async fn active(
    connection: &Connection,
    units: &UnitsWanted,
) -> zbus::Result<BTreeMap<Name, bool>> {
    let states: Vec<&str> = Vec::new();
    let patterns: Vec<&str> = units.values().map(UnitPattern::as_str).collect();
    let reply = connection
        .call_method(
            Some(SYSTEMD),
            MANAGER_PATH,
            Some(MANAGER),
            "ListUnitsByPatterns",
            &(states, patterns),
        )
        .await?;
    let listed: Vec<Listed> = reply.body().deserialize()?;
    let runs = |(name, _, _, state, ..): &Listed, pattern: &UnitPattern| {
        ACTIVE.contains(&state.as_str()) && pattern.matches(name)
    };
    let states = units.iter().map(|(workload, pattern)| {
        let is_active = listed.iter().any(|unit| runs(unit, pattern));
        (workload.clone(), is_active)
    });
    Ok(states.collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Manager;

    #[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
    impl Manager {
        fn list_units_by_patterns(
            &self,
            states: Vec<String>,
            patterns: Vec<String>,
        ) -> Vec<Listed> {
            assert!(states.is_empty());
            assert_eq!(
                patterns,
                ["gone.service", "orders@*.service", "web.service"]
            );
            vec![
                unit("orders@1.service", "failed"),
                unit("orders@2.service", "reloading"),
                unit("web.service", "activating"),
            ]
        }
    }

    fn unit(name: &str, state: &str) -> Listed {
        let path = || OwnedObjectPath::try_from("/").unwrap();
        let text = String::new;
        let loaded = "loaded".to_owned();
        let (name, state) = (name.to_owned(), state.to_owned());
        (
            name,
            text(),
            loaded,
            state,
            text(),
            text(),
            path(),
            0,
            text(),
            path(),
        )
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_workload_is_active_while_one_of_its_units_is() {
        let (here, there) = UnixStream::pair().unwrap();
        let serving = zbus::connection::Builder::unix_stream(there)
            .server(zbus::Guid::generate())
            .p2p()
            .serve_at(MANAGER_PATH, Manager)
            .build();
        let asking = zbus::connection::Builder::unix_stream(here).p2p().build();
        let (_serving, asking) = tokio::join!(serving, asking);
        let wanted: UnitsWanted = [
            ("gone", "gone.service"),
            ("orders", "orders@*.service"),
            ("web", "web.service"),
        ]
        .into_iter()
        .map(|(workload, unit)| (name(workload), unit.parse().unwrap()))
        .collect();
        let mut connection = Some(asking.unwrap());
        let states = UnitStates::default();
        assert_eq!(states.is_active(&name("web")), None, "nobody has asked");
        let answer = ask(&mut connection, &wanted).await.unwrap();
        states.0.store(Some(Arc::new(answer)));
        for (workload, is_active) in [
            ("gone", Some(false)),
            ("orders", Some(true)),
            ("web", Some(false)),
            ("other", None),
        ] {
            assert_eq!(states.is_active(&name(workload)), is_active, "{workload}");
        }
    }
}
