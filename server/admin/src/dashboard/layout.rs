//! The frame of every page, and the small parts that pages share.

use core::fmt::Display;

use maud::{DOCTYPE, Markup, html};
use muster_policy::time::UnixTime;
use serde::Deserialize;

use super::form::CSRF_FIELD;
use super::inside::{Info, Pairs, Problem, query};
use super::session::Flash;
use super::visit::Visit;

/// htmx without what the policy of pages forbids anyway.
const HTMX_CONFIG: &str =
    r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"historyCacheSize":0}"#;

/// The links of every page.
const LINKS: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/devices", "Devices"),
    ("/certificates", "Certificates"),
    ("/cas", "CAs"),
    ("/hosts", "Hostnames"),
    ("/access", "Access rules"),
    ("/tokens", "Enrollment tokens"),
    ("/approvals", "Approvals"),
    ("/audit", "Audit"),
    ("/webhooks", "Webhooks"),
    ("/settings", "Settings"),
];

/// A page without the frame: for who is not logged in.
pub(super) fn bare(title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) " · Muster" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/style.css";
                script src="/assets/htmx.js" defer {}
                script src="/assets/live.js" defer {}
            }
            body { (content) }
        }
    }
}

/// A page in its frame.
pub(super) fn page(visit: &Visit, title: &str, content: Markup) -> Markup {
    bare(
        title,
        html! {
            a.skip href="#main" { "Skip to the content" }
            header {
                a.brand href="/" { "Muster" }
                nav aria-label="Main" {
                    @for (href, text) in LINKS {
                        a href=(href) aria-current=[is_here(visit, href).then_some("page")] { (text) }
                    }
                }
                form.logout method="post" action="/logout" { (secret(visit)) button type="submit" { "Log out" } }
            }
            main #main {
                @match &visit.session.flash {
                    Some(Flash::Done(text)) => p.flash.done role="status" { (text) },
                    Some(Flash::Failed(text)) => p.flash.failed role="alert" { (text) },
                    None => {},
                }
                h1 { (title) }
                (content)
            }
        },
    )
}

fn is_here(visit: &Visit, href: &str) -> bool {
    let path = visit.path.as_str();
    path == href || (href != "/" && path.strip_prefix(href).is_some_and(|rest| rest.starts_with('/')))
}

/// The page that says why there is none.
pub(super) fn problem(problem: &Problem) -> Markup {
    bare(
        "Request failed",
        html! {
            main.narrow {
                h1 { (problem.status) }
                p.flash.failed role="alert" { (problem.message) }
                p { a href="/" { "To the overview" } }
            }
        },
    )
}

/// What every form carries.
pub(super) fn secret(visit: &Visit) -> Markup {
    html! { input type="hidden" name=(CSRF_FIELD) value=(visit.session.csrf.as_str()); }
}

/// A form that is one button.
pub(super) fn button(visit: &Visit, action: &str, text: &str, ask: Option<&str>) -> Markup {
    html! {
        form.inline method="post" action=(action) {
            (secret(visit))
            @match ask {
                // Without scripts nobody asks; the page after says what was done.
                Some(ask) => button.danger type="submit" hx-post=(action) hx-include="closest form"
                    hx-target="body" hx-confirm=(ask) { (text) },
                None => button type="submit" { (text) },
            }
        }
    }
}

/// A state, coloured by what it means; the word is always there.
pub(super) fn state(word: &str) -> Markup {
    let kind = match word {
        "active" | "approved" => "good",
        "revoked" | "retired" | "denied" => "bad",
        "expired" | "used" => "over",
        _ => "odd",
    };
    html! { span class={"state " (kind)} { (word) } }
}

/// A point in time, with how far it is from now.
pub(super) fn time(at: UnixTime, now: UnixTime) -> Markup {
    let text = at.to_string();
    let shown = text.get(..16).unwrap_or(&text).replace('T', " ");
    html! { time datetime=(text) title=(text) { (shown) } " " small { (distance(at, now)) } }
}

fn distance(at: UnixTime, now: UnixTime) -> String {
    let ahead = at > now;
    let seconds = if ahead { at.since(now) } else { now.since(at) }.as_secs();
    let amount = match seconds {
        0..60 if ahead => return "now".to_owned(),
        0..60 => return "just now".to_owned(),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if ahead { format!("in {amount}") } else { format!("{amount} ago") }
}

/// A number with thin spaces between thousands.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len().saturating_mul(2));
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len().saturating_sub(index)).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A row of a list of facts.
pub(super) fn fact(name: &str, value: impl maud::Render) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Text to copy, such as a fingerprint.
pub(super) fn code(value: impl Display) -> Markup {
    html! { code { (value) } }
}

/// Links to the pages of a list, which keep its other parameters.
pub(super) fn pager(path: &str, pairs: Pairs<'_>, info: Info) -> Markup {
    let link = |page: u64| {
        let page = page.to_string();
        let mut pairs: Vec<(&str, &str)> = pairs.to_vec();
        pairs.push(("page", page.as_str()));
        format!("{path}?{}", query(&pairs))
    };
    html! {
        nav.pager aria-label="Pages" {
            span { (number(info.total_count)) " in all" }
            @if info.total_pages > 1 {
                @if info.page > 1 { a href=(link(info.page.saturating_sub(1).min(info.total_pages))) rel="prev" { "Previous" } }
                span { "Page " (number(info.page)) " of " (number(info.total_pages)) }
                @if info.page < info.total_pages {
                    a href=(link(info.page.saturating_add(1))) rel="next" { "Next" }
                }
            }
        }
    }
}

/// A choice of words.
pub(super) fn choice(name: &str, label: &str, words: &[&str], chosen: &str) -> Markup {
    html! {
        label { (label) " "
            select name=(name) {
                @for word in words {
                    option value=(word) selected[*word == chosen] {
                        @if word.is_empty() { "any" } @else { (word) }
                    }
                }
            }
        }
    }
}

/// What the address of a list says beside its own filters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct At {
    /// The page, from 1.
    pub(super) page: String,
    /// What is searched for.
    pub(super) q: String,
    /// The state that is wanted.
    pub(super) status: String,
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn distances_read_well() {
        let now = UnixTime::from_secs(1_000_000);
        let later = |seconds| now.plus(Duration::from_secs(seconds));
        assert_eq!((distance(now, now), distance(later(9), now)), ("just now".to_owned(), "now".to_owned()));
        assert_eq!(distance(later(300), now), "in 5 min");
        assert_eq!(distance(now, later(7_200)), "2 h ago");
        assert_eq!(distance(later(86_400 * 54), now), "in 54 d");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(7), "7");
        assert_eq!(number(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(number(100), "100");
    }
}
