//! One machine: a disk, an `eth0`, and a systemd that is its process 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Attachment, Lab, LabError, Launch, Namespace, Network, Process, Ran};
use lab::{something_failed, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::image::{Image, Release, target_directory};

/// How long a machine may take to boot or to power off.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// How long something may take that installs, removes or waits for packages.
const RUN_DEADLINE: Duration = Duration::from_secs(180);
const PREPARATION: &str = include_str!("boot.sh");
/// Where a machine sees the packages that were built.
const PACKAGES: &str = "/srv/packages";
/// Besides what nspawn gives by itself.
const CAPABILITIES: &str = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON,CAP_SYS_PTRACE";

/// What a machine has, before it is switched on.
#[derive(Debug)]
pub struct MachinePlan {
    namespace: Namespace,
    attachment: Attachment,
    disk: PathBuf,
    disk_bytes: u64,
    options: Vec<String>,
    image: Image,
}

/// A machine that runs, or was powered off and can be switched on again.
#[derive(Debug)]
pub struct Machine {
    plan: MachinePlan,
    running: Option<Process>,
}

impl MachinePlan {
    /// Plans a machine that is attached to the network, with a host name and an empty disk.
    ///
    /// # Errors
    ///
    /// The lab has a machine of that name, or the root of all machines cannot be made.
    pub fn new(lab: &Lab, network: &Network, name: &str) -> Result<Self, LabError> {
        let image = Image::find_or_make(Release::default())?;
        let namespace = lab.namespace(name)?;
        let attachment = network.attach(&namespace, "eth0")?;
        let plan = Self {
            disk: lab.directory().join(format!("{name}.disk")),
            namespace,
            disk_bytes: 0,
            options: Vec::new(),
            image,
            attachment,
        };
        plan.write_file("/etc/hostname", &format!("{name}\n"))?;
        let id = u128::from(plan.attachment.v4.to_bits());
        plan.write_file("/etc/machine-id", &format!("{id:032x}\n"))?;
        Ok(plan)
    }

    /// Writes a file to the disk.
    ///
    /// # Errors
    ///
    /// The disk cannot be written to.
    pub fn write_file(&self, path: &str, text: &str) -> Result<(), LabError> {
        let place = self.disk.join("upper").join(path.trim_start_matches('/'));
        let parent = place.parent().expect("a file lies in a directory");
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&place, text))
            .map_err(|error| LabError::new(format!("cannot write {}: {error}", place.display())))
    }

    /// Makes the disk so small; it is lost when the machine is powered off.
    #[must_use]
    pub fn with_disk_of(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// Gives it another release of Debian.
    ///
    /// # Errors
    ///
    /// The root of such machines cannot be made.
    pub fn with_release(mut self, release: Release) -> Result<Self, LabError> {
        self.image = Image::find_or_make(release)?;
        Ok(self)
    }

    /// Gives `systemd-nspawn` one more option, such as a credential.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// The machine's network namespace, where its firewall or addresses can be changed from outside.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Switches the machine on and waits until systemd has started everything.
    ///
    /// # Errors
    ///
    /// It does not boot in time.
    pub fn boot(self) -> Result<Machine, LabError> {
        let mut machine = Machine {
            plan: self,
            running: None,
        };
        machine.switch_on()?;
        Ok(machine)
    }

    fn launch(&self) -> Result<Launch, LabError> {
        let machine = self.namespace.full_name();
        let packages = target_directory()?.join("packages");
        fs::create_dir_all(&packages).map_err(|error| {
            LabError::new(format!("cannot make {}: {error}", packages.display()))
        })?;
        let launch = self
            .namespace
            .launch("systemd-nspawn")
            .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .arg("--console=read-only")
            .arg(format!("--directory={}", self.disk.join("root").display()))
            .arg(format!("--machine={machine}"))
            .arg(format!(
                "--network-namespace-path={}",
                self.namespace.path().display()
            ))
            .arg(format!("--capability={CAPABILITIES}"))
            .arg(format!("--bind-ro={}:{PACKAGES}", packages.display()))
            .arg("--bind=/dev/net/tun")
            .args(&self.options)
            .env("MACHINE", &machine)
            .env("BASE", self.image.root())
            .env("DISK", &self.disk)
            .env("DISK_BYTES", self.disk_bytes.to_string());
        Ok(launch.prepared_by(PREPARATION))
    }
}

impl Machine {
    /// Makes a machine and waits until it has booted.
    ///
    /// # Errors
    ///
    /// As [`MachinePlan::new`] and [`MachinePlan::boot`].
    pub fn boot(lab: &Lab, network: &Network, name: &str) -> Result<Self, LabError> {
        MachinePlan::new(lab, network, name)?.boot()
    }

    /// The machine's host name.
    pub fn name(&self) -> &str {
        self.plan.namespace.name()
    }

    /// Its end of the cable.
    pub fn attachment(&self) -> &Attachment {
        &self.plan.attachment
    }

    /// Its network namespace, as the machine that hosts it sees it.
    pub fn namespace(&self) -> &Namespace {
        &self.plan.namespace
    }

    /// Runs a shell script on the machine as root; the outcome may be a failure.
    ///
    /// # Errors
    ///
    /// The machine is off, or the script does not end within three minutes.
    pub fn try_run(&self, script: &str) -> Result<Ran, LabError> {
        self.shell(script)?.within(RUN_DEADLINE).run()
    }

    /// Runs a shell script on the machine as root, and gives what it printed.
    ///
    /// # Errors
    ///
    /// As [`Machine::try_run`], and when the script fails.
    pub fn run(&self, script: &str) -> Result<String, LabError> {
        Ok(self.try_run(script)?.success()?.stdout)
    }

    /// A shell script on the machine, to be run or started with more settings.
    ///
    /// # Errors
    ///
    /// The machine is off.
    pub fn shell(&self, script: &str) -> Result<Launch, LabError> {
        let process = self.process_one()?;
        Ok(self
            .plan
            .namespace
            .launch("nsenter")
            .arg(format!("--target={}", process.as_raw_nonzero()))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .args(["--", "env", "-i", "HOME=/root", "TERM=dumb"])
            .arg("DEBIAN_FRONTEND=noninteractive")
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-ec", &format!("cd\n{script}")]))
    }

    /// Waits until a shell script succeeds.
    ///
    /// # Errors
    ///
    /// It still fails at the deadline; with what it said last.
    pub fn wait_for(&self, what: &str, deadline: Duration, script: &str) -> Result<(), LabError> {
        let mut last = String::new();
        let waited = wait_until(what, deadline, || {
            let ran = self.try_run(script)?;
            last = format!("{}{}", ran.stdout, ran.stderr);
            Ok(ran.status.success().then_some(()))
        });
        waited.map_err(|error| LabError::new(format!("{}: {error}\n{last}", self.name())))
    }

    /// Installs packages that lie in the target directory, with their dependencies, as
    /// `apt install ./FILE` does.
    ///
    /// # Errors
    ///
    /// `apt-get` fails.
    pub fn install(&self, package: &Path) -> Result<String, LabError> {
        self.install_own(&seen_from_inside(package)?)
    }

    /// Powers the machine off as an operator would, and waits until it is off.
    ///
    /// # Errors
    ///
    /// It is off already, or does not stop in time.
    pub fn power_off(&mut self) -> Result<(), LabError> {
        self.try_run("systemctl poweroff")?;
        let Some(mut process) = self.running.take() else {
            return Err(LabError::new(format!("{} is off already", self.name())));
        };
        process.wait(BOOT_DEADLINE).map(drop)
    }

    /// Pulls the plug: nothing on the machine gets a chance to tidy up.
    ///
    /// # Errors
    ///
    /// It is off already.
    pub fn cut_power(&mut self) -> Result<(), LabError> {
        self.kill_everything()?;
        self.running
            .take()
            .map_or(Ok(()), |mut process| process.wait(BOOT_DEADLINE).map(drop))
    }

    /// Switches the machine on, which must be off, and waits until it has booted.
    ///
    /// # Errors
    ///
    /// It does not boot in time.
    pub fn switch_on(&mut self) -> Result<(), LabError> {
        let log = format!("{}.console", self.name());
        self.running = Some(self.plan.launch()?.spawn(&log)?);
        wait_until(
            &format!("{} has booted", self.name()),
            BOOT_DEADLINE,
            || {
                if let Some(process) = &mut self.running
                    && !process.is_running()?
                {
                    let said = format!("{}{}", process.stdout()?, process.stderr()?);
                    return Err(LabError::new(format!("the machine did not boot: {said}")));
                }
                if !self.process_one().is_ok_and(is_systemd) {
                    return Ok(None);
                }
                // It may end while it is asked: the next look tells why.
                let Ok(ran) = self.try_run("systemctl is-system-running || true") else {
                    return Ok(None);
                };
                Ok(["running\n", "degraded\n"]
                    .contains(&ran.stdout.as_str())
                    .then_some(()))
            },
        )
    }

    /// Boots the machine again, in the way that a new kernel wants it.
    ///
    /// # Errors
    ///
    /// It does not come back in time.
    pub fn reboot(&mut self) -> Result<(), LabError> {
        self.power_off()?;
        self.switch_on()
    }

    fn process_one(&self) -> Result<Pid, LabError> {
        let nspawn = self.running.as_ref().map(Process::id);
        let found = nspawn.and_then(|nspawn| process_one_of(nspawn).ok().flatten());
        found.ok_or_else(|| LabError::new(format!("{} is off", self.name())))
    }

    /// Ends process 1, and with it all others of the machine.
    fn kill_everything(&self) -> Result<(), LabError> {
        let process = self.process_one()?;
        kill_process(process, Signal::KILL)
            .map_err(|error| LabError::new(format!("cannot cut the power: {error}")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if (std::thread::panicking() || something_failed()) && self.running.is_some() {
            let journal = self.try_run("journalctl --no-pager --lines=80 --output=short-monotonic");
            let text = journal.map(|ran| ran.stdout).unwrap_or_default();
            let _ = fs::write(self.plan.disk.with_extension("journal.log"), text);
        }
        // `systemd-nspawn` ends by itself when its machine has: killed first, it would leave it.
        if self.kill_everything().is_ok()
            && let Some(mut process) = self.running.take()
        {
            let _ = process.wait(BOOT_DEADLINE);
        }
    }
}

/// The child of `systemd-nspawn` that is process 1 in its own namespace.
fn process_one_of(nspawn: u32) -> std::io::Result<Option<Pid>> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))?;
    let is_process_one = |child: &&str| {
        fs::read_to_string(format!("/proc/{child}/status")).is_ok_and(|status| {
            let mut lines = status.lines();
            let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
            numbers.is_some_and(|numbers| numbers.split_whitespace().nth(1) == Some("1"))
        })
    };
    let child = children.split_whitespace().find(is_process_one);
    Ok(child
        .and_then(|child| child.parse().ok())
        .and_then(Pid::from_raw))
}

/// Until then process 1 is still `systemd-nspawn`'s own, in a root that is not made up.
fn is_systemd(process_one: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", process_one.as_raw_nonzero()));
    name.is_ok_and(|name| name == "systemd\n")
}

/// The path of a package as the machines see it.
pub(crate) fn seen_from_inside(package: &Path) -> Result<String, LabError> {
    let packages = target_directory()?.join("packages");
    let below = package.strip_prefix(&packages).map_err(|_| {
        LabError::new(format!(
            "{} is not in {}, which the machines can see",
            package.display(),
            packages.display()
        ))
    })?;
    Ok(format!("{PACKAGES}/{}", below.display()))
}
