//! Fleets of simulated devices for any EST server and any edge that asks for client certificates.
//!
//! Each device is the device core that real ones run (`muster-proto`); what is simulated is everything around
//! it. Arrivals are open-loop: a device has its time to start before anything is measured, and its latency
//! counts from there, so that a slow server can't hide its queue. Latencies are HDR histograms, which merge
//! exactly over workers and machines. Scenarios run in virtual time (same seed, same result) or on sockets.
//! Of the server's packages only `demo` knows.

mod api;
mod arrival;
mod chance;
mod cli;
mod clock;
mod cost;
mod demo;
mod device;
mod edge;
mod fleet;
pub mod identities;
mod link;
mod reason;
mod report;
mod results;
pub mod scenario;
mod slo;
mod span;
mod tally;
mod tls;
mod versus;
mod view;
mod workers;

pub use cli::main;
pub use cost::{Bound, bound};
