//! Binding a checked bundle to the hosts of a fleet: names become ids, so that a host that later
//! takes a name does not inherit its rules.

use std::collections::BTreeMap;

use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Selector};

use crate::diagnostic::{Complaint, Diagnostic, Report};
use crate::document::{Checked, nearest};

/// Returns the bundle with every named host identified.
///
/// # Errors
/// Names that are neither a host nor a service, and services named like a host.
pub fn resolve(checked: &Checked, inventory: &[HostRecord]) -> Result<Bundle, Vec<Diagnostic>> {
    let hosts: BTreeMap<&Name, HostId> = inventory
        .iter()
        .map(|record| (&record.name, record.host))
        .collect();
    let mut report = Report::new(&checked.files);
    check_hosts(checked, &hosts, &mut report);
    check_services(checked, &hosts, &mut report);
    report.finish()?;
    let mut bundle = checked.bundle.clone();
    for selector in selectors(&mut bundle) {
        if let Selector::Host { name, id } = selector {
            *id = hosts.get(name).copied();
        }
    }
    Ok(bundle)
}

fn check_hosts(checked: &Checked, hosts: &BTreeMap<&Name, HostId>, report: &mut Report<'_>) {
    for (name, place) in &checked.names.hosts {
        if report.is_hopeless() {
            return;
        }
        if hosts.contains_key(name) {
            continue;
        }
        let services = checked
            .bundle
            .services
            .iter()
            .map(|service| service.name.as_str());
        let known = hosts.keys().map(|name| name.as_str()).chain(services);
        let complaint = Complaint::new(format!("no host or service is called `{name}`"));
        report.error(*place, match nearest(name.as_str(), known) {
            Some(meant) => complaint.suggest(Some(meant)),
            None => complaint.help(
                "`meshctl hosts list` shows all hosts; select hosts that have yet to join by label",
            ),
        });
    }
}

fn check_services(checked: &Checked, hosts: &BTreeMap<&Name, HostId>, report: &mut Report<'_>) {
    for (name, place) in &checked.names.services {
        if hosts.contains_key(name) {
            let message = format!("the service `{name}` has the name of a host");
            let help = "hosts and services share one name space: rename the service";
            report.error(*place, Complaint::new(message).help(help));
        }
    }
}

fn selectors(bundle: &mut Bundle) -> impl Iterator<Item = &mut Selector> {
    let Bundle {
        services,
        allow,
        deny,
    } = bundle;
    let endpoints = services
        .iter_mut()
        .flat_map(|service| &mut service.endpoints);
    let ends = allow
        .iter_mut()
        .chain(deny)
        .flat_map(|rule| rule.from.iter_mut().chain(&mut rule.to));
    endpoints.chain(ends)
}
