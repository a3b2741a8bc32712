//! What a proxy decides about a call without looking at its bytes: which endpoint, whether once
//! more, when to stop waiting, whom to leave alone. One copy per proxy thread; no IO, no clock, no
//! dice of its own.

#![forbid(unsafe_code)]
