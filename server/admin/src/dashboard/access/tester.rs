//! The tester: a certificate, a hostname, and what is asked for there; the verdict, and what it rests on.

use axum::extract::Query;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::super::audit::sentence;
use super::super::inside::{Problem, segment};
use super::super::layout::{choice, code, page};
use super::super::visit::Visit;

const PROTOCOLS: &[&str] = &["https", "mqtt"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const PACKETS: &[&str] = &["publish", "subscribe", "deliver"];

/// What a person filled in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::dashboard) struct Asked {
    host: String,
    protocol: String,
    certificate: String,
    pem: String,
    source: String,
    method: String,
    path: String,
    client_id: String,
    packet: String,
    topic: String,
}

impl Asked {
    fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
        if text.is_empty() { default } else { text }
    }

    /// The question that is meant: fields of the other protocol are left out.
    fn pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs = vec![
            ("host", self.host.trim()),
            ("protocol", Self::or(&self.protocol, "https")),
            ("certificate", self.certificate.trim()),
            ("pem", self.pem.trim()),
            ("source", self.source.trim()),
        ];
        if self.protocol == "mqtt" {
            pairs.extend([("client_id", self.client_id.trim()), ("topic", self.topic.trim())]);
            pairs.extend((!self.topic.is_empty()).then_some(("packet", Self::or(&self.packet, "publish"))));
        } else {
            pairs.extend([("method", self.method.as_str()), ("path", self.path.trim())]);
        }
        pairs
    }
}

/// The form, with what was filled in before.
pub(super) fn form(asked: &Asked) -> Markup {
    html! {
        section.card #test {
            h2 { "Would it get in, and why?" }
            form.fields method="get" action="/access/test" hx-get="/access/test" hx-target="#verdict"
                hx-select="#verdict" hx-swap="outerHTML" {
                label { "Hostname " input name="host" required value=(asked.host) placeholder="api.example.com" autocomplete="off"; }
                (choice("protocol", "Protocol", PROTOCOLS, Asked::or(&asked.protocol, "https")))
                label { "Device, serial or certificate id; empty for none "
                    input name="certificate" value=(asked.certificate) autocomplete="off"; }
                label { "Source address " input name="source" value=(asked.source) placeholder="127.0.0.1" autocomplete="off"; }
                fieldset {
                    legend { "HTTPS" }
                    (choice("method", "Method", METHODS, Asked::or(&asked.method, "GET")))
                    label { "Path " input name="path" value=(asked.path) placeholder="/" autocomplete="off"; }
                }
                fieldset {
                    legend { "MQTT" }
                    label { "Client id " input name="client_id" value=(asked.client_id) autocomplete="off"; }
                    (choice("packet", "Packet", PACKETS, Asked::or(&asked.packet, "publish")))
                    label { "Topic or filter; empty for CONNECT only "
                        input name="topic" value=(asked.topic) autocomplete="off"; }
                }
                details { summary { "Paste a certificate instead" }
                    label for="pem" { "PEM, with the chain that would be sent" }
                    textarea #pem name="pem" rows="4" autocomplete="off" { (asked.pem) }
                }
                button.primary type="submit" { "Test" }
            }
            div #verdict role="status" {}
        }
    }
}

#[derive(Debug, Deserialize)]
struct Verdict {
    admitted: bool,
    reason: Option<String>,
    message: String,
    device: Option<String>,
    rule: Option<Rule>,
    noted: Vec<Rule>,
    application: Option<Value>,
    policy: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    number: u32,
    expression: String,
    action: String,
}

/// `GET /access/test`
pub(in crate::dashboard) async fn test(visit: Visit, Query(asked): Query<Asked>) -> Result<Markup, Problem> {
    let outcome = visit.ask::<Verdict>("/access_test", &asked.pairs()).await;
    let content = html! {
        div #verdict role="status" {
            @match &outcome {
                Ok(verdict) => (shown(verdict)),
                Err(problem) => p.flash.failed { (problem.message) },
            }
        }
        (form(&asked))
        p { a href="/access" { "All access rules" } }
    };
    Ok(page(&visit, "Would it get in, and why?", content))
}

fn shown(verdict: &Verdict) -> Markup {
    let text = |value: &Option<Value>, name: &str| {
        value.as_ref().and_then(|value| value.get(name)?.as_str().map(str::to_owned))
    };
    html! {
        p {
            @match &verdict.reason {
                None => span class="state good" { "gets in" },
                Some(reason) => { span class="state bad" { "refused" } " " (sentence(reason)) },
            }
        }
        p { (verdict.message) }
        ul {
            @match &verdict.device {
                Some(device) => li { "It is identified as " a href={"/devices/" (segment(device))} { (device) } "." },
                None => li { "It has no identity." },
            }
            @if let Some(rule) = &verdict.rule {
                li { "Rule " (rule.number) ", " (rule.action) ": " (code(&rule.expression)) }
            }
            @for rule in &verdict.noted { li { "Logged by rule " (rule.number) ": " (code(&rule.expression)) } }
            @if let Some(domain) = text(&verdict.application, "domain") { li { "Application at " (domain) } }
            @if let Some(name) = text(&verdict.policy, "name") { li { "Policy " (name) } }
            @if verdict.admitted && verdict.rule.is_none() && verdict.application.is_none() {
                li { "No rule and no application applies." }
            }
        }
    }
}
