//! The server's own words about a refusal, for people.
//!
//! The device core keeps the status of a refusal and lets the text go. Here the beginning of each answer is
//! kept until the next request, and a line of it is shown beside the failure. It is a stranger's text: it is
//! cut, freed of control characters, shown, and never acted on.

/// The beginning of the answer that is coming in.
#[derive(Debug, Default)]
pub(super) struct Heard(Vec<u8>);

impl Heard {
    /// A new request goes out.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// More of the answer came.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = ANSWER_MAX_BYTES.saturating_sub(self.0.len());
        self.0.extend(bytes.iter().take(room));
    }

    /// The first line of a plain text body, if the answer has one.
    pub(super) fn words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let is_plain = head.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
            name.eq_ignore_ascii_case("content-type")
                && value.trim_start().to_ascii_lowercase().starts_with("text/plain")
        });
        let line = body.lines().find(|line| !line.trim().is_empty()).filter(|_| is_plain)?;
        let shown = line.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(shown.take(WORDS_MAX_CHARS).collect())
    }
}

/// Head and first line of any answer that is meant for people.
const ANSWER_MAX_BYTES: usize = 4 << 10;
/// A line on a terminal or in a log.
const WORDS_MAX_CHARS: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(answer: &str) -> Option<String> {
        let mut heard = Heard::default();
        answer.as_bytes().chunks(7).for_each(|piece| heard.take(piece));
        heard.words()
    }

    #[test]
    fn the_first_line_of_plain_text_is_shown() {
        let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-type: text/plain; charset=utf-8\r\n\r\nNo\x1b[2Juses left.\nx";
        assert_eq!(words(answer).as_deref(), Some("No [2Juses left."));
        assert_eq!(words("HTTP/1.1 401 Unauthorized\r\ncontent-type: text/html\r\n\r\n<p>"), None);
        assert_eq!(words("HTTP/1.1 401 Unauthorized\r\ncontent-type: text/plain\r\n\r\n"), None);
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let endless = format!("HTTP/1.1 401 U\r\nContent-Type: text/plain\r\n\r\n{}", "x".repeat(100_000));
        assert_eq!(words(&endless).map(|words| words.len()), Some(WORDS_MAX_CHARS));
    }
}
