//! Policy: what operators write (`document`), checked and bound to the fleet's hosts (`resolve`),
//! tested by itself (`bundle_tests`), compiled for one host (`table` for packets, `gate` for
//! connections and requests) and explained (`explain`). Decisions are made here and nowhere else;
//! `reference` is the plain reading of the rules that table and gate have to agree with. No IO, no
//! clock; no allocation in [`Table::decide`] and [`Gate::decide`].

#![forbid(unsafe_code)]

pub mod document;
pub mod reference;

mod bundle_tests;
mod call;
mod diagnostic;
mod diff;
mod explain;
mod features;
mod first_policy;
mod format;
mod gate;
mod partly_known;
mod plan;
mod port_tree;
mod render;
mod request_match;
mod resolve;
mod schema;
mod size;
mod slice;
mod table;
mod traffic_set;
mod why;
mod window;
mod words;
mod yaml;

pub use bundle_tests::{TestOutcome, TestVerdict, run_tests, run_tests_in_time};
pub use call::{Headers, Process, Question, RequestFacts, Ruling, Target};
pub use diagnostic::{Diagnostic, Severity};
pub use diff::diff;
pub use document::{Checked, Document, Test, load, parse};
pub use explain::{Explained, RequestExplained, explain, explain_call};
pub use features::features;
pub use first_policy::{first_policy, first_policy_files};
pub use format::format;
pub use gate::Gate;
pub use plan::plan;
pub use reference::{Call, Decision, decide_call, may_vouch};
pub use render::render;
pub use resolve::{FormerName, FormerNames, resolve, resolve_with_former};
pub use schema::SCHEMA;
pub use size::{deflated, too_large};
pub use slice::leaves_concerning;
pub use table::{RuleIndex, RuleInfo, Table, Verdict};
pub use why::{Answer, Asked, why, why_at_any};
pub use window::moment;

/// One file of a bundle's directory: its path there and its text.
pub use model::admin::PolicyFile as SourceFile;
