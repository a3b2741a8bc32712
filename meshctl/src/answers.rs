//! What `meshctl --json` prints, as a JSON Schema: the kinds of answers, each with the type that is
//! shown under it. `cargo xtask generate` writes it to `docs/meshctl.schema.json`, and the lab holds
//! answers of running programs against that.

use model::admin::{
    AdminView, AuditEntry, AuthorityView, CreatedToken, HostView, PlannedPolicy, PolicyContent,
    PolicyVersionView, RecoveryStatus, RemovedHost, RemovedHostView, Rollout, TokenView, WhyReport,
};
use model::local::{
    CallExplained, DnsView, DropsView, Joined, KeyRotated, Left, LocalWhyReport, MetricsText,
    PeerView, Reloaded, ServiceView,
};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::commands::policy::{AppliedOutcome, CheckReport, DiffReport, FormatReport, TestRun};
use crate::commands::{
    admins, audit, backup, bugreport, dns, doctor, ping, status, top, version, wait_online,
};
use crate::failure::ErrorReport;
use crate::output::SCHEMA_VERSION;

/// Describes the type of an answer.
type Describe = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Every kind of answer, in the order of their names.
const KINDS: &[(&str, Describe)] = &[
    ("Admin", of::<AdminView>),
    ("AdminList", of::<Vec<AdminView>>),
    ("AppliedPolicy", of::<AppliedOutcome<'_>>),
    ("AuditCheck", of::<audit::Checked>),
    ("AuditLog", of::<Vec<AuditEntry>>),
    ("AuthorityView", of::<AuthorityView>),
    ("Backup", of::<backup::Written>),
    ("BugReport", of::<bugreport::Report>),
    ("CallList", of::<Vec<CallExplained>>),
    ("CreatedAdmin", of::<admins::Made<'_>>),
    ("CreatedToken", of::<CreatedToken>),
    ("Dns", of::<DnsView>),
    ("DnsResolution", of::<dns::Resolution>),
    ("Drops", of::<DropsView>),
    ("Error", of::<ErrorReport<'_>>),
    ("Examination", of::<doctor::Examination>),
    ("Host", of::<HostView>),
    ("HostList", of::<Vec<HostView>>),
    ("Joined", of::<Joined>),
    ("KeyRotated", of::<KeyRotated>),
    ("Left", of::<Left>),
    ("LocalWhyReport", of::<LocalWhyReport>),
    ("Metrics", of::<MetricsText>),
    ("Online", of::<wait_online::Online>),
    ("PeerList", of::<Vec<PeerView>>),
    ("PingReport", of::<ping::PingReport>),
    ("Policy", of::<PolicyContent>),
    ("PolicyCheck", of::<CheckReport>),
    ("PolicyDiff", of::<DiffReport>),
    ("PolicyFormat", of::<FormatReport>),
    ("PolicyHistory", of::<Vec<PolicyVersionView>>),
    ("PolicyPlan", of::<PlannedPolicy>),
    ("PolicyTest", of::<TestRun>),
    ("RecoveryStatus", of::<RecoveryStatus>),
    ("Reloaded", of::<Reloaded>),
    ("RemovedHost", of::<RemovedHost>),
    ("RemovedHostList", of::<Vec<RemovedHostView>>),
    ("Rollout", of::<Rollout>),
    ("Service", of::<ServiceView>),
    ("ServiceList", of::<Vec<ServiceView>>),
    ("Status", of::<status::Status>),
    ("Token", of::<TokenView>),
    ("TokenList", of::<Vec<TokenView>>),
    ("Top", of::<top::Rates>),
    ("Versions", of::<version::Versions>),
    ("WhyReport", of::<WhyReport>),
];

/// Returns the schema of every answer, as pretty JSON.
pub fn schema() -> String {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let branch = |(kind, describe): &(&str, Describe)| {
        let data = describe(&mut generator);
        json!({ "properties": { "kind": { "const": kind }, "data": data } })
    };
    let branches: Vec<Value> = KINDS.iter().map(branch).collect();
    let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What meshctl --json prints",
        "description": "One document for each answer. `version` is raised when a field changes its meaning or goes; new fields may come without.",
        "type": "object",
        "properties": {
            "version": { "const": SCHEMA_VERSION },
            "kind": { "enum": kinds },
            "data": {},
        },
        "required": ["version", "kind", "data"],
        "oneOf": branches,
        "$defs": generator.take_definitions(true),
    });
    let text = serde_json::to_string_pretty(&document).expect("a schema is JSON");
    // The words of the types are Rust's; whoever reads JSON reads of `null`.
    text.replace("`None`", "`null`") + "\n"
}
