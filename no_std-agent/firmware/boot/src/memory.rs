//! The memory of a device, as large as the servers' answers and two identities need.

use muster_firmware::device::INBOX_BYTES;
use muster_nostd_agent::device::DeviceMemory;
use muster_nostd_agent::tls::TlsMemory;
use muster_proto::enrollment::Memory;

/// All of it, in one place that outlives the device.
#[derive(Debug)]
pub struct Pool {
    est: [u8; 2560],
    authorities: [u8; 1536],
    request: [u8; 512],
    current: [u8; CHAIN_BYTES],
    candidate: [u8; CHAIN_BYTES],
    tls_receive: [u8; 2816],
    tls_send: [u8; 800],
    scratch: [u8; ITEM_BYTES],
    tcp_receive: [u8; 1024],
    tcp_send: [u8; 768],
}

/// The same, for its users.
#[derive(Debug)]
pub struct Lent<'m> {
    /// Of the EST machine, TLS, the store and the application.
    pub device: DeviceMemory<'m>,
    /// What arrived and was not read.
    pub tcp_receive: &'m mut [u8],
    /// What was written and has not arrived.
    pub tcp_send: &'m mut [u8],
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    /// Zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            est: [0; _],
            authorities: [0; _],
            request: [0; _],
            current: [0; _],
            candidate: [0; _],
            tls_receive: [0; _],
            tls_send: [0; _],
            scratch: [0; _],
            tcp_receive: [0; _],
            tcp_send: [0; _],
        }
    }

    /// Lends all of it.
    pub const fn lend(&mut self) -> Lent<'_> {
        Lent {
            device: DeviceMemory {
                machine: Memory {
                    inbox: &mut self.est,
                    authorities: &mut self.authorities,
                    request: &mut self.request,
                    current: &mut self.current,
                    candidate: &mut self.candidate,
                },
                tls: TlsMemory { receive: &mut self.tls_receive, send: &mut self.tls_send },
                scratch: &mut self.scratch,
            },
            tcp_receive: &mut self.tcp_receive,
            tcp_send: &mut self.tcp_send,
        }
    }
}

/// A leaf and one intermediate.
const CHAIN_BYTES: usize = 1536;
/// The longest item of which two fit one page: a leaf and one intermediate, with the key.
const ITEM_BYTES: usize = 1984;
const _: () = assert!(INBOX_BYTES <= ITEM_BYTES, "the application has an item's memory");
