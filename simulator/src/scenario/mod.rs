//! `muster-sim scenario`: a fleet over time, from a file.
//!
//! In virtual time the devices are the device core itself around a model of server, link and cryptography. Nothing
//! waits and nothing is random but by the seed: the same file gives the same result, on any machine. Live, the same
//! file runs against a real server and a real edge, over links and by clocks that are as bad as it says.

mod crypto;
mod device;
mod file;
mod hostile;
mod intruder;
mod live;
mod live_goals;
mod server;
mod world;

pub use self::file::{Scenario, ScenarioWritten};
pub(crate) use self::live::{Live, run as run_live};
pub(crate) use self::world::run;

#[cfg(test)]
mod tests;
