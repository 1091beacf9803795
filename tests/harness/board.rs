//! The firmware in the emulator: a device whose flash is a file, and whose console the test reads.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::Server;

/// The longest that a boot may take to what is waited for, on a machine that does other things too.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines that wait to be read; then the emulator waits.
const LINES: usize = 256;
/// The host's loopback, as a guest sees it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The exit code after a power cut.
const POWER_CUT: i32 = 75;

/// One device: what the factory made for it, and the flash that stays.
pub struct Board {
    machine: &'static str,
    firmware: PathBuf,
    folder: tempfile::TempDir,
    device: String,
}

impl Board {
    /// A device on this machine; nothing is on its flash.
    pub fn new(machine: &'static str, device: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { machine, firmware: firmware(machine), folder, device: device.to_owned() }
    }

    /// Makes the device's image with a new token, and writes it to the flash.
    pub fn provision(&self, server: &Server, est: SocketAddr, options: &[&str]) {
        let list = self.folder.path().join("devices.csv");
        std::fs::write(&list, format!("id\n{}\n", self.device)).expect("written");
        let folder = self.folder.path();
        let est = ["--est", &format!("https://localhost:{}", est.port())];
        // An option that is given twice is refused.
        let est = if options.contains(&"--est") { &[][..] } else { &est[..] };
        let usual = [
            "factory",
            "--devices",
            &list.display().to_string(),
            "--board",
            self.machine,
            "--out",
            &folder.display().to_string(),
            "--host",
            &format!("localhost={HOST}"),
        ];
        server.muster(&[&usual[..], est, options].concat());
        server.muster(&[
            "flash",
            "--board",
            self.machine,
            "--device",
            &self.device,
            "--images",
            &folder.display().to_string(),
            "--firmware",
            &self.firmware.display().to_string(),
            "--no-boot",
        ]);
    }

    /// Where its flash is.
    pub fn flash(&self) -> PathBuf {
        self.folder.path().join(format!("{}.flash", self.device))
    }

    /// The image of the firmware.
    pub fn firmware(&self) -> &Path {
        &self.firmware
    }

    /// Switches it on.
    pub fn boot(&self, arguments: &[&str]) -> Boot {
        self.boot_in(arguments, &[])
    }

    /// Switches it on in an emulator where an instruction takes a nanosecond, so that time counts instructions.
    pub fn boot_counted(&self, arguments: &[&str]) -> Boot {
        self.boot_in(arguments, &["-icount", "shift=0"])
    }

    fn boot_in(&self, arguments: &[&str], emulator: &[&str]) -> Boot {
        let arguments: String = arguments.iter().map(|argument| format!(",arg={argument}")).collect();
        let mut child = Command::new("qemu-system-arm")
            .args(["-machine", self.machine, "-nographic", "-monitor", "none", "-serial", "none"])
            .args(["-nic", "user,model=lan9118", "-semihosting-config"])
            .arg(format!(
                "enable=on,target=native,arg=muster,arg=flash={}{arguments}",
                self.flash().display()
            ))
            .args(emulator)
            .arg("-kernel")
            .arg(&self.firmware)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-arm runs");
        let console = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in console.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Boot { child, lines, log: Vec::new(), is_over: false }
    }
}

/// The image of a board's firmware.
#[expect(clippy::disallowed_methods, reason = "tests/firmware.sh has built the images and says where")]
pub fn firmware(board: &str) -> PathBuf {
    let variable = format!("MUSTER_FIRMWARE_{}", board.replace('-', "_").to_uppercase());
    std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} names no firmware")).into()
}

/// A device that runs. It is cut off from power when dropped.
pub struct Boot {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    is_over: bool,
}

impl Boot {
    /// Waits for the next line that contains `text`, and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.next_with(text).unwrap_or_else(|| panic!("no `{text}` in time:\n{}", self.log.join("\n")))
    }

    /// The next line that contains `text`; none when the device stopped or the time is over.
    fn next_with(&mut self, text: &str) -> Option<String> {
        let until = Instant::now() + BOOT_TIMEOUT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return Some(line);
                    }
                }
                Err(ended) => {
                    self.is_over = ended == RecvTimeoutError::Disconnected;
                    return None;
                }
            }
        }
    }

    /// Whether it came to a line with `text`; `false` when its power was cut before.
    pub fn reaches(&mut self, text: &str) -> bool {
        if self.next_with(text).is_some() {
            return true;
        }
        // Its console was closed, or the time is over: then it is ended here, and that is no power cut.
        if !self.is_over {
            self.child.kill().expect("it runs");
        }
        let code = self.child.wait().expect("it ends").code();
        assert_eq!(code, Some(POWER_CUT), "neither `{text}` nor a power cut:\n{}", self.log.join("\n"));
        false
    }

    /// What it has said so far, as far as it was waited for.
    pub fn log(&self) -> String {
        self.log.join("\n")
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
