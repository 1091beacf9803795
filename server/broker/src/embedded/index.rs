//! Who subscribed to what: a tree of topic levels.
//!
//! A publication walks only the branches that match it; a subscription that ends takes its empty
//! branches with it, so that the tree is never larger than the subscriptions alive. The tree knows
//! nothing of locks or delivery. Depth is bounded by [`crate::topic::LEVELS_MAX`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::session::Session;
use crate::topic::Subscribed;
use crate::wire::subscribe::Options;

/// All subscriptions of an account.
#[derive(Debug, Default)]
pub(crate) struct Index {
    root: Node,
}

/// A subscription as the index holds it.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<Session>,
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<u32>,
}

/// A match of a publication with a shared subscription: one member of the group.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What the group subscribed to, its name with it.
    filter: Arc<Subscribed>,
    turn: usize,
    /// The members in the order in which they should be asked.
    pub(crate) members: Vec<Subscriber>,
}

/// What a publication matched.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub(crate) own: Vec<Subscriber>,
    pub(crate) shared: Vec<Shared>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Self>,
    subscribers: Vec<Subscriber>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    /// What all members subscribed to; the name is in it.
    filter: Arc<Subscribed>,
    members: Vec<Subscriber>,
    /// How many publications it took: whose turn it is.
    turn: AtomicUsize,
}

/// How many members of a group are tried for one publication.
const MEMBERS_TRIED: usize = 16;

impl Index {
    /// Adds a subscription, or replaces that of the same session and filter.
    pub(crate) fn insert(&mut self, filter: &Subscribed, subscriber: Subscriber) {
        let mut node = &mut self.root;
        for level in filter.filter.levels() {
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            let Some(child) = node.children.get_mut(level) else { return };
            node = child;
        }
        let list = match &filter.share {
            None => &mut node.subscribers,
            Some(name) => node.group(name, filter),
        };
        match place(list, &subscriber.session) {
            Ok(at) => {
                if let Some(other) = list.get_mut(at) {
                    *other = subscriber;
                }
            }
            Err(at) => list.insert(at, subscriber),
        }
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, filter: &Subscribed, session: &Arc<Session>) {
        let levels: Vec<_> = filter.filter.levels().collect();
        self.root.remove(&levels, filter.share.as_deref(), session);
    }

    /// Whose subscriptions match a topic name.
    pub(crate) fn matches(&self, topic: &str) -> Matches {
        let levels: Vec<_> = topic.split('/').collect();
        let mut matches = Matches::default();
        self.root.collect(&levels, topic.starts_with('$'), &mut matches);
        matches
    }

    /// The members by now of a group that a publication matched, in the same order.
    pub(crate) fn members(&self, shared: &Shared) -> Vec<Subscriber> {
        let name = shared.filter.share.as_deref().unwrap_or_default();
        let mut levels = shared.filter.filter.levels();
        let node = levels.try_fold(&self.root, |node, level| node.children.get(level));
        let group = node.and_then(|node| node.groups.get(node.group_place(name).ok()?));
        group.map(|group| group.in_turn(shared.turn)).unwrap_or_default()
    }

    #[cfg(test)]
    fn nodes(&self) -> usize {
        fn count(node: &Node) -> usize {
            1 + node.children.values().map(count).sum::<usize>()
        }
        count(&self.root)
    }
}

/// Where a session is in a list, or belongs. Lists are in the order of session ids: a whole fleet subscribes to
/// one filter, and nobody should look through all of it to come or go.
fn place(list: &[Subscriber], session: &Session) -> Result<usize, usize> {
    list.binary_search_by_key(&session.id, |other| other.session.id)
}

/// Takes a session out of a list, and gives room back.
fn leave(list: &mut Vec<Subscriber>, session: &Session) {
    if let Ok(at) = place(list, session) {
        list.remove(at);
    }
    if list.capacity() > list.len().saturating_mul(4) {
        list.shrink_to(list.len().saturating_mul(2));
    }
}

impl Node {
    fn group(&mut self, name: &str, filter: &Subscribed) -> &mut Vec<Subscriber> {
        let place = self.group_place(name).unwrap_or_else(|place| {
            let filter = Arc::new(filter.clone());
            self.groups.insert(place, Group { filter, members: Vec::new(), turn: 0.into() });
            place
        });
        #[expect(clippy::indexing_slicing, reason = "the place was just found or made")]
        &mut self.groups[place].members
    }

    /// Where a group is, or belongs: groups are in the order of their names.
    fn group_place(&self, name: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| group.filter.share.as_deref().cmp(&Some(name)))
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.subscribers.is_empty() && self.groups.is_empty()
    }

    fn remove(&mut self, levels: &[&str], share: Option<&str>, session: &Arc<Session>) {
        let Some((level, rest)) = levels.split_first() else {
            match share {
                None => leave(&mut self.subscribers, session),
                Some(name) => {
                    if let Ok(place) = self.group_place(name)
                        && let Some(group) = self.groups.get_mut(place)
                    {
                        leave(&mut group.members, session);
                        if group.members.is_empty() {
                            self.groups.remove(place);
                        }
                    }
                }
            }
            return;
        };
        let Some(child) = self.children.get_mut(*level) else { return };
        child.remove(rest, share, session);
        if child.is_empty() {
            self.children.remove(*level);
            if self.children.is_empty() {
                self.children = HashMap::new();
            }
        }
    }

    /// `hidden` says that no wildcard may match this level (MQTT 5 §4.7.2).
    fn collect(&self, levels: &[&str], hidden: bool, matches: &mut Matches) {
        if !hidden && let Some(all) = self.children.get("#") {
            all.take(matches);
        }
        let Some((level, rest)) = levels.split_first() else {
            self.take(matches);
            return;
        };
        if !hidden && let Some(any) = self.children.get("+") {
            any.collect(rest, false, matches);
        }
        // A topic name has no wildcards, so that "+" and "#" are never found here as names.
        if let Some(child) = self.children.get(*level) {
            child.collect(rest, false, matches);
        }
    }

    fn take(&self, matches: &mut Matches) {
        matches.own.extend(self.subscribers.iter().cloned());
        for group in &self.groups {
            let turn = group.turn.fetch_add(1, Ordering::Relaxed);
            let (filter, members) = (Arc::clone(&group.filter), group.in_turn(turn));
            matches.shared.push(Shared { filter, turn, members });
        }
    }
}

impl Group {
    /// The members to ask for one publication.
    fn in_turn(&self, turn: usize) -> Vec<Subscriber> {
        let start = turn.checked_rem(self.members.len()).unwrap_or_default();
        let members = self.members.iter().cycle().skip(start).take(self.members.len());
        members.take(MEMBERS_TRIED).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Arc<Session> {
        static IDS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
        Arc::new(Session::for_test(IDS.fetch_add(1, Ordering::Relaxed)))
    }

    fn subscriber(session: &Arc<Session>) -> Subscriber {
        Subscriber { session: Arc::clone(session), options: Options::default(), subscription_id: None }
    }

    fn filter(text: &str) -> Subscribed {
        Subscribed::parse(text).expect(text)
    }

    #[test]
    fn what_was_removed_leaves_no_branches() {
        let mut index = Index::default();
        let session = session();
        let filters = ["a/b/c", "a/+/c", "#", "$share/g/a/b", "$share/h/a/b", "a"];
        for text in filters {
            index.insert(&filter(text), subscriber(&session));
        }
        for text in filters {
            index.remove(&filter(text), &session);
        }
        assert_eq!(index.nodes(), 1);
    }

    #[test]
    fn the_same_filter_twice_is_one_subscription() {
        let mut index = Index::default();
        let session = session();
        index.insert(&filter("a"), subscriber(&session));
        index.insert(&filter("a"), subscriber(&session));
        assert_eq!(index.matches("a").own.len(), 1);
    }

    #[test]
    fn shares_of_one_name_and_two_filters_are_two_groups() {
        let mut index = Index::default();
        let (one, two) = (session(), session());
        index.insert(&filter("$share/g/one"), subscriber(&one));
        index.insert(&filter("$share/g/two"), subscriber(&two));
        for _ in 0..4 {
            let matches = index.matches("one");
            assert!(Arc::ptr_eq(&matches.shared[0].members[0].session, &one));
            assert_eq!((matches.shared.len(), matches.shared[0].members.len()), (1, 1));
        }
    }

    #[test]
    fn members_of_a_share_take_turns() {
        let mut index = Index::default();
        let (one, two) = (session(), session());
        index.insert(&filter("$share/g/a"), subscriber(&one));
        index.insert(&filter("$share/g/a"), subscriber(&two));
        let first: Vec<_> =
            (0..4).map(|_| Arc::ptr_eq(&index.matches("a").shared[0].members[0].session, &one)).collect();
        assert_eq!(first, [true, false, true, false]);
    }

    #[test]
    fn a_share_is_asked_again_by_its_members_of_then_and_nobody_loses_a_turn() {
        let mut index = Index::default();
        let (one, two, other) = (session(), session(), session());
        for member in [&one, &two] {
            index.insert(&filter("$share/g/a/+"), subscriber(member));
        }
        index.insert(&filter("$share/h/a/+"), subscriber(&other));
        let matches = [index.matches("a/b"), index.matches("a/b")];
        let first_now = |index: &Index, at: usize| {
            index.members(&matches[at].shared[0]).first().map(|member| member.session.id)
        };
        assert_eq!([first_now(&index, 0), first_now(&index, 1)], [Some(one.id), Some(two.id)]);
        index.remove(&filter("$share/g/a/+"), &one);
        assert_eq!([first_now(&index, 0), first_now(&index, 1)], [Some(two.id); 2]);
        index.remove(&filter("$share/g/a/+"), &two);
        assert_eq!(first_now(&index, 0), None);
        index.insert(&filter("$share/g/a/+"), subscriber(&one));
        assert_eq!(first_now(&index, 0), Some(one.id));
    }

    #[test]
    fn a_fleet_on_one_filter_comes_and_goes_in_any_order() {
        let mut index = Index::default();
        let fleet: Vec<_> = (0..1000).map(|_| session()).collect();
        // Every third first, so that some come into the middle of the list.
        for start in 0..3 {
            for one in fleet.iter().skip(start).step_by(3) {
                index.insert(&filter("fleet/#"), subscriber(one));
            }
        }
        assert_eq!(index.matches("fleet/a").own.len(), 1000);
        for one in fleet.iter().rev().step_by(2) {
            index.remove(&filter("fleet/#"), one);
            index.remove(&filter("fleet/#"), one);
        }
        let left: Vec<_> = index.matches("fleet/a").own.iter().map(|other| other.session.id).collect();
        let expected: Vec<_> = fleet.iter().step_by(2).map(|one| one.id).collect();
        assert_eq!(left, expected);
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            filters in prop::collection::vec("(a|b|\\+|\\$x)(/(a|b|\\+|)){0,2}(/#)?|#", 1..12),
            topic in "(a|b|\\$x|)(/(a|b|)){0,3}",
        ) {
            prop_assume!(!topic.is_empty());
            let mut index = Index::default();
            let mut expected = 0;
            for text in &filters {
                index.insert(&filter(text), subscriber(&session()));
                expected += usize::from(filter(text).filter.matches(&topic));
            }
            prop_assert_eq!(index.matches(&topic).own.len(), expected);
        }
    }
}
