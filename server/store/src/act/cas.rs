//! CAs, their state, and their revocation lists.

use muster_policy::identity::CaId;

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Action, Ca, CaState, ChangeKind, CrlState, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Transaction};

/// Adds a CA to an account.
#[derive(Clone, Debug)]
pub struct AddCa {
    /// The CA.
    pub ca: Ca,
    /// Who adds it.
    pub by: By,
}

impl Transaction for AddCa {
    const NAME: &'static str = "add_ca";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Ca { id, account, .. } = &self.ca;
        if !tables.contains(TableName::Accounts, &keys::account(*account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        if tables.contains(TableName::Cas, &keys::ca(*id))? {
            return Err(Failed::Refused(Rejected::Exists("the CA")));
        }
        tables.put(&keys::ca(*id), &self.ca)?;
        let subjects = Subjects { account: Some(*account), ca: Some(*id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::CaAdded, subjects, ChangeKind::CaAdded(*id))?)
    }
}

/// Sets whether a CA issues, only verifies, or neither; setting what is set changes nothing.
#[derive(Clone, Debug)]
pub struct SetCaState {
    /// The CA.
    pub ca: CaId,
    /// Its state from now on.
    pub state: CaState,
    /// The rollover certificates to hand out from now on; none keeps those it has.
    pub rollover: Option<Vec<serde_bytes::ByteBuf>>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetCaState {
    const NAME: &'static str = "set_ca_state";
    type Output = Ca;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Ca, Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let Some(before) = tables.get::<Ca>(&key)? else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        let mut ca = before.clone();
        ca.state = self.state;
        if let Some(rollover) = &self.rollover {
            ca.rollover.clone_from(rollover);
        }
        if ca == before {
            return Ok(ca);
        }
        tables.put(&key, &ca)?;
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        log(tables, &self.by, Action::CaStateSet, subjects, ChangeKind::CaStateSet(ca.id, ca.state))?;
        Ok(ca)
    }
}

/// Stores a CA's new revocation list; its number must be greater than the stored one's.
#[derive(Clone, Debug)]
pub struct StoreCrl {
    /// The CA.
    pub ca: CaId,
    /// The list.
    pub crl: CrlState,
    /// Who made it.
    pub by: By,
}

impl Transaction for StoreCrl {
    const NAME: &'static str = "store_crl";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let Some(ca) = tables.get::<Ca>(&key)? else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        if let Some(stored) = tables.get::<CrlState>(&key)?
            && stored.number >= self.crl.number
        {
            return Err(Failed::Refused(Rejected::CrlNumber { newest: stored.number }));
        }
        tables.put(&key, &self.crl)?;
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::CrlStored, subjects, ChangeKind::CrlStored(ca.id))?)
    }
}
