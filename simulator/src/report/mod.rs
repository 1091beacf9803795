//! What a run is told as: lines, an HTML page, a comparison.

mod chart;
mod hdr;
mod page;

pub(crate) use self::hdr::write_hdr_log;
pub(crate) use self::page::html;
use crate::cost::Costs;

/// CPU and memory in lines.
pub(crate) fn cost_lines(costs: &Costs) -> Vec<String> {
    let mut lines = Vec::new();
    let unit = costs.unit.name();
    if let Some(ms) = costs.client_ms() {
        lines.push(format!("client CPU   {ms:.3} ms per {unit}"));
    }
    if let Some(ms) = costs.server_ms() {
        let bounds = costs
            .server_bounds()
            .map(|bounds| format!(", {bounds:.2} x its cryptography"))
            .unwrap_or_default();
        lines.push(format!("server CPU   {ms:.3} ms per {unit}{bounds}"));
    }
    if let Some(bound) = costs.bound {
        lines.push(format!(
            "crypto bound {:.3} ms per full mTLS handshake (X25519 {:.3}, sign {:.3}, verify {:.3}, twice); issuing {:.3}",
            bound.handshake_ms, bound.agree_ms, bound.sign_ms, bound.verify_ms, bound.issue_ms
        ));
    }
    if let Some((bare, ratio)) = costs.bare.zip(costs.client_ratio()) {
        lines.push(format!(
            "client       {:.3} ms per handshake, a bare tokio-rustls client {:.3}: {ratio:.2} x ({} each)",
            bare.own_ms, bare.bare_ms, bare.handshakes
        ));
    }
    if let Some((idle, kib)) = costs.idle.zip(costs.idle_kib()) {
        lines.push(format!("idle         {kib:.1} KiB per connection ({} held)", idle.connections));
    }
    lines
}
