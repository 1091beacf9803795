//! The tester: what would become of a request or of an MQTT client at a hostname, and which rule or policy
//! says so. The edge of this process answers, by the steps that a visit takes; this file asks it, and gives
//! names to the places that it answers with.

pub(crate) mod labels;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use muster_policy::gate::Judgement;
use muster_policy::host::Protocol;
use muster_policy::identity::{AccountId, CertificateId, ZoneId};
use muster_policy::mqtt;
use muster_policy::name::DeviceId;
use muster_policy::reason::Reason;
use muster_policy::rehearsal::{Packet, PacketKind, Rehearsal, Rehearsed, Wish};
use muster_store::record::Certificate;
use muster_store::{Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::labels::{AppLabel, Labels, PolicyLabel, RuleLabel};
use crate::Api;
use crate::api::Outcome;
use crate::api::host_test;
use crate::envelope::Answer;
use crate::error::{ApiError, CODE_UNAVAILABLE};
use crate::request::{Account, Json, Query};

/// A chain of a dozen RSA-4096 certificates is below it.
const PEM_MAX_BYTES: usize = 64 << 10;
/// Longest of each text of a question.
const TEXT_MAX_BYTES: usize = 8 << 10;

/// The members of a question that a query may have.
pub(crate) const QUESTIONS: &[&str] = &[
    "host",
    "protocol",
    "certificate",
    "pem",
    "source",
    "method",
    "path",
    "user_agent",
    "client_id",
    "username",
    "version",
    "packet",
    "topic",
    "qos",
    "retain",
];

/// What is asked. Whoever comes without `certificate` and `pem` shows none.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Visit)]
pub(crate) struct Question {
    host: String,
    protocol: Option<Protocol>,
    /// The id or the serial of a certificate, or a device, whose newest certificate is meant.
    certificate: Option<String>,
    /// The certificate itself, with those that it would be sent with.
    pem: Option<String>,
    /// Where the visitor comes from; `127.0.0.1` when not given.
    #[schema(value_type = Option<String>)]
    source: Option<IpAddr>,
    method: Option<String>,
    /// With a query, if there is one.
    path: Option<String>,
    user_agent: Option<String>,
    client_id: Option<String>,
    username: Option<String>,
    /// `3.1.1` or `5`.
    version: Option<String>,
    packet: Option<PacketKind>,
    topic: Option<String>,
    qos: Option<u8>,
    retain: Option<bool>,
}

/// What would become of it.
#[derive(Serialize, ToSchema)]
#[schema(as = AccessVerdict)]
pub(crate) struct View {
    admitted: bool,
    reason: Option<Reason>,
    /// In one sentence, what decides.
    message: String,
    protocol: Protocol,
    /// Who would be known to come.
    device: Option<DeviceId>,
    certificate: Option<CertificateId>,
    /// The rule that blocks it, or that leaves out those after it.
    rule: Option<RuleLabel>,
    /// The rules that note it.
    noted: Vec<RuleLabel>,
    application: Option<AppLabel>,
    /// The policy of the application that means the visitor.
    policy: Option<PolicyLabel>,
}

/// What the ledger has of a question.
struct Known {
    certificate: Option<Certificate>,
    zone: Option<ZoneId>,
    labels: Labels,
}

/// `GET …/access_test`
pub(crate) async fn get(state: State<Arc<Api>>, account: Account, query: Query) -> Outcome {
    let text = |name: &str| query.get(name).map(str::to_owned).filter(|text| !text.is_empty());
    let question = Question {
        host: text("host").unwrap_or_default(),
        protocol: query.word("protocol")?,
        certificate: text("certificate"),
        pem: text("pem"),
        source: text("source").map(|_| query.parse("source")).transpose()?.flatten(),
        method: text("method"),
        path: text("path"),
        user_agent: text("user_agent"),
        client_id: text("client_id"),
        username: text("username"),
        version: text("version"),
        packet: text("packet").map(|_| query.word("packet")).transpose()?.flatten(),
        topic: text("topic"),
        qos: text("qos").map(|_| query.parse("qos")).transpose()?.flatten(),
        retain: text("retain").map(|_| query.parse("retain")).transpose()?.flatten(),
    };
    test(state, account, Json(question)).await
}

/// `POST …/access_test`
pub(crate) async fn test(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Json(question): Json<Question>,
) -> Outcome {
    let Some(rehearse) = api.hooks().rehearse.clone() else {
        let message = "there is no edge in this process to ask: ask a server with the role `edge`";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, CODE_UNAVAILABLE, message));
    };
    let mut rehearsal = question.read()?;
    let (host, named) = (rehearsal.host.clone(), question.certificate.clone());
    let known = api.read(move |reader| known(reader, account, &host, named.as_deref())).await?;
    if question.certificate.is_some() {
        let Some(certificate) = &known.certificate else {
            let message = "certificate: give the id or serial of one, or a device that has one";
            return Err(ApiError::argument("/certificate", message));
        };
        rehearsal.chain = vec![certificate.der.to_vec()];
    }
    let protocol = match rehearsal.wish {
        Wish::Https { .. } => Protocol::Https,
        Wish::Mqtt { .. } => Protocol::Mqtt,
    };
    let done = tokio::task::spawn_blocking(move || rehearse(&rehearsal)).await;
    Answer::one(&View::new(done.map_err(ApiError::internal)?, protocol, &known))
}

fn known(reader: &Reader, account: AccountId, host: &str, named: Option<&str>) -> Result<Known, Fault> {
    let certificate = match named {
        Some(named) => host_test::certificate(reader, account, named)?,
        None => None,
    };
    let zone = labels::zone_of(reader, account, host)?;
    Ok(Known { certificate, zone, labels: Labels::read(reader, account)? })
}

impl Question {
    /// What the edge is asked; the certificate of the ledger is not in it yet.
    fn read(&self) -> Result<Rehearsal, ApiError> {
        self.check_texts()?;
        if self.host.is_empty() {
            return Err(ApiError::argument("/host", "host: which hostname is meant?"));
        }
        if self.certificate.is_some() && self.pem.is_some() {
            return Err(ApiError::argument("/pem", "pem: give it, or `certificate`, and not both"));
        }
        let is_mqtt = match self.protocol {
            Some(protocol) => protocol == Protocol::Mqtt,
            None => self.client_id.is_some() || self.topic.is_some() || self.packet.is_some(),
        };
        Ok(Rehearsal {
            host: self.host.clone(),
            chain: self.chain()?,
            source: self.source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            wish: if is_mqtt { self.mqtt()? } else { self.https()? },
        })
    }

    fn check_texts(&self) -> Result<(), ApiError> {
        let texts = [
            ("host", Some(&self.host)),
            ("method", self.method.as_ref()),
            ("path", self.path.as_ref()),
            ("user_agent", self.user_agent.as_ref()),
            ("client_id", self.client_id.as_ref()),
            ("username", self.username.as_ref()),
            ("topic", self.topic.as_ref()),
        ];
        for (name, text) in texts {
            let sound = |text: &String| text.len() <= TEXT_MAX_BYTES && !text.chars().any(char::is_control);
            if !text.is_none_or(sound) {
                let message = format!("{name}: at most {TEXT_MAX_BYTES} bytes, without control characters");
                return Err(ApiError::argument(format!("/{name}"), message));
            }
        }
        Ok(())
    }

    fn chain(&self) -> Result<Vec<Vec<u8>>, ApiError> {
        let Some(text) = &self.pem else { return Ok(Vec::new()) };
        let wrong = |message: String| ApiError::argument("/pem", message);
        if text.len() > PEM_MAX_BYTES {
            return Err(wrong(format!("pem: at most {PEM_MAX_BYTES} bytes")));
        }
        let blocks = ::pem::parse_many(text).map_err(|error| wrong(format!("pem: {error}")))?;
        let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
        let chain: Vec<_> = certificates.map(::pem::Pem::into_contents).collect();
        if chain.is_empty() { Err(wrong("pem: there is no certificate in it".to_owned())) } else { Ok(chain) }
    }

    fn https(&self) -> Result<Wish, ApiError> {
        let target = self.path.clone().unwrap_or_else(|| "/".to_owned());
        let sound = target.starts_with('/') && target.parse::<http::Uri>().is_ok();
        if !sound {
            return Err(ApiError::argument("/path", "path: it begins with `/`, and has no spaces"));
        }
        let method = self.method.clone().unwrap_or_else(|| "GET".to_owned());
        if method.parse::<http::Method>().is_err() {
            return Err(ApiError::argument("/method", "method: such as GET"));
        }
        Ok(Wish::Https { method, target, user_agent: self.user_agent.clone().unwrap_or_default() })
    }

    fn mqtt(&self) -> Result<Wish, ApiError> {
        let version = match self.version.as_deref() {
            None | Some("5") => mqtt::Version::V5,
            Some("3.1.1") => mqtt::Version::V311,
            Some(_) => return Err(ApiError::argument("/version", "version: 3.1.1 or 5")),
        };
        let qos = self.qos.unwrap_or(0);
        if qos > 2 {
            return Err(ApiError::argument("/qos", "qos: 0, 1 or 2"));
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default().into_boxed_str();
        let (client_id, username) = (text(&self.client_id), text(&self.username));
        let connect = mqtt::Connect { client_id, username, version, will: None };
        let packet = self.topic.as_ref().map(|topic| Packet {
            kind: self.packet.unwrap_or(PacketKind::Publish),
            topic: topic.clone(),
            qos,
            retain: self.retain.unwrap_or(false),
        });
        Ok(Wish::Mqtt { connect, packet })
    }
}

impl View {
    fn new(rehearsed: Rehearsed, protocol: Protocol, known: &Known) -> Self {
        let Rehearsed { verdict, device, judgement } = rehearsed;
        let judgement = judgement.as_ref();
        let labels = &known.labels;
        let rule_at = |place: usize| labels.rule(known.zone?, place).cloned();
        let application = judgement.and_then(|judgement| labels.app(judgement.app?).cloned());
        let policy = match (judgement.and_then(|judgement| judgement.policy), &application) {
            (Some(place), Some(app)) => app.policies.get(place).cloned(),
            _ => None,
        };
        let rule = judgement.and_then(|judgement| rule_at(judgement.rule?));
        Self {
            admitted: verdict.is_ok(),
            reason: verdict.err(),
            message: message(verdict, judgement, rule.as_ref(), application.as_ref(), policy.as_ref()),
            protocol,
            device,
            certificate: known.certificate.as_ref().map(|certificate| certificate.id),
            rule,
            noted: judgement
                .iter()
                .flat_map(|found| &found.noted)
                .filter_map(|place| rule_at(*place))
                .collect(),
            application,
            policy,
        }
    }
}

fn message(
    verdict: Result<(), Reason>,
    judgement: Option<&Judgement>,
    rule: Option<&RuleLabel>,
    app: Option<&AppLabel>,
    policy: Option<&PolicyLabel>,
) -> String {
    match (verdict, rule, app, policy) {
        (Err(Reason::RuleBlocked), Some(rule), ..) => {
            format!("Rule {} of the zone blocks it: {}", rule.number, rule.expression)
        }
        (Err(Reason::AccessDenied), _, Some(app), Some(policy)) => {
            format!("The application at {} denies it by its policy \"{}\".", app.domain, policy.name)
        }
        (Err(Reason::AccessDenied), _, Some(app), None) => {
            format!(
                "No policy of the application at {} means this visitor, so nobody lets it in.",
                app.domain
            )
        }
        (Err(reason), ..) => reason.sentence().to_owned(),
        (Ok(()), _, Some(app), Some(policy)) => {
            format!("The application at {} lets it in by its policy \"{}\".", app.domain, policy.name)
        }
        (Ok(()), Some(rule), ..) => {
            format!(
                "Rule {} of the zone leaves out the rules after it, and nothing else keeps it out.",
                rule.number
            )
        }
        (Ok(()), ..) if judgement.is_some() => {
            "The hostname lets it in; no rule blocks it, and no application guards the place.".to_owned()
        }
        (Ok(()), ..) => "The hostname lets it in.".to_owned(),
    }
}
