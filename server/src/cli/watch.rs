//! The commands that watch the fleet: who is connected, what happens, and who is told of it.

use anyhow::{Context as _, bail};
use http::{Method, Uri};
use serde_json::{Value, json};

use super::args::{CloseArgs, ConnectionCommand, EventCommand, FollowArgs, PageArgs, WebhookCommand};
use super::client::Client;
use super::manage::segment;
use super::print::{Column, Printer, cell};

const CONNECTIONS: &[Column] = &[
    ("EDGE", "/edge"),
    ("NUMBER", "/number"),
    ("DEVICE", "/device"),
    ("HOST", "/host"),
    ("PROTOCOL", "/protocol"),
    ("PEER", "/peer"),
    ("SERIAL", "/serial_number"),
    ("SINCE", "/since"),
];
const WEBHOOKS: &[Column] =
    &[("ID", "/id"), ("NAME", "/name"), ("URL", "/url"), ("EVENTS", "/events"), ("MADE", "/created_at")];
const DEAD_LETTERS: &[Column] = &[
    ("NUMBER", "/number"),
    ("FIRST", "/first"),
    ("ATTEMPTS", "/attempts"),
    ("GIVEN UP", "/at"),
    ("WHY", "/why"),
];

pub(super) async fn connection(
    client: &Client,
    command: ConnectionCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    needs_server(client, "connections are the running server's")?;
    let (filters, page) = match command {
        ConnectionCommand::List { device, certificate, host, edge, page } => {
            ([("device", device), ("certificate", certificate), ("host", host), ("edge", edge)], page)
        }
        ConnectionCommand::Close(which) => return close(client, which, out).await,
    };
    let filters =
        filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
    let query = filters.collect::<Vec<_>>().join("&");
    out.list(&client.list(&client.own("/connections"), &query, page).await?, CONNECTIONS)
}

async fn close(client: &Client, which: CloseArgs, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let CloseArgs { number, device, certificate, host, edge } = which;
    let wanted = json!({ "number": number, "device": device, "certificate": certificate, "host": host,
        "edge": edge });
    let closed = client.call(Method::POST, &client.own("/connections/close"), Some(&wanted)).await?;
    out.done(&closed, &format!("Closed connections: {}", cell(closed.get("closed"))))
}

pub(super) async fn event(
    client: &Client,
    command: EventCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let EventCommand::Follow(FollowArgs { since, count }) = command;
    needs_server(client, "events are told by the running server")?;
    let since = since.map_or_else(String::new, |since| format!("?since={since}"));
    let mut left = count;
    client
        .follow(&client.own(&format!("/events{since}")), |event| {
            if out.json() {
                out.value(event)?
            } else {
                out.line(&event_line(event))?
            }
            left = left.map(|left| left.saturating_sub(1));
            Ok(left != Some(0))
        })
        .await
}

fn event_line(event: &Value) -> String {
    // What is no change says how many were passed over.
    let subject = event.get("subject").unwrap_or(event);
    let fields = ["number", "at", "event"].map(|name| cell(event.get(name)));
    format!("{}  {}", fields.join("  "), cell(Some(subject)))
}

pub(super) async fn webhook(
    client: &Client,
    command: WebhookCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let webhooks = client.own("/webhooks");
    let of = |id: &str| format!("{webhooks}/{}", segment(id));
    match command {
        WebhookCommand::Add { url, name, events } => {
            let wanted =
                json!({ "name": name.unwrap_or_else(|| host_of(&url)), "url": url, "events": events });
            out.field(&client.call(Method::POST, &webhooks, Some(&wanted)).await?, "secret")
        }
        WebhookCommand::List(page) => out.list(&client.list(&webhooks, "", page).await?, WEBHOOKS),
        WebhookCommand::Show { id } => out.object(&client.get(&of(&id)).await?),
        WebhookCommand::Rm { id } => {
            let removed = client.call(Method::DELETE, &of(&id), None).await?;
            out.done(&removed, &format!("Removed the webhook {}", cell(removed.get("name"))))
        }
        WebhookCommand::Test { id } => {
            needs_server(client, "deliveries are the running server's")?;
            let tried = client.call(Method::POST, &format!("{}/test", of(&id)), None).await?;
            delivered(&tried, "The test", out)
        }
        WebhookCommand::DeadLetters { id, page } => {
            out.list(&client.list(&format!("{}/dead_letters", of(&id)), "", page).await?, DEAD_LETTERS)
        }
        WebhookCommand::Redeliver { id, letters } => {
            needs_server(client, "deliveries are the running server's")?;
            let path = format!("{}/dead_letters", of(&id));
            for number in wanted_letters(client, &path, letters).await? {
                let tried = client.call(Method::POST, &format!("{path}/{number}/redeliver"), None).await?;
                delivered(&tried, &format!("Dead letter {number}"), out)?;
            }
            Ok(())
        }
        WebhookCommand::Drop { id, number } => {
            let path = format!("{}/dead_letters/{number}", of(&id));
            let dropped = client.call(Method::DELETE, &path, None).await?;
            out.done(&dropped, &format!("Discarded dead letter {number}"))
        }
    }
}

/// The letters that are named, else all of them in the order in which they were written.
async fn wanted_letters(client: &Client, path: &str, named: Vec<u64>) -> anyhow::Result<Vec<u64>> {
    if !named.is_empty() {
        return Ok(named);
    }
    let letters = client.list(path, "", PageArgs::default()).await?;
    Ok(letters.iter().rev().filter_map(|letter| letter.get("number")?.as_u64()).collect())
}

/// Tells what came of a delivery; one that was not taken is an error.
fn delivered(tried: &Value, what: &str, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let taken = tried.get("delivered") == Some(&Value::Bool(true));
    if taken || out.json() {
        let text = format!("{what} was taken in {} ms", cell(tried.get("took_ms")));
        out.done(tried, &text)?;
    }
    if !taken {
        bail!("{what} was not taken: {}", cell(tried.get("why")));
    }
    Ok(())
}

fn host_of(url: &str) -> String {
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    host.unwrap_or_else(|| url.to_owned())
}

fn needs_server(client: &Client, why: &str) -> anyhow::Result<()> {
    client
        .server()
        .map(drop)
        .with_context(|| format!("no server runs here, and {why}; start it with `muster serve`"))
}
