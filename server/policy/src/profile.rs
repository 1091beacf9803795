//! What may be issued: a profile as written and as checked.
//!
//! [`ProfileWritten`] is what an operator writes, every field optional. [`Profile`] is what the
//! pipeline uses; only [`ProfileWritten::check`] makes one, so its invariants hold everywhere.
//! A profile's name is also the EST path label that selects it (RFC 7030 §3.2.2).

use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::key::{KeyKind, RSA_MAX_BITS, RSA_MIN_BITS};
use crate::name::{Hostname, Label};

/// Shortest lifetime of a leaf; below it clock skew decides more than the profile.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Longest lifetime of a leaf: 10 years, the upper end of what is sold as a device's life.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 366 * DAY_SECS);
/// Longest renewal grace: beyond it a certificate is old news, and a token the way back.
const GRACE_MAX: Duration = Duration::from_secs(366 * DAY_SECS);
/// Farthest notBefore in the past.
const BACKDATE_MAX: Duration = Duration::from_secs(DAY_SECS);
const DAY_SECS: u64 = 86_400;

/// Who has to agree before a certificate is issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Policy alone.
    #[default]
    Automatic,
    /// A person, for each first enrollment; the device polls with 202 (RFC 7030 §4.2.3).
    Manual,
}

/// What is done with a challengePassword that should hold the channel binding (RFC 7030 §3.5, RFC 9266).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ChannelBinding {
    /// It may hold anything, for clients that put something else there.
    Off,
    /// It must be there and match.
    Required,
    /// If it is there it must match.
    #[default]
    Verify,
}

/// How a device proves itself for a first enrollment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CredentialRule {
    /// A token, or a certificate of a listed manufacturer.
    #[default]
    Any,
    /// A listed manufacturer's certificate only.
    Certificate,
    /// Both at once, for the same device.
    CertificateAndToken,
    /// A token only.
    Token,
}

/// What csrattrs tells clients (RFC 7030 §4.5.2, RFC 9908).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CsrAttributes {
    /// Nothing: 204.
    None,
    /// Key type and signature algorithm.
    #[default]
    Plain,
    /// The same, and an RFC 9908 template for clients that know it.
    Template,
}

/// A profile as an operator writes it; a missing field takes the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProfileWritten {
    /// Kinds of key that may be certified; default ECDSA P-256, P-384 and RSA.
    pub keys: Option<Vec<KeyKind>>,
    /// Fewest bits of an RSA modulus; default and floor 2048.
    pub rsa_min_bits: Option<u32>,
    /// Lifetime of a certificate in seconds; default 90 days.
    pub lifetime_s: Option<u64>,
    /// How far notBefore lies in the past, in seconds, against clock skew; default 5 minutes.
    pub backdate_s: Option<u64>,
    /// When renewal begins, in percent of the lifetime; default 60.
    pub renew_from_percent: Option<u8>,
    /// When renewal becomes urgent, in percent of the lifetime; default 80.
    pub renew_urgent_percent: Option<u8>,
    /// Width, in percent of the lifetime, over which a fleet's renewals are spread; default 10.
    pub renew_jitter_percent: Option<u8>,
    /// Seconds after its end in which a certificate can still be renewed; default 0, never.
    pub renewal_grace_s: Option<u64>,
    /// Who has to agree; default `automatic`.
    pub approval: Option<Approval>,
    /// What a challengePassword must hold; default `verify`.
    pub channel_binding: Option<ChannelBinding>,
    /// What a first enrollment needs; default `any`.
    pub credentials: Option<CredentialRule>,
    /// What csrattrs answers; default `plain`.
    pub csr_attributes: Option<CsrAttributes>,
    /// Whether serverkeygen is offered; default true.
    pub server_keygen: Option<bool>,
    /// A DNS suffix: the certificate then also names `ID.SUFFIX`; default none.
    pub dns_suffix: Option<String>,
    /// Whether certificates name the URL of the CRL; default false.
    pub crl_url: Option<bool>,
    /// Whether base64 answers are wrapped for every client; default false (only for those that need it).
    pub wrap_base64: Option<bool>,
}

/// A checked profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub label: Label,
    /// Kinds of key that may be certified; never empty.
    pub keys: BTreeSet<KeyKind>,
    /// Fewest bits of an RSA modulus, 2048 to 4096.
    pub rsa_min_bits: u32,
    /// Lifetime counted from the moment of issue; one minute to ten years.
    pub lifetime: Duration,
    /// How far notBefore lies before the moment of issue; at most a day.
    pub backdate: Duration,
    /// When renewal begins; percent of the lifetime, below `renew_urgent_percent`.
    pub renew_from_percent: u8,
    /// When renewal becomes urgent; `renew_from_percent + renew_jitter_percent` at least, below 100.
    pub renew_urgent_percent: u8,
    /// Spread of the renewals, percent of the lifetime.
    pub renew_jitter_percent: u8,
    /// How long after its end a certificate can still be renewed.
    pub renewal_grace: Duration,
    /// Who has to agree.
    pub approval: Approval,
    /// What a challengePassword must hold.
    pub channel_binding: ChannelBinding,
    /// What a first enrollment needs.
    pub credentials: CredentialRule,
    /// What csrattrs answers.
    pub csr_attributes: CsrAttributes,
    /// Whether serverkeygen is offered.
    pub server_keygen: bool,
    /// Suffix of the additional DNS name.
    pub dns_suffix: Option<Hostname>,
    /// Whether certificates name the URL of the CRL.
    pub crl_url: bool,
    /// Whether base64 answers are wrapped for every client.
    pub wrap_base64: bool,
}

/// A profile that can't be used: the field, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {must}")]
pub struct ProfileError {
    /// Name of the field as written.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl ProfileWritten {
    /// Checks every field and fills in the defaults.
    ///
    /// # Errors
    /// Names the first field that is out of its range, or that contradicts another.
    pub fn check(&self, label: Label) -> Result<Profile, ProfileError> {
        let (renew_from_percent, renew_urgent_percent, renew_jitter_percent) = self.check_renewal()?;
        Ok(Profile {
            label,
            keys: self.check_keys()?,
            rsa_min_bits: bounded(
                self.rsa_min_bits.unwrap_or(RSA_MIN_BITS),
                RSA_MIN_BITS..=RSA_MAX_BITS,
                ProfileError { field: "rsa_min_bits", must: "2048 to 4096" },
            )?,
            lifetime: bounded(
                Duration::from_secs(self.lifetime_s.unwrap_or(90 * DAY_SECS)),
                LIFETIME_MIN..=LIFETIME_MAX,
                ProfileError { field: "lifetime_s", must: "60 seconds to 10 years" },
            )?,
            backdate: bounded(
                Duration::from_secs(self.backdate_s.unwrap_or(300)),
                Duration::ZERO..=BACKDATE_MAX,
                ProfileError { field: "backdate_s", must: "at most one day" },
            )?,
            renew_from_percent,
            renew_urgent_percent,
            renew_jitter_percent,
            renewal_grace: bounded(
                Duration::from_secs(self.renewal_grace_s.unwrap_or(0)),
                Duration::ZERO..=GRACE_MAX,
                ProfileError { field: "renewal_grace_s", must: "at most 366 days" },
            )?,
            approval: self.approval.unwrap_or_default(),
            channel_binding: self.channel_binding.unwrap_or_default(),
            credentials: self.credentials.unwrap_or_default(),
            csr_attributes: self.csr_attributes.unwrap_or_default(),
            server_keygen: self.server_keygen.unwrap_or(true),
            dns_suffix: self.check_dns_suffix()?,
            crl_url: self.crl_url.unwrap_or(false),
            wrap_base64: self.wrap_base64.unwrap_or(false),
        })
    }

    fn check_keys(&self) -> Result<BTreeSet<KeyKind>, ProfileError> {
        let keys = match &self.keys {
            None => BTreeSet::from([KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa]),
            Some(kinds) => kinds.iter().copied().collect(),
        };
        if keys.is_empty() {
            return Err(ProfileError { field: "keys", must: "at least one kind of key" });
        }
        Ok(keys)
    }

    fn check_renewal(&self) -> Result<(u8, u8, u8), ProfileError> {
        let from = self.renew_from_percent.unwrap_or(60);
        let urgent = self.renew_urgent_percent.unwrap_or_else(|| from.saturating_add(20).min(99));
        let jitter = self.renew_jitter_percent.unwrap_or_else(|| 10.min(urgent.saturating_sub(from)));
        if !(1..=98).contains(&from) {
            return Err(ProfileError { field: "renew_from_percent", must: "1 to 98" });
        }
        if urgent <= from || urgent > 99 {
            return Err(ProfileError {
                field: "renew_urgent_percent",
                must: "above renew_from_percent and at most 99",
            });
        }
        if from.saturating_add(jitter) > urgent {
            return Err(ProfileError {
                field: "renew_jitter_percent",
                must: "at most the distance from renew_from_percent to renew_urgent_percent",
            });
        }
        Ok((from, urgent, jitter))
    }

    fn check_dns_suffix(&self) -> Result<Option<Hostname>, ProfileError> {
        let wrong = ProfileError { field: "dns_suffix", must: "a DNS name" };
        self.dns_suffix.as_deref().map(str::parse).transpose().map_err(|_| wrong)
    }
}

fn bounded<T: PartialOrd>(
    value: T,
    range: core::ops::RangeInclusive<T>,
    error: ProfileError,
) -> Result<T, ProfileError> {
    if range.contains(&value) { Ok(value) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        "default".parse().expect("valid")
    }

    #[test]
    fn an_empty_profile_is_the_safe_default() {
        let profile = ProfileWritten::default().check(label()).expect("defaults are valid");
        assert_eq!(profile.lifetime, Duration::from_secs(90 * DAY_SECS));
        assert_eq!(profile.renewal_grace, Duration::ZERO);
        assert_eq!(profile.channel_binding, ChannelBinding::Verify);
        assert_eq!(profile.renew_from_percent, 60);
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let wrong = |written: ProfileWritten| written.check(label()).expect_err("must be refused").field;
        assert_eq!(wrong(ProfileWritten { keys: Some(vec![]), ..Default::default() }), "keys");
        assert_eq!(wrong(ProfileWritten { lifetime_s: Some(59), ..Default::default() }), "lifetime_s");
        assert_eq!(wrong(ProfileWritten { rsa_min_bits: Some(1024), ..Default::default() }), "rsa_min_bits");
        assert_eq!(wrong(ProfileWritten { backdate_s: Some(u64::MAX), ..Default::default() }), "backdate_s");
        assert_eq!(
            wrong(ProfileWritten { renew_from_percent: Some(0), ..Default::default() }),
            "renew_from_percent"
        );
        assert_eq!(
            wrong(ProfileWritten { renew_urgent_percent: Some(50), ..Default::default() }),
            "renew_urgent_percent"
        );
        assert_eq!(
            wrong(ProfileWritten { renew_jitter_percent: Some(255), ..Default::default() }),
            "renew_jitter_percent"
        );
        assert_eq!(
            wrong(ProfileWritten { dns_suffix: Some("a b".into()), ..Default::default() }),
            "dns_suffix"
        );
        assert_eq!(
            wrong(ProfileWritten { renewal_grace_s: Some(u64::MAX), ..Default::default() }),
            "renewal_grace_s"
        );
    }

    #[test]
    fn an_early_or_late_renewal_start_is_still_ordered() {
        for from in 1..=98 {
            let written = ProfileWritten { renew_from_percent: Some(from), ..Default::default() };
            if let Ok(profile) = written.check(label()) {
                assert!(
                    profile.renew_from_percent + profile.renew_jitter_percent <= profile.renew_urgent_percent
                );
                assert!(profile.renew_urgent_percent < 100);
            }
        }
    }
}
