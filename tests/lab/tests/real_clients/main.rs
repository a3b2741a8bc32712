//! Clients and servers that know nothing of the mesh, and were not written for it: each pair first talks on
//! one machine, which shows that the two understand each other, and then from host to host by the name of a
//! service.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

mod database;
mod grpc;
mod load;
mod place;
mod web;
mod websocket;
