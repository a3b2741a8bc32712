//! systemd-resolved over D-Bus: names of the mesh are asked of mesh DNS on the overlay's own link,
//! and no others. resolved forgets it all by itself when the link goes.

use std::net::IpAddr;
use std::time::Duration;

use zbus::{Connection, DynamicType, OwnedObjectPath, OwnedVariant, Type};

use super::{HostResolver, ResolverError, Routing};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const RESOLVED: &str = "org.freedesktop.resolve1";
const MANAGER_PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus and its services answer at once, or not at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A domain, and whether it only routes names instead of completing short ones too.
type Domain = (String, bool);
/// Address family, address, port, name for TLS.
type Server = (i32, Vec<u8>, u16, String);

/// The service, by a connection to its bus.
pub(super) struct Resolved {
    connection: Connection,
}

impl Resolved {
    /// Reaches the service, when it runs and looks at the same interfaces as this daemon.
    pub(super) async fn connect() -> Result<Self, ResolverError> {
        let connecting = tokio::time::timeout(TIMEOUT, Connection::system());
        let connection = match connecting.await {
            Ok(connection) => connection.map_err(|error| failed("reach the system bus", error))?,
            Err(late) => return Err(failed("reach the system bus", late)),
        };
        let pid: u32 = call(
            &connection,
            (BUS, BUS_PATH, BUS),
            "GetConnectionUnixProcessID",
            &RESOLVED,
        )
        .await?;
        if !shares_network(pid) {
            return Err(ResolverError::new(
                "use systemd-resolved",
                "it lives in another network namespace",
            ));
        }
        Ok(Self { connection })
    }

    #[cfg(test)]
    fn over(connection: Connection) -> Self {
        Self { connection }
    }

    async fn manage<B>(&self, method: &'static str, body: &B) -> Result<(), ResolverError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        call(
            &self.connection,
            (RESOLVED, MANAGER_PATH, MANAGER),
            method,
            body,
        )
        .await
    }

    /// Something that an older service does not have, or that changes little.
    async fn try_to<B>(&self, method: &'static str, body: &B)
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        if let Err(error) = self.manage(method, body).await {
            tracing::debug!(%error, "systemd-resolved does without");
        }
    }

    async fn property<T>(&self, path: &str, interface: &str, name: &str) -> Result<T, ResolverError>
    where
        T: TryFrom<OwnedVariant, Error: std::fmt::Display>,
    {
        let value: OwnedVariant = call(
            &self.connection,
            (RESOLVED, path, PROPERTIES),
            "Get",
            &(interface, name),
        )
        .await?;
        T::try_from(value).map_err(|error| failed("understand systemd-resolved", error))
    }

    /// Refuses when another link answers for one of the domains, or for a part of one.
    async fn refuse_clash(&self, routing: &Routing) -> Result<(), ResolverError> {
        let all: Vec<(i32, String, bool)> = self.property(MANAGER_PATH, MANAGER, "Domains").await?;
        let own = i32::try_from(routing.index).unwrap_or_default();
        let clash = all
            .iter()
            .filter(|(link, ..)| *link != own)
            .find(|(_, domain, _)| routing.domains.iter().any(|ours| is_within(domain, ours)));
        match clash {
            Some((link, domain, _)) => Err(ResolverError::new(
                "send the mesh's names to mesh DNS",
                format!(
                    "the host resolves {domain} by {} already (resolvectl domain); found the fleet with another --dns-suffix, or remove that",
                    if *link == 0 {
                        "a global setting".into()
                    } else {
                        format!("link {link}")
                    }
                ),
            )),
            None => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl HostResolver for Resolved {
    fn describe(&self) -> String {
        "systemd-resolved: the overlay's link asks mesh DNS for the mesh's names".into()
    }

    async fn set(&mut self, routing: &Routing) -> Result<(), ResolverError> {
        self.refuse_clash(routing).await?;
        let link = i32::try_from(routing.index)
            .map_err(|error| failed("tell systemd-resolved of the link", error))?;
        self.manage("SetLinkDNSEx", &(link, vec![server(routing)]))
            .await?;
        self.manage("SetLinkDomains", &(link, domains(routing)))
            .await?;
        self.try_to("SetLinkDefaultRoute", &(link, false)).await;
        // Nobody signs these names, and they stay on this host.
        self.try_to("SetLinkDNSSEC", &(link, "no")).await;
        self.try_to("SetLinkDNSOverTLS", &(link, "no")).await;
        self.try_to("SetLinkLLMNR", &(link, "no")).await;
        self.try_to("SetLinkMulticastDNS", &(link, "no")).await;
        self.try_to("FlushCaches", &()).await;
        Ok(())
    }

    async fn difference(&mut self, routing: &Routing) -> Result<Option<String>, ResolverError> {
        let link = i32::try_from(routing.index).unwrap_or_default();
        let path: OwnedObjectPath = call(
            &self.connection,
            (RESOLVED, MANAGER_PATH, MANAGER),
            "GetLink",
            &link,
        )
        .await?;
        let mut found: Vec<Domain> = self.property(path.as_str(), LINK, "Domains").await?;
        let mut wanted = domains(routing);
        found.sort();
        wanted.sort();
        let servers: Vec<(i32, Vec<u8>)> = self.property(path.as_str(), LINK, "DNS").await?;
        let (family, address, ..) = server(routing);
        Ok(if found != wanted {
            Some(format!(
                "another program changed the domains of {} in systemd-resolved",
                routing.interface
            ))
        } else if servers != [(family, address)] {
            Some(format!(
                "another program changed the DNS server of {} in systemd-resolved",
                routing.interface
            ))
        } else {
            None
        })
    }

    async fn revert(&mut self, routing: &Routing) -> Result<(), ResolverError> {
        let link = i32::try_from(routing.index).unwrap_or_default();
        // With the link it has forgotten its settings already.
        self.try_to("RevertLink", &link).await;
        self.try_to("FlushCaches", &()).await;
        Ok(())
    }

    fn may_repair(&self) -> bool {
        true
    }
}

fn domains(routing: &Routing) -> Vec<Domain> {
    let all = routing.domains.iter();
    all.map(|domain| (domain.clone(), true)).collect()
}

fn server(routing: &Routing) -> Server {
    let (family, bytes) = match routing.server.ip() {
        IpAddr::V4(v4) => (rustix::net::AddressFamily::INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (rustix::net::AddressFamily::INET6, v6.octets().to_vec()),
    };
    // 0 is the usual port, and what resolved shows for it.
    let port = Some(routing.server.port()).filter(|port| *port != 53);
    let family = i32::from(family.as_raw());
    (family, bytes, port.unwrap_or(0), String::new())
}

/// Whether a domain is the other one or lies below it.
fn is_within(domain: &str, other: &str) -> bool {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let other = other.to_ascii_lowercase();
    domain == other || domain.ends_with(&format!(".{other}"))
}

/// A service that sees other interfaces under the same numbers would be told nonsense. Whoever may
/// not look believes the best.
fn shares_network(pid: u32) -> bool {
    let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net"));
    match (of(&pid.to_string()), of("self")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        (Err(error), _) => error.kind() == std::io::ErrorKind::PermissionDenied,
        (Ok(_), Err(_)) => true,
    }
}

fn failed(what: &str, why: impl ToString) -> ResolverError {
    ResolverError::new(what, why)
}

async fn call<B, T>(
    connection: &Connection,
    (service, path, interface): (&str, &str, &str),
    method: &'static str,
    body: &B,
) -> Result<T, ResolverError>
where
    B: serde::Serialize + DynamicType + Sync,
    T: serde::de::DeserializeOwned + Type,
{
    let what = format!("call {interface}.{method}");
    let calling = connection.call_method(Some(service), path, Some(interface), method, body);
    match tokio::time::timeout(TIMEOUT, calling).await {
        Ok(Ok(reply)) => {
            let body = reply.body();
            body.deserialize().map_err(|error| failed(&what, error))
        }
        Ok(Err(error)) => Err(failed(&what, error)),
        Err(late) => Err(failed(&what, late)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    /// Link, address family, address.
    type LinkServer = (i32, i32, Vec<u8>);

    /// What the service was told, and what it says that others told it.
    #[derive(Clone, Default)]
    struct Told {
        calls: Arc<Mutex<Vec<String>>>,
        domains: Arc<Mutex<Vec<(i32, String, bool)>>>,
        servers: Arc<Mutex<Vec<LinkServer>>>,
    }

    /// The part of systemd-resolved's manager that is used here, but for a few settings that older
    /// ones do not have either.
    struct Manager(Told);

    #[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
    impl Manager {
        #[zbus(name = "SetLinkDNSEx")]
        fn set_link_dns_ex(&self, link: i32, servers: Vec<Server>) {
            let servers = servers.into_iter().map(|(family, address, port, name)| {
                assert_eq!((port, name.as_str()), (0, ""));
                (link, family, address)
            });
            *self.0.servers.lock().unwrap() = servers.collect();
        }

        fn set_link_domains(&self, link: i32, domains: Vec<Domain>) {
            let mut all = self.0.domains.lock().unwrap();
            all.retain(|(other, ..)| *other != link);
            all.extend(domains.into_iter().map(|(name, only)| (link, name, only)));
        }

        fn revert_link(&self, link: i32) {
            self.0.calls.lock().unwrap().push(format!("revert {link}"));
            self.0.servers.lock().unwrap().clear();
            let mut all = self.0.domains.lock().unwrap();
            all.retain(|(other, ..)| *other != link);
        }

        fn get_link(&self, link: i32) -> OwnedObjectPath {
            let path = format!("{MANAGER_PATH}/link/_3{link}");
            OwnedObjectPath::try_from(path).unwrap()
        }

        #[zbus(property)]
        fn domains(&self) -> Vec<(i32, String, bool)> {
            self.0.domains.lock().unwrap().clone()
        }
    }

    struct Link(Told);

    #[zbus::interface(name = "org.freedesktop.resolve1.Link")]
    impl Link {
        #[zbus(property)]
        fn domains(&self) -> Vec<Domain> {
            let all = self.0.domains.lock().unwrap();
            let own = all.iter().filter(|(link, ..)| *link == 7);
            own.map(|(_, name, only)| (name.clone(), *only)).collect()
        }

        #[zbus(property, name = "DNS")]
        fn dns(&self) -> Vec<(i32, Vec<u8>)> {
            let all = self.0.servers.lock().unwrap();
            all.iter()
                .map(|(_, family, it)| (*family, it.clone()))
                .collect()
        }
    }

    /// A service at the other end of a socket, without a bus in between.
    async fn service() -> (Resolved, Told, Connection) {
        let (here, there) = UnixStream::pair().unwrap();
        let told = Told::default();
        let serving = zbus::connection::Builder::unix_stream(there)
            .server(zbus::Guid::generate())
            .p2p()
            .serve_at(MANAGER_PATH, Manager(told.clone()))
            .serve_at(format!("{MANAGER_PATH}/link/_37"), Link(told.clone()))
            .build();
        let asking = zbus::connection::Builder::unix_stream(here).p2p().build();
        let (serving, asking) = tokio::join!(serving, asking);
        (Resolved::over(asking.unwrap()), told, serving.unwrap())
    }

    fn routing() -> Routing {
        Routing {
            interface: "mesh0".into(),
            index: 7,
            server: "127.0.0.150:53".parse().unwrap(),
            domains: vec!["mesh.internal".into(), "64.100.in-addr.arpa".into()],
        }
    }

    #[tokio::test]
    async fn only_the_meshs_names_go_to_mesh_dns_and_none_when_it_stops() {
        let (mut resolved, told, _service) = service().await;
        resolved.set(&routing()).await.unwrap();
        assert_eq!(
            *told.domains.lock().unwrap(),
            [
                (7, "mesh.internal".to_owned(), true),
                (7, "64.100.in-addr.arpa".to_owned(), true)
            ]
        );
        assert_eq!(
            *told.servers.lock().unwrap(),
            [(7, 2, vec![127, 0, 0, 150])]
        );
        assert_eq!(resolved.difference(&routing()).await.unwrap(), None);
        resolved.revert(&routing()).await.unwrap();
        assert_eq!(*told.calls.lock().unwrap(), ["revert 7"]);
    }

    #[tokio::test]
    async fn a_change_by_another_is_seen() {
        let (mut resolved, told, _service) = service().await;
        resolved.set(&routing()).await.unwrap();
        told.domains
            .lock()
            .unwrap()
            .retain(|it| it.1 != "mesh.internal");
        let difference = resolved.difference(&routing()).await.unwrap().unwrap();
        assert!(
            difference.contains("changed the domains of mesh0"),
            "{difference}"
        );
        resolved.set(&routing()).await.unwrap();
        told.servers
            .lock()
            .unwrap()
            .push((7, 2, vec![192, 0, 2, 1]));
        let difference = resolved.difference(&routing()).await.unwrap().unwrap();
        assert!(difference.contains("the DNS server"), "{difference}");
    }

    #[tokio::test]
    async fn a_name_space_that_the_host_resolves_already_is_not_taken() {
        for (domain, is_clash) in [
            ("mesh.internal", true),
            ("eu.MESH.internal.", true),
            ("internal", false),
            ("notmesh.internal", false),
        ] {
            let (mut resolved, told, _service) = service().await;
            told.domains.lock().unwrap().push((2, domain.into(), false));
            let outcome = resolved.set(&routing()).await;
            assert_eq!(outcome.is_err(), is_clash, "{domain}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("by link 2 already"), "{error}");
                assert_eq!(told.servers.lock().unwrap().len(), 0);
            }
        }
    }
}
