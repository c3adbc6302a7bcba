//! The grammar of the key file.

use std::fmt;
use std::ops::Range;

use data_encoding::BASE64;
use zeroize::{Zeroize, Zeroizing};

use super::material::{Key, KeyKind, Use, Uses};
use crate::repository::Patterns;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The largest key file that is read: 64 KiB.
pub const MAX_FILE_BYTES: usize = 64 * 1024;
const MAX_LINES: usize = 64;
const MAX_KEY: usize = 255;
const MAX_NAME: usize = 64;
/// A key of fewer bytes is weak.
const STRONG: usize = 16;
/// Each signing key costs every signed delivery one more pass over its body.
const MAX_SIGNING: usize = 8;
pub(super) const SIGNING_TOKEN: &str = "whsec_";
const ENCODED: &str = "base64:";

pub(super) fn parse(text: &[u8]) -> Result<Vec<Key>, KeyFileError> {
    use KeyFileErrorKind as Kind;
    if text.len() > MAX_FILE_BYTES {
        return Err(KeyFileError { line: 1, column: 1, kind: Kind::FileTooLarge });
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let good = &text[..error.valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = good.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        // The part before the fault is UTF-8, so its characters can be counted.
        let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
        KeyFileError { line, column, kind: Kind::NotUtf8 }
    })?;
    // Editors of another system put a mark before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut keys: Vec<(usize, Key)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |column: usize, kind| KeyFileError {
            line: number,
            column: line[..column].chars().count() + 1,
            kind,
        };
        if index == MAX_LINES {
            return Err(at(0, Kind::TooManyLines));
        }
        let Some((key, key_at)) =
            parse_line(line, number).map_err(|(column, kind)| at(column, kind))?
        else {
            continue;
        };
        if keys.iter().any(|(_, other)| other.blinded() == key.blinded()) {
            return Err(at(key_at, Kind::RepeatedKey));
        }
        if keys.iter().any(|(_, other)| other.name() == key.name()) {
            return Err(at(key_at, Kind::RepeatedName));
        }
        keys.push((number, key));
    }
    if keys.is_empty() {
        return Err(KeyFileError { line: 1, column: 1, kind: Kind::NoKey });
    }
    if let Some(line) = crowded(&keys) {
        return Err(KeyFileError { line, column: 1, kind: Kind::TooManySigningKeys });
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// The line of a key that begins when eight other signing keys are already active.
fn crowded(keys: &[(usize, Key)]) -> Option<usize> {
    let signing = || keys.iter().filter(|(_, key)| key.uses().contains(Use::Sign));
    signing()
        .filter(|(_, key)| {
            // The number of active keys grows only where one begins.
            let begin = key.from().unwrap_or(Timestamp::from_millis(i64::MIN));
            signing().filter(|(_, other)| other.serves(Use::Sign, begin)).count() > MAX_SIGNING
        })
        .map(|(line, _)| *line)
        .max()
}

type Fault = (usize, KeyFileErrorKind);

/// The key of a line and where in the line it stands; `None` for an empty line or a comment.
fn parse_line(line: &str, number: usize) -> Result<Option<(Key, usize)>, Fault> {
    use KeyFileErrorKind as Kind;
    let mut words = words(line);
    let Some(key_range) = words.next() else { return Ok(None) };
    let start = key_range.start;
    let (kind, secret) = parse_secret(&line[key_range]).map_err(|kind| (start, kind))?;

    let mut options = Options::default();
    for range in words {
        let word = &line[range.clone()];
        let (option, value) = word.split_once('=').ok_or((range.start, Kind::NotAnOption))?;
        let value_at = range.start + option.len() + 1;
        if value.is_empty() {
            return Err((value_at, Kind::EmptyOption));
        }
        let repeated = match option {
            "name" if !is_name(value) => return Err((value_at, Kind::BadName)),
            "name" => options.name.replace(value.to_owned()).is_some(),
            "use" => options.uses.replace(parse_uses(value, kind, value_at)?).is_some(),
            "from" => options.from.replace(parse_time(value, value_at)?).is_some(),
            "until" => options.until.replace((parse_time(value, value_at)?, value_at)).is_some(),
            "repositories" => {
                let patterns =
                    Patterns::parse_list(value).map_err(|_| (value_at, Kind::BadPattern))?;
                options.repositories.replace(patterns).is_some()
            }
            "weak" if value != "allow" => return Err((value_at, Kind::BadWeak)),
            "weak" => std::mem::replace(&mut options.weak, true),
            _ => return Err((range.start, Kind::UnknownOption)),
        };
        if repeated {
            return Err((range.start, Kind::RepeatedOption));
        }
    }
    if secret.len() < STRONG && !options.weak {
        return Err((start, Kind::WeakKey));
    }
    if let (Some(from), Some((until, until_at))) = (options.from, options.until)
        && until <= from
    {
        return Err((until_at, Kind::EmptyPeriod));
    }
    let name = options.name.unwrap_or_else(|| format!("line-{number}"));
    let weak = secret.len() < STRONG;
    let mut key = Key::new(name, kind, secret, options.uses.unwrap_or_else(|| Uses::of(kind)));
    key.set_period(options.from, options.until.map(|(until, _)| until));
    key.set_repositories(options.repositories);
    if weak {
        key.allow_weak();
    }
    Ok(Some((key, start)))
}

#[derive(Default)]
struct Options {
    name: Option<String>,
    uses: Option<Uses>,
    from: Option<Timestamp>,
    until: Option<(Timestamp, usize)>,
    repositories: Option<Patterns>,
    weak: bool,
}

/// Where the words of a line stand, up to the comment.
pub(super) fn words(line: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = &line[from..];
        let start = from + rest.find(|c: char| !is_blank(c))?;
        let end = line[start..].find(is_blank).map_or(line.len(), |at| start + at);
        from = end;
        (!line[start..].starts_with('#')).then_some(start..end)
    })
    // A comment ends the line: what follows it is not looked at.
    .fuse()
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn parse_secret(word: &str) -> Result<(KeyKind, Secret), KeyFileErrorKind> {
    use KeyFileErrorKind as Kind;
    let decode = |text: &str| {
        let mut bytes = BASE64.decode(text.as_bytes()).map_err(|_| Kind::BadBase64)?;
        if bytes.is_empty() || bytes.len() > MAX_KEY {
            bytes.zeroize();
            return Err(Kind::BadLength);
        }
        Ok(Secret::new(bytes))
    };
    if let Some(text) = word.strip_prefix(SIGNING_TOKEN) {
        let secret = decode(text)?;
        if !(24..=64).contains(&secret.len()) {
            return Err(Kind::BadSigningToken);
        }
        Ok((KeyKind::SigningToken, secret))
    } else if let Some(text) = word.strip_prefix(ENCODED) {
        Ok((KeyKind::Encoded, decode(text)?))
    } else if let Some(fault) = plain_fault(word) {
        Err(fault)
    } else {
        Ok((KeyKind::Plain, Secret::new(word)))
    }
}

/// What keeps `text` from being a plain key.
pub(super) fn plain_fault(text: &str) -> Option<KeyFileErrorKind> {
    if text.is_empty() || text.len() > MAX_KEY {
        Some(KeyFileErrorKind::BadLength)
    } else if text == "." || text == ".." || !text.bytes().all(is_segment_byte) {
        // Dot segments are removed by whoever normalises a URL, RFC 3986 section 5.2.4.
        Some(KeyFileErrorKind::BadCharacter)
    } else {
        None
    }
}

/// RFC 3986 *unreserved* and *sub-delims*: what stands in a path segment as it is.
fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn parse_uses(value: &str, kind: KeyKind, at: usize) -> Result<Uses, Fault> {
    let mut uses = Vec::new();
    for word in value.split(',') {
        let one = Use::ALL
            .into_iter()
            .find(|one| one.as_str() == word)
            .ok_or((at, KeyFileErrorKind::UnknownUse))?;
        if !Uses::of(kind).contains(one) {
            return Err((at, KeyFileErrorKind::UnfitUse));
        }
        uses.push(one);
    }
    Ok(uses.into_iter().collect())
}

fn parse_time(value: &str, at: usize) -> Result<Timestamp, Fault> {
    value.parse().map_err(|_| (at, KeyFileErrorKind::BadTime))
}

/// Appends the line that reads back to `key`.
pub(super) fn format(key: &Key, text: &mut Zeroizing<String>) {
    let encoded = || Zeroizing::new(BASE64.encode(key.secret().expose()));
    match key.kind() {
        KeyKind::Plain => {
            // A plain key was text when it was read.
            text.push_str(std::str::from_utf8(key.secret().expose()).unwrap_or_default());
        }
        KeyKind::SigningToken => {
            text.push_str(SIGNING_TOKEN);
            text.push_str(&encoded());
        }
        KeyKind::Encoded => {
            text.push_str(ENCODED);
            text.push_str(&encoded());
        }
    }
    let mut option = |name: &str, value: &dyn fmt::Display| {
        text.push_str(&format!(" {name}={value}"));
    };
    option("name", &key.name());
    if key.uses() != Uses::of(key.kind()) {
        option("use", &key.uses());
    }
    if let Some(from) = key.from() {
        option("from", &from);
    }
    if let Some(until) = key.until() {
        option("until", &until);
    }
    if let Some(repositories) = key.repositories() {
        option("repositories", repositories);
    }
    if key.is_weak() {
        option("weak", &"allow");
    }
    text.push('\n');
}

/// Why a key file does not parse, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileError {
    line: usize,
    column: usize,
    kind: KeyFileErrorKind,
}

impl KeyFileError {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong there.
    pub fn kind(&self) -> KeyFileErrorKind {
        self.kind
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.kind)
    }
}

impl std::error::Error for KeyFileError {}

/// What is wrong in a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFileErrorKind {
    /// More than 64 KiB.
    FileTooLarge,
    /// More than 64 lines.
    TooManyLines,
    /// Not UTF-8.
    NotUtf8,
    /// No line has a key.
    NoKey,
    /// More than eight signing keys are active at one time.
    TooManySigningKeys,
    /// The key stands in the file already.
    RepeatedKey,
    /// Another key has that name.
    RepeatedName,
    /// A plain key has a character that does not stand in a URL as it is.
    BadCharacter,
    /// A key of no byte, or of more than 255.
    BadLength,
    /// What follows `whsec_` or `base64:` is not base64.
    BadBase64,
    /// A signing token has not 24 to 64 bytes.
    BadSigningToken,
    /// Fewer than 16 bytes without `weak=allow`.
    WeakKey,
    /// A word after the key is not `option=value`.
    NotAnOption,
    /// There is no such option.
    UnknownOption,
    /// The option stands on the line already.
    RepeatedOption,
    /// The option has no value.
    EmptyOption,
    /// Not a name.
    BadName,
    /// Not a use.
    UnknownUse,
    /// A use that this kind of key cannot have.
    UnfitUse,
    /// Not an RFC 3339 time.
    BadTime,
    /// `until` is not after `from`.
    EmptyPeriod,
    /// Not a pattern for repositories.
    BadPattern,
    /// `weak` takes `allow` and nothing else.
    BadWeak,
}

impl fmt::Display for KeyFileErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileTooLarge => "the file is larger than 64 KiB",
            Self::TooManyLines => "the file has more than 64 lines",
            Self::NotUtf8 => "the file is not UTF-8",
            Self::NoKey => "the file has no key",
            Self::TooManySigningKeys => "more than 8 signing keys are active at the same time",
            Self::RepeatedKey => "this key stands in the file already",
            Self::RepeatedName => "another key has this name already",
            Self::BadCharacter => {
                "a key may hold only A-Z a-z 0-9 and -._~!$&'()*+,;= \
                 (any other secret can be written as base64:...)"
            }
            Self::BadLength => "a key has 1 to 255 bytes",
            Self::BadBase64 => "this is not base64 with its padding",
            Self::BadSigningToken => "a whsec_ key is base64 of 24 to 64 bytes",
            Self::WeakKey => "a key of fewer than 16 bytes needs weak=allow",
            Self::NotAnOption => "expected option=value after the key",
            Self::UnknownOption => {
                "unknown option, expected name, use, from, until, repositories or weak"
            }
            Self::RepeatedOption => "this option stands on the line already",
            Self::EmptyOption => "this option has no value",
            Self::BadName => "a name is 1 to 64 of A-Z a-z 0-9 . _ -",
            Self::UnknownUse => "unknown use, expected sign, token or url, several with commas",
            Self::UnfitUse => {
                "a whsec_ key can only sign, and a base64: key can sign and be a token but never a url"
            }
            Self::BadTime => "expected an RFC 3339 time such as 2026-12-01T00:00:00Z",
            Self::EmptyPeriod => "until must be later than from",
            Self::BadPattern => "expected patterns such as github.com/acme/*, several with commas",
            Self::BadWeak => "expected weak=allow",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Keyring;
    use super::KeyFileErrorKind as Kind;
    use super::*;

    const EXAMPLE: &str = "\
# key                              options
sdf34tGdfgGDG345g3y0045TYG23te37   name=2026-11 use=sign
Qm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M    name=2026-05 use=sign until=2026-12-01T00:00:00Z

U2VwYXJhdGVLZXlGb3JVUkxz           name=urls use=url   # for Gerrit
whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab
base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk=\tname=old-github
Tm90T3VyUmVhbEtleUJ1dEFuRXhhbXBsZQ repositories=github.com/acme/*
short from=2026-01-01T00:00:00Z weak=allow
";

    fn parse_text(text: &str) -> Result<Vec<Key>, KeyFileError> {
        parse(text.as_bytes())
    }

    #[test]
    fn every_kind_and_option_is_read() {
        let keys = parse_text(EXAMPLE).unwrap();
        let summary: Vec<_> =
            keys.iter().map(|key| (key.name(), key.kind(), key.uses().to_string())).collect();
        assert_eq!(
            summary,
            [
                ("2026-11", KeyKind::Plain, "sign".into()),
                ("2026-05", KeyKind::Plain, "sign".into()),
                ("urls", KeyKind::Plain, "url".into()),
                ("gitlab", KeyKind::SigningToken, "sign".into()),
                ("old-github", KeyKind::Encoded, "sign,token".into()),
                ("line-8", KeyKind::Plain, "sign,token,url".into()),
                ("line-9", KeyKind::Plain, "sign,token,url".into()),
            ]
        );
        assert_eq!(keys[0].secret().expose(), b"sdf34tGdfgGDG345g3y0045TYG23te37");
        assert_eq!(keys[3].secret().expose(), b"testtesttesttesttesttesttesttest");
        assert_eq!(keys[4].secret().expose(), b"It's a Secret to Everybody");
        assert_eq!(keys[1].until().unwrap().to_string(), "2026-12-01T00:00:00Z");
        assert_eq!(keys[5].repositories().unwrap().to_string(), "github.com/acme/*");
        assert!(keys[6].is_weak() && keys[6].from().is_some() && !keys[0].is_weak());
    }

    #[test]
    fn line_ends_of_other_systems_a_mark_and_a_missing_last_one_are_taken() {
        for text in [
            "abcdefghijklmnop",
            "abcdefghijklmnop\r\n",
            "\u{feff}abcdefghijklmnop\n",
            "  \n# x\n\tabcdefghijklmnop\t\n",
        ] {
            let keys = parse_text(text).unwrap();
            assert_eq!(keys[0].secret().expose(), b"abcdefghijklmnop", "{text:?}");
        }
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_without_the_text() {
        let long = "k".repeat(256);
        let many_lines = "#\n".repeat(65);
        let huge = format!("#{}", "x".repeat(MAX_FILE_BYTES));
        let nine: String = (0..9).map(|n| format!("abcdefghijklmnop{n}\n")).collect();
        let cases: &[(&str, usize, usize, Kind)] = &[
            ("", 1, 1, Kind::NoKey),
            ("# only\n\n", 1, 1, Kind::NoKey),
            (&huge, 1, 1, Kind::FileTooLarge),
            (&many_lines, 65, 1, Kind::TooManyLines),
            (&nine, 9, 1, Kind::TooManySigningKeys),
            ("canarycanarycanary/\n", 1, 1, Kind::BadCharacter),
            ("\n  canary%20canarycanary\n", 2, 3, Kind::BadCharacter),
            ("canarycanarycanary:\n", 1, 1, Kind::BadCharacter),
            ("canarycanarycanar\u{e9}\n", 1, 1, Kind::BadCharacter),
            (". weak=allow\n", 1, 1, Kind::BadCharacter),
            (".. weak=allow\n", 1, 1, Kind::BadCharacter),
            (&long, 1, 1, Kind::BadLength),
            ("canary\n", 1, 1, Kind::WeakKey),
            ("canarycanaryca1\n", 1, 1, Kind::WeakKey),
            ("base64:Y2FuYXJ5\n", 1, 1, Kind::WeakKey),
            ("base64:canary*canary\n", 1, 1, Kind::BadBase64),
            ("base64:\n", 1, 1, Kind::BadLength),
            ("whsec_Y2FuYXJ5\n", 1, 1, Kind::BadSigningToken),
            ("whsec_canary-canary\n", 1, 1, Kind::BadBase64),
            ("canarycanarycanary canary\n", 1, 20, Kind::NotAnOption),
            ("canarycanarycanary nam=canary\n", 1, 20, Kind::UnknownOption),
            ("canarycanarycanary name=\n", 1, 25, Kind::EmptyOption),
            ("canarycanarycanary name=a name=b\n", 1, 27, Kind::RepeatedOption),
            ("canarycanarycanary name=can/ary\n", 1, 25, Kind::BadName),
            ("canarycanarycanary use=signs\n", 1, 24, Kind::UnknownUse),
            ("canarycanarycanary use=sign,\n", 1, 24, Kind::UnknownUse),
            ("base64:Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5 use=url\n", 1, 37, Kind::UnfitUse),
            ("whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 use=token\n", 1, 44, Kind::UnfitUse),
            ("canarycanarycanary from=today\n", 1, 25, Kind::BadTime),
            (
                "canarycanarycanary from=2026-12-02T00:00:00Z until=2026-12-01T00:00:00Z\n",
                1,
                52,
                Kind::EmptyPeriod,
            ),
            ("canarycanarycanary weak=yes\n", 1, 25, Kind::BadWeak),
            ("canarycanarycanary name=a\ncanarycanarycanary name=b\n", 2, 1, Kind::RepeatedKey),
            ("canarycanarycanary name=a\ncanarycanarycanar2 name=a\n", 2, 1, Kind::RepeatedName),
        ];
        for (text, line, column, kind) in cases {
            let error = parse_text(text).expect_err(text);
            assert_eq!((error.line, error.column, error.kind), (*line, *column, *kind), "{text}");
            let (shown, debug) = (error.to_string(), format!("{error:?}"));
            assert!(!shown.contains("canary") && !debug.contains("canary"), "{shown}");
        }
        let error = parse(b"abcdefghijklmnop\n\xc3\xa9x\xff\n").unwrap_err();
        assert_eq!((error.line, error.column, error.kind), (2, 3, Kind::NotUtf8));
    }

    #[test]
    fn a_ninth_signing_key_is_taken_where_it_begins_after_another_ended() {
        let mut text: String =
            (0..8).map(|n| format!("abcdefghijklmnop{n} until=2026-12-01T00:00:00Z\n")).collect();
        text.push_str("abcdefghijklmnop8 from=2026-12-01T00:00:00Z\n");
        assert_eq!(parse_text(&text).unwrap().len(), 9);
        let overlapping = text.replace("from=2026-12-01", "from=2026-11-30");
        assert_eq!(parse_text(&overlapping).unwrap_err().kind(), Kind::TooManySigningKeys);
        let not_signing = overlapping.replace("from=2026-11-30T00:00:00Z", "use=url");
        assert_eq!(parse_text(&not_signing).unwrap().len(), 9);
    }

    #[test]
    fn the_bounds_of_length_are_included() {
        for length in [16, 255] {
            assert!(parse_text(&"k".repeat(length)).is_ok());
        }
        assert!(parse_text("k weak=allow").is_ok());
    }

    #[test]
    fn what_is_formatted_reads_back_equal() {
        let ring = Keyring::parse(EXAMPLE.as_bytes()).unwrap();
        let text = ring.to_text();
        assert_eq!(Keyring::parse(text.as_bytes()).unwrap(), ring);
        let other = text.replace("use=url", "use=sign");
        assert_ne!(Keyring::parse(other.as_bytes()).unwrap(), ring);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(bytes in any::<Vec<u8>>(), text in "[a-zA-Z0-9=,:#\\. \t\r\n\u{e9}_*-]{0,200}") {
            let _ = parse(&bytes);
            let _ = parse_text(&text);
        }

        #[test]
        fn any_plain_key_reads_back(
            keys in proptest::collection::btree_set("[A-Za-z0-9._~!$&'()*+,;=-]{16,255}", 1..8),
            until in proptest::option::of(0_i64..4_000_000_000_000),
        ) {
            let text: String = keys
                .iter()
                .map(|key| match until {
                    Some(until) => format!("{key} until={}\n", Timestamp::from_millis(until)),
                    None => format!("{key}\n"),
                })
                .collect();
            let ring = Keyring::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(ring.keys().len(), keys.len());
            prop_assert_eq!(Keyring::parse(ring.to_text().as_bytes()).unwrap(), ring);
        }
    }
}
