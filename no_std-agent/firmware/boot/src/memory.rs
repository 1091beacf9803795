//! The memory of a device, as large as the servers' answers and two identities need.

use muster_firmware::{https, mqtt};
use muster_nostd_agent::device::DeviceMemory;
use muster_nostd_agent::tls::TlsMemory;
use muster_proto::enrollment::Memory;

/// All of it, in one place that outlives the device.
pub(crate) struct Pool {
    est: [u8; 2560],
    authorities: [u8; 1536],
    request: [u8; 512],
    current: [u8; CHAIN_BYTES],
    candidate: [u8; CHAIN_BYTES],
    tls_receive: [u8; 2816],
    tls_send: [u8; 800],
    scratch: [u8; 1984],
    inbox: [u8; INBOX_BYTES],
    tcp_receive: [u8; 2048],
    tcp_send: [u8; 1536],
}

/// The same, for its users.
pub(crate) struct Lent<'m> {
    pub(crate) device: DeviceMemory<'m>,
    pub(crate) inbox: &'m mut [u8],
    pub(crate) tcp_receive: &'m mut [u8],
    pub(crate) tcp_send: &'m mut [u8],
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Self {
            est: [0; _],
            authorities: [0; _],
            request: [0; _],
            current: [0; _],
            candidate: [0; _],
            tls_receive: [0; _],
            tls_send: [0; _],
            scratch: [0; _],
            inbox: [0; _],
            tcp_receive: [0; _],
            tcp_send: [0; _],
        }
    }

    pub(crate) const fn lend(&mut self) -> Lent<'_> {
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
            inbox: &mut self.inbox,
            tcp_receive: &mut self.tcp_receive,
            tcp_send: &mut self.tcp_send,
        }
    }
}

/// A leaf and one intermediate.
const CHAIN_BYTES: usize = 1536;
const INBOX_BYTES: usize =
    if mqtt::MEMORY_BYTES > https::MEMORY_BYTES { mqtt::MEMORY_BYTES } else { https::MEMORY_BYTES };
