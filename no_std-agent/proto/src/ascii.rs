//! Characters, as the grammars of names, fields and dates have them: letters, digits, and some marks each.

/// Whether `byte` is a letter, a digit or one of `marks`.
// Once in an image, here and below.
#[inline(never)]
pub(crate) fn is_alphanumeric_or(byte: u8, marks: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || has(marks, byte)
}

/// Whether `byte` is in `text`.
#[expect(
    clippy::manual_contains,
    reason = "`contains` searches by words, 300 bytes of code for a few bytes of text"
)]
pub(crate) fn has(text: &[u8], byte: u8) -> bool {
    text.iter().any(|found| *found == byte)
}

/// Whether `text` is made of nothing but letters, digits and `marks`.
#[inline(never)]
pub(crate) fn is_made_of(text: &[u8], marks: &[u8]) -> bool {
    text.iter().all(|byte| is_alphanumeric_or(*byte, marks))
}

/// The number that these digits are; `None` for anything else, for nothing, and for one of more than 32 bits.
#[inline(never)]
pub(crate) fn decimal(digits: &[u8]) -> Option<u32> {
    let mut number = 0_u32;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    (!digits.is_empty()).then_some(number)
}
