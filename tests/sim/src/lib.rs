//! A whole fleet in one thread, in virtual time: one real `Fleet`, up to hundreds of real `Agent`s
//! each with a real `Shard`, over a network, disks and clocks that misbehave, among people who make
//! mistakes and worse. A seed decides everything; the invariants are looked at after every event.
//!
//! Read `scenario` for what happens to a fleet, `world` for how events are carried out, `reference`
//! and `ledger` for what is right. The other files are nouns of the world.

#![forbid(unsafe_code)]

mod changes;
mod control;
mod coordinator;
mod courier;
mod dice;
mod disk;
mod event;
mod host;
mod ledger;
mod nat;
mod network;
mod newer;
mod operator;
mod packet;
mod policies;
mod queue;
#[cfg(test)]
mod recorded;
mod reference;
mod scenario;
mod store;
mod trace;
mod traffic;
mod truth;
mod world;

pub use scenario::{Failure, Scenario, Summary, run};
pub use traffic::Counts;
