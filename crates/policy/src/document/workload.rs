//! One entry of `workloads:`.

use model::name::Name;
use model::rule::{Selector, Workload};

use super::reader::{Fields, Section, text};
use super::selector::{self, Placed, Position};
use super::{Names, Nouns};
use crate::diagnostic::{Complaint, Report};
use crate::yaml::Entry;

/// Reads a workload.
pub(super) fn read(
    entry: &Entry,
    name: Name,
    nouns: &Nouns,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<Workload> {
    let place = entry.key_place;
    let fields = Fields::read(&entry.value, Section::Workload, report)?;
    let (unit, user) = (
        fields.optional("unit", report),
        fields.optional("user", report),
    );
    let is_somebody = fields.has("unit") || fields.has("user");
    let is_misspelt = fields.is_misspelt("unit") || fields.is_misspelt("user");
    if !is_somebody && !is_misspelt {
        let complaint = Complaint::new(format!("workload `{name}` has neither `unit` nor `user`"))
            .help("say which processes it is: `unit: web.service`, or `user: www-data`");
        report.error(place, complaint);
    }
    let unit = unit.map(|node| {
        let written = text(node, "`unit`", report)?;
        let parsed = written.parse().map_err(|error| not_a_unit(written, &error));
        report.check(node.place, parsed)
    });
    let user = user.map(|node| {
        let written = text(node, "`user`", report)?;
        let parsed = written.parse().map_err(|error: model::name::InvalidName| {
            Complaint::new(error.to_string())
                .help("a user is a name such as `www-data`, or a number")
        });
        report.check(node.place, parsed)
    });
    let hosts = fields.required("hosts", place, report, || {
        Complaint::new(format!("workload `{name}` has no `hosts`"))
            .help("say where it may run: `hosts: role=edge`; only these hosts may vouch for it")
    });
    let hosts = hosts
        .and_then(|node| selector::read(node, "`hosts`", Position::Hosts, nouns, names, report));
    // What is wrong with one of them is not to leave it out.
    let (unit, user) = (
        unit.map_or(Some(None), |it| it.map(Some))?,
        user.map_or(Some(None), |it| it.map(Some))?,
    );
    is_somebody.then_some(())?;
    Some(Workload {
        name,
        unit,
        user,
        hosts: only_hosts(hosts?),
        source: place.source(report.files()),
    })
}

fn only_hosts(placed: Vec<Placed>) -> Vec<Selector> {
    placed.into_iter().map(|placed| placed.selector).collect()
}

fn not_a_unit(written: &str, why: &model::name::InvalidName) -> Complaint {
    let complaint = Complaint::new(why.to_string());
    if written.contains('.') {
        complaint.help("`systemctl status` and `systemd-cgls` show the units of a host")
    } else {
        complaint.help(format!("did you mean `{written}.service`?"))
    }
}
