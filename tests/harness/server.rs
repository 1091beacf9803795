//! A `muster serve` of its own: made, started, killed, started again.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::Value;

use crate::est::{Est, Reply};

/// A port that the system chooses.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longest wait for the ready line.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The `muster` program, built once with this test's profile.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| crate::program::built("muster"))
}

/// A server and its data directory; both are gone when it is dropped.
pub struct Server {
    folder: tempfile::TempDir,
    child: Option<Child>,
    est: SocketAddr,
    admin: SocketAddr,
    https: SocketAddr,
    mqtt: SocketAddr,
    crl: Option<SocketAddr>,
}

impl Server {
    /// Makes an account with default settings and serves it.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// Makes an account, sets its configuration, and serves it.
    pub fn with_config(config: &str) -> Self {
        let mut server = Self::made(config);
        server.serve();
        server
    }

    /// Makes an account and sets its configuration; nothing serves it yet.
    pub fn made(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Self::at(folder);
        let dir = server.dir();
        let made = Command::new(program())
            .args(["init", &dir.display().to_string(), "--zone", "example.test", "--json"])
            .output()
            .expect("muster runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(server.initialised(), &made.stdout).expect("a note");
        std::fs::write(dir.join("muster.toml"), config).expect("a configuration");
        server
    }

    /// Another server of the same account as this one is now: an edge beside its CA. Neither must run.
    pub fn twin(&self) -> Self {
        let twin = Self::at(tempfile::tempdir().expect("a folder"));
        let copied = Command::new("cp").arg("-a").arg(self.dir()).arg(twin.dir()).status();
        assert!(copied.expect("cp runs").success());
        twin
    }

    const fn at(folder: tempfile::TempDir) -> Self {
        Self {
            folder,
            child: None,
            est: ANYWHERE,
            admin: ANYWHERE,
            https: ANYWHERE,
            mqtt: ANYWHERE,
            crl: None,
        }
    }

    /// Starts the server on its directory and waits until it is ready.
    pub fn serve(&mut self) {
        self.start_by(Command::new(program()), [ANYWHERE; 4]);
    }

    /// Starts the server again where it was: at the addresses that it had.
    pub fn serve_again(&mut self) {
        let addresses = [self.admin, self.est, self.https, self.mqtt];
        self.start_by(Command::new(program()), addresses);
    }

    /// The same for a server that meets its limit on file sizes as an error, as it would a full disk.
    ///
    /// The system sends a signal that kills, unless it is ignored from before the start.
    pub fn serve_without_signal_of_file_size(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(program());
        self.start_by(command, [ANYWHERE; 4]);
    }

    fn start_by(&mut self, mut command: Command, addresses: [SocketAddr; 4]) {
        command.arg("serve").arg(self.dir());
        let options = ["--listen-admin", "--listen-est", "--listen-https", "--listen-mqtt"];
        for (option, address) in options.iter().zip(addresses) {
            command.arg(option).arg(address.to_string());
        }
        let log = std::fs::File::create(self.log()).expect("a log");
        command.stdout(Stdio::piped()).stderr(log).stdin(Stdio::null());
        let mut child = command.spawn().expect("muster runs");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, line) = sync_channel(1);
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stdout).read_line(&mut text);
            let _ = sender.send(text);
        });
        let line = line.recv_timeout(READY_TIMEOUT).expect("a ready line in time");
        let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {}", log()));
        assert_eq!(ready["event"], "ready");
        let address = |name: &str, scheme: &str| -> SocketAddr {
            ready[name].as_str().and_then(|base| base.strip_prefix(scheme)).expect(name).parse().expect(name)
        };
        self.est = address("est", "https://");
        self.admin = address("admin", "http://");
        self.https = address("edge_https", "");
        self.mqtt = address("edge_mqtt", "");
        self.crl = ready["crl"].is_string().then(|| address("crl", "http://"));
        self.child = Some(child);
    }

    /// Base of the API.
    pub fn api_url(&self) -> String {
        format!("http://{}/client/v4", self.admin)
    }

    /// The account's id, and the token that `init` made.
    pub fn account_and_token(&self) -> (String, String) {
        let made = std::fs::read_to_string(self.initialised()).expect("what `init` said");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        (text("account_id"), text("admin_token"))
    }

    fn initialised(&self) -> PathBuf {
        self.folder.path().join("initialised.json")
    }

    /// Ends it as a power cut would, without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Asks it to stop, and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Sends it a signal, by the signal's name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it ends, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().expect("it ends").code()
    }

    /// Sets a limit of the running process: `nofile` or `fsize`, with a number or `unlimited`.
    pub fn limit(&self, what: &str, most: &str) {
        // The trailing colon leaves the hard limit, so that the soft one can be raised again.
        let set = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string(), &format!("--{what}={most}:")])
            .status();
        assert!(set.expect("prlimit runs").success());
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The data directory.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What clients trust, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// The log of the running server.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A folder for a test's own files.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Where EST is.
    pub const fn est_address(&self) -> SocketAddr {
        self.est
    }

    /// Where the admin API is.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A client of a hostname at the HTTPS edge, without a certificate.
    pub fn door(&self, host: &'static str) -> Est {
        Est::new(self.https, &self.ca_file()).named(host)
    }

    /// Where the HTTPS edge is.
    pub const fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// Where CRLs are served, if the configuration says so.
    pub const fn crl_address(&self) -> Option<SocketAddr> {
        self.crl
    }

    /// Where the MQTT edge is.
    pub const fn mqtt_address(&self) -> SocketAddr {
        self.mqtt
    }

    /// An EST client without a certificate.
    pub fn est(&self) -> Est {
        Est::new(self.est, &self.ca_file())
    }

    /// Runs a `muster` command on this account; any exit code.
    pub fn try_muster(&self, args: &[&str]) -> Output {
        Command::new(program()).arg("-C").arg(self.dir()).args(args).output().expect("muster runs")
    }

    /// Runs a `muster` command that must succeed; its standard output without the final newline.
    pub fn muster(&self, args: &[&str]) -> String {
        let output = self.try_muster(args);
        assert!(output.status.success(), "muster {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// Runs a `muster` command with `--json`.
    pub fn muster_json(&self, args: &[&str]) -> Value {
        let text = self.muster(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }

    /// A new one-time token for a device.
    pub fn token(&self, device: &str) -> String {
        self.muster(&["token", "new", "--device", device])
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.ask_admin("GET", "/metrics", &[], "").text()
    }

    /// One request to the admin listener, on a connection of its own.
    pub fn ask_admin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let stream = std::net::TcpStream::connect(self.admin).expect("connects");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        crate::est::exchange(stream, request.as_bytes()).expect("an answer")
    }

    /// Calls the API with the token that `init` made; `path` is below the account's own objects. Hands out
    /// the status and the envelope.
    pub fn api(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut stream = self.begin_api(method, path, headers, body);
        let reply = crate::est::read_reply(&mut stream).expect("an answer");
        let text = reply.text();
        (reply.status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")))
    }

    /// Sends a request to the API, and leaves the answer to be read.
    pub fn begin_api(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::net::TcpStream {
        use std::io::Write as _;
        let (account, token) = self.account_and_token();
        let mut request = format!(
            "{method} /client/v4/accounts/{account}/muster{path} HTTP/1.1\r\nHost: localhost\r\n\
             Connection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        let mut stream = std::net::TcpStream::connect(self.admin).expect("connects");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
