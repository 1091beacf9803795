//! The paged lists of what grows with the fleet.
//!
//! Certificates, tokens and waiting requests come newest first; devices come in the order of their
//! ids, because that is what a search by prefix walks.

use std::collections::BTreeSet;

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use serde::Deserialize;

use crate::act::devices::inactive_octet;
use crate::codec;
use crate::keys;
use crate::mark::Mark;
use crate::reader::page::{List, Order, Reach, between};
use crate::reader::{Page, Paging, Reader};
use crate::record::{
    Certificate, CertificateStatus, Device, ForeignRevoked, Request, RevokedEntry, Token, TokenState,
    WaitingRequest, Zone,
};
use crate::tables::TableName;
use crate::transaction::Fault;

/// Most certificates past their end that are looked at to know how many are not, some 10 ms.
const ENDED_MAX: usize = 10_000;

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

impl CertificateFilter {
    /// Whether a certificate is wanted, as far as its mark says.
    fn takes(&self, mark: &Mark, now: UnixTime) -> bool {
        self.status.is_none_or(|status| mark.status(now) == status) && self.ca.is_none_or(|ca| mark.ca == ca)
    }
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

/// The part of a device that lists filter by.
#[derive(Deserialize)]
struct ListedDevice {
    status: DeviceStatus,
    #[serde(default)]
    groups: BTreeSet<String>,
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
        if let Some(device) = &filter.device {
            return self.certificates_by_device(account, device, filter, now, paging);
        }
        let counters = self.counters(account)?;
        let length = match filter {
            CertificateFilter { status: None, ca: None, .. } => Some(counters.certificates),
            CertificateFilter { status: Some(CertificateStatus::Revoked), ca: None, .. } => {
                Some(counters.certificates_revoked)
            }
            _ => None,
        };
        // The revoked ones have an index; among a million good ones they are few.
        if filter.status == Some(CertificateStatus::Revoked) {
            let of_ca = |_: &[u8], value: &[u8]| {
                let entry: RevokedEntry = codec::decode(TableName::Revoked, value)?;
                Ok(filter.ca.is_none_or(|ca| entry.ca == ca))
            };
            return List {
                table: self.table(TableName::Revoked)?,
                prefix: account.as_bytes().to_vec(),
                order: Order::Descending,
                length,
                filter: filter.ca.is_some().then_some((&of_ca, Reach::RECORDS)),
                load: &|key, _| self.get::<Certificate>(key),
            }
            .page(paging);
        }
        let wanted = |_: &[u8], mark: &[u8]| Ok(filter.takes(&Mark::read(mark)?, now));
        let counted = match (length, filter) {
            (None, CertificateFilter { status: Some(status), ca: None, .. }) => {
                self.count_by_end(account, *status, now)?
            }
            (length, _) => length,
        };
        List {
            table: self.table(TableName::CertificateMarks)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length: counted,
            filter: length.is_none().then_some((&wanted, Reach::MARKS)),
            load: &|key, _| self.get::<Certificate>(key),
        }
        .page(paging)
    }

    /// How many certificates are active, or expired: all others of the account are counted, so only those past their
    /// end are looked at. None when these are many.
    fn count_by_end(
        &self,
        account: AccountId,
        status: CertificateStatus,
        now: UnixTime,
    ) -> Result<Option<u64>, Fault> {
        let marks = self.table(TableName::CertificateMarks)?;
        let ended = self.table(TableName::Expiry)?;
        let mut expired = 0_u64;
        for (looked, row) in between(&ended, &[], Some(&keys::time(now)))?.enumerate() {
            if looked >= ENDED_MAX {
                return Ok(None);
            }
            let (key, _) = row?;
            // Behind the time of the end is the key of the mark.
            let certificate = key.value().get(keys::time(now).len()..).unwrap_or_default();
            if certificate.starts_with(account.as_bytes())
                && let Some(mark) = marks.get(certificate)?
                && Mark::read(mark.value())?.status(now) == CertificateStatus::Expired
            {
                expired = expired.saturating_add(1);
            }
        }
        let counters = self.counters(account)?;
        Ok(Some(match status {
            CertificateStatus::Active => {
                counters.certificates.saturating_sub(counters.certificates_revoked).saturating_sub(expired)
            }
            CertificateStatus::Expired => expired,
            CertificateStatus::Revoked => counters.certificates_revoked,
        }))
    }

    /// A device has few certificates, so its index is walked and the mark of each one looked at.
    fn certificates_by_device(
        &self,
        account: AccountId,
        device: &DeviceId,
        filter: &CertificateFilter,
        now: UnixTime,
        paging: &Paging,
    ) -> Result<Page<Certificate>, Fault> {
        let prefix = keys::device_certificates(account, device);
        let marks = self.table(TableName::CertificateMarks)?;
        let named = |key: &[u8]| {
            let id = key.get(prefix.len()..).unwrap_or_default();
            keys::join(&[account.as_bytes(), id])
        };
        let wanted = |key: &[u8], _: &[u8]| match marks.get(named(key).as_slice())? {
            Some(mark) => Ok(filter.takes(&Mark::read(mark.value())?, now)),
            None => Ok(false),
        };
        List {
            table: self.table(TableName::DeviceCertificates)?,
            prefix: prefix.clone(),
            order: Order::Descending,
            length: None,
            filter: Some((&wanted, Reach::RECORDS)),
            load: &|key, _| self.get::<Certificate>(&named(key)),
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
        let wanted = |_: &[u8], mark: &[u8]| Ok(Some(Mark::read(mark)?.revoked) == revoked);
        let load = |key: &[u8], _: &[u8]| {
            let id = key.get(zone.id.as_bytes().len()..).unwrap_or_default();
            self.get::<Certificate>(&keys::join(&[zone.account.as_bytes(), id]))
        };
        List {
            table: self.table(TableName::ZoneCertificates)?,
            prefix: zone.id.as_bytes().to_vec(),
            order: Order::Descending,
            length: revoked.is_none().then_some(zone.client_certificates),
            filter: revoked.is_some().then_some((&wanted, Reach::MARKS)),
            load: &load,
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
        let prefix =
            keys::join(&[account.as_bytes(), filter.prefix.as_deref().unwrap_or_default().as_bytes()]);
        let length = match filter {
            DeviceFilter { status, prefix: None, group: None } => {
                let counters = self.counters(account)?;
                Some(status.map_or_else(|| counters.devices(), |status| counters.devices_of(status)))
            }
            _ => None,
        };
        // Those that are not active have an index; most of a fleet is.
        if let Some(octet) = filter.status.and_then(inactive_octet) {
            let wanted = |key: &[u8], status: &[u8]| {
                let Some(group) = filter.group.as_ref().filter(|_| status == [octet]) else {
                    return Ok(status == [octet]);
                };
                Ok(self.get::<Device>(key)?.is_some_and(|device| device.groups.contains(group)))
            };
            let reach = if filter.group.is_some() { Reach::RECORDS } else { Reach::MARKS };
            return List {
                table: self.table(TableName::InactiveDevices)?,
                prefix,
                order: Order::Ascending,
                length,
                filter: Some((&wanted, reach)),
                load: &|key, _| self.get::<Device>(key),
            }
            .page(paging);
        }
        let wanted = |_: &[u8], value: &[u8]| {
            let device: ListedDevice = codec::decode(TableName::Devices, value)?;
            Ok(filter.status.is_none_or(|status| device.status == status)
                && filter.group.as_ref().is_none_or(|group| device.groups.contains(group)))
        };
        let plain = filter.status.is_none() && filter.group.is_none();
        List {
            table: self.table(TableName::Devices)?,
            prefix,
            order: Order::Ascending,
            length,
            filter: (!plain).then_some((&wanted, Reach::RECORDS)),
            load: &|_, value| codec::decode(TableName::Devices, value).map(Some),
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
        let wanted = |_: &[u8], value: &[u8]| {
            let token: Token = codec::decode(TableName::Tokens, value)?;
            Ok(filter.state.is_none_or(|state| token.state(now) == state)
                && filter.device.as_ref().is_none_or(|device| token.device.as_ref() == Some(device)))
        };
        let unfiltered = *filter == TokenFilter::default();
        List {
            table: self.table(TableName::Tokens)?,
            prefix: account.as_bytes().to_vec(),
            order: Order::Descending,
            length: unfiltered.then_some(self.counters(account)?.tokens),
            filter: (!unfiltered).then_some((&wanted, Reach::RECORDS)),
            load: &|_, value| codec::decode(TableName::Tokens, value).map(Some),
        }
        .page(paging)
    }

    /// An account's requests that wait for a person, newest first.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn waiting(&self, account: AccountId, paging: &Paging) -> Result<Page<WaitingRequest>, Fault> {
        let load = |key: &[u8], _: &[u8]| {
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
            filter: None,
            load: &load,
        }
        .page(paging)
    }

    /// The certificates of a CA that were issued elsewhere and are revoked, by serial.
    ///
    /// # Errors
    /// See [`Reader::certificates`].
    pub fn foreign_revoked_of(&self, ca: CaId, paging: &Paging) -> Result<Page<ForeignRevoked>, Fault> {
        List {
            table: self.table(TableName::ForeignRevoked)?,
            prefix: ca.as_bytes().to_vec(),
            order: Order::Ascending,
            length: Some(self.foreign_ca(ca)?.revoked),
            filter: None,
            load: &|_, value| codec::decode(TableName::ForeignRevoked, value).map(Some),
        }
        .page(paging)
    }
}
