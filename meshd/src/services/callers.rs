//! Who opened a connection that was caught, or sends datagrams: the socket, the control group and the
//! user that it was made by. Who cannot be told for sure is nobody: a rule that needs to know is not
//! satisfied then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy::Caller;

use crate::linux::cgroups::{Cgroups, Hierarchies, path_in, unit_of};
use crate::linux::conntrack::Conntrack;
use crate::linux::processes::Processes;
use crate::linux::sock_diag::{OwnedSocket, SockDiag};
use crate::linux::users::Users;

/// linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;

/// Tells the callers of one host.
#[derive(Debug)]
pub(crate) struct Callers {
    /// Where caught connections are accepted, on loopback.
    port: u16,
    conntrack: Conntrack,
    sockets: SockDiag,
    users: Users,
    processes: Processes,
    /// `None`: the kernel's numbers of groups lead nowhere.
    cgroups: Option<Cgroups>,
    /// A hierarchy that the kernel tells nothing about when it is asked for a socket.
    has_version_1: bool,
}

impl Callers {
    /// Takes the port where caught connections are accepted.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn new(port: u16) -> io::Result<Self> {
        let hierarchies = Hierarchies::look()?;
        Ok(Self {
            port,
            conntrack: Conntrack::default(),
            sockets: SockDiag::default(),
            users: Users::default(),
            processes: Processes::default(),
            cgroups: hierarchies.version_2.map(Cgroups::new),
            has_version_1: hierarchies.has_version_1,
        })
    }

    /// Says so when the units of programs cannot be told on this machine.
    pub(crate) fn alarm(&self) -> Option<String> {
        let is_told = self.cgroups.is_some() || self.has_version_1 && may_see_others();
        (!is_told).then(|| {
            "it cannot be told which unit a program runs in, and rules that name workloads are not \
             satisfied on this host: \
             its control groups are of version 1 alone (or not mounted), and meshd may not look into other processes; \
             boot with systemd.unified_cgroup_hierarchy=1, or give meshd.service CAP_SYS_PTRACE"
                .to_owned()
        })
    }

    /// Returns who opened the connection that was accepted from `app` and meant for `dialled`.
    pub(crate) fn of(&self, app: SocketAddr, dialled: SocketAddr) -> Caller {
        match self.look(app, dialled) {
            Ok(caller) => caller.unwrap_or(Caller::Unknown),
            Err(error) => {
                tracing::debug!(%app, %dialled, %error, "the kernel does not tell who calls");
                Caller::Unknown
            }
        }
    }

    /// Returns whether anybody still has the connection that was accepted from `app` and meant for
    /// `dialled`. What conntrack has forgotten would reach nobody.
    pub(crate) fn are_there(&self, app: SocketAddr, dialled: SocketAddr) -> bool {
        self.socket(app, dialled).map_or(true, |it| it.is_some())
    }

    /// Returns who sends datagrams from an address of this host. A port may be shared, and each who has
    /// it can send under the addresses of the others: then they all have to be one.
    pub(crate) fn of_datagrams(&self, source: SocketAddr) -> Caller {
        let sockets = match self.sockets.udp_sockets_at(source) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::debug!(%source, %error, "the kernel does not tell who sends");
                return Caller::Unknown;
            }
        };
        let mut callers = sockets.iter().map(|socket| self.process(socket));
        let first = callers.next().flatten();
        match first {
            Some(first) if callers.all(|it| it.as_ref() == Some(&first)) => first,
            _ => Caller::Unknown,
        }
    }

    fn look(&self, app: SocketAddr, dialled: SocketAddr) -> io::Result<Option<Caller>> {
        let Some(socket) = self.socket(app, dialled)? else {
            return Ok(None);
        };
        let process = self.process(&socket);
        // A connection that was reset leaves its port to others: only while this end stands is the
        // socket that was found the one that called.
        let own = self.accepted_at(app);
        let accepted = self.sockets.look_up(own, app)?;
        if !accepted.is_some_and(|it| it.is_connected()) {
            return Ok(None);
        }
        Ok(process)
    }

    fn process(&self, socket: &OwnedSocket) -> Option<Caller> {
        let Unit(unit) = self.unit(socket)?;
        let user = self.users.name_of(socket.uid);
        Some(Caller::Process {
            unit,
            user: user.map(|name| name.to_string()),
            uid: socket.uid,
        })
    }

    /// Returns the socket of the program. `app` alone does not lead there: the kernel gives a connection
    /// the port of a stranger's, when its own is taken.
    fn socket(&self, app: SocketAddr, dialled: SocketAddr) -> io::Result<Option<OwnedSocket>> {
        let ends = self.conntrack.original_ends(self.accepted_at(app), app)?;
        match ends {
            Some((from, to)) if to == dialled => self.sockets.look_up(from, to),
            _ => Ok(None),
        }
    }

    fn accepted_at(&self, app: SocketAddr) -> SocketAddr {
        let loopback: IpAddr = match app.ip().to_canonical() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(loopback, self.port)
    }

    /// Returns the unit that made a socket, or that it was none. `None`: nobody can tell any more.
    fn unit(&self, socket: &OwnedSocket) -> Option<Unit> {
        let group = self.cgroups.as_ref().zip(socket.cgroup);
        if let Some((cgroups, number)) = group {
            let path = cgroups.path_of(number);
            let path = path
                .as_deref()
                .filter(|path| *path != "/" || !self.has_version_1);
            if let Some(path) = path {
                return Some(Unit::of(path));
            }
            if !self.has_version_1 {
                return None;
            }
        }
        let text = self.processes.cgroup_of(socket.inode)?;
        path_in(&text).map(Unit::of)
    }
}

/// Whether this process may look at the descriptors of those of other users (proc_pid_status(5)).
fn may_see_others() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    effective.is_some_and(|it| it & (1 << CAP_SYS_PTRACE) != 0)
}

/// The unit of a process; `None`: it is in none of the system's.
struct Unit(Option<String>);

impl Unit {
    fn of(path: &str) -> Self {
        Self(unit_of(path).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::linux::conntrack;
    use crate::linux::interface::tests::{is_in_namespace, said_by};

    /// Where connections to [`DIALLED`] are brought, in a namespace of the test's own.
    fn listener() -> (TcpListener, Callers) {
        conntrack::tests::set_up();
        let listener = TcpListener::bind("127.0.0.1:747").unwrap();
        (listener, Callers::new(747).unwrap())
    }

    const DIALLED: &str = "192.0.2.2:80";

    fn dialled() -> SocketAddr {
        DIALLED.parse().unwrap()
    }

    #[test]
    fn this_process_is_known_by_its_user() {
        if !is_in_namespace("services::callers::tests::this_process_is_known_by_its_user") {
            return;
        }
        let (listener, callers) = listener();
        let client = TcpStream::connect(dialled()).unwrap();
        let (_accepted, app) = listener.accept().unwrap();
        let Caller::Process { user, uid, .. } = callers.of(app, dialled()) else {
            panic!("nobody called");
        };
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        assert_eq!(user, callers.users.name_of(uid).map(|it| it.to_string()));
        let another = "192.0.2.1:80".parse().unwrap();
        assert_eq!(callers.of(app, another), Caller::Unknown, "it dialled this");
        drop(client);
        assert_eq!(callers.of(app, dialled()), Caller::Unknown, "it has gone");
    }

    #[test]
    fn who_has_said_its_last_word_is_there_until_it_closes() {
        if !is_in_namespace(
            "services::callers::tests::who_has_said_its_last_word_is_there_until_it_closes",
        ) {
            return;
        }
        let (listener, callers) = listener();
        let client = TcpStream::connect(dialled()).unwrap();
        let (accepted, app) = listener.accept().unwrap();
        assert!(callers.are_there(app, dialled()));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&accepted).read(&mut [0; 1]).unwrap(), 0);
        assert!(callers.are_there(app, dialled()));
        drop(client);
        assert!(!callers.are_there(app, dialled()));
        // Who resets its connection is gone as well.
        let client = Socket::from(TcpStream::connect(dialled()).unwrap());
        let (_accepted, app) = listener.accept().unwrap();
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(!callers.are_there(app, dialled()));
    }

    #[test]
    fn who_did_not_call_from_here_is_nobody() {
        if !is_in_namespace("services::callers::tests::who_did_not_call_from_here_is_nobody") {
            return;
        }
        let (listener, callers) = listener();
        let at = listener.local_addr().unwrap();
        let elsewhere = "192.0.2.7:4000".parse().unwrap();
        assert_eq!(callers.of(elsewhere, at), Caller::Unknown);
        // A socket that calls somebody else, whoever has accepted it.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let app = client.local_addr().unwrap();
        assert_eq!(
            callers.of(app, other.local_addr().unwrap()),
            Caller::Unknown
        );
        // One that nobody answers.
        let calling = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        calling.set_nonblocking(true).unwrap();
        let nowhere: SocketAddr = "192.0.2.9:80".parse().unwrap();
        calling.connect(&nowhere.into()).unwrap_err();
        let from = calling.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(callers.sockets.look_up(from, nowhere).unwrap(), None);
    }

    /// The kernel gives a connection the port of another one by chance, when its own is taken; whoever
    /// goes on trying gets the port of whom he wants to be.
    #[test]
    fn who_was_given_the_port_of_another_is_not_taken_for_it() {
        if !is_in_namespace(
            "services::callers::tests::who_was_given_the_port_of_another_is_not_taken_for_it",
        ) {
            return;
        }
        let (listener, callers) = listener();
        let leads_to = |port: u16| {
            let rule = format!("ip daddr 192.0.2.2 tcp dport 80 redirect to :{port}");
            let catch = "inet catching catch";
            said_by(
                "nft",
                &[&format!("flush chain {catch}; add rule {catch} {rule}")],
            );
        };
        // Of this one the listener knows nothing any more, though its program has not closed it.
        leads_to(748);
        let before = TcpListener::bind("127.0.0.1:748").unwrap();
        let group = Group::new("victim", "web.service");
        let mut victim = group.runs(&format!(
            "exec socat - TCP:{DIALLED},bind=198.51.100.9:40000"
        ));
        let (_kept, its_port) = before.accept().unwrap();
        leads_to(747);
        let give = "inet catching give";
        let hook = "{ type nat hook postrouting priority 100; }";
        let rule = "tcp dport 747 snat ip to 198.51.100.9:40000";
        let script = format!("add chain {give} {hook}; add rule {give} {rule}");
        said_by("nft", &[&script]);
        let _client = TcpStream::connect(dialled()).unwrap();
        let (_accepted, app) = listener.accept().unwrap();
        assert_eq!(app, its_port);
        let Caller::Process { unit, .. } = callers.of(app, dialled()) else {
            panic!("nobody called");
        };
        assert_ne!(unit.as_deref(), Some("web.service"));
        drop(victim.stdin.take());
        victim.kill().unwrap();
        victim.wait().unwrap();
    }

    /// A control group of this test alone, which goes with it.
    struct Group(PathBuf);

    impl Group {
        /// A unit in a slice of its own.
        fn new(slice: &str, unit: &str) -> Self {
            let root = Hierarchies::look().unwrap().version_2;
            let root = root.expect("control groups of version 2 are mounted");
            let slice = format!("mesh-test-{slice}-{}.slice", std::process::id());
            let group = root.join(slice).join(unit);
            fs::create_dir_all(&group).expect("root may make control groups");
            Self(group)
        }

        /// A program in the group.
        fn runs(&self, command: &str) -> Child {
            let script = format!("echo $$ > {}/cgroup.procs; {command}", self.0.display());
            let mut shell = Command::new("sh");
            shell.args(["-ec", &script]).stdin(Stdio::piped());
            shell.stdout(Stdio::null()).spawn().unwrap()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
            let _ = self.0.parent().map(fs::remove_dir);
        }
    }

    #[test]
    fn a_program_is_known_by_the_unit_that_it_runs_in() {
        if !is_in_namespace(
            "services::callers::tests::a_program_is_known_by_the_unit_that_it_runs_in",
        ) {
            return;
        }
        let group = Group::new("connects", "web.service");
        let (listener, callers) = listener();
        let mut program = group.runs(&format!("exec socat - TCP:{DIALLED}"));
        let (accepted, app) = listener.accept().unwrap();
        let Caller::Process { unit, uid, .. } = callers.of(app, dialled()) else {
            panic!("nobody called");
        };
        assert_eq!(unit.as_deref(), Some("web.service"));
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        drop((accepted, program.stdin.take()));
        program.wait().unwrap();
    }

    #[test]
    fn who_sends_datagrams_is_known_by_the_port_and_who_shares_one_is_nobody() {
        let group = Group::new("sends", "web.service");
        let callers = Callers::new(747).unwrap();
        let at = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = at.local_addr().unwrap();
        let mut program = group.runs(&format!("exec socat - UDP:{to},reuseport"));
        let mut heard = [0; 16];
        program.stdin.as_ref().unwrap().write_all(b"hello").unwrap();
        let (_, from) = at.recv_from(&mut heard).unwrap();
        let Caller::Process { unit, uid, .. } = callers.of_datagrams(from) else {
            panic!("nobody sent");
        };
        assert_eq!(unit.as_deref(), Some("web.service"));
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        // It could name the other's address as the source of what it sends.
        let elsewhere = UdpSocket::bind(("127.0.0.2", from.port())).unwrap();
        assert_eq!(callers.of_datagrams(from), Caller::Unknown, "one of two");
        drop(elsewhere);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, from.port()));
        socket.bind(&anywhere.into()).unwrap();
        assert_eq!(callers.of_datagrams(from), Caller::Unknown, "one of two");
        drop(socket);
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(callers.of_datagrams(from), Caller::Unknown, "it has gone");
    }
}
