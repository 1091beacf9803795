//! Who is connected to the edge of this process and to those in others, and the ending of that.
//!
//! A certificate or device is looked up first, so that one of another account looks missing. Only
//! connections open now are known; the change log and the audit tell of the past.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::host::{HostPattern, Protocol};
use muster_policy::identity::{AccountId, CaId, CertificateId, Serial};
use muster_policy::name::{DeviceId, EdgeName};
use muster_policy::time::UnixTime;
use muster_store::act::NoteConnectionsClosed;
use muster_store::record::Subjects;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Json, Query};
use crate::{Api, Connection, ConnectionFilter, ConnectionPlace, Connections};

#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionView {
    edge: EdgeName,
    /// Grows with each connection of the edge.
    number: u64,
    host: HostPattern,
    protocol: Protocol,
    /// None when no certificate was shown.
    device: Option<DeviceId>,
    ca: Option<CaId>,
    serial_number: Option<Serial>,
    #[schema(value_type = String)]
    peer: SocketAddr,
    since: UnixTime,
}

impl From<Connection> for ConnectionView {
    fn from(connection: Connection) -> Self {
        let Connection { edge, number, host, protocol, certificate, device, peer, since } = connection;
        let (ca, serial_number) = certificate.unzip();
        Self { edge, number, host, protocol, device, ca, serial_number, peer, since }
    }
}

/// `GET …/connections?certificate=&device=&host=&edge=`, newest first.
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let sought = Sought {
        certificate: query.parse("certificate")?,
        device: query.parse("device")?,
        host: query.parse("host")?,
        edge: query.parse("edge")?,
        number: None,
    };
    let (skip, limit) = page.window();
    if skip.saturating_add(limit) > LOOK_MAX {
        let message = "page: too far on for this list; follow result_info.cursor instead";
        return Err(ApiError::argument("/page", message));
    }
    let before = page.behind(place)?;
    let (filter, _) = sought.looked_up(&api, account).await?;
    let filter = ConnectionFilter { before, skip, limit, ..filter };
    let Some(read) = &api.hooks().edge_connections else { return Err(no_edge()) };
    let Connections { found, total, .. } = read(filter).await;
    let info = page.live(found.len(), total, found.last().map(|last| cursor(&last.place())));
    Answer::list(&found.into_iter().map(ConnectionView::from).collect::<Vec<_>>(), info)
}

/// Entries that every edge is asked for at once. Further on a cursor goes, which asks for no more than a page.
const LOOK_MAX: usize = 10_000;

/// A place as a cursor: time and number, and the edge's name behind them.
fn cursor(place: &ConnectionPlace) -> String {
    let ConnectionPlace { since, edge, number } = place;
    format!("{:016x}{number:016x}{}", since.as_secs(), hex::encode(edge.as_str()))
}

/// The place of a cursor.
fn place(cursor: &str) -> Option<ConnectionPlace> {
    let (since, rest) = cursor.split_at_checked(16)?;
    let (number, name) = rest.split_at_checked(16)?;
    Some(ConnectionPlace {
        since: UnixTime::from_secs(i64::from_str_radix(since, 16).ok()?),
        edge: String::from_utf8(hex::decode(name).ok()?).ok()?.parse().ok()?,
        number: u64::from_str_radix(number, 16).ok()?,
    })
}

/// Which connections to end: those that fit all that is given, which is one thing at least.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectionsToClose)]
pub(crate) struct Close {
    /// Those with this certificate, by its id.
    certificate: Option<CertificateId>,
    /// Those of this device.
    device: Option<DeviceId>,
    /// Those to this hostname.
    host: Option<HostPattern>,
    /// Those to this edge.
    edge: Option<EdgeName>,
    /// The one of this number; with its edge, where there are several.
    number: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionsClosedView)]
pub(crate) struct ClosedView {
    closed: usize,
}

/// `POST …/connections/close`: they end at once, and whoever has its right may come again.
///
/// What was asked is in the audit before the first of them hears of it.
pub(crate) async fn close(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(Close { certificate, device, host, edge, number }): Json<Close>,
) -> Outcome {
    if certificate.is_none() && device.is_none() && host.is_none() && edge.is_none() && number.is_none() {
        return Err(ApiError::argument("", "one of certificate, device, host, edge and number is needed"));
    }
    let is_anywhere = edge.is_none();
    let sought = Sought { certificate, device, host, edge, number };
    let (filter, mut subjects) = sought.looked_up(&api, account).await?;
    let (Some(read), Some(close)) = (&api.hooks().edge_connections, &api.hooks().close_connections) else {
        return Err(no_edge());
    };
    let Connections { found, total: count, edges } =
        read(ConnectionFilter { limit: 1, ..filter.clone() }).await;
    if number.is_some() && is_anywhere && edges > 1 {
        let message = "edge: which one is needed with a number, as each edge has its own";
        return Err(ApiError::argument("/edge", message));
    }
    match found.into_iter().next() {
        None if number.is_some() => return Err(ApiError::not_found("connection")),
        None => return Answer::one(&ClosedView { closed: 0 }),
        Some(one) if number.is_some() => {
            subjects = Subjects { device: one.device, host: Some(one.host), ..subjects };
        }
        Some(_) => {}
    }
    let note = NoteConnectionsClosed { subjects, count, by: caller.by(api.now()) };
    api.registrar().ledger().transact(note).await?;
    Answer::one(&ClosedView { closed: close(filter).await })
}

fn no_edge() -> ApiError {
    ApiError::conflict("no edge runs in this process; ask the server that runs it")
}

/// Which connections are meant, as people name them.
struct Sought {
    certificate: Option<CertificateId>,
    device: Option<DeviceId>,
    host: Option<HostPattern>,
    edge: Option<EdgeName>,
    number: Option<u64>,
}

impl Sought {
    /// The same as the edge knows them, and as the audit names them; certificate and device must be known.
    async fn looked_up(
        self,
        api: &Api,
        account: AccountId,
    ) -> Result<(ConnectionFilter, Subjects), ApiError> {
        let Self { certificate, device, host, edge, number } = self;
        let mut filter = ConnectionFilter { host: host.clone(), edge, number, ..Default::default() };
        let mut subjects = Subjects { account: Some(account), host, certificate, ..Default::default() };
        if let Some(id) = certificate {
            let found = api.read(move |reader| reader.certificate(account, id)).await?;
            let found = found.ok_or_else(|| ApiError::not_found("certificate"))?;
            filter.certificate = Some((found.ca, found.serial));
            subjects.device = Some(found.device);
        }
        if let Some(id) = device {
            let found = api.read(move |reader| reader.device(account, &id)).await?;
            let found = found.ok_or_else(|| ApiError::not_found("device"))?.id;
            filter.device = Some((account, found.clone()));
            subjects.device = Some(found);
        }
        Ok((filter, subjects))
    }
}
