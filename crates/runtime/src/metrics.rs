//! Metrics of a daemon: a catalogue of what there is, pages of it in the text formats of Prometheus and
//! OpenMetrics, and the port at which they are asked for. What is counted is the daemon's business.
//!
//! The catalogue is the one source: a page can only be written from it, and `docs/metrics.md` is.

mod catalogue;
mod document;
mod histogram;
mod listen;
mod monotone;
mod page;
pub mod process;
mod server;
mod trouble;

pub use catalogue::{Kind, Metric};
pub use document::{is_stale, replace_section, table};
pub use histogram::Histogram;
pub use listen::MetricsListen;
pub use monotone::Monotone;
pub use page::{Format, Page, Value};
pub use server::{Source, answer, serve};
pub use trouble::Trouble;
