//! What a proxy decides about a call without looking at its bytes: which endpoint, whether once
//! more, when to stop waiting, whom to leave alone. One copy per proxy thread; no IO, no clock, no
//! dice of its own.
//!
//! # One call, from its begin to its end
//!
//! An [`Upstream`] is one service as one proxy thread calls it. It is told of every step and says
//! what the next one is; time is passed in.
//!
//! ```
//! # use std::sync::Arc; use std::task::{Poll, Waker}; use std::time::Duration;
//! # use model::{ids::HostId, time::Instant};
//! use traffic::{
//!     Admission, CallShape, Ending, Gauge, Next, Outcome, Pick, Replay, Settings, Upstream,
//! };
//! # let (one, other) = (HostId::from_bytes([1; HostId::LEN]), HostId::from_bytes([2; HostId::LEN]));
//! # let (mut now, waker) = (Instant::START, Waker::noop());
//!
//! // Once for each service and thread. The gauge of a service is shared by the threads.
//! let gauge = Arc::new(Gauge::default());
//! let mut orders = Upstream::new(Settings::default(), gauge, [7; 32], now);
//! orders.set_endpoints(&[one, other], now); // with each new catalogue; keeps what is known of those that stay
//!
//! // 1. A call comes. Its deadlines run from here.
//! let mut call = orders.begin(CallShape { idempotent: true, ..CallShape::default() }, now);
//!
//! // 2. Is there room? `Pending`: poll again when woken, and at `call.poll_again_at()` at the latest.
//! match orders.poll_admission(&mut call, waker, now) {
//!     Poll::Ready(Admission::Go) => {}
//!     Poll::Ready(Admission::Overflow(_why)) => { /* 503 `overflow`, then `end` */ }
//!     Poll::Pending => { /* in line */ }
//! }
//!
//! let last = loop {
//!     // 3. Who gets it? `Pending` as above, while no endpoint is ready.
//!     let choice = match orders.poll_pick(&mut call, waker, now) {
//!         Poll::Ready(Pick::Chosen(choice)) => choice,
//!         Poll::Ready(Pick::NoneReady(why)) => break Some(why), // 503, or the fallback; then `end`
//!         Poll::Pending => unreachable!("two endpoints are ready"),
//!     };
//!
//!     // 4. Send it to `choice.endpoint`, wait for the head of the answer until `call.try_until()`, and
//!     //    then ask `orders.go_on` whether there is more time after all;
//!     //    tell the other side `call.left(now)` as `mesh-deadline` and `call.attempts()`.
//!     let outcome = if choice.endpoint == one { Outcome::of_status(503) } else { Outcome::of_status(200) };
//!     now += Duration::from_millis(3);
//!
//!     // 5. Tell how it went. `Replay` says whether the whole request can be sent again.
//!     match orders.finished(&mut call, outcome, Replay::Possible, now) {
//!         Next::PassOn => break None,              // the answer is the app's, bad ones too
//!         Next::GiveUp(_why) => break None,        // pass on the failure; `why` it was not tried again
//!         Next::Retry { after } => now += after,   // wait so long, then pick again
//!     }
//! };
//!
//! // 6. Body and trailers pass; each silence may last `orders.settings().timeouts.idle_stream`.
//! //    gRPC: the head was only `Outcome::Begun`; when the trailers come, `settle(&mut call, Outcome::of_grpc(code), now)`.
//!
//! // 7. Always, however it ended, also when the client went away: in a guard's `drop`.
//! orders.end(call, Ending::Complete, now);
//! # assert!(last.is_none());
//! ```
//!
//! A connection of a `tcp` service is the same, with [`CallShape::idempotent`] false: an
//! attempt is [`Outcome::Succeeded`] once the endpoint accepted, and no byte was taken from the
//! app before that, so that a failure to connect is tried elsewhere.
//!
//! [`Upstream::poll_change`] tells what is worth a line in the log (an endpoint ejected, all used
//! because most are sick), [`Upstream::endpoints`] what `meshctl top` shows.

#![forbid(unsafe_code)]

mod balancer;
mod breaker;
mod budget;
mod call;
mod change;
mod dice;
mod endpoint;
mod in_flight;
mod latency;
mod outcome;
mod quantile;
mod retry;
mod seconds;
mod settings;
mod upstream;

pub use balancer::{Balancer, Choice, May, NoneReady, Why};
pub use breaker::{Breaker, BreakerState, Tripped};
pub use budget::RetryBudget;
pub use call::{Call, CallShape};
pub use change::Change;
pub use dice::Dice;
pub use endpoint::{EndpointView, Health};
pub use in_flight::{Admission, Gauge, InFlight, Overflow, Ticket};
pub use latency::PeakEwma;
pub use outcome::{Ending, Failure, Outcome};
pub use quantile::Quantiles;
pub use retry::{GiveUp, Next, Replay, RetryPlan};
pub use settings::{
    BalanceSettings, BreakerSettings, BudgetSettings, LimitSettings, PerTry, RetrySettings,
    Settings, TimeoutSettings,
};
pub use upstream::{Pick, Upstream};
