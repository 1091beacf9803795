//! The engine of the paged lists.
//!
//! A list is a range of keys, read forwards or backwards; keys are unique, so the order is total and
//! a cursor (the last key shown) goes on exactly there, whatever was added meanwhile.

use core::fmt;
use core::str::FromStr;

use redb::{AccessGuard, Range, ReadOnlyTable};

use crate::keys;
use crate::transaction::Fault;

type Rows = Range<'static, &'static [u8], &'static [u8]>;

/// Most items on one page.
pub const PER_PAGE_MAX: u32 = 1_000;
/// Most records a filtered list looks at in one call, some 300 ms; the cursor then goes on.
pub const SCAN_MAX: usize = 100_000;

/// How far a list with a filter looks in one call; the cursor then goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Rows for the page and what is before it.
    pub(crate) rows: usize,
    /// Rows behind a full page, looked at for the list's length only.
    pub(crate) ahead: usize,
}

impl Reach {
    /// The filter reads a mark, or the key alone: 10,000,000 rows are a second.
    pub(super) const MARKS: Self = Self { rows: 10_000_000, ahead: 100_000 };
    /// The filter reads a record.
    pub(super) const RECORDS: Self = Self { rows: SCAN_MAX, ahead: 5_000 };
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paging {
    /// What comes after a cursor, or the start of the list.
    After {
        /// Where the last page ended.
        cursor: Option<Cursor>,
        /// Most items, at most [`PER_PAGE_MAX`].
        limit: u32,
    },
    /// Some items from a place that is counted from the start; past the end there are none.
    From {
        /// How many are left out.
        offset: u64,
        /// The last item that is left out, where it is known which: those before it are not counted then, as their
        /// number may be another by now.
        after: Option<Cursor>,
        /// Most items, at most [`PER_PAGE_MAX`].
        limit: u32,
    },
}

impl Paging {
    /// A page of so many items, numbered from 1.
    pub fn numbered(page: u32, per_page: u32) -> Self {
        let offset = u64::from(page.saturating_sub(1)).saturating_mul(u64::from(per_page));
        Self::From { offset, after: None, limit: per_page }
    }

    fn limit(&self) -> usize {
        let (Self::After { limit, .. } | Self::From { limit, .. }) = self;
        usize::try_from((*limit).min(PER_PAGE_MAX)).unwrap_or(usize::MAX)
    }

    /// How many items of the list come before.
    fn before(&self) -> usize {
        match self {
            Self::After { .. } => 0,
            Self::From { offset, .. } => usize::try_from(*offset).unwrap_or(usize::MAX),
        }
    }

    /// How many of them are to be counted.
    fn skip(&self) -> usize {
        if self.cursor().is_some() { 0 } else { self.before() }
    }

    const fn cursor(&self) -> Option<&Cursor> {
        let (Self::After { cursor, .. } | Self::From { after: cursor, .. }) = self;
        cursor.as_ref()
    }
}

/// A place in a list; opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

/// Text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct CursorError;

/// Longest key that a cursor can hold.
const CURSOR_MAX_BYTES: usize = 128;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.is_empty() || text.len() > 2 * CURSOR_MAX_BYTES {
            return Err(CursorError);
        }
        hex::decode(text).map(Self).map_err(|_| CursorError)
    }
}

/// How long a whole list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// At least this; the filter looked at no more.
    AtLeast(u64),
    /// Exactly this.
    Exactly(u64),
}

impl Total {
    /// The number, whatever it is worth.
    pub const fn count(self) -> u64 {
        match self {
            Self::AtLeast(count) | Self::Exactly(count) => count,
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// How long the whole list is; with a cursor and a filter, how much is left from there.
    pub total: Total,
    /// Where to go on; none at the end of the list.
    pub next: Option<Cursor>,
    /// Where the page ends, at the end of the list too; none of an empty one there.
    pub last: Option<Cursor>,
}

/// Which end of the keys a list starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The greatest key first: the newest, where keys sort by age.
    Descending,
    /// The smallest key first.
    Ascending,
}

/// Whether a row (key, value) belongs to the list.
pub(crate) type Filter<'a> = dyn Fn(&[u8], &[u8]) -> Result<bool, Fault> + 'a;
/// Makes the item of a row (key, value) of the list; none when its record is not there.
pub(crate) type Load<'a, T> = dyn Fn(&[u8], &[u8]) -> Result<Option<T>, Fault> + 'a;

/// A range of a table, and how to show a row of it.
pub(crate) struct List<'a, T> {
    pub(crate) table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) prefix: Vec<u8>,
    pub(crate) order: Order,
    /// The length, when it is known without counting.
    pub(crate) length: Option<u64>,
    /// Which rows belong to the list, and how far to look for them; none when all do.
    pub(crate) filter: Option<(&'a Filter<'a>, Reach)>,
    /// Makes the item of a row; only of those on the page.
    pub(crate) load: &'a Load<'a, T>,
}

impl<T> List<'_, T> {
    pub(crate) fn page(&self, paging: &Paging) -> Result<Page<T>, Fault> {
        let skip = paging.skip();
        let past_end =
            self.length.is_some_and(|length| u64::try_from(skip).map_or(true, |skip| skip >= length));
        if skip > 0 && past_end {
            let total = Total::Exactly(self.length.unwrap_or_default());
            return Ok(Page { items: Vec::new(), total, next: None, last: None });
        }
        let mut rows = self.rows(paging.cursor())?;
        match (self.filter, self.length) {
            (None, Some(length)) => self.unfiltered(&mut rows, paging, length),
            (Some((filter, reach)), _) => self.filtered(&mut rows, paging, filter, reach),
            (None, None) => self.filtered(&mut rows, paging, &|_, _| Ok(true), Reach::MARKS),
        }
    }

    /// Skips without looking at values, and never counts.
    fn unfiltered(
        &self,
        rows: &mut dyn Iterator<Item = Row>,
        paging: &Paging,
        length: u64,
    ) -> Result<Page<T>, Fault> {
        let skip = paging.skip();
        let mut page = Page { items: Vec::new(), total: Total::Exactly(length), next: None, last: None };
        if skip > 0 && rows.nth(skip.saturating_sub(1)).is_none() {
            return Ok(page);
        }
        for row in rows {
            let (key, value) = row?;
            if page.items.len() >= paging.limit() {
                page.next.clone_from(&page.last);
                break;
            }
            page.items.extend((self.load)(key.value(), value.value())?);
            page.last = Some(Cursor(key.value().to_vec()));
        }
        Ok(page)
    }

    /// Looks at each row; counts matches beyond the page as far as it reaches, unless the length is known.
    fn filtered(
        &self,
        rows: &mut dyn Iterator<Item = Row>,
        paging: &Paging,
        filter: &Filter<'_>,
        reach: Reach,
    ) -> Result<Page<T>, Fault> {
        let (skip, limit) = (paging.skip(), paging.limit());
        let mut page = Page { items: Vec::new(), total: Total::Exactly(0), next: None, last: None };
        let (mut matched, mut looked, mut at_most) =
            (paging.before().saturating_sub(skip), 0_usize, reach.rows);
        let mut last_seen = None;
        for row in rows {
            let (key, value) = row?;
            if looked >= at_most {
                // The page may be short: what is left starts behind the last row looked at.
                page.total = Total::AtLeast(0);
                if page.items.len() < limit {
                    page.last = last_seen;
                }
                page.next.clone_from(&page.last);
                break;
            }
            looked = looked.saturating_add(1);
            if filter(key.value(), value.value())? {
                matched = matched.saturating_add(1);
                if matched > skip && page.items.len() < limit {
                    page.items.extend((self.load)(key.value(), value.value())?);
                    page.last = Some(Cursor(key.value().to_vec()));
                    if page.items.len() == limit {
                        at_most = at_most.min(looked.saturating_add(reach.ahead));
                    }
                } else if matched > skip && page.next.is_none() {
                    page.next.clone_from(&page.last);
                    if self.length.is_some() {
                        break;
                    }
                }
            }
            last_seen = Some(Cursor(key.value().to_vec()));
        }
        let count = u64::try_from(matched).unwrap_or(u64::MAX);
        page.total = match (self.length, page.total) {
            (Some(length), _) => Total::Exactly(length),
            (None, Total::Exactly(_)) => Total::Exactly(count),
            (None, Total::AtLeast(_)) => Total::AtLeast(count),
        };
        Ok(page)
    }

    fn rows(&self, after: Option<&Cursor>) -> Result<Box<dyn Iterator<Item = Row>>, Fault> {
        let start = self.prefix.clone();
        let end = keys::after(&self.prefix);
        // A cursor of another list can't lead outside this one.
        let after = after.map(|cursor| cursor.0.as_slice()).filter(|key| key.starts_with(&self.prefix));
        let rows: Box<dyn Iterator<Item = Row>> = match (self.order, after) {
            (Order::Ascending, None) => Box::new(between(&self.table, &start, end.as_deref())?),
            (Order::Descending, None) => Box::new(between(&self.table, &start, end.as_deref())?.rev()),
            (Order::Ascending, Some(key)) => {
                let next = keys::join(&[key, &[0]]);
                Box::new(between(&self.table, &next, end.as_deref())?)
            }
            (Order::Descending, Some(key)) => Box::new(between(&self.table, &start, Some(key))?.rev()),
        };
        Ok(rows)
    }
}

type Row =
    Result<(AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>), redb::StorageError>;

/// All rows whose key starts with `prefix`.
pub(super) fn range(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
) -> Result<Rows, Fault> {
    between(table, prefix, keys::after(prefix).as_deref())
}

/// All rows with `from <= key < to`, or to the end of the table.
pub(super) fn between(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Rows, Fault> {
    Ok(match to {
        // An empty range, which redb would refuse.
        Some(to) if to < from => table.range(from..from)?,
        Some(to) => table.range(from..to)?,
        None => table.range(from..)?,
    })
}
