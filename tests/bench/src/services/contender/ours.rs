//! Two hosts of a fleet with everything that runs on such hosts: the service is called by its name, caught
//! on its way, decided on at both ends, balanced, retried and counted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lab::fleet::{CHANGE_DEADLINE, Fleet, Host};
use lab::{Lab, LabError, wait_until};

use super::{Contender, Standing, pair};
use crate::link::Link;
use crate::services::ground::{Ground, SERVICE_PORT};

const POLICY: &str = "\
fleet: bench
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=server\"] }
allow:
  - { id: bytes, from: \"role=client\", to: orders, http: [\"GET /bytes/**\"] }
";
const SERVICE: &str = "orders.mesh.internal";

pub(super) struct Ours {
    daemon: PathBuf,
}

impl Ours {
    pub(super) fn built_in(directory: &Path) -> Self {
        Self {
            daemon: directory.join("meshd"),
        }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn between(&self) -> &'static str {
        "TLS 1.3, HTTP/2"
    }

    fn version(&self) -> Result<Option<String>, LabError> {
        pair::version(&self.daemon, "--version")
    }

    fn stand(&self, link: Link) -> Result<Standing, LabError> {
        let lab = Lab::new()?;
        let fleet = Fleet::start(&lab, "bench")?;
        let mut server = fleet.member("server", &["role=server"])?;
        let mut client = fleet.member("client", &["role=client"])?;
        fleet.coordinator.apply_policy_text(POLICY)?;
        let ground = Ground::of(
            (client.namespace(), client.attachment()),
            (server.namespace(), server.attachment()),
            link,
        )?;
        let target = SocketAddr::new(address_of_service(&client)?, SERVICE_PORT);
        let daemons = [&mut client, &mut server].map(process_id);
        let [near, far] = daemons;
        Ok(Standing {
            target,
            daemons: vec![near?, far?],
            _held: vec![Box::new(client), Box::new(server), Box::new(fleet)],
            ground,
        })
    }
}

fn address_of_service(client: &Host) -> Result<std::net::IpAddr, LabError> {
    wait_until("the service has an address", CHANGE_DEADLINE, || {
        let getent = client.namespace().launch("getent");
        let found = getent.args(["ahostsv4", SERVICE]).run()?.stdout;
        let first = found.split_whitespace().next();
        Ok(first.and_then(|address| address.parse().ok()))
    })
}

fn process_id(host: &mut Host) -> Result<u32, LabError> {
    let process = host.process().map(|process| process.id());
    process.ok_or_else(|| LabError::new("meshd does not run"))
}
