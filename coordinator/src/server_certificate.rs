//! The coordinator's own certificate: issued at every start for a key that never leaves this
//! process, renewed at half of its life, without a connection noticing.

use std::net::IpAddr;
use std::sync::Arc;

use model::address::split_host_port;
use model::name::Name;
use model::time::UnixTime;
use runtime::clock::unix_now;
use runtime::tls::ServerIdentity;
use trust::authority::COORDINATOR_CERTIFICATE_LIFETIME;
use trust::enrolment::TlsKey;
use trust::{Authority, CoordinatorIdentity};

use crate::authority_file::random_secret;

/// Issues the coordinator's certificate and shows it.
pub(crate) struct ServerCertificate {
    authority: Authority,
    whom: CoordinatorIdentity,
    identity: Arc<ServerIdentity>,
    issued: UnixTime,
}

impl ServerCertificate {
    /// Issues the first certificate, for the names and addresses that are advertised.
    pub(crate) fn issue(
        authority: Authority,
        fleet_name: Name,
        advertise: &[String],
    ) -> Result<Self, String> {
        let whom = whom(fleet_name, advertise);
        let issued = unix_now();
        let (chain, key) = make(&authority, &whom, issued)?;
        let identity = ServerIdentity::new(&chain, key.pkcs8_der().expose());
        let identity = identity.map_err(|error| format!("the certificate: {error}"))?;
        Ok(Self {
            authority,
            whom,
            identity: Arc::new(identity),
            issued,
        })
    }

    /// Returns what TLS shows, now and after each renewal.
    pub(crate) fn identity(&self) -> Arc<ServerIdentity> {
        Arc::clone(&self.identity)
    }

    /// Renews the certificate if it is due; tries again the next time when it cannot.
    pub(crate) fn renew_if_due(&mut self) {
        let now = unix_now();
        if is_due(self.issued, now) {
            match self.renew(now) {
                Ok(()) => tracing::info!("renewed the coordinator's certificate"),
                Err(error) => {
                    tracing::error!(%error, "cannot renew the coordinator's certificate; trying again")
                }
            }
        }
    }

    /// Shows a certificate of these keys from now on.
    pub(crate) fn change_authority(&mut self, authority: Authority) {
        self.authority = authority;
        // Due until it is there.
        self.issued = UnixTime::from_secs(0);
        self.renew_if_due();
    }

    fn renew(&mut self, now: UnixTime) -> Result<(), String> {
        let (chain, key) = make(&self.authority, &self.whom, now)?;
        self.identity
            .replace(&chain, key.pkcs8_der().expose())
            .map_err(|error| error.to_string())?;
        self.issued = now;
        Ok(())
    }
}

/// Half of its life is over, or the clock was set back to before it was issued.
fn is_due(issued: UnixTime, now: UnixTime) -> bool {
    now < issued || now >= issued + COORDINATOR_CERTIFICATE_LIFETIME / 2
}

fn make(
    authority: &Authority,
    whom: &CoordinatorIdentity,
    now: UnixTime,
) -> Result<(Vec<Vec<u8>>, TlsKey), String> {
    let key = TlsKey::from_seed(random_secret()?);
    let serial = random_secret()?;
    let serial = *serial.expose().first_chunk().expect("16 of 32 bytes");
    let chain = authority.issue_coordinator(whom, &key, now, serial);
    Ok((chain.map_err(|error| error.to_string())?, key))
}

fn whom(fleet_name: Name, advertise: &[String]) -> CoordinatorIdentity {
    let hosts = advertise
        .iter()
        .filter_map(|address| split_host_port(address));
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::<IpAddr>::new());
    for (host, _) in hosts {
        match host.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) if !dns_names.iter().any(|name| name == host) => dns_names.push(host.to_owned()),
            Err(_) => {}
        }
    }
    CoordinatorIdentity {
        fleet_name,
        coordinator_name: machine_name(),
        dns_names,
        addresses,
    }
}

/// The machine's host name up to the first dot, when it can be a name of the mesh.
fn machine_name() -> Name {
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let first = node.split('.').next().and_then(|label| label.parse().ok());
    first.unwrap_or_else(|| "coordinator".parse().expect("a constant name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_and_addresses_that_are_advertised_stand_in_the_certificate() {
        let advertise = [
            "c1.example.com:7443",
            "c1.example.com:443",
            "192.0.2.1:7443",
            "[2001:db8::1]:7443",
        ];
        let whom = whom("prod".parse().unwrap(), &advertise.map(str::to_owned));
        assert_eq!(whom.dns_names, ["c1.example.com"]);
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(whom.addresses, addresses);
    }

    #[test]
    fn renewal_is_due_at_half_life_and_after_the_clock_was_set_back() {
        let issued = UnixTime::from_secs(1 << 30);
        let half = COORDINATOR_CERTIFICATE_LIFETIME / 2;
        assert!(!is_due(
            issued,
            issued + half.saturating_sub(Duration::from_secs(1))
        ));
        assert!(is_due(issued, issued + half));
        assert!(is_due(issued, UnixTime::from_secs((1 << 30) - 1)));
    }
}
