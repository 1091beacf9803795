//! A `muster-agent` of its own: a folder, commands on it, and a running agent that can be killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use muster_agent::identity::Identity;
use muster_agent::settings::TrustRoots;
use muster_agent::store::{self, Content, Found};
use serde_json::Value;

use crate::Server;

/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `muster-agent` program.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| crate::program::built("muster-agent"))
}

/// An agent's folder, and the agent if it runs; both are gone when it is dropped.
pub struct Agent {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Default for Agent {
    fn default() -> Self {
        Self::new()
    }
}

impl Agent {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), child: None }
    }

    /// Keys and certificates.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// The configuration that `enroll` writes.
    pub fn config(&self) -> PathBuf {
        self.dir().join("agent.toml")
    }

    /// The log of the running agent.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a command on this folder.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).arg("--dir").arg(self.dir()).env_remove("MUSTER_TOKEN");
        command.output().expect("muster-agent runs")
    }

    /// Runs `enroll` at this server, with its CA file and further arguments.
    pub fn enroll(&self, server: &Server, device: &str, arguments: &[&str]) -> Output {
        let url = url(server);
        let ca_file = server.ca_file().display().to_string();
        let fixed = ["enroll", "--server", &url, "--ca", &ca_file, "--device", device];
        self.command(&[&fixed, arguments].concat())
    }

    /// Starts `enroll` at this server; it may be killed.
    pub fn start_to_enroll(&mut self, server: &Server, device: &str, token: &str) {
        let mut command = Command::new(program());
        command.args(["enroll", "--server", &url(server), "--device", device, "--token", token]);
        command.arg("--ca").arg(server.ca_file()).arg("--dir").arg(self.dir());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("muster-agent runs"));
    }

    /// Enrolls by a new token, which must succeed.
    pub fn enrolled(server: &Server, device: &str, arguments: &[&str]) -> Self {
        let agent = Self::new();
        let token = server.token(device);
        let output = agent.enroll(server, device, &[&["--token", &token], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        agent
    }

    /// Adds lines to the configuration.
    pub fn configure(&self, lines: &str) {
        let written = std::fs::read_to_string(self.config()).expect("a configuration");
        std::fs::write(self.config(), format!("{written}\n{lines}\n")).expect("written");
    }

    /// Starts `run`; it may not be ready yet.
    pub fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        let mut command = Command::new(program());
        command.arg("run").arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        self.child = Some(command.spawn().expect("muster-agent runs"));
    }

    /// Ends it as a power cut would, without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Sends it a signal, by the signal's name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs").success()
        );
    }

    /// Waits until it ends, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().expect("it ends").code()
    }

    /// Asks the running agent over its socket to renew; `None` when it can't be reached or goes away.
    pub fn ask_to_renew(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.dir().join("control.sock")).ok()?;
        stream.write_all(b"renew\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// What `status --json` says.
    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Looks at the status again and again until it is so.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not in time: {what}: {status}\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// What is in both slots; a damaged one fails the test.
    pub fn slots(&self) -> Vec<Content> {
        let look = |slot| store::look(&self.dir(), slot).expect("readable");
        let found = muster_agent::enroll::SLOTS.map(look);
        let whole = found.into_iter().filter_map(|found| match found {
            Found::Whole(content) => Some(content),
            Found::Empty => None,
            Found::Damaged(damage) => panic!("a damaged slot: {damage}"),
        });
        whole.collect()
    }

    /// The identities in the slots, the one in use first. Each has been checked to fit its key.
    pub fn identities(&self, server: &Server) -> Vec<Identity> {
        let roots = TrustRoots::from_file(&server.ca_file()).expect("a CA file");
        let slots = self.slots();
        let mut identities: Vec<_> =
            slots.iter().filter_map(|content| Identity::from_content(content, &roots)).collect();
        identities.sort_by_key(|identity| identity.generation);
        identities
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the server's EST is, by a name that its certificate has.
pub fn url(server: &Server) -> String {
    format!("https://localhost:{}", server.est_address().port())
}
