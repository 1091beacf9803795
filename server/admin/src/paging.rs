//! Pages of lists (contract §1.6): `page` from 1, `per_page` 1 to 1000, or a `cursor`.
//!
//! A page by number goes on where the one before ended ([`ends`]). Out of range is 400, never clamped in silence; past the end is an empty page, because that is how
//! SDKs find the end. A cursor goes on exactly where a page ended, whatever was added meanwhile.

pub(crate) mod ends;

use muster_store::reader::{Cursor, PER_PAGE_MAX, Page, Paging, Total};
use serde::Serialize;

use crate::error::ApiError;
use crate::request::Query;

/// Entries of a page when nothing is said; what the API we follow does.
const PER_PAGE_DEFAULT: u32 = 20;

/// Which page is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageWish {
    page: u32,
    per_page: u32,
    /// What comes before the first page.
    offset: u64,
    cursor: Option<Cursor>,
    /// Where the page before ended, if it is remembered.
    after: Option<Cursor>,
}

/// How a list is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// What a list answers about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct PageInfo {
    page: u32,
    per_page: u32,
    count: usize,
    total_count: u64,
    total_pages: u64,
    /// False when a filter looked at a part of a long list only; then there are at least as many.
    total_is_exact: bool,
    /// Where to go on; null at the end, and for lists that are short by nature.
    cursor: Option<String>,
    /// Where the page ends, for the one of the next number.
    #[serde(skip)]
    #[schema(ignore)]
    pub(crate) end: Option<Cursor>,
}

impl PageWish {
    /// Reads `page`, `per_page` and `cursor`.
    pub(crate) fn from_query(query: &Query) -> Result<Self, ApiError> {
        Self::with_default(query, PER_PAGE_DEFAULT)
    }

    /// The same, with another size of page when none is given.
    pub(crate) fn with_default(query: &Query, default: u32) -> Result<Self, ApiError> {
        let page = query.get("page").map_or(Ok(1), |text| number(text, "page", u32::MAX))?;
        let per_page =
            query.get("per_page").map_or(Ok(default), |text| number(text, "per_page", PER_PAGE_MAX))?;
        let cursor = match query.get("cursor") {
            None | Some("") => None,
            Some(text) => Some(
                text.parse().map_err(|_| ApiError::argument("/cursor", "cursor: not one of this list's"))?,
            ),
        };
        Ok(Self { page, per_page, offset: 0, cursor, after: query.after().cloned() })
    }

    /// Reads `limit` and `offset`, which win over `per_page` and `cursor`: clients that iterate keep them and raise
    /// `page`. Or else as [`PageWish::from_query`] does.
    pub(crate) fn with_offset(query: &Query) -> Result<Self, ApiError> {
        let wish = Self::from_query(query)?;
        let limit = query.get("limit").map(|text| number(text, "limit", PER_PAGE_MAX)).transpose()?;
        let offset = query.get("offset").map(|text| offset(text, "offset")).transpose()?;
        if limit.is_none() && offset.is_none() {
            return Ok(wish);
        }
        let per_page = limit.unwrap_or(wish.per_page);
        Ok(Self { per_page, offset: offset.unwrap_or(0), cursor: None, ..wish })
    }

    /// The same for the ledger.
    pub(crate) fn paging(&self) -> Paging {
        match &self.cursor {
            Some(cursor) => Paging::After { cursor: Some(cursor.clone()), limit: self.per_page },
            None => Paging::From { offset: self.before(), after: self.after.clone(), limit: self.per_page },
        }
    }

    /// What a page of the ledger's answers about itself.
    ///
    /// # Errors
    /// When a numbered page lies further on than a filter looks: an empty page would say that the list ends.
    pub(crate) fn info<T>(&self, page: &Page<T>) -> Result<PageInfo, ApiError> {
        let cursor = page.next.as_ref().map(ToString::to_string);
        if self.window().0 > 0 && page.items.is_empty() && cursor.is_some() {
            let message = "page: too far on for a list with this filter; follow result_info.cursor instead";
            return Err(ApiError::argument("/page", message));
        }
        let info = self.describe(page.items.len(), page.total.count(), cursor);
        let end = page.last.clone().filter(|_| self.cursor.is_none());
        Ok(PageInfo { total_is_exact: matches!(page.total, Total::Exactly(_)), end, ..info })
    }

    /// Cuts a page out of a list that is short by nature.
    pub(crate) fn cut<T>(&self, items: Vec<T>) -> (Vec<T>, PageInfo) {
        self.cut_behind(self.window().0, items)
    }

    /// The same of a list that is sorted by `key`, which no two entries share: it goes on where the page before
    /// ended.
    pub(crate) fn cut_sorted<T>(
        &self,
        order: Order,
        items: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, PageInfo) {
        // Sorts as the key itself does.
        let key = |item: &T| hex::encode(key(item));
        let skip = self.after.as_ref().filter(|_| self.cursor.is_none()).map(|after| {
            let after = after.to_string();
            items.partition_point(|item| match order {
                Order::Ascending => key(item) <= after,
                Order::Descending => key(item) >= after,
            })
        });
        let (items, info) = self.cut_behind(skip.unwrap_or_else(|| self.window().0), items);
        let end = items.last().filter(|_| self.cursor.is_none()).and_then(|last| key(last).parse().ok());
        (items, PageInfo { end, ..info })
    }

    fn cut_behind<T>(&self, skip: usize, items: Vec<T>) -> (Vec<T>, PageInfo) {
        let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let items: Vec<T> = items.into_iter().skip(skip).take(self.window().1).collect();
        let info = self.describe(items.len(), total, None);
        (items, info)
    }

    /// How many entries of the list come before the page, and the most that it has.
    pub(crate) fn window(&self) -> (usize, usize) {
        let per_page = usize::try_from(self.per_page).unwrap_or(usize::MAX);
        let skip = if self.cursor.is_some() { 0 } else { self.before() };
        (usize::try_from(skip).unwrap_or(usize::MAX), per_page)
    }

    fn before(&self) -> u64 {
        let pages = u64::from(self.page.saturating_sub(1)).saturating_mul(u64::from(self.per_page));
        self.offset.saturating_add(pages)
    }

    /// What a cursor of [`PageWish::live`] holds, if there is one.
    pub(crate) fn behind<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let wrong = || ApiError::argument("/cursor", "cursor: not one of this list's");
        read(&cursor.to_string()).map(Some).ok_or_else(wrong)
    }

    /// What a page of a list answers about itself that is kept in no ledger; `last` is the cursor, in hexadecimal,
    /// that goes on behind the last entry.
    pub(crate) fn live(&self, count: usize, total: usize, last: Option<String>) -> PageInfo {
        let (skip, _) = self.window();
        let more = total > skip.saturating_add(count);
        let cursor = last.filter(|_| more);
        self.describe(count, u64::try_from(total).unwrap_or(u64::MAX), cursor)
    }

    fn describe(&self, count: usize, total_count: u64, cursor: Option<String>) -> PageInfo {
        let total_pages = total_count.div_ceil(u64::from(self.per_page));
        let (page, per_page) = (self.page, self.per_page);
        PageInfo { page, per_page, count, total_count, total_pages, total_is_exact: true, cursor, end: None }
    }
}

/// Reads a whole number from 0, as [`number`] does.
fn offset(text: &str, name: &str) -> Result<u64, ApiError> {
    let zero = matches!(text.split_once('.').map_or(text, |(whole, _)| whole), "0");
    if zero && text.bytes().all(|octet| matches!(octet, b'0' | b'.')) && !text.ends_with('.') {
        return Ok(0);
    }
    number(text, name, u32::MAX).map(u64::from)
}

/// Reads a whole number from 1; SDKs type pages as floats, so `2.0` is 2.
fn number(text: &str, name: &str, max: u32) -> Result<u32, ApiError> {
    let wrong = || ApiError::argument(format!("/{name}"), format!("{name}: a whole number from 1 to {max}"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let zeros = !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    let digits = whole.bytes().all(|digit| digit.is_ascii_digit());
    let value: u32 = whole.parse().map_err(|_| wrong())?;
    if zeros && digits && (1..=max).contains(&value) { Ok(value) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(pairs: &[(&str, &str)]) -> Result<PageWish, ApiError> {
        PageWish::from_query(&Query::from_pairs(pairs))
    }

    #[test]
    fn floats_are_read_and_other_numbers_refused() {
        assert_eq!(number("2.0", "page", 10), Ok(2));
        assert_eq!(number("1000", "per_page", 1000), Ok(1000));
        for wrong in ["0", "-1", "1.5", "1.", "1001", "", "+1", "x", "1e2", "NaN", "99999999999999"] {
            assert!(number(wrong, "per_page", 1000).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limit_and_offset_win() {
        let cut = |page: &str| {
            let query = [("page", page), ("per_page", "9"), ("limit", "2.0"), ("offset", "1")];
            let wish = PageWish::with_offset(&Query::from_pairs(&query)).expect("in range");
            let (items, info) = wish.cut(vec![1, 2, 3, 4]);
            (items, info.page, info.per_page)
        };
        assert_eq!(cut("1"), (vec![2, 3], 1, 2));
        assert_eq!(cut("2"), (vec![4], 2, 2), "who iterates raises the page");
        assert_eq!(cut("3"), (vec![], 3, 2));
        for (name, wrong) in [("offset", "-1"), ("offset", "0.5"), ("limit", "0"), ("limit", "1001")] {
            assert!(PageWish::with_offset(&Query::from_pairs(&[(name, wrong)])).is_err(), "{name}={wrong}");
        }
        assert!(PageWish::with_offset(&Query::from_pairs(&[("offset", "0.0")])).is_ok());
    }

    #[test]
    fn a_sorted_list_goes_on_behind_an_entry_that_is_gone() {
        let sorted = |order, items: &[&str], after: &str| {
            let after = Some(hex::encode(after).parse().expect("a cursor"));
            let wish = PageWish { after, ..wish(&[("page", "2"), ("per_page", "2")]).expect("in range") };
            let (items, info) = wish.cut_sorted(order, items.to_vec(), |item| (*item).to_owned());
            (items.concat(), info.end.map(|end| end.to_string()))
        };
        assert_eq!(
            sorted(Order::Ascending, &["a", "c", "d", "e"], "b"),
            ("cd".to_owned(), Some(hex::encode("d")))
        );
        assert_eq!(
            sorted(Order::Descending, &["e", "d", "a"], "b"),
            ("a".to_owned(), Some(hex::encode("a")))
        );
        assert_eq!(sorted(Order::Descending, &["e", "d"], "d"), (String::new(), None));
    }

    #[test]
    fn past_the_end_is_empty() {
        let wish = wish(&[("page", "3"), ("per_page", "2")]).expect("in range");
        let (items, info) = wish.cut(vec![1, 2, 3, 4]);
        assert!(items.is_empty());
        assert_eq!((info.page, info.count, info.total_count, info.total_pages), (3, 0, 4, 2));
    }

    #[test]
    fn a_short_last_page_is_counted() {
        let wish = wish(&[("page", "2"), ("per_page", "3")]).expect("in range");
        let (items, info) = wish.cut(vec![1, 2, 3, 4]);
        assert_eq!((items, info.count, info.total_pages), (vec![4], 1, 2));
    }

    #[test]
    fn a_page_that_a_filter_did_not_reach_is_not_told_to_be_the_end() {
        let next = Some("00ff".parse().expect("a cursor"));
        let page = |items: Vec<u8>| Page { items, total: Total::AtLeast(7), next: next.clone(), last: None };
        let far = wish(&[("page", "3")]).expect("in range");
        assert_eq!(far.info(&page(Vec::new())).expect_err("too far").pointer.as_deref(), Some("/page"));
        let first = wish(&[]).expect("in range").info(&page(Vec::new())).expect("goes on by its cursor");
        assert_eq!((first.total_count, first.total_is_exact, first.count), (7, false, 0));
        assert!(first.cursor.is_some());
    }

    #[test]
    fn a_cursor_of_nonsense_is_refused() {
        assert_eq!(wish(&[("cursor", "zz")]).expect_err("not hex").pointer.as_deref(), Some("/cursor"));
    }
}
