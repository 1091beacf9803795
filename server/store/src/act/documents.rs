//! Documents: set, and removed.

use muster_policy::identity::{AccountId, CaId};

use crate::act::{By, Rejected, audit};
use crate::keys;
use crate::record::{Action, ChangeKind, Document, DocumentKind, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most documents of a kind in an account; Access has 500 applications and 500 policies at most.
const DOCUMENTS_MAX: usize = 1_000;

/// Stores a document; `revision` and `created_at` are set here.
#[derive(Clone, Debug)]
pub struct SetDocument {
    /// The document.
    pub document: Document,
    /// What must be stored now: none for a new one. Its revision alone would not do, as documents that are
    /// removed and made anew under the same id begin with the same one.
    pub instead_of: Option<Document>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetDocument {
    const NAME: &'static str = "set_document";
    type Output = Document;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Document, Failed<Rejected>> {
        let Document { id, account, kind, .. } = self.document;
        let key = keys::document(account, kind, id);
        let before: Option<Document> = tables.get(&key)?;
        if before != self.instead_of {
            return Err(Failed::Refused(Rejected::RevisionDiffers));
        }
        if before.is_none() {
            let prefix = keys::documents(account, kind);
            let end = keys::after(&prefix);
            let stored = tables.rows(TableName::Documents, &prefix, end.as_deref(), DOCUMENTS_MAX)?;
            if stored.len() >= DOCUMENTS_MAX {
                return Err(Failed::Refused(Rejected::TooMany { max: DOCUMENTS_MAX }));
            }
        }
        let document = Document {
            revision: before.as_ref().map_or(0, |before| before.revision).saturating_add(1),
            created_at: before.map_or(self.by.at, |before| before.created_at),
            changed_at: self.by.at,
            ..self.document.clone()
        };
        tables.put(&key, &document)?;
        log(tables, &self.by, Action::DocumentSet, &document)?;
        Ok(document)
    }
}

/// Removes a document.
#[derive(Clone, Debug)]
pub struct RemoveDocument {
    /// The owner.
    pub account: AccountId,
    /// What it is.
    pub kind: DocumentKind,
    /// The document.
    pub id: CaId,
    /// What must be stored now, for who read it before; none to remove whatever is there.
    pub instead_of: Option<Document>,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveDocument {
    const NAME: &'static str = "remove_document";
    type Output = Document;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Document, Failed<Rejected>> {
        let key = keys::document(self.account, self.kind, self.id);
        let Some(document) = tables.get::<Document>(&key)? else {
            return Err(Failed::Refused(Rejected::DocumentUnknown));
        };
        if self.instead_of.as_ref().is_some_and(|expected| *expected != document) {
            return Err(Failed::Refused(Rejected::RevisionDiffers));
        }
        tables.remove(TableName::Documents, &key)?;
        log(tables, &self.by, Action::DocumentRemoved, &document)?;
        Ok(document)
    }
}

fn log(tables: &mut Tables<'_>, by: &By, action: Action, document: &Document) -> Result<(), Fault> {
    let Document { id, account, zone, kind, .. } = *document;
    tables.change(by.at, Some(account), ChangeKind::DocumentSet(kind, id))?;
    let subjects = Subjects { account: Some(account), zone, ..Subjects::default() };
    audit(tables, by, action, subjects, Some(format!("{kind:?} {id}")))
}
