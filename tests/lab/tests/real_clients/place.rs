//! Two hosts, a policy with services of every kind, and what servers and clients are started with.

use std::path::PathBuf;
use std::time::Duration;

use lab::fleet::{CHANGE_DEADLINE, Pair};
use lab::{Lab, LabError, Launch, Namespace, Process, python_packages, wait_until};

/// How long a server may take until it listens.
const SERVER_DEADLINE: Duration = Duration::from_secs(30);

/// `web` and `web2` are nginx, without and with HTTP/2; `plain` is `web` again, whose protocol nobody named.
const POLICY: &str = "\
fleet: test
services:
  web:   { port: 8080, protocol: http, endpoints: [\"role=db\"] }
  web2:  { port: 8081, protocol: http, endpoints: [\"role=db\"] }
  plain: { port: 8082, protocol: auto, endpoints: [\"role=db\"] }
  talk:  { port: 50051, protocol: grpc, endpoints: [\"role=db\"] }
  chat:  { port: 8765, protocol: http, endpoints: [\"role=db\"] }
  store: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }
allow:
  - { id: web, from: \"role=web\", to: web, http: [\"GET /**\", \"HEAD /**\", \"PUT /files/**\"] }
  - { id: web2, from: \"role=web\", to: web2, http: [\"GET /**\"] }
  - { id: plain, from: \"role=web\", to: plain }
  - { id: talk, from: \"role=web\", to: talk, http: [\"POST /lab.Talk/*\"] }
  - { id: chat, from: \"role=web\", to: chat, http: [\"GET /\"] }
  - { id: store, from: \"role=web\", to: store }
deny:
  - { id: no-admin, from: any, to: web, http: [\"* /admin/**\"] }
";

/// The hosts: servers run on beta, clients on alpha.
pub(crate) struct Place {
    pub(crate) pair: Pair,
    pub(crate) lab: Lab,
}

/// From where a client calls, and whom.
pub(crate) struct Way<'a> {
    pub(crate) from: &'a Namespace,
    /// The name or the address of the server.
    pub(crate) host: String,
}

impl Place {
    pub(crate) fn start() -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let pair = Pair::start(&lab)?;
        pair.fleet.coordinator.apply_policy_text(POLICY)?;
        Ok(Self { pair, lab })
    }

    /// On the server's own machine first, then through the service.
    pub(crate) fn ways(&self, service: &str) -> Result<[Way<'_>; 2], LabError> {
        let name = format!("{service}.mesh.internal");
        let client = self.pair.alpha.namespace();
        wait_until("the service has a name", CHANGE_DEADLINE, || {
            let found = client.launch("getent").args(["ahosts", &name]).run()?;
            Ok(found.status.success().then_some(()))
        })?;
        Ok([
            Way {
                from: self.server(),
                host: "127.0.0.1".into(),
            },
            Way {
                from: client,
                host: name,
            },
        ])
    }

    /// The machine of the servers.
    pub(crate) fn server(&self) -> &Namespace {
        self.pair.beta.namespace()
    }

    /// Starts a server of `tests/lab/clients` and waits until it serves.
    pub(crate) fn serve_python(&self, script: &str, port: u16) -> Result<Process, LabError> {
        let launch = python(self.server(), script)?.arg(port.to_string());
        let mut process = launch.spawn(script)?;
        process.wait_for_line("serving", SERVER_DEADLINE)?;
        Ok(process)
    }

    /// A directory for a server's files.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.lab.directory().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

/// Waits until somebody listens on a TCP port of the machine.
pub(crate) fn wait_listening(machine: &Namespace, port: u16) -> Result<(), LabError> {
    let what = format!("somebody listens on port {port}");
    wait_until(&what, SERVER_DEADLINE, || {
        let filter = format!("sport = :{port}");
        let sockets = machine.run("ss", ["-lnH", "--tcp", &filter])?;
        Ok((!sockets.stdout.is_empty()).then_some(()))
    })
}

/// A program of `tests/lab/clients`.
pub(crate) fn python(machine: &Namespace, script: &str) -> Result<Launch, LabError> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(script);
    let launch = machine.launch("/usr/bin/python3").arg("-B").arg(path);
    Ok(launch.env("PYTHONPATH", python_packages()?))
}
