//! The targets, one file each: `target` takes any bytes, `seeds` makes good ones.

pub mod admin_json;
pub mod agent_messages;
pub mod bequests;
pub mod certificates;
pub mod control_messages;
pub mod conversations;
pub mod datagrams;
pub mod dns_queries;
pub mod join_tokens;
pub mod overlay_packets;
pub mod packet_headers;
pub mod packet_runs;
pub mod policy_changes;
pub mod policy_documents;
pub mod service_calls;
pub mod service_requests;
pub mod settings_files;
pub mod super_packets;
pub mod trust_payloads;
pub mod wireguard_messages;
