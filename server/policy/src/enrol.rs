//! Wish + caller + profile + now -> grant or refusal.
//!
//! A CSR is a wish, never a template: it gives the key and what the device would like to be called.
//! Names, usages and lifetime come from policy. [`Grant`] has no public constructor, so nothing can
//! be built that [`enrol`] did not allow.

use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::KeyFingerprint;
use crate::key::{KeyKind, RSA_MAX_BITS, WishedKey};
use crate::name::{DeviceId, Hostname, Label, TrustDomain};
use crate::profile::{Approval, CredentialRule, Profile};
use crate::reason::{Reason, Refusal};
use crate::time::UnixTime;

/// More alternative names than this are refused; a device has at most four by any profile.
pub const SAN_MAX: usize = 16;

/// Where a refusal speaks of the common name.
const FIELD_CN: &str = "/csr/subject/CN";
/// Where a refusal speaks of the subject.
const FIELD_SUBJECT: &str = "/csr/subject";
/// Where a refusal speaks of alternative names.
const FIELD_SAN: &str = "/csr/extensions/subjectAltName";
/// Where a refusal speaks of the key.
const FIELD_KEY: &str = "/csr/subjectPublicKeyInfo";

/// One attribute of a subject: the dotted OID of its type, and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAttribute {
    /// Dotted OID, e.g. `2.5.4.3` for the common name.
    pub oid: String,
    /// The text, whatever string type it had.
    pub text: String,
}

/// The OID of the common name.
pub const OID_COMMON_NAME: &str = "2.5.4.3";

/// One subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", tag = "kind", content = "value")]
pub enum San {
    /// dNSName, lower case.
    Dns(String),
    /// rfc822Name.
    Email(String),
    /// iPAddress, as text.
    Ip(String),
    /// Any other kind; never granted.
    Other(String),
    /// uniformResourceIdentifier, exactly.
    Uri(String),
}

/// What a device asks for, read from its CSR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The key to certify.
    pub key: WishedKey,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_fingerprint: KeyFingerprint,
    /// The subject, in the order of the request.
    pub subject: Vec<SubjectAttribute>,
    /// The alternative names it asks for, in the order of the request.
    pub sans: Vec<San>,
    /// It asks to change its subject by the changeSubjectName attribute (RFC 6402 §2.8).
    pub changes_subject: bool,
}

/// The certificate that a renewal is bound to: stored by us, and just proven in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The device it was issued to.
    pub device: DeviceId,
    /// The profile it was issued under.
    pub profile: Label,
    /// Its subject.
    pub subject: Vec<SubjectAttribute>,
    /// Its alternative names.
    pub sans: Vec<San>,
    /// Its end.
    pub not_after: UnixTime,
}

/// Who asks, as verified by the front: every field is a proven fact, never a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The holder of a certificate of this account, who renews it.
    Holder(Held),
    /// A device with a manufacturer's certificate whose serial number is listed for it.
    Manufacturer {
        /// The device that lists the serial number.
        device: DeviceId,
    },
    /// A device with both, for the same device id.
    ManufacturerAndToken {
        /// The device that both name.
        device: DeviceId,
        /// What the token is bound to.
        token: TokenTerms,
    },
    /// A person or program with the right to sign any request of this account.
    Operator {
        /// The device the certificate is for.
        device: DeviceId,
    },
    /// The bearer of a token, for this device id.
    Token {
        /// The device the token is bound to, or, for a claim token, the one that is claimed.
        device: DeviceId,
        /// What the token is bound to.
        token: TokenTerms,
    },
}

/// What a token is bound to beside its device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTerms {
    /// Only this key may be certified with it.
    pub key: Option<KeyFingerprint>,
    /// Only this profile may be used with it.
    pub profile: Option<Label>,
}

/// What the ledger says of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeviceStatus {
    /// It may enroll and connect.
    #[default]
    Active,
    /// Nothing is issued to it until it is resumed.
    Suspended,
    /// Nothing is issued to it ever again.
    Retired,
}

/// When a certificate should be renewed.
///
/// Invariant, held by the only constructor: `renew_at <= urgent_at <= expires_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalWindow {
    renew_at: UnixTime,
    urgent_at: UnixTime,
}

impl RenewalWindow {
    /// The window of a certificate issued at `now` that ends at `not_after`.
    ///
    /// `spread` is any number that is random over the fleet and fixed for the certificate; it places
    /// the renewal inside the profile's jitter, so that devices enrolled together renew apart.
    fn new(profile: &Profile, now: UnixTime, not_after: UnixTime, spread: u32) -> Self {
        let lifetime = not_after.since(now);
        let from = percent(lifetime, profile.renew_from_percent);
        let jitter = percent(lifetime, profile.renew_jitter_percent);
        let place = jitter.mul_f64(f64::from(spread) / f64::from(u32::MAX));
        let renew_at = now.plus(from + place).min(not_after);
        let urgent_at = now.plus(percent(lifetime, profile.renew_urgent_percent)).clamp(renew_at, not_after);
        Self { renew_at, urgent_at }
    }

    /// When this device should renew, spread over the fleet.
    pub const fn renew_at(&self) -> UnixTime {
        self.renew_at
    }

    /// When renewal can't wait any more.
    pub const fn urgent_at(&self) -> UnixTime {
        self.urgent_at
    }
}

fn percent(span: Duration, percent: u8) -> Duration {
    span.mul_f64(f64::from(percent) / 100.0)
}

/// What may be issued: the only thing a certificate is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    device: DeviceId,
    profile: Label,
    key_fingerprint: KeyFingerprint,
    sans: Vec<San>,
    not_before: UnixTime,
    not_after: UnixTime,
    renewal: RenewalWindow,
    names_crl: bool,
    dropped: Vec<String>,
}

impl Grant {
    /// The device, and the common name of the certificate.
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The profile it was granted under.
    pub const fn profile(&self) -> &Label {
        &self.profile
    }

    /// The key it is for.
    pub const fn key_fingerprint(&self) -> KeyFingerprint {
        self.key_fingerprint
    }

    /// The alternative names: the SPIFFE URI first.
    pub fn sans(&self) -> &[San] {
        &self.sans
    }

    /// Start of validity, slightly in the past.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// End of validity, never after the issuer's.
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// When to renew.
    pub const fn renewal(&self) -> RenewalWindow {
        self.renewal
    }

    /// Whether the certificate names the URL of its CRL.
    pub const fn names_crl(&self) -> bool {
        self.names_crl
    }

    /// What the request asked for and did not get, for people: nothing is dropped in silence.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }
}

/// What surrounds a decision: facts of the account and the moment.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The account's trust domain.
    pub trust_domain: &'a TrustDomain,
    /// What the ledger says of the device; a device it does not know yet is active.
    pub device_status: DeviceStatus,
    /// End of the issuing CA; no certificate outlives it.
    pub issuer_not_after: UnixTime,
    /// The moment of the decision.
    pub now: UnixTime,
    /// Random over the fleet, fixed for the certificate; see [`RenewalWindow`].
    pub spread: u32,
}

/// Decides whether the caller may have what it wishes for.
///
/// # Errors
/// The refusal says which field of the request is meant. The first rule broken is told: who the
/// caller is comes before what it asks for.
pub fn enrol(
    wish: &Wish,
    caller: &Caller,
    profile: &Profile,
    setting: Setting<'_>,
) -> Result<Grant, Refusal> {
    let device = caller.device();
    match setting.device_status {
        DeviceStatus::Active => {}
        DeviceStatus::Suspended => return Err(Refusal::new(Reason::DeviceSuspended, "/device")),
        DeviceStatus::Retired => return Err(Refusal::new(Reason::DeviceRetired, "/device")),
    }
    check_credential(caller, profile)?;
    check_terms(wish, caller, profile)?;
    check_key(&wish.key, profile)?;
    check_names(wish)?;
    let granted = granted_sans(device, profile, setting.trust_domain);
    let (sans, dropped) = match caller {
        Caller::Holder(held) => (renewed_sans(wish, held, granted)?, Vec::new()),
        _ => first_sans(wish, device, granted)?,
    };
    let not_after = setting.now.plus(profile.lifetime).min(setting.issuer_not_after);
    if not_after <= setting.now {
        return Err(Refusal::new(Reason::CaUnavailable, "/ca"));
    }
    Ok(Grant {
        device: device.clone(),
        profile: profile.label.clone(),
        key_fingerprint: wish.key_fingerprint,
        sans,
        not_before: setting.now.minus(profile.backdate),
        not_after,
        renewal: RenewalWindow::new(profile, setting.now, not_after, setting.spread),
        names_crl: profile.crl_url,
        dropped,
    })
}

impl Caller {
    /// The device the caller is or speaks for.
    pub const fn device(&self) -> &DeviceId {
        match self {
            Self::Holder(held) => &held.device,
            Self::Manufacturer { device }
            | Self::ManufacturerAndToken { device, .. }
            | Self::Operator { device }
            | Self::Token { device, .. } => device,
        }
    }

    const fn token_terms(&self) -> Option<&TokenTerms> {
        match self {
            Self::Token { token, .. } | Self::ManufacturerAndToken { token, .. } => Some(token),
            Self::Holder(_) | Self::Manufacturer { .. } | Self::Operator { .. } => None,
        }
    }
}

fn check_credential(caller: &Caller, profile: &Profile) -> Result<(), Refusal> {
    // A profile that asks for certain credentials, or for a person, asks it of those who come from another one, too.
    if let Caller::Holder(held) = caller
        && held.profile != profile.label
        && (profile.credentials != CredentialRule::Any || profile.approval != Approval::Automatic)
    {
        return Err(Refusal::new(Reason::ProfileForbidden, "/profile").with_detail(&profile.label));
    }
    let enough = match (caller, profile.credentials) {
        (Caller::Holder(_) | Caller::Operator { .. } | Caller::ManufacturerAndToken { .. }, _)
        | (Caller::Manufacturer { .. }, CredentialRule::Any | CredentialRule::Certificate)
        | (Caller::Token { .. }, CredentialRule::Any | CredentialRule::Token) => true,
        (Caller::Manufacturer { .. } | Caller::Token { .. }, _) => false,
    };
    if enough { Ok(()) } else { Err(Refusal::new(Reason::CredentialsMissing, "/credentials")) }
}

fn check_terms(wish: &Wish, caller: &Caller, profile: &Profile) -> Result<(), Refusal> {
    let Some(terms) = caller.token_terms() else { return Ok(()) };
    if terms.profile.as_ref().is_some_and(|bound| *bound != profile.label) {
        return Err(Refusal::new(Reason::ProfileForbidden, "/profile").with_detail(&profile.label));
    }
    if terms.key.is_some_and(|bound| bound != wish.key_fingerprint) {
        return Err(Refusal::new(Reason::TokenKeyMismatch, FIELD_KEY).with_detail(wish.key_fingerprint));
    }
    Ok(())
}

fn check_key(key: &WishedKey, profile: &Profile) -> Result<(), Refusal> {
    let kind = match *key {
        WishedKey::Unknown => return Err(Refusal::new(Reason::KeyWeak, FIELD_KEY)),
        WishedKey::Rsa { bits } if bits < profile.rsa_min_bits || bits > RSA_MAX_BITS => {
            return Err(Refusal::new(Reason::KeyWeak, FIELD_KEY).with_detail(format_args!(
                "RSA with {bits} bits, must be {} to {RSA_MAX_BITS}",
                profile.rsa_min_bits
            )));
        }
        WishedKey::Rsa { .. } => KeyKind::Rsa,
        WishedKey::Curve(kind) => kind,
    };
    if profile.keys.contains(&kind) {
        Ok(())
    } else {
        Err(Refusal::new(Reason::KeyKindForbidden, FIELD_KEY).with_detail(kind))
    }
}

/// Form of the names, whoever asks: printable, no wildcards, one common name, not too many.
fn check_names(wish: &Wish) -> Result<(), Refusal> {
    if wish.changes_subject {
        return Err(Refusal::new(Reason::SubjectChangeUnsupported, "/csr/attributes/changeSubjectName"));
    }
    for attribute in &wish.subject {
        if attribute.text.chars().any(|c| c.is_control() || c == '*') {
            return Err(Refusal::new(Reason::NameMalformed, FIELD_SUBJECT).with_detail(&attribute.text));
        }
    }
    match wish.subject.iter().filter(|attribute| attribute.oid == OID_COMMON_NAME).count() {
        0 => return Err(Refusal::new(Reason::SubjectEmpty, FIELD_CN)),
        1 => {}
        _ => return Err(Refusal::new(Reason::SubjectAmbiguous, FIELD_CN)),
    }
    if wish.sans.len() > SAN_MAX {
        return Err(Refusal::new(Reason::SanExcessive, FIELD_SAN).with_detail(wish.sans.len()));
    }
    for san in &wish.sans {
        if san.text().chars().any(|c| c.is_control() || c == '*') {
            return Err(Refusal::new(Reason::NameMalformed, FIELD_SAN).with_detail(san.text()));
        }
    }
    Ok(())
}

/// The names policy gives: the SPIFFE id, and a DNS name where the profile has a suffix for it.
fn granted_sans(device: &DeviceId, profile: &Profile, trust_domain: &TrustDomain) -> Vec<San> {
    let mut sans = vec![San::Uri(trust_domain.spiffe_id(device))];
    if let Some(suffix) = &profile.dns_suffix
        && let Ok(name) = format!("{device}.{suffix}").parse::<Hostname>()
    {
        sans.push(San::Dns(name.as_str().to_owned()));
    }
    sans
}

/// A first enrollment: the common name is the device, and each wished name one the device has anyway.
fn first_sans(
    wish: &Wish,
    device: &DeviceId,
    mut granted: Vec<San>,
) -> Result<(Vec<San>, Vec<String>), Refusal> {
    let mut dropped = Vec::new();
    for attribute in &wish.subject {
        if attribute.oid == OID_COMMON_NAME {
            if attribute.text != device.as_str() {
                return Err(Refusal::new(Reason::NameMismatch, FIELD_CN).with_detail(&attribute.text));
            }
        } else {
            dropped.push(format!("{FIELD_SUBJECT}/{}", attribute.oid));
        }
    }
    for san in &wish.sans {
        // The device's own id as a DNS name adds no identity; many clients put it in by themselves.
        let own = matches!(san, San::Dns(name) if name.eq_ignore_ascii_case(device.as_str()));
        if granted.contains(san) {
            continue;
        }
        if !own {
            return Err(Refusal::new(Reason::SanForbidden, FIELD_SAN).with_detail(san.text()));
        }
        granted.push(san.clone());
    }
    Ok((granted, dropped))
}

/// A renewal: same subject, and the same alternative names or none (RFC 7030 §4.2.2). Those that policy gives may be
/// missing: who renews with the request of the enrollment never wrote them.
fn renewed_sans(wish: &Wish, held: &Held, granted: Vec<San>) -> Result<Vec<San>, Refusal> {
    if wish.subject != held.subject {
        let found =
            wish.subject.iter().map(|attribute| attribute.text.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::new(Reason::SubjectChanged, FIELD_SUBJECT).with_detail(found));
    }
    let wished: BTreeSet<&San> = wish.sans.iter().collect();
    let had: BTreeSet<&San> = held.sans.iter().collect();
    let given: BTreeSet<&San> = granted.iter().collect();
    let changed: Vec<&San> = wished
        .symmetric_difference(&had)
        .filter(|san| wished.contains(*san) || !given.contains(*san))
        .copied()
        .collect();
    if !wished.is_empty() && !changed.is_empty() {
        let changed = changed.into_iter().map(San::text).collect::<Vec<_>>().join(", ");
        return Err(Refusal::new(Reason::SanChanged, FIELD_SAN).with_detail(changed));
    }
    Ok(if held.sans.is_empty() { granted } else { held.sans.clone() })
}

impl San {
    /// The name without its kind.
    pub fn text(&self) -> &str {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Ip(text) | Self::Other(text) | Self::Uri(text) => {
                text
            }
        }
    }
}

#[cfg(test)]
mod tests;
