//! A visit that does not happen: the same steps, without a connection.

use std::sync::Arc;

use http::Request;
use http::uri::Authority;
use muster_policy::gate::Judgement;
use muster_policy::host::{HostMode, Protocol};
use muster_policy::name::Hostname;
use muster_policy::reason::Reason;
use muster_policy::rehearsal::{Rehearsal, Rehearsed, Wish};
use rustls::pki_types::CertificateDer;

use crate::hosts::Door;
use crate::http::requests::Asked;
use crate::listener::Shared;
use crate::tls::verifier::Verified;

impl Shared {
    /// What would become of a visit now. Nothing is counted.
    pub(crate) fn rehearse(&self, rehearsal: &Rehearsal) -> Rehearsed {
        let doors = self.state.doors();
        let Some(door) = doors.resolve(&rehearsal.host) else {
            return Rehearsed::refused(Reason::HostUnknown, None);
        };
        let verified = match self.shown(door, rehearsal) {
            Ok(verified) => verified,
            Err(reason) => return Rehearsed::refused(reason, None),
        };
        let holder = verified.as_ref().map(|verified| self.holder(verified, door));
        let device = holder.as_ref().map(|holder| holder.device.clone());
        let protocol = match rehearsal.wish {
            Wish::Https { .. } => Protocol::Https,
            Wish::Mqtt { .. } => Protocol::Mqtt,
        };
        let permit = match self.state.access(door, holder.as_ref(), protocol) {
            Ok(permit) => permit,
            Err(reason) => return Rehearsed::refused(reason, device),
        };
        let Some(asked) = asked(rehearsal, verified.as_ref()) else {
            return Rehearsed::refused(Reason::RequestMalformed, device);
        };
        let of_packet = || match &rehearsal.wish {
            Wish::Mqtt { packet: Some(packet), .. } => {
                Some(asked.judge_packet(door, &permit, &packet.asked()))
            }
            Wish::Mqtt { .. } | Wish::Https { .. } => None,
        };
        let of_visit = asked.judgement(door, &permit);
        let lets_in = |judgement: &Judgement| judgement.verdict.is_ok();
        let judgement = match of_visit.filter(|judgement| !lets_in(judgement) || of_packet().is_none()) {
            Some(judgement) => Some(judgement),
            None => of_packet(),
        };
        let missing = protocol == Protocol::Https && door.origins.are_missing();
        let verdict = judgement.as_ref().map_or(Ok(()), |judgement| judgement.verdict);
        let verdict = verdict.and(if missing { Err(Reason::OriginMissing) } else { Ok(()) });
        Rehearsed { verdict, device, judgement }
    }

    /// Who comes with these certificates, as in the handshake.
    fn shown(&self, door: &Door, rehearsal: &Rehearsal) -> Result<Option<Arc<Verified>>, Reason> {
        if door.rule.mode == HostMode::Off {
            return Ok(None);
        }
        let chain: Vec<_> = rehearsal.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        match chain.split_first() {
            Some((leaf, path)) => {
                self.examiner.examine(&door.anchors, leaf, path, self.state.now()).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// None for what no request could be.
fn asked(rehearsal: &Rehearsal, verified: Option<&Arc<Verified>>) -> Option<Asked> {
    let verified = verified.cloned();
    match &rehearsal.wish {
        Wish::Https { method, target, user_agent } => {
            let authority: Authority = rehearsal.host.parse().ok()?;
            let request = Request::builder().method(method.as_str()).uri(target.as_str());
            let request = request.header(http::header::USER_AGENT, user_agent).body(()).ok()?;
            Some(Asked::of(&request, &authority, rehearsal.source, verified, Arc::default()))
        }
        Wish::Mqtt { connect, .. } => {
            let name: Hostname = rehearsal.host.parse().ok()?;
            let asked = Asked::of_mqtt(&name, rehearsal.source, verified);
            asked.connect.set(Box::new(connect.clone())).ok()?;
            Some(asked)
        }
    }
}
