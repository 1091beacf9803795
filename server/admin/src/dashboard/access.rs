//! Access rules: the rules of zones, applications with their policies and groups, and a tester that says who
//! would get in where, and by which of them.

mod tester;

use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::{Form, Sent};
use super::inside::{Problem, segment};
use super::layout::{button, choice, code, page, secret};
use super::visit::Visit;
pub(super) use tester::test;

const ACTIONS: &[&str] = &["block", "log", "skip"];
const DECISIONS: &[&str] = &["non_identity", "allow", "deny", "bypass"];
const CONDITIONS: &[&str] = &["certificate", "common_name", "ip", "group", "everyone"];
/// Objects on the page; an account that has more is seen through the API.
const SHOWN: &str = "200";
/// The phase of the rules.
const PHASE: &str = "http_request_firewall_custom";
/// How often a rule is added anew to a list that another has just made.
const TRIES_MAX: usize = 8;

#[derive(Debug, Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Ruleset {
    id: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    id: String,
    expression: String,
    action: String,
    description: String,
    enabled: bool,
}

#[derive(Debug, Deserialize)]
struct App {
    id: String,
    name: Option<String>,
    domain: String,
    policies: Vec<Policy>,
}

#[derive(Debug, Deserialize)]
struct Policy {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    decision: String,
    #[serde(flatten)]
    visitors: Visitors,
}

#[derive(Debug, Deserialize)]
struct Group {
    id: String,
    name: String,
    #[serde(flatten)]
    visitors: Visitors,
}

#[derive(Debug, Deserialize)]
struct Visitors {
    #[serde(default)]
    include: Vec<Value>,
    #[serde(default)]
    require: Vec<Value>,
    #[serde(default)]
    exclude: Vec<Value>,
}

/// `GET /access`
pub(super) async fn show(visit: Visit) -> Result<Markup, Problem> {
    let zones = visit.list_of_cloudflare::<Zone>("/zones", &[("per_page", SHOWN)]).await?.items;
    let mut rules = Vec::new();
    for zone in zones {
        let found = ruleset_of(&visit, &zone.id).await;
        rules.push((zone, found));
    }
    let base = format!("/accounts/{}/access", visit.account());
    let apps = visit.list_of_cloudflare::<App>(&format!("{base}/apps"), &[("per_page", SHOWN)]).await?.items;
    let policies =
        visit.list_of_cloudflare::<Policy>(&format!("{base}/policies"), &[("per_page", SHOWN)]).await?.items;
    let groups =
        visit.list_of_cloudflare::<Group>(&format!("{base}/groups"), &[("per_page", SHOWN)]).await?.items;
    let content = html! {
        p { "After the certificate, the zone's rules are applied to every request and every MQTT packet, in order; then the "
            "Access application of the hostname and path, if there is one. " a href="#test" { "Try it out" } "." }
        (tester::form(&tester::Asked::default()))
        h2 { "Rules of zones" }
        @for (zone, ruleset) in &rules { (of_zone(&visit, zone, ruleset)) }
        h2 { "Applications" }
        (list_of_apps(&visit, &apps))
        @if visit.may_change(Area::Access) { (new_app(&visit, &policies)) }
        h2 { "Policies" }
        (list_of_policies(&visit, &policies))
        @if visit.may_change(Area::Access) { (new_policy(&visit, &groups)) }
        h2 { "Groups" }
        (list_of_groups(&visit, &groups))
        @if visit.may_change(Area::Access) { (new_group(&visit)) }
    };
    Ok(page(&visit, "Access rules", content))
}

/// The list of a zone; it has none before its first rule.
async fn ruleset_of(visit: &Visit, zone: &str) -> Result<Option<Ruleset>, Problem> {
    let path = format!("/zones/{}/rulesets/phases/{PHASE}/entrypoint", segment(zone));
    match visit.get_of_cloudflare(&path).await {
        Ok(ruleset) => Ok(Some(ruleset)),
        Err(problem) if problem.status == StatusCode::NOT_FOUND => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn of_zone(visit: &Visit, zone: &Zone, found: &Result<Option<Ruleset>, Problem>) -> Markup {
    let ruleset = match found {
        Ok(ruleset) => ruleset.as_ref(),
        Err(problem) => return html! { h3 { (zone.name) } p.flash.failed role="alert" { (problem.message) } },
    };
    let rules = ruleset.map_or(&[][..], |ruleset| ruleset.rules.as_slice());
    let may_change = visit.may_change(Area::Rules);
    html! {
        h3 { (zone.name) }
        div.scroll tabindex="0" { table {
            thead { tr { th { "Rule" } th { "Expression" } th { "Action" } th { span.unseen { "Actions" } } } }
            tbody {
                @for (rule, number) in rules.iter().zip(1_usize..) {
                    tr {
                        td { (number) @if !rule.enabled { br; small { "off" } } }
                        td { (code(&rule.expression)) @if !rule.description.is_empty() { br; small { (rule.description) } } }
                        td { (rule.action) }
                        td { @if let (true, Some(ruleset)) = (may_change, ruleset) {
                            (of_rule(visit, &format!("/access/zones/{}/{}/rules/{}", zone.id, ruleset.id, segment(&rule.id)), rule))
                        } }
                    }
                }
                @if rules.is_empty() { tr { td colspan="4" { "This zone has no rules." } } }
            }
        } }
        @if may_change {
            details { summary { "Add a rule to " (zone.name) }
                form.card method="post" action={"/access/zones/" (zone.id) "/rules"} {
                    (secret(visit))
                    label for={"expression-" (zone.id)} { "Expression, such as " code { "not cf.tls_client_auth.cert_verified" } " or "
                        code { "mqtt.topic contains \"secret\"" } }
                    textarea id={"expression-" (zone.id)} name="expression" rows="2" required {}
                    (choice("action", "Action", ACTIONS, "block"))
                    label { "Description " input name="description" autocomplete="off"; }
                    button.primary type="submit" { "Add rule" }
                }
            }
        }
    }
}

fn of_rule(visit: &Visit, path: &str, rule: &Rule) -> Markup {
    html! {
        (button(visit, &format!("{path}/{}", if rule.enabled { "off" } else { "on" }),
            if rule.enabled { "Turn off" } else { "Turn on" }, None))
        (button(visit, &format!("{path}/remove"), "Remove", Some("Remove this rule?")))
        details { summary { "Edit" }
            form.card method="post" action={(path) "/edit"} {
                (secret(visit))
                label for={"edit-" (rule.id)} { "Expression" }
                textarea id={"edit-" (rule.id)} name="expression" rows="2" required { (rule.expression) }
                (choice("action", "Action", ACTIONS, &rule.action))
                label { "Description " input name="description" value=(rule.description) autocomplete="off"; }
                button type="submit" { "Save" }
            }
        }
    }
}

fn list_of_apps(visit: &Visit, apps: &[App]) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Domain and path" } th { "Name" } th { "Policies, in order" } th { span.unseen { "Actions" } } } }
            tbody {
                @for app in apps {
                    tr {
                        td { (app.domain) }
                        td { (app.name.as_deref().unwrap_or_default()) }
                        td { @if app.policies.is_empty() { "none: nobody gets in" } @else {
                            ol { @for policy in &app.policies { li { (policy.name) " " small { (policy.decision) } } } }
                        } }
                        td { (removal(visit, "apps", &app.id, "Remove this application? Its path is then open to every client that the hostname admits.")) }
                    }
                }
                @if apps.is_empty() { tr { td colspan="4" { "There are no applications." } } }
            }
        } }
    }
}

fn list_of_policies(visit: &Visit, policies: &[Policy]) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Name" } th { "Decision" } th { "Selector" } th { span.unseen { "Actions" } } } }
            tbody {
                @for policy in policies {
                    tr {
                        td { (policy.name) }
                        td { (policy.decision) }
                        td { (visitors(&policy.visitors)) }
                        td { (removal(visit, "policies", &policy.id, "Remove this policy?")) }
                    }
                }
                @if policies.is_empty() { tr { td colspan="4" { "There are no reusable policies." } } }
            }
        } }
    }
}

fn list_of_groups(visit: &Visit, groups: &[Group]) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Name" } th { "Members" } th { span.unseen { "Actions" } } } }
            tbody {
                @for group in groups {
                    tr {
                        td { (group.name) }
                        td { (visitors(&group.visitors)) }
                        td { (removal(visit, "groups", &group.id, "Remove this group?")) }
                    }
                }
                @if groups.is_empty() { tr { td colspan="3" { "There are no groups." } } }
            }
        } }
    }
}

fn removal(visit: &Visit, kind: &str, id: &str, ask: &str) -> Markup {
    html! {
        @if visit.may_change(Area::Access) {
            (button(visit, &format!("/access/{kind}/{}/remove", segment(id)), "Remove", Some(ask)))
        }
    }
}

fn visitors(visitors: &Visitors) -> Markup {
    html! {
        @for (word, rules) in [("", &visitors.include), ("and ", &visitors.require), ("not ", &visitors.exclude)] {
            @for rule in rules { div { (word) (condition(rule)) } }
        }
    }
}

/// A rule of Access in words.
fn condition(rule: &Value) -> String {
    let Some((kind, value)) = rule.as_object().and_then(|rule| rule.iter().next()) else {
        return String::new();
    };
    let detail = ["common_name", "ip", "id"].iter().find_map(|name| value.get(name)?.as_str());
    match (kind.as_str(), detail) {
        ("certificate", _) => "any valid certificate".to_owned(),
        ("everyone", _) => "everyone".to_owned(),
        ("common_name", Some(name)) => format!("the common name {name}"),
        ("ip", Some(network)) => format!("addresses in {network}"),
        ("group", Some(id)) => format!("the group {id}"),
        (kind, _) => kind.to_owned(),
    }
}

fn new_app(visit: &Visit, policies: &[Policy]) -> Markup {
    html! {
        details { summary { "Add an application" }
            form.card method="post" action="/access/apps" {
                (secret(visit))
                label { "Domain: HOST or HOST/PATH " input name="domain" required placeholder="api.example.com/admin" autocomplete="off"; }
                label { "Name " input name="name" autocomplete="off"; }
                fieldset {
                    legend { "Policies; with none, nobody gets in" }
                    @for policy in policies {
                        label { input type="checkbox" name="policies" value=(policy.id); " " (policy.name) " " small { (policy.decision) } }
                    }
                    @if policies.is_empty() { p { "There are none yet." } }
                }
                button.primary type="submit" { "Add application" }
            }
        }
    }
}

fn new_policy(visit: &Visit, groups: &[Group]) -> Markup {
    html! {
        details { summary { "Create a policy" }
            form.card method="post" action="/access/policies" {
                (secret(visit))
                label { "Name " input name="name" required autocomplete="off"; }
                (choice("decision", "Decision", DECISIONS, "non_identity"))
                (whom(groups))
                button.primary type="submit" { "Create policy" }
            }
        }
    }
}

fn new_group(visit: &Visit) -> Markup {
    html! {
        details { summary { "Create a group" }
            form.card method="post" action="/access/groups" {
                (secret(visit))
                label { "Name " input name="name" required autocomplete="off"; }
                (whom(&[]))
                button.primary type="submit" { "Create group" }
            }
        }
    }
}

fn whom(groups: &[Group]) -> Markup {
    let kinds: Vec<&str> =
        CONDITIONS.iter().copied().filter(|kind| *kind != "group" || !groups.is_empty()).collect();
    html! {
        (choice("kind", "Selector", &kinds, "certificate"))
        label { "Common names, or addresses and networks, separated by spaces " input name="values" autocomplete="off"; }
        @if !groups.is_empty() {
            label { "Group "
                select name="group" { @for group in groups { option value=(group.id) { (group.name) } } }
            }
        }
    }
}

/// What is meant by the fields of [`whom`].
fn meant(form: &Form) -> Vec<Value> {
    let each = |make: &dyn Fn(&str) -> Value| form.words("values").into_iter().map(make).collect();
    match form.get("kind") {
        Some("common_name") => each(&|name| json!({ "common_name": { "common_name": name } })),
        Some("ip") => each(&|network| json!({ "ip": { "ip": network } })),
        Some("group") => vec![json!({ "group": { "id": form.get("group") } })],
        Some("everyone") => vec![json!({ "everyone": {} })],
        _ => vec![json!({ "certificate": {} })],
    }
}

async fn make(visit: &Visit, kind: &str, body: Value, done: &str) -> Response {
    let path = format!("/accounts/{}/access/{kind}", visit.account());
    let sent = visit.send_to_cloudflare(Method::POST, &path, body).await;
    visit.finish(sent, done, "/access")
}

/// `POST /access/apps`
pub(super) async fn add_app(Sent(visit, form): Sent) -> Response {
    let policies: Vec<&str> = form.all("policies").collect();
    let body = json!({ "type": "self_hosted", "domain": form.get("domain"), "name": form.get("name"), "policies": policies });
    make(&visit, "apps", body, "The application is in force.").await
}

/// `POST /access/policies`
pub(super) async fn add_policy(Sent(visit, form): Sent) -> Response {
    let body = json!({ "name": form.get("name"), "decision": form.get("decision"), "include": meant(&form) });
    make(&visit, "policies", body, "The policy was created and can be used in applications.").await
}

/// `POST /access/groups`
pub(super) async fn add_group(Sent(visit, form): Sent) -> Response {
    let body = json!({ "name": form.get("name"), "include": meant(&form) });
    make(&visit, "groups", body, "The group was created and can be used in policies.").await
}

/// `POST /access/{kind}/{id}/remove`
pub(super) async fn remove(Path((kind, id)): Path<(String, String)>, Sent(visit, _): Sent) -> Response {
    let path = format!("/accounts/{}/access/{}/{}", visit.account(), segment(&kind), segment(&id));
    let sent = visit.send_to_cloudflare(Method::DELETE, &path, json!({})).await;
    visit.finish(sent, "Removed; the change is in force.", "/access")
}

/// `POST /access/zones/{zone}/rules`
pub(super) async fn add_rule(Path(zone): Path<String>, Sent(visit, form): Sent) -> Response {
    let rule = json!({ "expression": form.get("expression"), "action": form.get("action"),
        "description": form.get("description").unwrap_or_default() });
    let mut sent = add_to_list(&visit, &zone, &rule).await;
    for _ in 1..TRIES_MAX {
        if !sent.as_ref().is_err_and(|problem| problem.status == StatusCode::CONFLICT) {
            break;
        }
        sent = add_to_list(&visit, &zone, &rule).await;
    }
    visit.finish(sent, "The rule is in force.", "/access")
}

/// Adds a rule to the list of a zone as it is now; makes the list when there is none.
async fn add_to_list(visit: &Visit, zone: &str, rule: &Value) -> Result<Value, Problem> {
    let rulesets = format!("/zones/{}/rulesets", segment(zone));
    match ruleset_of(visit, zone).await? {
        Some(ruleset) => {
            let rules = format!("{rulesets}/{}/rules", segment(&ruleset.id));
            visit.send_to_cloudflare(Method::POST, &rules, rule.clone()).await
        }
        // Never by PUT, which would replace a list that another has just made.
        None => {
            let list = json!({ "phase": PHASE, "kind": "zone", "rules": [rule] });
            visit.send_to_cloudflare(Method::POST, &rulesets, list).await
        }
    }
}

/// `POST /access/zones/{zone}/{ruleset}/rules/{rule}/{act}`
pub(super) async fn change_rule(
    Path((zone, ruleset, rule, act)): Path<(String, String, String, String)>,
    Sent(visit, form): Sent,
) -> Response {
    let [zone, ruleset, rule] = [zone, ruleset, rule].map(|part| segment(&part));
    let path = format!("/zones/{zone}/rulesets/{ruleset}/rules/{rule}");
    let (method, body) = match act.as_str() {
        "remove" => (Method::DELETE, json!({})),
        "on" | "off" => (Method::PATCH, json!({ "enabled": act == "on" })),
        _ => {
            let description = form.get("description").unwrap_or_default();
            let (expression, action) = (form.get("expression"), form.get("action"));
            (Method::PATCH, json!({ "expression": expression, "action": action, "description": description }))
        }
    };
    let sent = visit.send_to_cloudflare(method, &path, body).await;
    visit.finish(sent, "The change is in force.", "/access")
}
