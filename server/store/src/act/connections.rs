//! Live connections that are ended by a person.
//!
//! They are no part of the ledger, so there is nothing to change; who did it is kept all the same.

use crate::act::{By, Rejected, audit};
use crate::record::{Action, Subjects};
use crate::tables::Tables;
use crate::transaction::{Failed, Transaction};

/// Notes that connections are about to be ended.
#[derive(Clone, Debug)]
pub struct NoteConnectionsClosed {
    /// Whose they are, as far as one looked for that.
    pub subjects: Subjects,
    /// How many there were.
    pub count: usize,
    /// Who ends them.
    pub by: By,
}

impl Transaction for NoteConnectionsClosed {
    const NAME: &'static str = "note_connections_closed";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let details = Some(format!("count {}", self.count));
        Ok(audit(tables, &self.by, Action::ConnectionsClosed, self.subjects.clone(), details)?)
    }
}
