//! The arguments of what watches the fleet: connections, events, webhooks.

use clap::{Args, Subcommand};

use super::PageArgs;

/// Live connections at the edges.
#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// List live connections, newest first; needs the running server.
    List {
        /// Only of this device.
        #[arg(long)]
        device: Option<String>,
        /// Only with this certificate, by its id.
        #[arg(long = "cert", value_name = "ID")]
        certificate: Option<String>,
        /// Only to this hostname.
        #[arg(long)]
        host: Option<String>,
        /// Only to this edge.
        #[arg(long)]
        edge: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Close live connections, and print how many; authorized clients may reconnect. Needs the running server.
    Close(CloseArgs),
}

/// Arguments of `connection close`: which ones; with several, those that fit all.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct CloseArgs {
    /// The one with this number, as `connection list` shows it; with --edge if there are several edges.
    pub number: Option<u64>,
    /// Those of this device.
    #[arg(long)]
    pub device: Option<String>,
    /// Those with this certificate, by its id.
    #[arg(long = "cert", value_name = "ID")]
    pub certificate: Option<String>,
    /// Those to this hostname.
    #[arg(long)]
    pub host: Option<String>,
    /// Those to this edge.
    #[arg(long)]
    pub edge: Option<String>,
}

/// The change log.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Print events as they happen, one per line; needs the running server.
    Follow(FollowArgs),
}

/// Arguments of `event follow`.
#[derive(Args, Debug)]
pub struct FollowArgs {
    /// Start after the change with this number; default: now.
    #[arg(long, value_name = "NUMBER")]
    pub since: Option<u64>,
    /// Stop after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Create a webhook and print the secret that signs its deliveries; it is shown only once.
    Add {
        /// URL to deliver to.
        url: String,
        /// Its name; default: the URL's host.
        #[arg(long)]
        name: Option<String>,
        /// Send only this event, such as `certificate-revoked`; repeatable.
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
    },
    /// List webhooks, without their secrets.
    List(PageArgs),
    /// Show one webhook and how far its deliveries have come.
    Show {
        /// Its id.
        id: String,
    },
    /// Remove a webhook and its dead letters.
    Rm {
        /// Its id.
        id: String,
    },
    /// Send one test delivery without events; needs the running server.
    Test {
        /// Its id.
        id: String,
    },
    /// List deliveries that were given up, newest first.
    DeadLetters {
        /// The webhook.
        id: String,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Retry dead letters; those delivered leave the list. Needs the running server.
    Redeliver {
        /// The webhook.
        id: String,
        /// Their numbers, as listed; default: all, oldest first, up to the first failure.
        #[arg(value_name = "NUMBER")]
        letters: Vec<u64>,
    },
    /// Discard a dead letter.
    Drop {
        /// The webhook.
        id: String,
        /// Its number, as listed.
        number: u64,
    },
}
