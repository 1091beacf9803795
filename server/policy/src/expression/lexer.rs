//! From text to words, each with its position.

use super::ExpressionError;

/// A word of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, an operator in words, a number or an address.
    Word(String),
    /// Text in quotes.
    Quoted(String),
    /// An operator or bracket in signs.
    Sign(&'static str),
}

/// Signs, the longer before the shorter that begin like them.
const SIGNS: [&str; 18] =
    ["&&", "||", "^^", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "{", "}", "[", "]", ",", "~"];

/// Cuts an expression into words.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        let (token, length) = if first.is_ascii_whitespace() {
            at = at.saturating_add(1);
            continue;
        } else if first == '"' {
            quoted(rest, at)?
        } else if let Some(raw) = raw(rest, at) {
            raw?
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let length = rest.find(|c: char| !is_part_of_word(c)).unwrap_or(rest.len());
            if length == 0 {
                let message = format!("`{}` has no meaning here", first.escape_debug());
                return Err(ExpressionError { position: at, message });
            }
            (Token::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
        };
        tokens.push((at, token));
        at = at.saturating_add(length);
    }
    Ok(tokens)
}

/// Text in which nothing is escaped: `r"..."`, or with as many `#` on both sides as it takes.
fn raw(rest: &str, at: usize) -> Option<Result<(Token, usize), ExpressionError>> {
    let after = rest.strip_prefix('r')?;
    let text = after.trim_start_matches('#');
    let hashes = after.get(..after.len().saturating_sub(text.len())).unwrap_or_default();
    let text = text.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let Some(length) = text.find(&end) else {
        return Some(Err(ExpressionError { position: at, message: "the quote is not closed".to_owned() }));
    };
    let begins_at = rest.len().saturating_sub(text.len());
    let token = Token::Quoted(text.get(..length).unwrap_or_default().to_owned());
    Some(Ok((token, begins_at.saturating_add(length).saturating_add(end.len()))))
}

fn is_part_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-')
}

/// Text in quotes, in which a backslash stands before a quote or a backslash.
fn quoted(rest: &str, at: usize) -> Result<(Token, usize), ExpressionError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Quoted(text), index.saturating_add(1))),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => text.push(c),
                _ => {
                    let message = "only \\\" and \\\\ may follow a backslash".to_owned();
                    return Err(ExpressionError { position: at.saturating_add(index), message });
                }
            },
            c => text.push(c),
        }
    }
    Err(ExpressionError { position: at, message: "the quote is not closed".to_owned() })
}
