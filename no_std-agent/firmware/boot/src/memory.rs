//! The memory of a device, as large as a server's records and two certificates need.

use muster_nostd_agent::device::DeviceMemory;
use muster_nostd_agent::tls::TlsMemory;
use muster_proto::enrollment::Memory;

/// All of it, in one place that outlives the device.
#[derive(Debug)]
pub struct Pool {
    authorities: [u8; 2048],
    request: [u8; 512],
    current: [u8; LEAF_BYTES],
    candidate: [u8; LEAF_BYTES],
    tls_receive: [u8; 2816],
    tls_send: [u8; TLS_SEND_BYTES],
    tcp_receive: [u8; TCP_WINDOW_BYTES],
    tcp_send: [u8; 768],
}

/// The same, for its users.
#[derive(Debug)]
pub struct Lent<'m> {
    /// Of the EST machine and TLS.
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
            authorities: [0; _],
            request: [0; _],
            current: [0; _],
            candidate: [0; _],
            tls_receive: [0; _],
            tls_send: [0; _],
            tcp_receive: [0; _],
            tcp_send: [0; _],
        }
    }

    /// Lends all of it.
    pub const fn lend(&mut self) -> Lent<'_> {
        Lent {
            device: DeviceMemory {
                machine: Memory {
                    authorities: &mut self.authorities,
                    request: &mut self.request,
                    current: &mut self.current,
                    candidate: &mut self.candidate,
                },
                tls: TlsMemory { receive: &mut self.tls_receive, send: &mut self.tls_send },
            },
            tcp_receive: &mut self.tcp_receive,
            tcp_send: &mut self.tcp_send,
        }
    }
}

/// What a peer may send before it was read: half of the longest record, so that one takes few turns.
pub const TCP_WINDOW_BYTES: usize = 1024;
/// The longest record to a server: most of it is the certificate that is presented.
const TLS_SEND_BYTES: usize = 1124;
/// The longest certificate that can be presented.
const LEAF_BYTES: usize = TLS_SEND_BYTES - 100;
