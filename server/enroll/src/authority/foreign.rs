//! The own revocation lists of CAs whose key is elsewhere: read, checked, stored.

use muster_ca::certificate::CaCertificate;
use muster_ca::foreign_crl::{self, ForeignCrl};
use muster_policy::identity::CaId;
use muster_store::act::{By, ListTaken, Rejected, TakeList};
use muster_store::record::{ForeignList, ForeignListDer, ListSource, Revocation};

use super::{Authority, AuthorityError};

/// Where a list comes from, and who brings it.
#[derive(Clone, Debug)]
pub struct ListOrigin {
    /// Uploaded, or fetched.
    pub source: ListSource,
    /// Who.
    pub by: By,
    /// The distribution point that the CA's complete list may name (RFC 5280 §5.2.5).
    pub point: Option<String>,
}

/// A list that was read and checked, and is not taken yet.
#[derive(Clone, Debug)]
pub struct ListTrial {
    ca: CaId,
    crl: ForeignCrl,
}

impl Authority {
    /// Reads a list, PEM or DER, and checks it against its CA; nothing is stored.
    ///
    /// # Errors
    /// When the CA is not known or has its key here, and for whatever is wrong with the list.
    pub async fn try_list(
        &self,
        ca: CaId,
        octets: Vec<u8>,
        point: Option<String>,
    ) -> Result<ListTrial, AuthorityError> {
        let found = self.ledger.reader()?.ca(ca)?.filter(|found| found.account == self.account);
        let found = found.ok_or(AuthorityError::Rejected(Rejected::CaUnknown))?;
        if found.key_file.is_some() {
            return Err(AuthorityError::Rejected(Rejected::ListIsOurs));
        }
        let certificate = CaCertificate::parse(&found.certificate_der)
            .map_err(|error| AuthorityError::Issuer { ca, error: error.into() })?;
        let now = self.clock.now();
        // The largest takes some 100 ms of one core; other tasks must not wait for it.
        let read = move || foreign_crl::read(&octets, &certificate, point.as_deref(), now);
        let crl = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| AuthorityError::Ledger(error.to_string()))??;
        Ok(ListTrial { ca, crl })
    }

    /// Takes a list that was checked in place of the one before. The same list again changes nothing.
    ///
    /// # Errors
    /// When it is older than the one that is known, or the ledger can't store it.
    pub async fn take_list(&self, trial: ListTrial, origin: ListOrigin) -> Result<ListTaken, AuthorityError> {
        let ListTrial { ca, crl } = trial;
        let revoked: Vec<_> = crl
            .revoked
            .iter()
            .map(|one| (one.serial, Revocation { at: one.revoked_at, reason: one.reason }))
            .collect();
        let list = ForeignList {
            number: crl.number.into(),
            this_update: crl.this_update,
            next_update: crl.next_update,
            fingerprint: crate::encoding::fingerprint(&crl.der),
            entries: u64::try_from(revoked.len()).unwrap_or(u64::MAX),
            source: origin.source,
            taken_at: origin.by.at,
        };
        let der = ForeignListDer(crl.der.into());
        let take = TakeList { account: self.account, ca, list, der, revoked, by: origin.by };
        Ok(self.ledger.transact(take).await?)
    }
}
