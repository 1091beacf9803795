//! Which processor does what: the server under test has one for itself, and who loads it has another.
//!
//! Without it the system moves both about, and a round costs a third more or less by where they happen to be.
//! A server that is started so sees one processor, and has as many threads as it has on a machine with one.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::Command;

/// The server's.
pub(crate) const SERVER: &str = "0";
/// That of the clients, and of the origin.
pub(crate) const LOAD: &str = "1";

/// A program that runs on the server's processor from its start.
pub(crate) fn on_the_servers(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER]).arg(program);
    command
}

/// Has a process that runs already stay on one processor, with all its threads.
pub(crate) async fn pin(processor: &str, pid: u32) -> anyhow::Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-acp", processor, &pid.to_string()]).stdout(Stdio::null());
    anyhow::ensure!(command.status().await?.success(), "taskset can't pin {pid}: two processors are needed");
    Ok(())
}
