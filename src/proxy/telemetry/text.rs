//! Text of a sender, made fit for a log.

use std::borrow::Cow;

/// The most bytes of one text of a sender that a log shows: 200. An ellipsis stands for the rest.
pub const MAX_TEXT: usize = 200;

/// `text` as a log may show it: at most [`MAX_TEXT`] bytes, and without a character that would
/// end the line, drive a terminal or change the direction of reading.
///
/// Such characters are written as Rust escapes (`\n`, `\u{1b}`). Borrows where nothing is to do,
/// which is nearly always.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT && !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(MAX_TEXT + '…'.len_utf8());
    for c in text.chars() {
        let before = out.len();
        if needs_escape(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > MAX_TEXT {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    Cow::Owned(out)
}

/// `text` as a terminal may show it: whole, and with its lines and tabs. What else would drive the
/// terminal is written as in [`printable`].
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let needs_escape = |c: char| needs_escape(c) && c != '\n' && c != '\t';
    if !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if needs_escape(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, line and paragraph separators, and what is invisible or turns text around.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_in_any_script_stays_as_it_is() {
        for text in ["", "refs/heads/main", "Push Hook", "refs/heads/größe-日本", r"back\slash"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_ends_a_line_or_drives_a_terminal_is_escaped() {
        assert_eq!(printable("a\nb\r\0\t"), r"a\nb\r\u{0}\t");
        assert_eq!(printable("\u{1b}[31mred\u{9b}"), r"\u{1b}[31mred\u{9b}");
        assert_eq!(printable("a\u{202e}b\u{2028}c"), r"a\u{202e}b\u{2028}c");
    }

    #[test]
    fn lines_stay_lines_and_are_never_cut() {
        let long = "line\n\t".repeat(MAX_TEXT);
        assert!(matches!(printable_lines(&long), Cow::Borrowed(same) if same == long));
        let driven = format!("{long}\r\u{1b}[2J\u{202e}");
        assert_eq!(printable_lines(&driven), format!(r"{long}\r\u{{1b}}[2J\u{{202e}}"));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let exact = "x".repeat(MAX_TEXT);
        assert_eq!(printable(&exact), exact);
        assert_eq!(printable(&format!("{exact}y")), format!("{exact}…"));
        let wide = printable(&"é".repeat(MAX_TEXT)).into_owned();
        assert_eq!(wide, format!("{}…", "é".repeat(MAX_TEXT / 2)));
    }

    #[test]
    fn an_escape_is_never_cut_in_half() {
        let text = format!("{}\u{1b}", "x".repeat(MAX_TEXT - 2));
        assert_eq!(printable(&text), format!("{}…", "x".repeat(MAX_TEXT - 2)));
    }

    #[test]
    fn a_text_of_megabytes_costs_no_more_than_its_beginning() {
        let shown = printable(&"\u{7}".repeat(4 << 20)).into_owned();
        assert!(shown.len() <= MAX_TEXT + 3);
        assert!(shown.ends_with("}…"), "{shown}");
    }
}
