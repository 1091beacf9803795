//! What a client asks for in CONNECT, and what it is granted.

use tokio::time::Duration;

use crate::config::Quotas;
use crate::wire::Version;
use crate::wire::connect::{Connect, Granted};

/// What a connection was granted.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) version: Version,
    pub(super) expiry_s: u32,
    pub(super) max_expiry_s: u32,
    /// One and a half times the keep alive (MQTT 5 §3.1.2.10); none when it is zero.
    pub(super) silence: Option<Duration>,
    pub(super) keep_alive_s: u16,
    pub(super) max_packet_bytes: usize,
    pub(super) max_aliases: u16,
}

impl Terms {
    pub(super) fn of(connect: &Connect, quotas: &Quotas) -> Self {
        let asked_s = match connect.version {
            Version::V5 => connect.session_expiry_s,
            Version::V31 | Version::V311 if connect.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        let keep_alive_s = match (quotas.keep_alive_s, connect.keep_alive_s, connect.version) {
            (most, asked, Version::V5) if most > 0 && (asked == 0 || asked > most) => most,
            // MQTT 3.1.1 has no way to tell the client, which may then not be held to it.
            (_, asked, _) => asked,
        };
        let silence = Duration::from_millis(u64::from(keep_alive_s).saturating_mul(1500));
        Self {
            version: connect.version,
            expiry_s: asked_s.min(quotas.session_expiry_s),
            max_expiry_s: quotas.session_expiry_s,
            silence: (keep_alive_s > 0).then_some(silence),
            keep_alive_s,
            max_packet_bytes: usize::try_from(connect.maximum_packet_size).unwrap_or(usize::MAX),
            max_aliases: connect.topic_alias_maximum.min(quotas.topic_aliases),
        }
    }

    pub(super) fn granted(&self, connect: &Connect, quotas: &Quotas) -> Granted {
        Granted {
            session_present: false,
            session_expiry_s: (self.expiry_s != connect.session_expiry_s).then_some(self.expiry_s),
            receive_maximum: quotas.inflight,
            maximum_packet_size: quotas.packet_bytes,
            topic_alias_maximum: quotas.topic_aliases,
            assigned_client_id: None,
            max_qos: (quotas.max_qos < 2).then_some(quotas.max_qos),
            has_no_retained: quotas.retained == 0,
            has_no_shared: false,
            server_keep_alive_s: (self.keep_alive_s != connect.keep_alive_s).then_some(self.keep_alive_s),
        }
    }
}
