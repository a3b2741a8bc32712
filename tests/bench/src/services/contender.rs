//! Who is measured. A contender puts a proxy on each machine and says where the client finds the server
//! then; it is a file of its own in here.

mod direct;
mod envoy;
mod haproxy;
mod nginx;
mod ours;
mod pair;

use std::any::Any;
use std::net::SocketAddr;
use std::path::Path;

use lab::LabError;

use crate::link::Link;
use crate::services::ground::Ground;

/// A way from a client to a server on another machine.
pub(crate) trait Contender {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// What its two halves speak with each other.
    fn between(&self) -> &'static str;

    /// What its program says of its version; `None` without a program.
    fn version(&self) -> Result<Option<String>, LabError>;

    /// Puts it on two machines of its own.
    fn stand(&self, link: Link) -> Result<Standing, LabError>;
}

/// A contender on its machines, as long as this lives.
pub(crate) struct Standing {
    /// Where the client finds the server.
    pub(super) target: SocketAddr,
    /// The process groups of the proxies on both machines; none without proxies.
    pub(super) daemons: Vec<u32>,
    /// What ends with it, before its machines do.
    pub(super) _held: Vec<Box<dyn Any>>,
    pub(super) ground: Ground,
}

/// Everybody, in the order of the table.
pub(super) fn all(ours: &Path, tools: &Path) -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(direct::Direct),
        Box::new(ours::Ours::built_in(ours)),
        Box::new(envoy::Envoy::over_http2(tools)),
        Box::new(envoy::Envoy::over_http1(tools)),
        Box::new(haproxy::Haproxy::over_http2()),
        Box::new(haproxy::Haproxy::over_http1()),
        Box::new(nginx::Nginx),
    ]
}
