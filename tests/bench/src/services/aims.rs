//! What the services are to reach beside the others, all with policy, metrics and retries on.

use crate::aims::Aim;
use crate::aims::Bound::{Least, Most};
use crate::link::Link::DefaultOffloads;
use crate::services::figure::Figure::{
    self, AddedP50, AddedP99, IdleMemory, LargeBodies, MediumBodies, Memory500, Memory10000,
    ProcessorTime, Requests,
};

const OURS: &str = "ours";
const ENVOY: &str = "Envoy";
const HAPROXY: &str = "HAProxy";

pub(super) const AIMS: &[Aim<Figure>] = &[
    Aim::new(OURS, Requests, DefaultOffloads, Least(2.0, ENVOY)),
    Aim::new(OURS, Requests, DefaultOffloads, Least(0.65, HAPROXY)),
    Aim::new(OURS, ProcessorTime, DefaultOffloads, Most(0.35, ENVOY)),
    Aim::new(OURS, AddedP50, DefaultOffloads, Most(0.6, ENVOY)),
    Aim::new(OURS, AddedP99, DefaultOffloads, Most(0.5, ENVOY)),
    Aim::new(OURS, MediumBodies, DefaultOffloads, Least(1.5, ENVOY)),
    Aim::new(OURS, LargeBodies, DefaultOffloads, Least(1.5, ENVOY)),
    Aim::new(OURS, IdleMemory, DefaultOffloads, Most(0.5, ENVOY)),
    Aim::new(OURS, Memory500, DefaultOffloads, Most(0.5, ENVOY)),
    Aim::new(OURS, Memory10000, DefaultOffloads, Most(0.5, ENVOY)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aim_is_about_somebody_who_is_measured() {
        let nowhere = std::path::Path::new("");
        let names: Vec<_> = crate::services::contender::all(nowhere, nowhere)
            .iter()
            .map(|one| one.name())
            .collect();
        for name in AIMS.iter().flat_map(Aim::names) {
            assert!(names.contains(&name), "{name}");
        }
    }
}
