//! Running out of file descriptors, in a process of its own because the limit is the process's.
#![allow(
    clippy::expect_used,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rig::Rig;
use tokio::net::TcpStream;

/// Descriptors that are left for both ends of the crowd.
const LEFT: u64 = 20;

#[tokio::test]
async fn an_edge_without_descriptors_waits_for_some_and_goes_on() {
    let rig = Rig::with(|_| {}, |config| config.limits.hello_timeout = Duration::from_secs(60)).await;
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
    let open = std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, open + LEFT, hard).expect("lowered");
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect(rig.https).await {
        crowd.push(stream);
        tokio::task::yield_now().await;
    }
    rig.until(|counters| counters.connections_refused > 0).await;
    assert!(rig.metrics().contains("reason=\"accept_failed\""));
    drop(crowd);
    let again = async {
        while rig.get("off.example.com", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("it goes on");
}
