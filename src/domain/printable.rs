//! Text that somebody else wrote, made safe for a terminal and for a log.
//!
//! A title, a reason or an error message may hold escape sequences that recolour the screen, write to the clipboard or
//! invent a line, and invisible or right-to-left characters that make one text look like another. Every such character
//! is shown as an escape in visible letters, so that one text stays one line and the reader sees that it was there.

use std::borrow::Cow;

/// One line that does nothing to a terminal. Line breaks and tabs become `\n`, `\r` and `\t`; other control characters,
/// invisible characters and those that change the direction of writing become `\u{…}`. All else stays as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
    })
}

/// JSON with the same meaning that does nothing to a terminal: a writer of JSON escapes some control characters only.
/// Line breaks between values stay, since within a text they are escaped already.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |c, out| match c {
        '\n' => out.push('\n'),
        c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
    })
}

/// Copies the text only where there is something to escape.
fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.char_indices().find_map(|(at, c)| (!is_printable(c)).then_some(at)) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_printable(c) { out.push(c) } else { escape(c, &mut out) }
    }
    Cow::Owned(out)
}

/// Whether every character of a name can be seen, takes a place of its own or stands on the letter before it, and does
/// nothing else: no spaces, no control, invisible, direction or private-use characters, and no mark at the beginning, which
/// would stand on whatever is printed before the name.
pub fn is_visible(name: &str) -> bool {
    // These choose how the character before them looks, and are nothing themselves.
    let is_selector = |c| matches!(c, '\u{fe00}'..='\u{fe0f}');
    let is_shown =
        |c: char| is_printable(c) && !c.is_whitespace() && !is_selector(c) && !matches!(c, '\u{fff9}'..='\u{fffd}');
    let begins_with_mark = name.chars().next().is_some_and(|c| !c.is_ascii() && c.escape_debug().next() != Some(c));
    name.chars().all(is_shown) && !begins_with_mark
}

/// Whether a character shows itself, in its place, and does nothing else.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    match c {
        // Spaces of other scripts, which the standard library does not count as printable.
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => true,
        // Letters, marks and symbols by their category, but without any ink and some without any width.
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{fe00}'..='\u{fe0d}'
        | '\u{e0100}'..='\u{e01ef}' => false,
        // The standard library knows the categories: its escaping of texts leaves printable characters and combining
        // marks alone, unless a mark comes first.
        c => {
            let mut text = [b'a', 0, 0, 0, 0];
            let length = 1 + c.encode_utf8(&mut text[1..]).len();
            std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "",
            "Import of orders.csv, 42 %",
            "a \"quoted\" \\ path 'x'",
            "Müller — façade ß €",
            "cafe\u{301}",
            "导入\u{3000}客户",
            "ข้อมูลลูกค้า",
            "हिन्दी",
            "שלום עולם",
            "done \u{2714}\u{fe0f} \u{1f680}",
            "10\u{a0}000",
        ] {
            assert_eq!(printable(text), text);
            assert!(matches!(printable(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn control_invisible_and_direction_characters_are_shown_as_escapes() {
        for (text, shown) in [
            ("a\x1b]52;c;ZXZpbA==\x07b", "a\\u{1b}]52;c;ZXZpbA==\\u{7}b"),
            ("j1  running\nj2  completed\r\t", "j1  running\\nj2  completed\\r\\t"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{200b}b\u{200c}c\u{200d}d\u{2060}e\u{feff}f", "a\\u{200b}b\\u{200c}c\\u{200d}d\\u{2060}e\\u{feff}f"),
            ("\u{202e}fdp.exe\u{202c}\u{2066}\u{2069}", "\\u{202e}fdp.exe\\u{202c}\\u{2066}\\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}\u{ad}", "\\u{200e}\\u{200f}\\u{61c}\\u{ad}"),
            ("\u{2028}\u{2029}\u{85}", "\\u{2028}\\u{2029}\\u{85}"),
            ("\u{e0041}\u{e0101}\u{3164}\u{fff9}", "\\u{e0041}\\u{e0101}\\u{3164}\\u{fff9}"),
            ("\u{e000}\u{fffe}", "\\u{e000}\\u{fffe}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"title": "a\u{9b}b\u{202e}\u{7f}\n\u{e0041}é", "\u{200b}": 1});
        let text = value.to_string();
        let shown = printable_json(&text);
        assert!(shown.chars().all(is_printable), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        assert_eq!(printable_json("{\"a\":\"é\"}\n"), "{\"a\":\"é\"}\n");
    }
}
