//! A network namespace: one machine of the lab, as far as the network goes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Doing, LabError};
use crate::lab::Lab;
use crate::launch::{Launch, Ran};

/// What every namespace starts with.
///
/// The machine's default congestion control may be bbr, whose pacing distorts measurements, and
/// duplicate address detection would keep new addresses unusable for a second.
const SETTINGS: &str = "\
echo reno > /proc/sys/net/ipv4/tcp_congestion_control
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up";

/// A namespace that lives as long as its lab.
#[derive(Debug, Clone)]
pub struct Namespace {
    lab: Lab,
    name: String,
    /// What programs here find in `/etc` instead of the machine's own: our file, its place.
    files: Vec<(PathBuf, &'static str)>,
}

impl Namespace {
    pub(crate) fn create(lab: &Lab, name: &str) -> Result<Self, LabError> {
        let namespace = Self {
            lab: lab.clone(),
            name: name.to_owned(),
            files: Vec::new(),
        };
        let mut add = Command::new("ip");
        run_tool(add.args(["netns", "add", &namespace.full_name()]))?;
        namespace.run("sh", ["-ec", SETTINGS])?;
        Ok(namespace)
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that `ip netns` knows it by.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.lab.id(), self.name)
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.full_name())
    }

    /// The lab it belongs to.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// From now on, programs here have an `/etc/resolv.conf` of their own that names `server`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_resolver(&mut self, server: IpAddr, search: &str) -> Result<(), LabError> {
        let text = format!("nameserver {server}\nsearch {search}\noptions timeout:1 attempts:2\n");
        self.set_file("/etc/resolv.conf", &text)
    }

    /// From now on, programs here see another `/etc/machine-id` than the machine's own.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_machine_id(&mut self, id: u128) -> Result<(), LabError> {
        self.set_file("/etc/machine-id", &format!("{id:032x}\n"))
    }

    fn set_file(&mut self, place: &'static str, text: &str) -> Result<(), LabError> {
        let base = place.rsplit('/').next().unwrap_or(place);
        let path = self.lab.directory().join(format!("{}.{base}", self.name));
        fs::write(&path, text).doing(format_args!("write {}", path.display()))?;
        self.files.retain(|(_, other)| *other != place);
        self.files.push((path, place));
        Ok(())
    }

    pub(crate) fn files(&self) -> &[(PathBuf, &'static str)] {
        &self.files
    }

    /// Does something on this machine's network: sockets that `work` makes stay in it, wherever
    /// they are used later.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let path = self.path();
        let door = File::open(&path).doing(format_args!("open {}", path.display()))?;
        // A namespace belongs to a thread: this one ends with the work.
        let ended = thread::scope(|scope| {
            let enter_and_work = || {
                move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
                    .doing(format_args!("enter {}", self.full_name()))?;
                Ok(work())
            };
            scope.spawn(enter_and_work).join()
        });
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program to be run here, which can be given more settings first.
    pub fn launch(&self, program: impl AsRef<OsStr>) -> Launch {
        Launch::new(self, program.as_ref())
    }

    /// Runs a program here that must succeed.
    ///
    /// # Errors
    ///
    /// When it cannot be started, fails, or takes longer than a minute.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Ran, LabError> {
        self.launch(program).args(arguments).run()?.success()
    }

    /// Loads an nftables ruleset here, in one transaction.
    ///
    /// # Errors
    ///
    /// When `nft` refuses it.
    pub fn load_ruleset(&self, ruleset: &str) -> Result<(), LabError> {
        self.launch("nft")
            .args(["-f", "-"])
            .input(ruleset)
            .run()?
            .success()
            .map(drop)
    }

    /// The words that become whatever program follows them, in this namespace.
    ///
    /// Not `ip netns exec`, which would remount `/sys` and hide the control groups.
    pub(crate) fn way_in(&self) -> Vec<OsString> {
        let net = format!("--net={}", self.path().display());
        ["nsenter", &net, "--"].map(OsString::from).to_vec()
    }
}

/// Runs one of the machine's tools that must succeed.
pub(crate) fn run_tool(command: &mut Command) -> Result<(), LabError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().doing(format_args!("run `{shown}`"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::new(format!("`{shown}` failed: {}", said.trim())))
}
