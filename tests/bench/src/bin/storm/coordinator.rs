//! The coordinator under the storm: the built program, its state in a temporary directory, and what
//! the kernel says that it costs.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::admin::{
    AppliedPolicy, ApplyPolicy, CoordinatorStatus, CreateToken, CreatedToken, PolicyFile, Rollout,
};
use model::name::Labels;
use runtime::api_client::ApiClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The fleet's name.
pub(crate) const FLEET: &str = "storm";
/// How often it is looked whether a step has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the program may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Clock ticks a second in /proc (USER_HZ, fixed since Linux 2.6; proc(5)).
const TICKS_PER_SEC: u64 = 100;

/// A coordinator that can be killed and started again.
pub(crate) struct Coordinator {
    program: PathBuf,
    place: TempDir,
    port: u16,
    child: Option<Child>,
}

/// What a coordinator has cost since its start.
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_bytes_max: u64,
}

impl Coordinator {
    pub(crate) fn new(program: &Path) -> Result<Self, String> {
        let place = tempfile::tempdir().map_err(text)?;
        let free = TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        let port = free.local_addr().map_err(text)?.port();
        Ok(Self {
            program: program.to_owned(),
            place,
            port,
            child: None,
        })
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("coordinator.sock")
    }

    fn client(&self) -> ApiClient {
        ApiClient::unix(&self.socket())
    }

    /// Starts the program, and waits until it answers.
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        let address = format!("127.0.0.1:{}", self.port);
        let log = fs::File::create(self.place.path().join("log")).map_err(text)?;
        let mut command = Command::new(&self.program);
        command
            .arg("--state-dir")
            .arg(self.place.path().join("state"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen", &address, "--advertise", &address])
            .args(["--fleet", FLEET, "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn();
        self.child = Some(child.map_err(|error| format!("{}: {error}", self.program.display()))?);
        let end = Instant::now() + START_PATIENCE;
        while self.status().await.is_err() {
            if Instant::now() > end {
                let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
                return Err(format!("the coordinator does not answer; it says: {log}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends the program at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is gone either way.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the program as systemd does.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let process = Pid::from_child(&child);
        kill_process(process, Signal::TERM).map_err(text)?;
        let waited = tokio::task::spawn_blocking(move || child.wait());
        waited.await.map_err(text)?.map_err(text)?;
        Ok(())
    }

    async fn status(&self) -> Result<CoordinatorStatus, String> {
        self.client().get("/v1/status").await.map_err(text)
    }

    /// Makes a token for each group of hosts.
    pub(crate) async fn tokens(&self, groups: usize) -> Result<Vec<String>, String> {
        let mut tokens = Vec::with_capacity(groups);
        for group in 0..groups {
            let label = ("group".parse(), format!("g{group}").parse());
            let (Ok(key), Ok(value)) = label else {
                return Err("group=g0 is no label".into());
            };
            let create = CreateToken {
                labels: Labels::from([(key, value)]),
                uses: None,
                valid_for_secs: 3600,
                names: Vec::new(),
                comment: String::new(),
            };
            let created: CreatedToken = self
                .client()
                .post("/v1/tokens", &create)
                .await
                .map_err(text)?;
            tokens.push(created.token);
        }
        Ok(tokens)
    }

    /// Puts a policy in force.
    pub(crate) async fn apply(&self, policy: &str) -> Result<(), String> {
        let apply = serde_json::to_value(ApplyPolicy {
            files: vec![PolicyFile {
                path: "policy.yaml".into(),
                text: policy.into(),
            }],
            base: None,
            message: String::new(),
            dry_run: false,
        });
        let apply = apply.map_err(text)?;
        let applied: AppliedPolicy = self
            .client()
            .post("/v1/policy", &apply)
            .await
            .map_err(text)?;
        match applied.changed {
            true => Ok(()),
            false => Err("the policy was in force already".into()),
        }
    }

    /// Waits until so many hosts have streams.
    pub(crate) async fn until_online(
        &self,
        hosts: usize,
        patience: Duration,
    ) -> Result<(), String> {
        let end = Instant::now() + patience;
        loop {
            let online = self.status().await?.hosts_online;
            if online >= hosts {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!(
                    "{online} of {hosts} hosts are there after {patience:?}"
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until so many hosts enforce the policy.
    pub(crate) async fn until_in_force(
        &self,
        hosts: usize,
        patience: Duration,
    ) -> Result<(), String> {
        let end = Instant::now() + patience;
        loop {
            let rollout: Rollout = self
                .client()
                .get("/v1/policy/rollout")
                .await
                .map_err(text)?;
            if rollout.in_force >= hosts {
                return Ok(());
            }
            if Instant::now() > end {
                let count = rollout.in_force;
                return Err(format!("in force on {count} of {hosts} after {patience:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the kernel what the program has cost.
    pub(crate) fn cost(&self) -> Result<Cost, String> {
        let child = self.child.as_ref().ok_or("the coordinator does not run")?;
        let process = Path::new("/proc").join(child.id().to_string());
        let stat = fs::read_to_string(process.join("stat")).map_err(text)?;
        let status = fs::read_to_string(process.join("status")).map_err(text)?;
        let memory = |field| memory_bytes(&status, field);
        let what = "the kernel's answer is not understood";
        Ok(Cost {
            cpu: cpu_time(&stat).ok_or(what)?,
            memory_bytes: memory("VmRSS:").ok_or(what)?,
            memory_bytes_max: memory("VmHWM:").ok_or(what)?,
        })
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Time in user and kernel mode: fields 14 and 15 of stat, the second of which may hold anything in
/// parentheses (proc(5)).
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SEC,
    ))
}

fn memory_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let stat = "42 (a (b) c) S 1 1 1 0 -1 4194304 1 0 0 0 250 150 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(4)));
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory_bytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(memory_bytes(status, "VmSwap:"), None);
    }
}
