//! Bringing a CA along: from a PEM bundle to a record.
//!
//! With its key it issues from now on and the CA before it keeps verifying; without it it only
//! verifies. A manufacturer's CA proves first enrollments and issues nothing here.

use muster_ca::byo::import;
use muster_ca::file_key::{FileKey, Passphrase};
use muster_ca::signer::Signer as _;
use muster_policy::identity::CaId;
use muster_policy::name::Title;
use muster_store::Error as LedgerError;
use muster_store::act::{AddCa, By, RemoveCa};
use muster_store::record::{Ca, CaKind, CaRole, Upload};
use zeroize::Zeroizing;

use super::found::record_of;
use super::{Authority, AuthorityError};
use crate::secret::random_or_refuse;

/// What is to be imported.
pub struct ImportPlan {
    /// The bundle: the CA, the CAs above it, and optionally its key.
    pub pem: String,
    /// The passphrase of the key in the bundle.
    pub passphrase: Option<Passphrase>,
    /// Whether it is a manufacturer's.
    pub manufacturer: bool,
    /// What to call it; else its subject.
    pub title: Option<Title>,
    /// What the uploader reads back, when it comes through the API of uploaded certificates.
    pub upload: Option<Upload>,
}

impl Authority {
    /// Imports a CA.
    ///
    /// # Errors
    /// A leaf, an expired CA, a key that does not fit, a broken path: each with its reason.
    pub async fn import(&self, plan: ImportPlan, by: By) -> Result<Ca, AuthorityError> {
        let now = self.clock.now();
        let imported = import(&plan.pem, plan.passphrase.as_ref(), now)?;
        let Some((certificate, above)) = imported.certificates.split_first() else {
            return Err(muster_ca::byo::ImportError::NoCertificate.into());
        };
        let id = CaId::new(self.clock.unix_millis(), random_or_refuse()?);
        let role = match (plan.manufacturer, &imported.key) {
            (true, _) => CaRole::Manufacturer,
            (false, Some(_)) => CaRole::Devices,
            (false, None) => CaRole::VerifyOnly,
        };
        if role == CaRole::Devices {
            imported.check_for_devices()?;
        }
        let title = plan.title.unwrap_or_else(|| title_of(certificate.subject()));
        let mut record = record_of(id, self.account, role, CaKind::Byo, title, certificate, now);
        record.chain = above.iter().map(|above| above.der().to_vec().into()).collect();
        if let (CaRole::Devices, Some(key)) = (role, &imported.key) {
            record.key_file = Some(self.keys.write(id, key)?);
        }
        record.upload = plan.upload;
        let _changing = self.changing.lock().await;
        let before = self.ledger.reader()?.cas(self.account)?;
        let added = self.ledger.transact(AddCa { ca: record.clone(), by: by.clone() }).await;
        if let (Err(LedgerError::Refused(_)), Some(key_file)) = (&added, &record.key_file)
            && let Err(error) = self.keys.remove(key_file)
        {
            tracing::warn!(%error, key_file, "the key of a CA that was not taken is left");
        }
        added?;
        if role == CaRole::Devices {
            self.retire_older(&before, &[CaRole::Devices], by).await?;
        }
        self.reload()?;
        Ok(record)
    }

    /// Removes a CA that was brought along and only verifies.
    ///
    /// # Errors
    /// When it is in use, or is no such CA.
    pub async fn remove_ca(&self, ca: CaId, by: By) -> Result<Ca, AuthorityError> {
        let removed = self.ledger.transact(RemoveCa { account: self.account, ca, by }).await?;
        self.reload()?;
        Ok(removed)
    }

    /// Keeps the key of a leaf that is shown to others; returns its file name for the record.
    ///
    /// # Errors
    /// When it can't be read, is not the key of `spki_der`, or can't be stored.
    pub fn keep_outbound_key(
        &self,
        leaf: CaId,
        pem: &str,
        spki_der: &[u8],
    ) -> Result<String, AuthorityError> {
        let key = FileKey::read_pem(pem, None)?;
        if key.spki_der() != spki_der {
            return Err(muster_ca::byo::ImportError::KeyMismatch.into());
        }
        Ok(self.keys.write(leaf, &key)?)
    }

    /// The key in such a file, as PKCS#8.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn outbound_key(&self, file: &str) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
        Ok(self.keys.read(file)?.pkcs8_der()?)
    }

    /// Removes the file of such a key.
    ///
    /// # Errors
    /// When the file is there and stays.
    pub fn forget_outbound_key(&self, file: &str) -> std::io::Result<()> {
        self.keys.remove(file)
    }
}

/// The subject, cut to what a title can hold.
fn title_of(subject: &str) -> Title {
    let cut: String = subject.chars().filter(|c| !c.is_control()).take(128).collect();
    let imported = || "imported CA".parse();
    #[expect(clippy::expect_used, reason = "a constant that parses, as the test shows")]
    cut.parse().or_else(|_| imported()).expect("`imported CA` is a title")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_subject_makes_a_title() {
        assert_eq!(title_of("CN=x").as_str(), "CN=x");
        assert_eq!(title_of(" \n").as_str(), "imported CA");
        assert_eq!(title_of(&"é".repeat(300)).as_str().chars().count(), 128);
    }
}
