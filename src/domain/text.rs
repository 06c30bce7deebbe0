//! Texts of any length, cut down to what fits into a message.

use std::borrow::Cow;

/// Characters of an error or of another long text that travel in messages and stand in lists.
pub const MAX_LONG_TEXT: usize = 4_000;
/// Characters of a name, a title, or the item that is being worked on.
pub const MAX_SHORT_TEXT: usize = 500;

/// The text, or its beginning and its end with the number of characters between them that are left out: an error
/// often says at its end what happened, and at its beginning where. `longest` is at least 100.
pub fn excerpt(text: &str, longest: usize) -> Cow<'_, str> {
    // No text has more characters than bytes: most are not counted.
    if text.len() <= longest {
        return text.into();
    }
    let count = text.chars().count();
    if count <= longest {
        return text.into();
    }
    let half = split_half(longest);
    let place = |nth: usize| text.char_indices().nth(nth).map_or(text.len(), |(at, _)| at);
    let (head, tail) = (&text[..place(half)], &text[place(count - half)..]);
    format!("{head} … [{} characters left out] … {tail}", count - 2 * half).into()
}

/// Characters of each half of an excerpt; the rest is for the words between them.
pub fn split_half(longest: usize) -> usize {
    longest.saturating_sub(50) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end_and_says_what_is_missing() {
        let text = format!("begin{}end", "ü".repeat(10_000));
        let short = excerpt(&text, MAX_LONG_TEXT);
        assert!(short.starts_with("beginüü") && short.ends_with("üüend"), "{short}");
        assert!(short.contains(" … [6058 characters left out] … "), "{short}");
        assert!(short.chars().count() <= MAX_LONG_TEXT);
        let fits = "ü".repeat(MAX_LONG_TEXT);
        assert_eq!(excerpt(&fits, MAX_LONG_TEXT), fits);
    }
}
