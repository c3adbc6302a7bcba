//! Reads JSON front to back, keeping what is asked for and checking all of it.
//!
//! Why not serde: the rules read a dozen fields of a body whose other hundreds nobody asks for, and
//! skipping those with `serde_json` takes as long as the signature over them. This reader does only what
//! the parsers of events need, and takes about half of that. It is checked against `serde_json` by
//! the tests.
//!
//! 1. All of the text is checked against the grammar of [RFC 8259](https://www.rfc-editor.org/rfc/rfc8259),
//!    also where it is skipped, and nothing but white space may follow. So what this reader takes is
//!    one text for every other strict reader too.
//! 2. A name that is asked for may stand only once in its object, in whatever spelling of escapes:
//!    readers differ in which one of two they take.
//! 3. A value of another type than what is asked for is skipped and told as absent. Whether that
//!    matters, the parser decides.
//! 4. Nesting is counted and not recursed into, up to [`MAX_DEPTH`]. Only a string that is asked for
//!    and has escapes is copied.
//! 5. Strings that nobody asks for are not checked to be UTF-8; those that somebody asks for are.

use std::borrow::Cow;

use super::EventError;

/// How deep a value that is skipped may be nested.
const MAX_DEPTH: u32 = 127;

/// A position in a JSON text.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    String,
    Null,
    Other,
}

/// The names that are asked for in an object; made by [`keys!`].
pub(super) trait Keys: Copy {
    /// The key that is called `name`.
    fn find(name: &[u8]) -> Option<Self>;
    /// Its number, less than 64.
    fn index(self) -> u32;
    /// Its name.
    fn name(self) -> &'static str;
}

macro_rules! keys {
    ($(#[$meta:meta])* enum $type:ident { $($variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[allow(clippy::enum_variant_names, reason = "they are called as the fields are")]
        enum $type { $($variant,)+ }

        impl $crate::event::json::Keys for $type {
            #[inline]
            fn find(name: &[u8]) -> Option<Self> {
                // Most names are none of these, and the length alone shows it for most of them.
                const LENGTHS: u64 = 0 $(| 1 << $name.len())+;
                if name.len() > 63 || LENGTHS >> name.len() & 1 == 0 {
                    return None;
                }
                $(if name == $name.as_bytes() {
                    return Some(Self::$variant);
                })+
                None
            }

            fn index(self) -> u32 {
                self as u32
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}
pub(super) use keys;

/// Reads a text that is one object; `visit` is called for each of its members that is asked for and
/// has to read its value.
pub(super) fn read<'a, K: Keys>(
    text: &'a [u8],
    visit: impl FnMut(K, &mut Reader<'a>) -> Result<(), EventError>,
) -> Result<(), EventError> {
    let mut reader = Reader::new(text);
    if !reader.object("", visit)? {
        // It is no object; whether it is JSON at all is the better thing to say.
        return reader.end().and(Err(EventError::NoObject));
    }
    reader.end()
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text, len: text.len() }
    }

    /// What kind of value comes next; does not read it.
    pub(super) fn shape(&mut self) -> Shape {
        match self.peek() {
            b'{' => Shape::Object,
            b'[' => Shape::Array,
            b'"' => Shape::String,
            b'n' => Shape::Null,
            _ => Shape::Other,
        }
    }

    /// Reads an object, of which `at` is the path in errors; `false` when it is none.
    #[inline]
    pub(super) fn object<K: Keys>(
        &mut self,
        at: &'static str,
        mut visit: impl FnMut(K, &mut Self) -> Result<(), EventError>,
    ) -> Result<bool, EventError> {
        let mut seen = 0_u64;
        self.members(|name, reader| {
            let key = if name.escaped {
                name.decode().and_then(|name| K::find(name.as_bytes()))
            } else {
                K::find(name.bytes)
            };
            let Some(key) = key else { return reader.skip() };
            if seen >> key.index() & 1 == 1 {
                return Err(EventError::Duplicate { at, name: key.name() });
            }
            seen |= 1 << key.index();
            visit(key, reader)
        })
    }

    /// Reads an object, calling `visit` for each of its members; `false` when it is none.
    #[inline]
    pub(super) fn members(
        &mut self,
        mut visit: impl FnMut(Raw<'a>, &mut Self) -> Result<(), EventError>,
    ) -> Result<bool, EventError> {
        if self.peek() != b'{' {
            self.skip()?;
            return Ok(false);
        }
        self.bump();
        if self.peek() == b'}' {
            self.bump();
            return Ok(true);
        }
        loop {
            let name = match read_name(self.rest) {
                Ok((name, rest)) => {
                    self.rest = rest;
                    name
                }
                Err(fault) => return Err(self.error(fault)),
            };
            visit(name, self)?;
            match self.peek() {
                b',' => self.bump(),
                b'}' => {
                    self.bump();
                    return Ok(true);
                }
                _ => return Err(self.syntax()),
            }
        }
    }

    /// Reads an array, calling `visit` for each of its elements; `false` when it is none.
    pub(super) fn elements(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), EventError>,
    ) -> Result<bool, EventError> {
        if self.peek() != b'[' {
            self.skip()?;
            return Ok(false);
        }
        self.bump();
        if self.peek() == b']' {
            self.bump();
            return Ok(true);
        }
        loop {
            visit(self)?;
            match self.peek() {
                b',' => self.bump(),
                b']' => {
                    self.bump();
                    return Ok(true);
                }
                _ => return Err(self.syntax()),
            }
        }
    }

    /// Reads a string; `None` when it is none or cannot be told in Unicode.
    pub(super) fn text(&mut self) -> Result<Option<Cow<'a, str>>, EventError> {
        Ok(self.raw()?.and_then(Raw::decode))
    }

    /// Reads a string as it stands; `None` when it is none.
    pub(super) fn raw(&mut self) -> Result<Option<Raw<'a>>, EventError> {
        if self.peek() != b'"' {
            self.skip()?;
            return Ok(None);
        }
        let Some((raw, rest)) = read_string(tail(self.rest)) else { return Err(self.syntax()) };
        self.rest = rest;
        Ok(Some(raw))
    }

    /// Reads `true`; anything else is `false`.
    pub(super) fn flag(&mut self) -> Result<bool, EventError> {
        let is_true = self.peek() == b't';
        self.skip()?;
        Ok(is_true)
    }

    /// Reads a value that nobody asks for, however deep.
    pub(super) fn skip(&mut self) -> Result<(), EventError> {
        match skip_value(self.rest) {
            Ok(rest) => {
                self.rest = rest;
                Ok(())
            }
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// Skips a value and tells where it stands.
    pub(super) fn span(&mut self) -> Result<std::ops::Range<usize>, EventError> {
        self.peek();
        let start = self.offset();
        self.skip()?;
        Ok(start..self.offset())
    }

    /// Checks that nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), EventError> {
        self.peek();
        if self.rest.is_empty() { Ok(()) } else { Err(self.syntax()) }
    }

    /// The next byte that is not white space, or 0 at the end.
    #[inline(always)]
    fn peek(&mut self) -> u8 {
        self.rest = skip_white_space(self.rest);
        first(self.rest)
    }

    /// Leaves a byte that was peeked at behind.
    #[inline(always)]
    fn bump(&mut self) {
        self.rest = tail(self.rest);
    }

    fn offset(&self) -> usize {
        self.len - self.rest.len()
    }

    #[cold]
    fn syntax(&self) -> EventError {
        EventError::Syntax { offset: self.offset() }
    }

    #[cold]
    fn error(&self, fault: Fault<'_>) -> EventError {
        let offset = self.len - fault.rest.len();
        if fault.too_deep { EventError::TooDeep { offset } } else { EventError::Syntax { offset } }
    }
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    bytes: &'a [u8],
    escaped: bool,
}

impl<'a> Raw<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The text; `None` when it is not UTF-8 or holds half of a surrogate pair.
    #[inline]
    pub(super) fn decode(self) -> Option<Cow<'a, str>> {
        if self.escaped {
            unescape(self.bytes).map(Cow::Owned)
        } else {
            std::str::from_utf8(self.bytes).ok().map(Cow::Borrowed)
        }
    }
}

// The text that is not yet read goes by value through what follows, so that it stays in registers.

/// Where a text is not JSON, or too deep.
struct Fault<'a> {
    rest: &'a [u8],
    too_deep: bool,
}

#[cold]
fn fault(rest: &[u8]) -> Fault<'_> {
    Fault { rest, too_deep: false }
}

#[inline(always)]
fn first(rest: &[u8]) -> u8 {
    rest.first().copied().unwrap_or(0)
}

#[inline(always)]
fn tail(rest: &[u8]) -> &[u8] {
    rest.get(1..).unwrap_or_default()
}

#[inline(always)]
fn skip_white_space(rest: &[u8]) -> &[u8] {
    match rest {
        [byte, ..] if *byte > b' ' => rest,
        [b' ', byte, ..] if *byte > b' ' => tail(rest),
        _ => skip_more_white_space(rest),
    }
}

#[inline]
fn skip_more_white_space(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', tail @ ..] = rest {
        rest = tail;
        // Indentation comes in long runs.
        while let Some(chunk) = rest.first_chunk::<8>() {
            let others = u64::from_le_bytes(*chunk) ^ u64::from_le_bytes([b' '; 8]);
            let spaces = (others.trailing_zeros() / 8) as usize;
            rest = &rest[spaces..];
            if spaces < 8 {
                break;
            }
        }
    }
    rest
}

/// A value of any kind.
fn skip_value(mut rest: &[u8]) -> Result<&[u8], Fault<'_>> {
    // One bit for each level: set for an object.
    let mut levels = 0_u128;
    let mut depth = 0;
    loop {
        rest = skip_white_space(rest);
        let byte = first(rest);
        if byte == b'"' {
            (rest, _) = skip_string(tail(rest)).ok_or_else(|| fault(rest))?;
        } else if byte == b'{' || byte == b'[' {
            let is_object = byte == b'{';
            rest = skip_white_space(tail(rest));
            // Both closing brackets stand two places behind the opening ones.
            if first(rest) == byte + 2 {
                rest = tail(rest);
            } else {
                if depth == MAX_DEPTH {
                    return Err(Fault { rest, too_deep: true });
                }
                depth += 1;
                levels = levels << 1 | u128::from(is_object);
                if is_object {
                    rest = skip_name(rest)?;
                }
                continue;
            }
        } else {
            rest = skip_scalar(byte, rest).ok_or_else(|| fault(rest))?;
        }
        loop {
            if depth == 0 {
                return Ok(rest);
            }
            let is_object = levels & 1 == 1;
            rest = skip_white_space(rest);
            let byte = first(rest);
            if byte == b',' {
                rest = tail(rest);
                if is_object {
                    rest = skip_name(rest)?;
                }
                break;
            }
            if byte != (if is_object { b'}' } else { b']' }) {
                return Err(fault(rest));
            }
            rest = tail(rest);
            levels >>= 1;
            depth -= 1;
        }
    }
}

/// `"name":`
#[inline(always)]
fn skip_name(rest: &[u8]) -> Result<&[u8], Fault<'_>> {
    let rest = skip_white_space(rest);
    if first(rest) == b'"'
        && let Some((rest, _)) = skip_string(tail(rest))
        && let [b':', rest @ ..] = skip_white_space(rest)
    {
        return Ok(rest);
    }
    Err(fault(rest))
}

/// `"name":`
#[inline(always)]
fn read_name(rest: &[u8]) -> Result<(Raw<'_>, &[u8]), Fault<'_>> {
    let rest = skip_white_space(rest);
    if first(rest) == b'"'
        && let Some((name, rest)) = read_string(tail(rest))
        && let [b':', rest @ ..] = skip_white_space(rest)
    {
        return Ok((name, rest));
    }
    Err(fault(rest))
}

/// A string whose first quote was read.
#[inline(always)]
fn read_string(start: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (rest, escaped) = skip_string(start)?;
    let bytes = start.get(..start.len() - rest.len() - 1)?;
    Some((Raw { bytes, escaped }, rest))
}

/// What follows a string whose first quote was read, and whether there are escapes in it.
#[inline(always)]
fn skip_string(mut rest: &[u8]) -> Option<(&[u8], bool)> {
    let mut escaped = false;
    loop {
        let (byte, tail) = match rest.first_chunk::<16>() {
            Some(chunk) => {
                let special = find_special(chunk);
                if special == 0 {
                    rest = rest.get(16..)?;
                    continue;
                }
                let at = (special.trailing_zeros() / 8) as usize & 15;
                (chunk[at], rest.get(at + 1..)?)
            }
            None => {
                let at = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))?;
                (rest[at], &rest[at + 1..])
            }
        };
        if byte == b'"' {
            return Some((tail, escaped));
        }
        if byte != b'\\' {
            return None;
        }
        escaped = true;
        rest = skip_escape(tail)?;
    }
}

/// Marks the bytes that end a run of plain ones: quote, backslash and control characters. The first
/// mark is right; those after it may be too many.
#[inline(always)]
fn find_special(chunk: &[u8; 16]) -> u128 {
    let (low, high) = chunk.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    u128::from(find_special_in(word(low))) | u128::from(find_special_in(word(high))) << 64
}

/// The same for the eight bytes of a word: the high bit of each byte is its mark.
#[inline(always)]
fn find_special_in(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // With the second bit flipped the quote, 0x22, lies below 0x21 like the control characters do,
    // and the space and the exclamation mark do not.
    let low = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (low | backslash) & !word & (ONES << 7)
}

/// What follows the escape whose backslash was read.
#[cold]
fn skip_escape(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', tail @ ..] => Some(tail),
        [b'u', a, b, c, d, tail @ ..] => {
            [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit).then_some(tail)
        }
        _ => None,
    }
}

/// A number, or one of the three words.
fn skip_scalar(first: u8, rest: &[u8]) -> Option<&[u8]> {
    match first {
        b't' => rest.strip_prefix(b"true"),
        b'f' => rest.strip_prefix(b"false"),
        b'n' => rest.strip_prefix(b"null"),
        _ => skip_number(rest),
    }
}

fn skip_number(mut rest: &[u8]) -> Option<&[u8]> {
    if let [b'-', tail @ ..] = rest {
        rest = tail;
    }
    rest = match rest {
        [b'0', tail @ ..] => tail,
        _ => skip_digits(rest)?,
    };
    if let [b'.', tail @ ..] = rest {
        rest = skip_digits(tail)?;
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        rest = match tail {
            [b'+' | b'-', tail @ ..] => skip_digits(tail)?,
            _ => skip_digits(tail)?,
        };
    }
    Some(rest)
}

/// At least one digit.
#[inline(always)]
fn skip_digits(rest: &[u8]) -> Option<&[u8]> {
    let [b'0'..=b'9', tail @ ..] = rest else { return None };
    let mut rest = tail;
    while let [b'0'..=b'9', tail @ ..] = rest {
        rest = tail;
    }
    Some(rest)
}

/// Resolves the escapes of a string that was found to be well-formed.
#[cold]
fn unescape(mut rest: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(rest.len());
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        text.extend_from_slice(&rest[..at]);
        rest = push_escape(&mut text, &rest[at + 1..])?;
    }
    text.extend_from_slice(rest);
    String::from_utf8(text).ok()
}

/// Writes what the escape stands for whose backslash was read, and tells what follows it.
fn push_escape<'a>(text: &mut Vec<u8>, escape: &'a [u8]) -> Option<&'a [u8]> {
    let (letter, rest) = escape.split_first()?;
    text.push(match letter {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let (mut code, mut rest) = hex(rest)?;
            if let 0xd800..=0xdbff = code {
                let (low, tail) = hex(rest.strip_prefix(b"\\u")?)?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                code = 0x1_0000 + ((code - 0xd800) << 10) + low;
                rest = tail;
            }
            let char = char::from_u32(code)?;
            text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        other => *other,
    });
    Some(rest)
}

fn hex(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, tail) = rest.split_first_chunk::<4>()?;
    let value = digits
        .iter()
        .try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
    Some((value, tail))
}
