//! The client's machine and the server's, a switch between them, and the server that is called.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use lab::{Attachment, Lab, LabError, Namespace};

use crate::link::Link;
use crate::services::origin::Origin;

/// Where the server listens, and where a client finds a proxy on its own machine.
pub(super) const SERVICE_PORT: u16 = 8080;

const INTERFACE: &str = "eth0";

/// Two machines, made anew for every contender.
pub(super) struct Ground {
    pub(super) client: Machine,
    pub(super) server: Machine,
    _origin: Origin,
}

/// One of them.
pub(super) struct Machine {
    pub(super) namespace: Namespace,
    pub(super) address: IpAddr,
}

impl Ground {
    /// Makes machines with nothing on them but the server.
    pub(super) fn new(link: Link) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let network = lab.underlay()?;
        let machine = |name: &str| {
            let namespace = lab.namespace(name)?;
            let attachment = network.attach(&namespace, INTERFACE)?;
            Ok::<_, LabError>((namespace, attachment))
        };
        let (client, server) = (machine("client")?, machine("server")?);
        Self::of((&client.0, &client.1), (&server.0, &server.1), link)
    }

    /// Takes machines that somebody else has made.
    pub(super) fn of(
        client: (&Namespace, &Attachment),
        server: (&Namespace, &Attachment),
        link: Link,
    ) -> Result<Self, LabError> {
        let machine = |(namespace, attachment): (&Namespace, &Attachment)| {
            link.configure(namespace, &attachment.interface)?;
            Ok::<_, LabError>(Machine {
                namespace: namespace.clone(),
                address: attachment.v4.into(),
            })
        };
        let server = machine(server)?;
        Ok(Self {
            client: machine(client)?,
            _origin: Origin::start(&server.namespace, SERVICE_PORT)?,
            server,
        })
    }

    /// Where the client reaches the server without anybody between them.
    pub(super) fn direct(&self) -> SocketAddr {
        SocketAddr::new(self.server.address, SERVICE_PORT)
    }

    /// Where a machine's own proxy is found.
    pub(super) fn local() -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), SERVICE_PORT)
    }

    /// For files that go with the machines.
    pub(super) fn directory(&self) -> &Path {
        self.client.namespace.lab().directory()
    }
}
