//! What a service tells systemd (sd_notify(3)), without a systemd.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Listens in the place of systemd.
pub struct Systemd {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Systemd {
    /// With its socket in this folder.
    pub fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        Self { path, socket }
    }

    /// Starts a service that is to give a sign of life every 200 ms.
    pub fn start(&self, command: &mut Command) -> Child {
        let told = command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "200000");
        told.spawn().expect("the service runs")
    }

    /// Waits for a message that holds this.
    pub fn hear(&self, state: &str) {
        let mut buffer = [0; 256];
        loop {
            let len = self.socket.recv(&mut buffer).expect("a message in time");
            if String::from_utf8_lossy(&buffer[..len]).contains(state) {
                return;
            }
        }
    }

    /// What every service says of a start, a reload and an end.
    pub fn hears_a_life(&self, mut service: Child) {
        let pid = service.id().to_string();
        let signal = |name: &str| {
            assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
        };
        self.hear("READY=1");
        self.hear("WATCHDOG=1");
        signal("-HUP");
        self.hear("RELOADING=1\nMONOTONIC_USEC=");
        self.hear("READY=1");
        signal("-TERM");
        self.hear("STOPPING=1");
        assert_eq!(service.wait().expect("it ends").code(), Some(0));
    }
}
