//! What programs do to a body between the host and whoever verifies it, undone.

use std::fmt;

use hookgate::form;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A body that may be the one that was signed, and what then happened to it.
pub(super) struct Variant {
    pub(super) bytes: Vec<u8>,
    pub(super) code: &'static str,
    pub(super) text: String,
}

/// Every rewriting that can be undone, the likeliest first. `is_form` says what the body came as.
pub(super) fn variants(body: &[u8], is_form: bool) -> impl Iterator<Item = Variant> {
    let mut all = Vec::new();
    let mut add = |bytes: Vec<u8>, code, text: &str| {
        all.push(Variant { bytes, code, text: text.into() });
    };
    if body.ends_with(b"\n") {
        let text = "a line end was added to the body after it was signed; curl's --data-binary and printf add none";
        let without = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
        add(without.unwrap_or(body).to_vec(), "body-newline-added", text);
    }
    let text =
        "the body lost the line end that was signed with it; shells and curl's --data drop it";
    for end in [&b"\n"[..], b"\r\n"] {
        add([body, end].concat(), "body-newline-lost", text);
    }
    if body.trim_ascii() != body {
        let text = "white space was added around the body after it was signed";
        add(body.trim_ascii().to_vec(), "body-space-added", text);
    }
    if let Some(changed) = replaced(body, b"\r\n", b"\n") {
        let text = "the line ends of the body became CRLF after it was signed";
        add(changed, "body-crlf", text);
    } else if let Some(changed) = replaced(body, b"\n", b"\r\n") {
        let text = "the line ends of the body became LF after it was signed: they were CRLF";
        add(changed, "body-lf", text);
    }
    match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => add(rest.to_vec(), "body-bom", "a byte order mark was put before the body"),
        None => {
            let marked = [b"\xef\xbb\xbf", body].concat();
            add(marked, "body-bom", "the body lost the byte order mark that was signed with it");
        }
    }
    if let Some(bytes) = as_latin_1(body) {
        let text = "the body was read as Latin-1 and written as UTF-8 again; it must stay as bytes";
        add(bytes, "body-charset", text);
    }
    forms(body, is_form, &mut add);
    if !body.is_empty() {
        let text =
            "the signature is over an empty body: it was made, or this body caught, elsewhere";
        add(Vec::new(), "body-empty-signed", text);
    }
    // One at a time: there are many, and each is as large as the body.
    all.into_iter().chain(encodings(body))
}

fn forms(body: &[u8], is_form: bool, add: &mut impl FnMut(Vec<u8>, &'static str, &str)) {
    if let Ok(json) = form::payload(body) {
        let text =
            "the signature is over the JSON in the form, and not over the form as it was sent";
        add(json, "form-payload-signed", text);
    } else if !is_form && let Ok(json) = std::str::from_utf8(body) {
        let text = "the signature is over a form (payload=…), and the body is the JSON that was in it: it was unwrapped \
             on its way, or the form was signed in place of the JSON";
        let form = form::encode(json);
        add(form.replace('+', "%20").into_bytes(), "form-signed", text);
        add(form.into_bytes(), "form-signed", text);
    }
}

/// The same JSON as other programs write it.
fn encodings(body: &[u8]) -> impl Iterator<Item = Variant> {
    const LAYOUTS: [(Layout, &str); 6] = [
        ((None, ",", ":"), "compact"),
        ((None, ", ", ": "), "with a space after commas and colons"),
        ((None, ",", ": "), "with a space after colons"),
        ((Some("  "), ",", ": "), "indented by two spaces"),
        ((Some("    "), ",", ": "), "indented by four spaces"),
        ((Some("\t"), ",", ": "), "indented by tabs"),
    ];
    const ESCAPES: [(Escape, &str); 5] = [
        (Escape::Least, ""),
        (Escape::Ascii, ", other characters than ASCII as \\u escapes"),
        (Escape::AsciiAndSlash, ", other characters than ASCII as \\u escapes and / as \\/"),
        (Escape::Slash, ", / as \\/"),
        (Escape::Html, ", < > & as \\u escapes"),
    ];
    let styles = [false, true].into_iter().flat_map(|sorted| {
        LAYOUTS.into_iter().flat_map(move |layout| {
            ESCAPES
                .into_iter()
                .flat_map(move |escape| ["", "\n"].map(|end| (sorted, layout, escape, end)))
        })
    });
    let json = serde_json::from_slice::<Json>(body).ok();
    json.into_iter().flat_map(move |json| {
        let mut last = String::new();
        styles.clone().map(move |(sorted, layout, escape, end)| {
            if end.is_empty() {
                last.clear();
                json.write(&mut last, layout.0, escape.0, sorted, 0);
            }
            let order = if sorted { ", its keys sorted" } else { "" };
            let text = format!(
                "the body is the same JSON as was signed, but written anew: what was signed was {}{}{order}. Verify \
                 the bytes as they came, before anything parses them; what a page shows (GitHub's Recent \
                 deliveries) is written anew, too",
                layout.1, escape.1
            );
            let bytes = [last.as_bytes(), end.as_bytes()].concat();
            Variant { bytes, code: "body-json", text }
        })
    })
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut changed = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        changed.extend_from_slice(&rest[..at]);
        changed.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    changed.extend_from_slice(rest);
    (changed != body).then_some(changed)
}

/// The bytes that became `body` when they were read as Latin-1 and written as UTF-8.
fn as_latin_1(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok().filter(|text| !text.is_ascii())?;
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// Indentation, what stands between two values, and what stands behind a key.
type Layout = (Option<&'static str>, &'static str, &'static str);

#[derive(Clone, Copy, PartialEq)]
enum Escape {
    Least,
    /// Python's and Ruby's default.
    Ascii,
    /// PHP's default.
    AsciiAndSlash,
    Slash,
    /// Go's default.
    Html,
}

/// JSON that keeps the order of its keys.
enum Json {
    /// A number, `true`, `false` or `null`, as it is written.
    Word(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    fn write(&self, out: &mut String, layout: Layout, escape: Escape, sorted: bool, depth: usize) {
        let (indent, comma, colon) = layout;
        let line = |out: &mut String, depth| {
            if let Some(indent) = indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(indent, depth));
            }
        };
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Text(text) => write_text(out, text, escape),
            Self::List(items) if items.is_empty() => out.push_str("[]"),
            Self::Object(fields) if fields.is_empty() => out.push_str("{}"),
            Self::List(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { comma });
                    line(out, depth + 1);
                    item.write(out, layout, escape, sorted, depth + 1);
                }
                line(out, depth);
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                let mut fields: Vec<_> = fields.iter().collect();
                if sorted {
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                }
                for (n, (name, value)) in fields.into_iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { comma });
                    line(out, depth + 1);
                    write_text(out, name, escape);
                    out.push_str(colon);
                    value.write(out, layout, escape, sorted, depth + 1);
                }
                line(out, depth);
                out.push('}');
            }
        }
    }
}

fn write_text(out: &mut String, text: &str, escape: Escape) {
    let ascii = matches!(escape, Escape::Ascii | Escape::AsciiAndSlash);
    let slash = matches!(escape, Escape::Slash | Escape::AsciiAndSlash);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '/' if slash => out.push_str("\\/"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escape == Escape::Html => unicode(out, c),
            c if c < ' ' || ascii && !c.is_ascii() => unicode(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn unicode(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Word(serde_json::Value::from(value).to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Word("null".into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(field) = fields.next_entry()? {
            object.push(field);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn undone(signed: &str, came: &str, code: &str) {
        let mut all = variants(came.as_bytes(), false);
        let found = all.find(|variant| variant.bytes == signed.as_bytes());
        assert_eq!(found.map(|variant| variant.code), Some(code), "{came:?}");
    }

    #[test]
    fn what_encoders_write_is_found_from_what_others_write() {
        let python = r#"{"b": "\u00e4/<\ud83d\ude80>", "a": [1, 2.5, true, null], "e": {}}"#;
        let compact = r#"{"b":"ä/<🚀>","a":[1,2.5,true,null],"e":{}}"#;
        let php = r#"{"b":"\u00e4\/<\ud83d\ude80>","a":[1,2.5,true,null],"e":{}}"#;
        let go = r#"{"b":"ä/\u003c🚀\u003e","a":[1,2.5,true,null],"e":{}}"#;
        let sorted = r#"{"a":[1,2.5,true,null],"b":"ä/<🚀>","e":{}}"#;
        let pretty = "{\n  \"b\": \"ä/<🚀>\",\n  \"a\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"e\": {}\n}";
        let all = [python, compact, php, go, pretty];
        for signed in all {
            for came in all.into_iter().filter(|came| *came != signed) {
                undone(signed, came, "body-json");
            }
            undone(sorted, signed, "body-json");
            undone(
                &format!("{signed}\n"),
                if signed == pretty { compact } else { pretty },
                "body-json",
            );
        }
    }

    #[test]
    fn line_ends_marks_and_charsets_are_undone() {
        undone("a\nb", "a\r\nb", "body-crlf");
        undone("a\r\nb", "a\nb", "body-lf");
        undone("a", "a\n", "body-newline-added");
        undone("a\n", "a", "body-newline-lost");
        undone("ä", "Ã¤", "body-charset");
        undone("a", "\u{feff}a", "body-bom");
        undone("{\"a\":\"b c\"}", "payload=%7B%22a%22%3A%22b+c%22%7D", "form-payload-signed");
        undone("payload=%7B%22a%22%3A%22b+c%22%7D", "{\"a\":\"b c\"}", "form-signed");
    }
}
