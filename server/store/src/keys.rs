//! Keys of the tables: octets that sort as the lists should.
//!
//! Fixed-width parts come first; a device id, the only part of variable width before another one,
//! ends with a zero octet, which no device id holds. Numbers and times are big-endian.

use muster_policy::host::HostPattern;
use muster_policy::identity::{
    AccountId, CaId, CertificateId, RequestKey, SecretHash, Serial, TokenId, WebhookId, ZoneId,
};
use muster_policy::name::{DeviceId, Hostname, Label};
use muster_policy::time::UnixTime;

use crate::record::{AssociationScope, DocumentKind, ForeignName};

pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn account(id: AccountId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(crate) fn zone(id: ZoneId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(crate) fn zone_name(name: &Hostname) -> Vec<u8> {
    name.as_str().as_bytes().to_vec()
}

pub(crate) fn host(host: &HostPattern) -> Vec<u8> {
    host.to_string().into_bytes()
}

/// The hostnames of a CA, none for the managed ones, in a zone or in the whole account.
pub(crate) fn association(scope: AssociationScope, ca: Option<CaId>) -> Vec<u8> {
    let ca = ca.map_or([0; 16], |ca| *ca.as_bytes());
    match scope {
        AssociationScope::Account(account) => join(&[account.as_bytes(), &ca]),
        AssociationScope::Zone { zone, .. } => join(&[zone.as_bytes(), &ca]),
    }
}

pub(crate) fn outbound_leaf(account: AccountId, id: CaId) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_bytes()])
}

pub(crate) fn origin_pull(zone: ZoneId, host: &HostPattern) -> Vec<u8> {
    join(&[zone.as_bytes(), host.to_string().as_bytes()])
}

/// The start of all keys of a kind of document.
pub(crate) fn documents(account: AccountId, kind: DocumentKind) -> Vec<u8> {
    join(&[account.as_bytes(), &[kind.octet()]])
}

pub(crate) fn document(account: AccountId, kind: DocumentKind, id: CaId) -> Vec<u8> {
    join(&[account.as_bytes(), &[kind.octet()], id.as_bytes()])
}

pub(crate) fn zone_certificate(zone: ZoneId, id: CertificateId) -> Vec<u8> {
    join(&[zone.as_bytes(), id.as_bytes()])
}

pub(crate) fn ca(id: CaId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// In `meta`: the change since which the CA's list does not say what is revoked.
pub(crate) fn crl_behind(ca: CaId) -> String {
    format!("crl-behind/{ca}")
}

pub(crate) fn profile(account: AccountId, label: &Label) -> Vec<u8> {
    join(&[account.as_bytes(), label.as_str().as_bytes()])
}

pub(crate) fn device(account: AccountId, id: &DeviceId) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_str().as_bytes()])
}

pub(crate) fn manufacturer_serial(account: AccountId, serial: &str) -> Vec<u8> {
    join(&[account.as_bytes(), serial.as_bytes()])
}

pub(crate) fn token(account: AccountId, id: TokenId) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_bytes()])
}

pub(crate) fn token_expiry(expires_at: UnixTime, account: AccountId, id: TokenId) -> Vec<u8> {
    join(&[&time(expires_at), account.as_bytes(), id.as_bytes()])
}

pub(crate) fn secret(hash: SecretHash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

/// A request by its token and the key it came with, both as hashes.
pub(crate) fn keyed(token: SecretHash, key: SecretHash) -> Vec<u8> {
    join(&[token.as_bytes(), key.as_bytes()])
}

pub(crate) fn keyed_age(token: SecretHash, at: UnixTime, key: SecretHash) -> Vec<u8> {
    join(&[token.as_bytes(), &time(at), key.as_bytes()])
}

/// The end of the ages of what a token sent before a time.
pub(crate) fn keyed_until(token: SecretHash, before: UnixTime) -> Vec<u8> {
    join(&[token.as_bytes(), &time(before)])
}

/// Reads the key that an age ends with.
pub(crate) fn keyed_of_age(age: &[u8]) -> Option<SecretHash> {
    let start = age.len().checked_sub(32)?;
    Some(SecretHash::from_bytes(age.get(start..)?.try_into().ok()?))
}

pub(crate) fn admin_token(id: TokenId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(crate) fn webhook(account: AccountId, id: WebhookId) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_bytes()])
}

pub(crate) fn dead_letter(account: AccountId, id: WebhookId, last: u64) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_bytes(), &number(last)])
}

pub(crate) fn certificate(account: AccountId, id: CertificateId) -> Vec<u8> {
    join(&[account.as_bytes(), id.as_bytes()])
}

pub(crate) fn serial(ca: CaId, serial: Serial) -> Vec<u8> {
    join(&[ca.as_bytes(), serial.as_bytes()])
}

/// A certificate that was issued elsewhere, within its CA.
pub(crate) fn foreign(ca: CaId, name: ForeignName) -> Vec<u8> {
    match name {
        ForeignName::Serial(serial) => join(&[ca.as_bytes(), &[0], serial.as_bytes()]),
        ForeignName::Fingerprint(fingerprint) => join(&[ca.as_bytes(), &[1], fingerprint.as_bytes()]),
    }
}

/// The start of all keys of a device's certificates.
pub(crate) fn device_certificates(account: AccountId, device: &DeviceId) -> Vec<u8> {
    join(&[account.as_bytes(), device.as_str().as_bytes(), &[0]])
}

pub(crate) fn device_certificate(account: AccountId, device: &DeviceId, id: CertificateId) -> Vec<u8> {
    join(&[account.as_bytes(), device.as_str().as_bytes(), &[0], id.as_bytes()])
}

pub(crate) fn expiry(not_after: UnixTime, account: AccountId, id: CertificateId) -> Vec<u8> {
    join(&[&time(not_after), account.as_bytes(), id.as_bytes()])
}

pub(crate) fn request(key: RequestKey) -> Vec<u8> {
    key.as_bytes().to_vec()
}

pub(crate) fn request_age(at: UnixTime, key: RequestKey) -> Vec<u8> {
    join(&[&time(at), key.as_bytes()])
}

pub(crate) fn waiting(account: AccountId, since: UnixTime, key: RequestKey) -> Vec<u8> {
    join(&[account.as_bytes(), &time(since), key.as_bytes()])
}

/// A request that waits, by the token that carries it; [`token`] starts the keys of all of a token's.
pub(crate) fn token_waiting(account: AccountId, token: TokenId, since: UnixTime, key: RequestKey) -> Vec<u8> {
    join(&[account.as_bytes(), token.as_bytes(), &time(since), key.as_bytes()])
}

pub(crate) const fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A time never lies before 1970, so that its octets sort like it.
pub(crate) fn time(at: UnixTime) -> [u8; 8] {
    at.as_secs().to_be_bytes()
}

/// The first key that is greater than every key starting with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Reads the request key that a key ends with.
pub(crate) fn request_of(key: &[u8]) -> Option<RequestKey> {
    let start = key.len().checked_sub(32)?;
    Some(RequestKey::from_bytes(key.get(start..)?.try_into().ok()?))
}

/// Reads the number a key of [`number`] form is.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}
