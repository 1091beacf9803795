//! Revocation: the ledger first, then the CRL.
//!
//! Each CA with a key keeps one full CRL (RFC 5280 §5). It is made anew when something is revoked or
//! reactivated, and after half of its lifetime. Making it is one at a time: callers that wait while
//! one is made share the next, so a wave of revocations makes few lists.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_ca::crl::{CrlSettings, Revoked};
use muster_policy::identity::CaId;
use muster_store::act::{By, StoreCrl};
use muster_store::record::{CrlState, ForeignName};

use super::{Authority, AuthorityError};

/// Why the CRL was not renewed. The revocation itself stands.
#[derive(Debug, thiserror::Error)]
#[error("the CRL of CA {ca} was not renewed: {error}")]
pub struct RevocationError {
    /// The CA.
    pub ca: CaId,
    /// Why.
    pub error: AuthorityError,
}

impl Authority {
    /// Makes the CRL of a CA anew from what is revoked now.
    ///
    /// `lifetime` is the time to nextUpdate. A CA keeps no CRL here without its key, nor when its certificate does not
    /// allow it (RFC 5280 §4.2.1.3), as one may that came along when that was not looked at. One that has ended keeps
    /// its last.
    ///
    /// # Errors
    /// When the key can't sign or the ledger can't store.
    pub async fn renew_crl(&self, ca: CaId, lifetime: Duration) -> Result<(), RevocationError> {
        let asked_at = *self.ledger.newest_change().borrow();
        let mut made = self.crls_made.lock().await;
        // Made after this was asked for, while it waited: that list has what it was asked for.
        if made.get(&ca).is_some_and(|seen| *seen > asked_at) {
            return Ok(());
        }
        let seen = *self.ledger.newest_change().borrow();
        self.make_crl(ca, lifetime, seen).await.map_err(|error| RevocationError { ca, error })?;
        made.insert(ca, seen.saturating_add(1));
        Ok(())
    }

    /// The same for several CAs.
    ///
    /// # Errors
    /// One that fails; the others are tried all the same.
    pub async fn renew_crls(&self, cas: &BTreeSet<CaId>, lifetime: Duration) -> Result<(), RevocationError> {
        let mut outcome = Ok(());
        for ca in cas {
            if let Err(error) = self.renew_crl(*ca, lifetime).await {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Makes every CRL anew that is missing, past half of its lifetime, behind what is revoked, or of the future, as one is
    /// that was made while the clock was ahead.
    ///
    /// # Errors
    /// See [`Self::renew_crls`].
    pub async fn renew_due_crls(&self, lifetime: Duration) -> Result<(), RevocationError> {
        let trust = self.trust();
        let ids = trust.keyed.iter().map(|keyed| keyed.id);
        let due = ids.filter(|ca| self.is_crl_due(*ca).unwrap_or(true)).collect();
        self.renew_crls(&due, lifetime).await
    }

    fn is_crl_due(&self, ca: CaId) -> Result<bool, AuthorityError> {
        let reader = self.ledger.reader()?;
        let Some(crl) = reader.crl(ca)? else { return Ok(true) };
        let (now, half) = (self.clock.now(), crl.next_update.since(crl.this_update) / 2);
        Ok(now >= crl.this_update.plus(half) || now < crl.this_update || reader.crl_is_behind(ca)?)
    }

    async fn make_crl(&self, ca: CaId, lifetime: Duration, seen: u64) -> Result<(), AuthorityError> {
        let trust = self.trust();
        let Some(keyed) = trust.keyed.iter().find(|keyed| keyed.id == ca) else { return Ok(()) };
        if !keyed.issuer.certificate().signs_crls() {
            return Ok(());
        }
        let now = self.clock.now();
        // No certificate outlives its CA, so there is nothing left to revoke, and nobody would take a
        // list that ends before it begins (RFC 5280 §5.1.2.5).
        if keyed.issuer.certificate().not_after() <= now {
            return Ok(());
        }
        let reader = self.ledger.reader()?;
        let mut revoked = Vec::new();
        reader.for_each_revoked(self.account, |entry| {
            // RFC 5280 §3.3: an entry stays until one list after its certificate has ended.
            if entry.ca == ca && entry.not_after.plus(lifetime) > now {
                revoked.push(Revoked {
                    serial: entry.serial,
                    revoked_at: entry.revocation.at,
                    reason: entry.revocation.reason,
                });
            }
        })?;
        // Those that it issued before its key came here have no end that is known.
        reader.for_each_foreign_revoked(ca, |entry| {
            if let (ForeignName::Serial(serial), Some(revocation)) = (entry.name, entry.revocation()) {
                revoked.push(Revoked { serial, revoked_at: revocation.at, reason: revocation.reason });
            }
        })?;
        let number = reader.crl(ca)?.map_or(1, |crl| crl.number.saturating_add(1));
        let next_update = now.plus(lifetime).min(keyed.issuer.certificate().not_after());
        let settings = CrlSettings { number, this_update: now, next_update };
        let issuer = keyed.issuer.clone();
        // A list of a million takes seconds of one core; other tasks must not wait for it.
        let made = tokio::task::spawn_blocking(move || issuer.sign_crl(&settings, revoked)).await;
        let der = made.map_err(|_| AuthorityError::NoRandom)??.into();
        let crl = CrlState { number, this_update: now, next_update, der };
        Ok(self.ledger.transact(StoreCrl { ca, crl, seen, by: By::system(now) }).await?)
    }

    /// The newest CRL of a CA.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn crl(&self, ca: CaId) -> Result<Option<CrlState>, AuthorityError> {
        Ok(self.ledger.reader()?.crl(ca)?)
    }
}
