//! The arguments of what watches the fleet: connections, events, webhooks.

use clap::{Args, Subcommand};

use super::PageArgs;

/// Live connections at the edges.
#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// List who is connected, newest first; needs the running server.
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
    /// End live connections, and print how many; who has its right may come again. Needs the running server.
    Close(CloseArgs),
}

/// Arguments of `connection close`: which ones; with several, those that fit all.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct CloseArgs {
    /// The one of this number, as `connection list` shows it; with --edge where there are several.
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
    /// Print what happens as it happens, one event a line; needs the running server.
    Follow(FollowArgs),
}

/// Arguments of `event follow`.
#[derive(Args, Debug)]
pub struct FollowArgs {
    /// Begin after the change of this number; default: with what happens from now on.
    #[arg(long, value_name = "NUMBER")]
    pub since: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Make a webhook and print the secret that deliveries are signed with, alone; it is shown this once.
    Add {
        /// Where deliveries go.
        url: String,
        /// What to call it; default: the URL's host.
        #[arg(long)]
        name: Option<String>,
        /// Send only this event, such as `certificate-revoked`; repeatable.
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
    },
    /// List webhooks; never their secrets.
    List(PageArgs),
    /// Show one webhook and how far it is.
    Show {
        /// Its id.
        id: String,
    },
    /// Remove a webhook and its dead letters.
    Rm {
        /// Its id.
        id: String,
    },
    /// Send a delivery without events, once; needs the running server.
    Test {
        /// Its id.
        id: String,
    },
    /// List what was given up, newest first.
    DeadLetters {
        /// The webhook.
        id: String,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Try dead letters once more; what is taken leaves the list. Needs the running server.
    Redeliver {
        /// The webhook.
        id: String,
        /// Numbers of letters, as listed; default: all, oldest first, up to the first that fails.
        #[arg(value_name = "NUMBER")]
        letters: Vec<u64>,
    },
    /// Drop a dead letter, unsent.
    Drop {
        /// The webhook.
        id: String,
        /// Its number, as listed.
        number: u64,
    },
}
