//! Who is connected to the edge of this process.
//!
//! A certificate or device is looked up first, so that one of another account looks missing. Only
//! connections open now are known; the change log and the audit tell of the past.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::host::{HostPattern, Protocol};
use muster_policy::identity::{CaId, CertificateId, Serial};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Outcome;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Query};
use crate::{Api, Connection, ConnectionFilter};

#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionView {
    /// Grows with each connection of the process.
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
        let Connection { number, host, protocol, certificate, device, peer, since } = connection;
        let (ca, serial_number) = certificate.unzip();
        Self { number, host, protocol, device, ca, serial_number, peer, since }
    }
}

/// `GET …/connections?certificate=&device=&host=`, newest first.
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let (certificate, device) = (query.parse::<CertificateId>("certificate")?, query.parse("device")?);
    let (skip, limit) = page.window();
    let mut filter = ConnectionFilter {
        host: query.parse("host")?,
        before: page.before()?,
        skip,
        limit,
        ..Default::default()
    };
    if let Some(id) = certificate {
        let found = api.read(move |reader| reader.certificate(account, id)).await?;
        let found = found.ok_or_else(|| ApiError::not_found("certificate"))?;
        filter.certificate = Some((found.ca, found.serial));
    }
    if let Some(id) = device {
        let id: DeviceId = id;
        let found = api.read(move |reader| reader.device(account, &id)).await?;
        filter.device = Some((account, found.ok_or_else(|| ApiError::not_found("device"))?.id));
    }
    let Some(read) = &api.hooks().edge_connections else {
        return Err(ApiError::conflict("no edge runs in this process; ask the server that runs it"));
    };
    let (found, total) = read(&filter);
    let info = page.numbered(found.len(), total, found.last().map(|last| last.number));
    Answer::list(&found.into_iter().map(ConnectionView::from).collect::<Vec<_>>(), info)
}
