//! From what a connection and a request put forward to who it is.
//!
//! Two proofs can be there: a token in the Authorization header, and a certificate whose key the
//! handshake proved. This file turns them into a [`Caller`]: verified facts, never claims. Secrets
//! are looked up by their hash, so a comparison tells nothing about the stored ones. Whether a token
//! still has uses is decided later, in the transaction that takes one: the same request must get its
//! certificate again although the token is used up.

use aws_lc_rs::digest::{Context, SHA256};
use muster_ca::csr::Csr;
use muster_policy::enrol::{Caller, Held, OID_COMMON_NAME, TokenTerms};
use muster_policy::identity::{AccountId, CertificateId, Fingerprint, RequestKey, TokenId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::profile::Profile;
use muster_policy::reason::{Reason, Refusal};
use muster_policy::time::UnixTime;
use muster_store::record::{Actor, Certificate, How, Token};
use muster_store::{Fault, Reader};

use crate::front::Presented;
use crate::presentation::{FIELD_CERTIFICATE, Presentation};
use crate::registrar::KeySource;
use crate::secret::{hash_secret, sha256};

/// Where a refusal speaks of the Authorization header.
const FIELD_AUTHORIZATION: &str = "/authorization";

/// A token that is known, and the device it is presented for.
pub(crate) struct Bearer {
    token: Token,
    /// None for a claim token without a user name: the request names the device then.
    device: Option<DeviceId>,
}

/// Who asks, before the request itself was parsed.
pub(crate) enum Proof {
    Holder(Box<Certificate>),
    Manufacturer { device: DeviceId, leaf: Fingerprint, bearer: Option<Bearer> },
    Token(Bearer),
}

/// A caller, and what the ledger has to remember of it.
#[derive(Debug)]
pub struct Identified {
    pub(crate) caller: Caller,
    pub(crate) actor: Actor,
    pub(crate) token: Option<TokenId>,
    pub(crate) replaces: Option<CertificateId>,
    pub(crate) how: How,
    /// What the audit should say beside the facts.
    pub(crate) note: Option<String>,
    /// What tells this caller from others in the key of a request.
    tag: [u8; 32],
}

/// Who asks for a first enrollment or a key: by token, by manufacturer's certificate, by both, or,
/// without a token, by a certificate of ours (then it is a renewal).
///
/// # Errors
/// The outer error is the ledger's; the inner refusal is the answer.
pub(crate) fn prove_first(
    presented: Presented,
    presentation: Presentation,
    account: AccountId,
    reader: &Reader,
) -> Result<Result<Proof, Refusal>, Fault> {
    let bearer = match presented {
        Presented::Nothing => None,
        Presented::Unreadable => return Ok(Err(Refusal::new(Reason::CredentialsWrong, FIELD_AUTHORIZATION))),
        Presented::Basic { device, token } => match find_bearer(&token, Some(device), account, reader)? {
            Ok(bearer) => Some(bearer),
            Err(refusal) => return Ok(Err(refusal)),
        },
        Presented::Bearer { token } => match find_bearer(&token, None, account, reader)? {
            Ok(bearer) => Some(bearer),
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    Ok(match (presentation, bearer) {
        (Presentation::Manufacturer { device, leaf }, bearer) => {
            Ok(Proof::Manufacturer { device, leaf, bearer })
        }
        // A token speaks for itself; an old certificate beside it neither helps nor harms.
        (_, Some(bearer)) => Ok(Proof::Token(bearer)),
        (Presentation::Device(certificate), None) => Ok(Proof::Holder(certificate)),
        (Presentation::Refused(refusal), None) => Err(refusal),
        (Presentation::Nothing, None) => Err(Refusal::new(Reason::CredentialsMissing, FIELD_AUTHORIZATION)),
    })
}

/// Who renews: the holder of a certificate of ours, and nobody else (RFC 7030 §3.3.2).
pub(crate) fn prove_renewal(presentation: Presentation) -> Result<Proof, Refusal> {
    match presentation {
        Presentation::Device(certificate) => Ok(Proof::Holder(certificate)),
        Presentation::Nothing => Err(Refusal::new(Reason::CertificateMissing, FIELD_CERTIFICATE)),
        Presentation::Manufacturer { .. } => Err(Refusal::new(Reason::CertificateUnknown, FIELD_CERTIFICATE)),
        Presentation::Refused(refusal) => Err(refusal),
    }
}

fn find_bearer(
    secret: &str,
    user: Option<DeviceId>,
    account: AccountId,
    reader: &Reader,
) -> Result<Result<Bearer, Refusal>, Fault> {
    let wrong = Refusal::new(Reason::CredentialsWrong, FIELD_AUTHORIZATION);
    let Some(token) = reader.token_by_hash(hash_secret(secret))? else { return Ok(Err(wrong)) };
    let mismatch = matches!((&token.device, &user), (Some(bound), Some(user)) if bound != user);
    if mismatch || token.account != account {
        return Ok(Err(wrong));
    }
    if token.revoked_at.is_some() {
        return Ok(Err(Refusal::new(Reason::TokenRevoked, FIELD_AUTHORIZATION)));
    }
    let device = token.device.clone().or(user);
    Ok(Ok(Bearer { token, device }))
}

impl Bearer {
    /// The device the token is used for; a claim token without a user name takes the request's.
    fn device(&self, csr: &Csr) -> Result<DeviceId, Refusal> {
        match &self.device {
            Some(device) => Ok(device.clone()),
            None => named_device(csr),
        }
    }

    fn terms(&self) -> TokenTerms {
        TokenTerms { key: self.token.key, profile: self.token.profile.clone() }
    }
}

/// The device that a request names.
pub(crate) fn named_device(csr: &Csr) -> Result<DeviceId, Refusal> {
    let field = "/csr/subject/CN";
    let mut names = csr.wish().subject.iter().filter(|attribute| attribute.oid == OID_COMMON_NAME);
    let name = names.next().ok_or_else(|| Refusal::new(Reason::SubjectEmpty, field))?;
    name.text.parse().map_err(|_| Refusal::new(Reason::NameMalformed, field).with_detail(&name.text))
}

impl Proof {
    /// The device whose identity is proven; a claim token proves none, whatever name comes with it.
    pub(crate) const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Holder(certificate) => Some(&certificate.device),
            Self::Manufacturer { device, .. } => Some(device),
            Self::Token(bearer) => bearer.token.device.as_ref(),
        }
    }

    /// Joins the proof with the request it came with.
    ///
    /// # Errors
    /// When certificate and token speak for different devices, or when the certificate has expired
    /// longer ago than the profile's grace allows.
    pub(crate) fn identify(self, csr: &Csr, profile: &Profile, now: UnixTime) -> Result<Identified, Refusal> {
        match self {
            Self::Holder(certificate) => Identified::holder(&certificate, profile, now),
            Self::Token(bearer) => {
                let device = bearer.device(csr)?;
                let token = bearer.token.id;
                Ok(Identified {
                    actor: Actor::Token(device.clone(), token),
                    tag: sha256(token.as_bytes()),
                    token: Some(token),
                    replaces: None,
                    how: How::First,
                    note: None,
                    caller: Caller::Token { device, token: bearer.terms() },
                })
            }
            Self::Manufacturer { device, leaf, bearer: None } => Ok(Identified {
                actor: Actor::Manufacturer(device.clone()),
                tag: *leaf.as_bytes(),
                token: None,
                replaces: None,
                how: How::First,
                note: None,
                caller: Caller::Manufacturer { device },
            }),
            Self::Manufacturer { device, leaf, bearer: Some(bearer) } => {
                if bearer.device(csr)? != device {
                    return Err(Refusal::new(Reason::CredentialsWrong, FIELD_AUTHORIZATION));
                }
                Ok(Identified {
                    actor: Actor::ManufacturerAndToken(device.clone(), bearer.token.id),
                    tag: *leaf.as_bytes(),
                    token: Some(bearer.token.id),
                    replaces: None,
                    how: How::First,
                    note: None,
                    caller: Caller::ManufacturerAndToken { device, token: bearer.terms() },
                })
            }
        }
    }
}

impl Identified {
    fn holder(certificate: &Certificate, profile: &Profile, now: UnixTime) -> Result<Self, Refusal> {
        if now > certificate.not_after.plus(profile.renewal_grace) {
            return Err(Refusal::new(Reason::CertificateExpired, FIELD_CERTIFICATE)
                .with_detail(format_args!("ended {}", certificate.not_after)));
        }
        Ok(Self {
            actor: Actor::Holder(certificate.device.clone()),
            tag: *certificate.fingerprint.as_bytes(),
            token: None,
            replaces: Some(certificate.id),
            how: How::Renewal,
            note: (now > certificate.not_after)
                .then(|| format!("in grace: the old certificate ended {}", certificate.not_after)),
            caller: Caller::Holder(Held {
                device: certificate.device.clone(),
                profile: certificate.profile.clone(),
                subject: certificate.subject.clone(),
                sans: certificate.sans.clone(),
                not_after: certificate.not_after,
            }),
        })
    }

    /// An operator who signs a request by hand.
    pub fn operator(device: DeviceId, actor: Actor) -> Self {
        Self {
            tag: sha256(b"operator"),
            token: None,
            replaces: None,
            how: How::Operator,
            note: None,
            caller: Caller::Operator { device },
            actor,
        }
    }

    /// A client of the API who asks for one more certificate each time.
    ///
    /// `once` is new for each request, or the same for those that are one.
    pub const fn client(device: DeviceId, actor: Actor, once: [u8; 32]) -> Self {
        Self {
            tag: once,
            token: None,
            replaces: None,
            how: How::Operator,
            note: None,
            caller: Caller::Operator { device },
            actor,
        }
    }

    /// Names this request, so that it gets the same certificate when it is repeated.
    ///
    /// A renewal is named by its exact bytes. A first enrollment is named by key and device: ECDSA
    /// signatures and channel bindings differ each time a device asks again, and a device whose
    /// answer was lost would find its token used up.
    pub(crate) fn request_key(&self, profile: &Label, csr: &Csr, key: KeySource) -> RequestKey {
        let mut hash = Context::new(&SHA256);
        let kind: &[u8] = match (key, self.how) {
            (KeySource::Server, _) => b"keygen",
            (KeySource::Device, How::First | How::Keygen) => b"first",
            (KeySource::Device, How::Operator) => b"operator",
            (KeySource::Device, How::Renewal) => b"renewal",
        };
        let exact = match self.how {
            How::First | How::Keygen => *csr.wish().key_fingerprint.as_bytes(),
            How::Operator | How::Renewal => csr.digest(),
        };
        for part in
            [kind, &self.tag, self.caller.device().as_str().as_bytes(), profile.as_str().as_bytes(), &exact]
        {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        RequestKey::from_bytes(key)
    }
}
