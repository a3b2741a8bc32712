//! What the tunnel is to reach beside the others.

use crate::aims::Aim;
use crate::aims::Bound::{Ceiling, Least, Most};
use crate::link::Link::{DefaultOffloads, NicLike};
use crate::tunnels::figure::Figure::{
    self, Datagrams128, IdleRoundTrip, LoadedRoundTrip, ProcessorTime, ResidentMemory, TcpStream,
};

const STANDARD: &str = "ours";
const AES: &str = "ours, AES";
const OTHER: &str = "gotatun-cli";
const BARE: &str = "bare forwarder";
const BARE_AES: &str = "bare forwarder, AES";

pub(super) const AIMS: &[Aim<Figure>] = &[
    Aim::new(STANDARD, TcpStream, DefaultOffloads, Least(3.6, OTHER)),
    Aim::new(STANDARD, TcpStream, NicLike, Least(2.8, OTHER)),
    Aim::new(AES, TcpStream, DefaultOffloads, Least(5.2, OTHER)),
    Aim::new(AES, TcpStream, NicLike, Least(3.5, OTHER)),
    Aim::new(STANDARD, TcpStream, DefaultOffloads, Least(0.9, BARE)),
    Aim::new(STANDARD, TcpStream, NicLike, Least(0.9, BARE)),
    Aim::new(AES, TcpStream, DefaultOffloads, Least(0.9, BARE_AES)),
    Aim::new(AES, TcpStream, NicLike, Least(0.9, BARE_AES)),
    Aim::new(STANDARD, ProcessorTime, DefaultOffloads, Ceiling(2.5)),
    Aim::new(AES, ProcessorTime, DefaultOffloads, Ceiling(1.5)),
    Aim::new(STANDARD, Datagrams128, DefaultOffloads, Least(4.0, OTHER)),
    Aim::new(AES, Datagrams128, DefaultOffloads, Least(4.0, OTHER)),
    Aim::new(
        STANDARD,
        IdleRoundTrip,
        DefaultOffloads,
        Most(1.0, "vpncloud, AES"),
    ),
    Aim::new(STANDARD, LoadedRoundTrip, DefaultOffloads, Ceiling(800.0)),
    Aim::new(AES, LoadedRoundTrip, DefaultOffloads, Ceiling(800.0)),
    Aim::new(STANDARD, ResidentMemory, DefaultOffloads, Ceiling(20.0)),
    Aim::new(AES, ResidentMemory, DefaultOffloads, Ceiling(20.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aim_is_about_somebody_who_is_measured() {
        let nowhere = std::path::Path::new("");
        let names: Vec<_> = crate::tunnels::contender::all(nowhere, nowhere)
            .iter()
            .map(|one| one.name())
            .collect();
        for name in AIMS.iter().flat_map(Aim::names) {
            assert!(names.contains(&name), "{name}");
        }
    }
}
