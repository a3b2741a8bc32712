//! Why the daemon is told to stop: for good, or to be started again at once, as by an upgrade or
//! `systemctl restart`. Then what guards the overlay must stand through the moment in between.

use std::time::Duration;

use zbus::{Connection, DynamicType, OwnedObjectPath, OwnedVariant, Type};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// systemd answers at once, or not at all; it waits for this daemon meanwhile.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Tells that systemd started this process (systemd.exec(5)).
const STARTED_BY_SYSTEMD: &str = "INVOCATION_ID";

/// What comes after the daemon has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing, as far as anybody can tell: everything is taken back.
    ForGood,
    /// Another daemon on the same state: what guards the overlay stays for it.
    ToStartAgain,
}

/// Asks systemd. Who cannot be asked, or was not the one to start this daemon, means it for good.
pub async fn why() -> Stop {
    if std::env::var_os(STARTED_BY_SYSTEMD).is_none() {
        return Stop::ForGood;
    }
    let asking = async {
        let connection = Connection::system().await?;
        why_says(&connection).await
    };
    match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(Ok(stop)) => stop,
        Ok(Err(error)) => {
            tracing::debug!(%error, "systemd does not say why the daemon stops");
            Stop::ForGood
        }
        Err(_) => Stop::ForGood,
    }
}

/// The job that systemd runs on this daemon's unit says what comes next.
async fn why_says(connection: &Connection) -> zbus::Result<Stop> {
    let own = std::process::id();
    let unit: OwnedObjectPath =
        call(connection, MANAGER_PATH, MANAGER, "GetUnitByPID", &own).await?;
    let job: (u32, OwnedObjectPath) = property(connection, unit.as_str(), UNIT, "Job").await?;
    let (number, path) = job;
    if number == 0 {
        return Ok(Stop::ForGood);
    }
    let kind: String = property(connection, path.as_str(), JOB, "JobType").await?;
    Ok(match kind.ends_with("restart") {
        true => Stop::ToStartAgain,
        false => Stop::ForGood,
    })
}

async fn property<T>(
    connection: &Connection,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<T>
where
    T: TryFrom<OwnedVariant>,
    T::Error: Into<zbus::Error>,
{
    let asked = (interface, name);
    let value: OwnedVariant = call(connection, path, PROPERTIES, "Get", &asked).await?;
    T::try_from(value).map_err(Into::into)
}

async fn call<B, T>(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> zbus::Result<T>
where
    B: serde::Serialize + DynamicType + Sync,
    T: serde::de::DeserializeOwned + Type,
{
    let reply = connection
        .call_method(Some(SYSTEMD), path, Some(interface), method, body)
        .await?;
    reply.body().deserialize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/meshd_2eservice";
    const JOB_PATH: &str = "/org/freedesktop/systemd1/job/7";

    struct Manager;

    #[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
    impl Manager {
        #[zbus(name = "GetUnitByPID")]
        fn unit_by_pid(&self, pid: u32) -> OwnedObjectPath {
            assert_eq!(pid, std::process::id());
            OwnedObjectPath::try_from(UNIT_PATH).unwrap()
        }
    }

    struct Unit(u32);

    #[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
    impl Unit {
        #[zbus(property)]
        fn job(&self) -> (u32, OwnedObjectPath) {
            let path = if self.0 == 0 { "/" } else { JOB_PATH };
            (self.0, OwnedObjectPath::try_from(path).unwrap())
        }
    }

    struct Job(&'static str);

    #[zbus::interface(name = "org.freedesktop.systemd1.Job")]
    impl Job {
        #[zbus(property)]
        fn job_type(&self) -> String {
            self.0.to_owned()
        }
    }

    /// What the daemon makes of a job that systemd runs on its unit.
    async fn made_of(number: u32, kind: &'static str) -> Stop {
        let (here, there) = UnixStream::pair().unwrap();
        let serving = zbus::connection::Builder::unix_stream(there)
            .server(zbus::Guid::generate())
            .p2p()
            .serve_at(MANAGER_PATH, Manager)
            .serve_at(UNIT_PATH, Unit(number))
            .serve_at(JOB_PATH, Job(kind))
            .build();
        let asking = zbus::connection::Builder::unix_stream(here).p2p().build();
        let (_serving, asking) = tokio::join!(serving, asking);
        why_says(&asking.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_restart_is_told_from_a_stop() {
        assert_eq!(made_of(7, "restart").await, Stop::ToStartAgain);
        assert_eq!(made_of(7, "try-restart").await, Stop::ToStartAgain);
        assert_eq!(made_of(7, "stop").await, Stop::ForGood);
        assert_eq!(made_of(0, "").await, Stop::ForGood, "a signal by hand");
    }
}
