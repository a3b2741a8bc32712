//! Calls in virtual time: callers at a fixed rate, servers that work, stall or fail, and what
//! becomes of them with all parts together.

mod allocations;
mod balancing;
mod breakers;
mod choosy;
mod properties;
mod refusals;
mod retries;
mod slow_start;
mod sticky;
mod waiting;
mod world;
