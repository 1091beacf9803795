//! The requests of a connection that are under way, each with what it was let in by. MQTT without a WebSocket
//! is one too, whose CONNECT stands for the head.
//!
//! A request is entered before it is judged, and stays for as long as its answer, its WebSocket or its MQTT
//! runs. A change of rules or of Access judges it again, so that nothing that was begun outlives the right to
//! begin it. What is kept is a copy: the head that it came in would hold a read buffer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::header::{HeaderMap, USER_AGENT};
use http::uri::Authority;
use http::{Method, Request};
use muster_policy::access::Permit;
use muster_policy::expression::{Field, Value};
use muster_policy::gate::{self, Judgement, Passed};
use muster_policy::mqtt;
use muster_policy::name::Hostname;
use muster_policy::reason::Reason;

use super::facts::Facts;
use super::headers;
use crate::hosts::Door;
use crate::tls::verifier::Verified;

/// What a request asked for, and who asked.
pub(crate) struct Asked {
    /// The hostname, in its normal form.
    pub(crate) host: Box<str>,
    /// The head of the request; none of MQTT that came without one.
    pub(crate) head: Option<Head>,
    /// The CONNECT of its MQTT, when that has come.
    pub(crate) connect: OnceLock<Box<mqtt::Connect>>,
    pub(crate) source: IpAddr,
    verified: Option<Arc<Verified>>,
    /// The headers that speak of the holder; of the whole connection, made by the first that needs them.
    identity: Arc<OnceLock<HeaderMap>>,
}

/// The head of a request.
pub(crate) struct Head {
    pub(crate) method: Method,
    /// As it was sent.
    pub(crate) path: Box<str>,
    pub(crate) query: Option<Box<str>>,
    pub(crate) user_agent: Box<str>,
}

impl Asked {
    pub(crate) fn of<B>(
        request: &Request<B>,
        authority: &Authority,
        source: IpAddr,
        verified: Option<Arc<Verified>>,
        identity: Arc<OnceLock<HeaderMap>>,
    ) -> Self {
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            host: authority.host().trim_end_matches('.').to_ascii_lowercase().into(),
            head: Some(Head {
                method: request.method().clone(),
                path: request.uri().path().into(),
                query: request.uri().query().map(Box::from),
                user_agent: user_agent.unwrap_or_default().into(),
            }),
            connect: OnceLock::new(),
            source: source.to_canonical(),
            verified,
            identity,
        }
    }

    /// MQTT that came without a request, by this name.
    pub(crate) fn of_mqtt(name: &Hostname, source: IpAddr, verified: Option<Arc<Verified>>) -> Self {
        Self {
            host: name.as_str().into(),
            head: None,
            connect: OnceLock::new(),
            source: source.to_canonical(),
            verified,
            identity: Arc::default(),
        }
    }

    /// Rules and Access, after the certificate. Before anything was asked there is nothing to judge.
    ///
    /// # Errors
    /// [`Reason::RequestMalformed`], [`Reason::RuleBlocked`], [`Reason::AccessDenied`].
    pub(crate) fn judge(&self, door: &Door, permit: &Permit<'_>) -> Result<Passed, Reason> {
        match self.judgement(door, permit) {
            Some(judgement) => judgement.passed(),
            None => Ok(Passed { noted: 0 }),
        }
    }

    /// The same, with what it rests on; none before anything was asked.
    pub(crate) fn judgement(&self, door: &Door, permit: &Permit<'_>) -> Option<Judgement> {
        let path = match (&self.head, self.connect.get()) {
            (Some(head), _) => &head.path,
            (None, Some(_)) => "/",
            (None, None) => return None,
        };
        let visit = gate::Visit {
            zone: door.rule.zone,
            host: &self.host,
            path,
            holder: permit.holder(),
            source: self.source,
        };
        let connect = self.connect.get().map(|connect| mqtt::Asked::Connect(connect));
        let judgement =
            self.with_facts(permit, connect.as_ref(), |value_of| door.gate.judge(&visit, value_of));
        // The will is a publication, and nobody is there to be told when it is one.
        let will = self.connect.get().and_then(|connect| connect.will.as_ref());
        match will.filter(|_| judgement.verdict.is_ok()) {
            Some(will) => {
                let of_will = self.judge_packet(door, permit, &mqtt::Asked::Publish(will.message()));
                Some(if of_will.verdict.is_err() { of_will } else { judgement })
            }
            None => Some(judgement),
        }
    }

    /// Rules, of a packet after CONNECT.
    pub(crate) fn judge_packet(
        &self,
        door: &Door,
        permit: &Permit<'_>,
        packet: &mqtt::Asked<'_>,
    ) -> Judgement {
        self.with_facts(permit, Some(packet), |value_of| door.gate.judge_packet(door.rule.zone, value_of))
    }

    fn with_facts<T>(
        &self,
        permit: &Permit<'_>,
        packet: Option<&mqtt::Asked<'_>>,
        judge: impl for<'v> FnOnce(&dyn Fn(Field) -> Value<'v>) -> T,
    ) -> T {
        // Made only when a rule asks.
        let nobody = OnceLock::new();
        let value_of = |field| {
            let identity = self.identity(permit).unwrap_or_else(|| nobody.get_or_init(headers::anonymous));
            Facts::of(self, identity, packet).value(field)
        };
        judge(&value_of)
    }

    /// What is said of the holder, if there is one that the rule asks for.
    pub(crate) fn identity(&self, permit: &Permit<'_>) -> Option<&HeaderMap> {
        match (permit.holder(), &self.verified) {
            (Some(_), Some(verified)) => Some(self.identity.get_or_init(|| headers::of_holder(verified))),
            _ => None,
        }
    }
}

/// The requests of one connection that are under way.
#[derive(Default)]
pub(crate) struct Requests(Mutex<Index>);

#[derive(Default)]
struct Index {
    last_id: u64,
    asked: BTreeMap<u64, Arc<Asked>>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Requests({} under way)", self.index().asked.len())
    }
}

impl Requests {
    /// Enters a request.
    pub(crate) fn enter(self: &Arc<Self>, asked: Arc<Asked>) -> UnderWay {
        let mut index = self.index();
        index.last_id += 1;
        let id = index.last_id;
        index.asked.insert(id, Arc::clone(&asked));
        UnderWay { requests: Arc::clone(self), id, asked }
    }

    /// All that are under way.
    pub(crate) fn all(&self) -> Vec<Arc<Asked>> {
        self.index().asked.values().cloned().collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place among those under way; given up when dropped.
pub(crate) struct UnderWay {
    requests: Arc<Requests>,
    id: u64,
    pub(crate) asked: Arc<Asked>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.requests.index().asked.remove(&self.id);
    }
}
