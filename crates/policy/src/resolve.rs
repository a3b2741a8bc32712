//! Binding a checked bundle to the hosts of a fleet: names become ids, so that a host that later
//! takes a name does not inherit its rules.

use std::collections::BTreeMap;

use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Selector};

use crate::diagnostic::{Complaint, Diagnostic, Report};
use crate::document::{Checked, nearest};

/// A host that has another name than the one by which a bundle calls it, or is a member no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerName {
    /// Which host it was.
    pub host: HostId,
    /// What it is called now; `None`: it is no member any more.
    pub now: Option<Name>,
}

/// Names that some host had, and that it has no more.
#[derive(Clone, Debug, Default)]
pub struct FormerNames {
    /// Whose they were.
    pub names: BTreeMap<Name, FormerName>,
    /// They mean the hosts that had them, also where another host has the name now: what was in force
    /// once is to come back.
    pub are_bound: bool,
}

impl FormerNames {
    /// Returns whose a name was, unless the host that has it now is meant.
    fn meant(&self, name: &Name, now: Option<HostId>) -> Option<&FormerName> {
        let once = self.names.get(name)?;
        (now.is_none() || self.are_bound && now != Some(once.host)).then_some(once)
    }
}

/// Returns the bundle with every named host identified.
///
/// # Errors
/// Names that are neither a host nor a service, and services named like a host.
pub fn resolve(checked: &Checked, inventory: &[HostRecord]) -> Result<Bundle, Vec<Diagnostic>> {
    let nobody = FormerNames::default();
    resolve_with_former(checked, inventory, &nobody).map(|(bundle, _)| bundle)
}

/// Returns the bundle with every named host identified, and warnings of names that are former ones.
///
/// # Errors
/// Names that are neither a host nor a service, and services named like a host.
pub fn resolve_with_former(
    checked: &Checked,
    inventory: &[HostRecord],
    former: &FormerNames,
) -> Result<(Bundle, Vec<Diagnostic>), Vec<Diagnostic>> {
    let hosts: BTreeMap<&Name, HostId> = inventory
        .iter()
        .map(|record| (&record.name, record.host))
        .collect();
    let mut report = Report::new(&checked.files);
    check_hosts(checked, &hosts, former, &mut report);
    check_services(checked, &hosts, &mut report);
    let warnings = report.finish()?;
    let mut bundle = checked.bundle.clone();
    for selector in selectors(&mut bundle) {
        if let Selector::Host { name, id } = selector {
            let now = hosts.get(name).copied();
            *id = former.meant(name, now).map(|it| it.host).or(now);
        }
    }
    Ok((bundle, warnings))
}

fn check_hosts(
    checked: &Checked,
    hosts: &BTreeMap<&Name, HostId>,
    former: &FormerNames,
    report: &mut Report<'_>,
) {
    for (name, place) in &checked.names.hosts {
        if report.is_hopeless() {
            return;
        }
        let now = hosts.get(name).copied();
        if let Some(once) = former.meant(name, now) {
            match (former.are_bound, now) {
                (true, Some(_)) => report.warn(*place, complaint_of_taken(name, once)),
                (true, None) => report.warn(*place, complaint_of_former(name, once, true)),
                (false, _) => report.error(*place, complaint_of_former(name, once, false)),
            }
            continue;
        }
        if now.is_some() {
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

fn complaint_of_former(name: &Name, once: &FormerName, is_bound: bool) -> Complaint {
    match (&once.now, is_bound) {
        (Some(now), true) => Complaint::new(format!(
            "`{name}` is called `{now}` now, and is meant here as before"
        ))
        .help(format!(
            "write `{now}` before the policy is applied from files again"
        )),
        (None, true) => Complaint::new(format!(
            "`{name}` is no host of the fleet any more: nothing follows from it here"
        ))
        .help("take it out before the policy is applied from files again"),
        (Some(now), false) => {
            Complaint::new(format!("`{name}` is called `{now}` now")).help(format!("write `{now}`"))
        }
        (None, false) => {
            Complaint::new(format!("`{name}` is no host of the fleet any more")).help("take it out")
        }
    }
}

/// Another host has the name now.
fn complaint_of_taken(name: &Name, once: &FormerName) -> Complaint {
    match &once.now {
        Some(now) => Complaint::new(format!(
            "`{name}` is another host now; the one that is meant here, as before, is called `{now}`"
        ))
        .help(format!(
            "nothing follows from it for the `{name}` of now; write `{now}` before the policy is \
             applied from files again, or leave `{name}` to mean the other host"
        )),
        None => Complaint::new(format!(
            "`{name}` is another host now; the one that is meant here is no host of the fleet any \
             more: nothing follows from it here"
        ))
        .help(format!(
            "apply the policy from files to mean the `{name}` of now"
        )),
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
        workloads,
        services,
        allow,
        deny,
        cipher: _,
    } = bundle;
    let endpoints = services
        .iter_mut()
        .flat_map(|service| &mut service.endpoints);
    let hosts = workloads
        .iter_mut()
        .flat_map(|workload| &mut workload.hosts);
    let ends = allow
        .iter_mut()
        .chain(deny)
        .flat_map(|rule| rule.from.iter_mut().chain(&mut rule.to));
    endpoints.chain(hosts).chain(ends)
}
