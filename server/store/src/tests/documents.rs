//! Documents: who read one changes or removes that one, and no other that has come in its place.

use muster_policy::identity::CaId;

use super::{ACCOUNT, Rig, START};
use crate::Error;
use crate::act::{Rejected, RemoveDocument, SetDocument};
use crate::record::{Document, DocumentKind};

fn document(text: &str) -> Document {
    Document {
        id: CaId::from_bytes([7; 16]),
        account: ACCOUNT,
        zone: None,
        kind: DocumentKind::Ruleset,
        text: text.to_owned(),
        revision: 0,
        created_at: START,
        changed_at: START,
    }
}

#[test]
fn one_that_was_made_anew_is_not_the_one_that_was_read() {
    let mut rig = Rig::new();
    let is_late = |outcome| matches!(outcome, Err(Error::Refused(Rejected::RevisionDiffers)));
    let set = |text: &str, instead_of: Option<&Document>| SetDocument {
        document: document(text),
        instead_of: instead_of.cloned(),
        by: rig.by(),
    };
    let remove = |instead_of: Option<&Document>| RemoveDocument {
        account: ACCOUNT,
        kind: DocumentKind::Ruleset,
        id: document("").id,
        instead_of: instead_of.cloned(),
        by: rig.by(),
    };
    let first = rig.ledger().transact_blocking(set("a", None)).expect("made");
    let second = rig.ledger().transact_blocking(set("b", Some(&first))).expect("changed");
    assert_eq!((first.revision, second.revision), (1, 2));
    assert!(is_late(rig.ledger().transact_blocking(remove(Some(&first)))));
    assert_eq!(rig.ledger().transact_blocking(remove(Some(&second))).expect("removed"), second);
    let anew = rig.ledger().transact_blocking(set("c", None)).expect("made anew");
    assert_eq!(anew.revision, first.revision);
    assert!(is_late(rig.ledger().transact_blocking(set("d", Some(&first)))));
    assert!(is_late(rig.ledger().transact_blocking(remove(Some(&first)))));
    assert_eq!(rig.ledger().transact_blocking(remove(None)).expect("removed"), anew);
    rig.check();
}
