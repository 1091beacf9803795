//! The paged lists of what grows with the fleet.
//!
//! Certificates, tokens and waiting requests come newest first; devices come in the order of their
//! ids, because that is what a search by prefix walks.

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;

use crate::codec;
use crate::keys;
use crate::reader::page::{List, Order};
use crate::reader::{Page, Paging, Reader};
use crate::record::{
    Certificate, CertificateStatus, Device, Request, RevokedEntry, Token, TokenState, WaitingRequest, Zone,
};
use crate::tables::TableName;
use crate::transaction::Fault;

/// Which certificates are wanted; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFilter {
    /// Only those of this status.
    pub status: Option<CertificateStatus>,
    /// Only those of this device.
    pub device: Option<DeviceId>,
    /// Only those of this CA.
    pub ca: Option<CaId>,
}

/// Which devices are wanted; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Only those of this status.
    pub status: Option<DeviceStatus>,
    /// Only those whose id starts so, exactly.
    pub prefix: Option<String>,
    /// Only those in this group.
    pub group: Option<String>,
}

/// Which tokens are wanted; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// Only those in this state.
    pub state: Option<TokenState>,
    /// Only those for this device.
    pub device: Option<DeviceId>,
}

impl Reader {
    /// An account's certificates, newest first; `now` decides which have expired.
    ///
    /// # Errors
    /// When the file can't be read, or a record is broken.
    pub fn certificates(
        &self,
        account: AccountId,
        filter: &CertificateFilter,
        now: UnixTime,
        paging: &Paging,
    ) -> Result<Page<Certificate>, Fault> {
        let matches = |certificate: &Certificate| {
            filter.status.is_none_or(|status| certificate.status(now) == status)
                && filter.ca.is_none_or(|ca| certificate.ca == ca)
                && filter.device.as_ref().is_none_or(|device| certificate.device == *device)
        };
        if let Some(device) = &filter.device {
            return self.certificates_by_device(account, device, &matches, paging);
        }
        if filter.status == Some(CertificateStatus::Revoked) {
            return self.certificates_revoked(account, filter.ca, paging);
        }
        let select = |_: &[u8], value: &[u8]| {
            let certificate: Certificate = codec::decode(TableName::Certificates, value)?;
            Ok(matches(&certificate).then_some(certificate))
        };
        let unfiltered = *filter == CertificateFilter::default();
        List {
            table: self.table(TableName::Certificates)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length: unfiltered.then_some(self.counters(account)?.certificates),
            select: &select,
        }
        .page(paging)
    }

    /// A device has few certificates, so the index is walked and each one looked at.
    fn certificates_by_device(
        &self,
        account: AccountId,
        device: &DeviceId,
        matches: &dyn Fn(&Certificate) -> bool,
        paging: &Paging,
    ) -> Result<Page<Certificate>, Fault> {
        let prefix = keys::device_certificates(account, device);
        let select = |key: &[u8], _: &[u8]| {
            let id = key.get(prefix.len()..).unwrap_or_default();
            let certificate = self.get::<Certificate>(&keys::join(&[account.as_bytes(), id]))?;
            Ok(certificate.filter(matches))
        };
        List {
            table: self.table(TableName::DeviceCertificates)?,
            prefix: prefix.clone(),
            order: Order::Descending,
            length: None,
            select: &select,
        }
        .page(paging)
    }

    /// The revoked ones have an index; among a million good ones they are few.
    fn certificates_revoked(
        &self,
        account: AccountId,
        ca: Option<CaId>,
        paging: &Paging,
    ) -> Result<Page<Certificate>, Fault> {
        let select = |key: &[u8], value: &[u8]| {
            let entry: RevokedEntry = codec::decode(TableName::Revoked, value)?;
            if ca.is_none_or(|ca| entry.ca == ca) { self.get::<Certificate>(key) } else { Ok(None) }
        };
        let length = if ca.is_none() { Some(self.counters(account)?.certificates_revoked) } else { None };
        List {
            table: self.table(TableName::Revoked)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length,
            select: &select,
        }
        .page(paging)
    }

    /// The client certificates of a zone, newest first: all, or those that are revoked, or are not.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn client_certificates(
        &self,
        zone: &Zone,
        revoked: Option<bool>,
        paging: &Paging,
    ) -> Result<Page<Certificate>, Fault> {
        let select = |key: &[u8], _: &[u8]| {
            let id = key.get(zone.id.as_bytes().len()..).unwrap_or_default();
            let certificate: Option<Certificate> = self.get(&keys::join(&[zone.account.as_bytes(), id]))?;
            Ok(certificate
                .filter(|certificate| revoked.is_none_or(|revoked| certificate.revoked.is_some() == revoked)))
        };
        List {
            table: self.table(TableName::ZoneCertificates)?,
            prefix: zone.id.as_bytes().to_vec(),
            order: Order::Descending,
            length: revoked.is_none().then_some(zone.client_certificates),
            select: &select,
        }
        .page(paging)
    }

    /// An account's devices, in the order of their ids.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn devices(
        &self,
        account: AccountId,
        filter: &DeviceFilter,
        paging: &Paging,
    ) -> Result<Page<Device>, Fault> {
        let select = |_: &[u8], value: &[u8]| {
            let device: Device = codec::decode(TableName::Devices, value)?;
            let wanted = filter.status.is_none_or(|status| device.status == status)
                && filter.group.as_ref().is_none_or(|group| device.groups.contains(group));
            Ok(wanted.then_some(device))
        };
        let prefix = filter.prefix.as_deref().unwrap_or_default();
        let length = if *filter == DeviceFilter::default() {
            let counters = self.counters(account)?;
            let known = [counters.devices_active, counters.devices_retired, counters.devices_suspended];
            Some(known.into_iter().fold(0, u64::saturating_add))
        } else {
            None
        };
        List {
            table: self.table(TableName::Devices)?,
            prefix: keys::join(&[account.as_bytes(), prefix.as_bytes()]),
            order: Order::Ascending,
            length,
            select: &select,
        }
        .page(paging)
    }

    /// An account's tokens, newest first; `now` decides which have expired.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn tokens(
        &self,
        account: AccountId,
        filter: &TokenFilter,
        now: UnixTime,
        paging: &Paging,
    ) -> Result<Page<Token>, Fault> {
        let select = |_: &[u8], value: &[u8]| {
            let token: Token = codec::decode(TableName::Tokens, value)?;
            let wanted = filter.state.is_none_or(|state| token.state(now) == state)
                && filter.device.as_ref().is_none_or(|device| token.device.as_ref() == Some(device));
            Ok(wanted.then_some(token))
        };
        let unfiltered = *filter == TokenFilter::default();
        List {
            table: self.table(TableName::Tokens)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length: unfiltered.then_some(self.counters(account)?.tokens),
            select: &select,
        }
        .page(paging)
    }

    /// An account's requests that wait for a person, newest first.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn waiting(&self, account: AccountId, paging: &Paging) -> Result<Page<WaitingRequest>, Fault> {
        let select = |key: &[u8], _: &[u8]| {
            let Some(request) = keys::request_of(key) else { return Ok(None) };
            Ok(match self.request(request)? {
                Some(Request::Waiting(waiting)) => Some(*waiting),
                _ => None,
            })
        };
        List {
            table: self.table(TableName::Waiting)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length: Some(self.counters(account)?.waiting),
            select: &select,
        }
        .page(paging)
    }
}
