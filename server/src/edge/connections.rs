//! Who is connected, to the edge of this process and to those in others, as one list.
//!
//! Each edge finds and orders its own; what is merged is never more than a page and what comes before it. An edge
//! that does not answer is left out, and let go.

use std::cmp::Reverse;
use std::sync::Arc;

use muster_admin::{
    CloseConnections, Connection, ConnectionFilter, ConnectionPlace, Connections, ReadConnections,
};
use muster_edge::{CertificateKey, Edge, Sought};
use muster_policy::name::EdgeName;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::others::Others;

/// What an edge is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// To end connections.
    Close(ConnectionFilter),
    /// Who is connected.
    Find(ConnectionFilter),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// How many connections heard it first.
    Closed(usize),
    /// A part of them, newest first, and how many there are in all.
    Found(Vec<Connection>, usize),
}

/// An edge of this process, by its name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: EdgeName,
    pub(super) edge: Edge,
}

impl Named {
    /// Answers a question.
    pub(super) fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Close(filter) => Answer::Closed(self.edge.close(&self.sought(filter))),
            Question::Find(filter) => {
                let found = self.edge.connections(&self.sought(filter), filter.skip, filter.limit);
                Answer::Found(found.found.into_iter().map(|one| self.shown(one)).collect(), found.total)
            }
        }
    }

    fn sought(&self, filter: &ConnectionFilter) -> Sought {
        Sought {
            certificate: filter.certificate.map(|(ca, serial)| CertificateKey { ca, serial }),
            device: filter.device.clone(),
            host: filter.host.clone(),
            number: filter.number,
            before: filter.before.as_ref().map(|place| behind(place, &self.name)),
        }
    }

    fn shown(&self, one: muster_edge::Connection) -> Connection {
        Connection {
            edge: self.name.clone(),
            number: one.number,
            host: one.host,
            protocol: one.protocol,
            certificate: one.holder.as_ref().map(|holder| (holder.ca, holder.serial)),
            device: one.holder.as_ref().map(|holder| holder.device.clone()),
            peer: one.peer,
            since: one.since,
        }
    }
}

/// The time and number that what an edge has behind a place is behind of. Names decide within a second.
fn behind(place: &ConnectionPlace, edge: &EdgeName) -> (UnixTime, u64) {
    let number = match edge.cmp(&place.edge) {
        core::cmp::Ordering::Less => u64::MAX,
        core::cmp::Ordering::Equal => place.number,
        core::cmp::Ordering::Greater => 0,
    };
    (place.since, number)
}

/// All edges of the server.
pub(crate) struct Everywhere {
    /// That of this process.
    pub(crate) own: Option<Named>,
    pub(crate) others: Arc<Others>,
}

impl Everywhere {
    /// Finds who is connected.
    pub(crate) fn reading(everywhere: &Arc<Self>) -> ReadConnections {
        let everywhere = Arc::clone(everywhere);
        Arc::new(move |filter| {
            let everywhere = Arc::clone(&everywhere);
            Box::pin(async move { everywhere.read(filter).await })
        })
    }

    /// Ends connections.
    pub(crate) fn closing(everywhere: &Arc<Self>) -> CloseConnections {
        let everywhere = Arc::clone(everywhere);
        Arc::new(move |filter| {
            let everywhere = Arc::clone(&everywhere);
            Box::pin(async move { everywhere.close(filter).await })
        })
    }

    async fn read(&self, filter: ConnectionFilter) -> Connections {
        let (skip, wanted) = (filter.skip, filter.skip.saturating_add(filter.limit));
        let (edge, mut all) = (filter.edge.clone(), Connections::default());
        let question = Question::Find(ConnectionFilter { skip: 0, limit: wanted, ..filter });
        self.ask(edge.as_ref(), &question, |answer| {
            if let Answer::Found(found, total) = answer {
                all.edges += 1;
                all.total = all.total.saturating_add(total);
                all.found.extend(found);
                all.found.sort_by_cached_key(|one| Reverse(one.place()));
                all.found.truncate(wanted);
            }
        })
        .await;
        all.found.drain(..skip.min(all.found.len()));
        all
    }

    async fn close(&self, filter: ConnectionFilter) -> usize {
        let (edge, mut closed) = (filter.edge.clone(), 0_usize);
        self.ask(edge.as_ref(), &Question::Close(filter), |answer| {
            if let Answer::Closed(count) = answer {
                closed = closed.saturating_add(count);
            }
        })
        .await;
        closed
    }

    /// Asks one edge after the other, or one alone.
    async fn ask(&self, edge: Option<&EdgeName>, question: &Question, mut take: impl FnMut(Answer)) {
        let is_meant = |name: &EdgeName| edge.is_none_or(|edge| edge == name);
        if let Some(own) = self.own.as_ref().filter(|own| is_meant(&own.name)) {
            take(own.answer(question));
        }
        for name in self.others.names().into_iter().filter(is_meant) {
            if let Some(answer) = self.others.ask(&name, question).await {
                take(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_at_each_edge_where_the_merged_list_ended() {
        let [north, server, west] = ["north", "server", "west"].map(|name| name.parse().expect("a name"));
        let place = |since, edge: &EdgeName, number| ConnectionPlace {
            since: UnixTime::from_secs(since),
            edge: edge.clone(),
            number,
        };
        let last = place(50, &server, 7);
        for edge in [&north, &server, &west] {
            for (since, number) in [(49, 9), (50, 1), (50, 6), (50, 7), (50, 8), (51, 1)] {
                let is_behind = (UnixTime::from_secs(since), number) < behind(&last, edge);
                assert_eq!(is_behind, place(since, edge, number) < last, "{edge} {since} {number}");
            }
        }
    }
}
