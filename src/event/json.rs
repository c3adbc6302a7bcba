//! Reads JSON front to back, keeping what is asked for and checking all of it.
//!
//! Why not serde: the parsers ask for a dozen fields of a body whose other hundreds nobody asks
//! for, and skipping those with `serde_json` takes about as long as the signature over them. This
//! reader does only what the parsers need, and takes about half of that. The tests hold it against
//! `serde_json`.
//!
//! 1. All of the text is checked against the grammar of [RFC
//!    8259](https://www.rfc-editor.org/rfc/rfc8259), also where it is skipped, and nothing but
//!    white space may follow. So what this reader takes is one text for every other strict reader
//!    too.
//! 2. A name that is asked for may stand only once in its object, in whatever spelling of escapes:
//!    readers differ in which one of two they take.
//! 3. A value of another type than what is asked for is skipped and told as absent. Whether that
//!    matters, the parser decides.
//! 4. Nesting is counted and not recursed into, up to [`MAX_DEPTH`]. Only a string that is asked
//!    for and has escapes is copied.
//! 5. Strings that nobody asks for are not checked to be UTF-8; those that somebody asks for are.
//! 6. Where strings may end is found for 64 bytes at once, before anyone asks, as [simdjson does
//!    it](https://arxiv.org/abs/1902.08318) (section 3.1). So a string costs the same whatever its
//!    length, and the processor need not know where one ends to begin with the next.

use std::borrow::Cow;
use std::num::NonZeroU64;

use wide::{i8x16, u8x16};

use super::EventError;

/// How deep a value that is skipped may be nested.
const MAX_DEPTH: usize = 127;

/// A position in a JSON text.
pub(super) struct Reader<'a> {
    scanner: Scanner<'a>,
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
    // Inlined, lest it be moved: it is large.
    #[inline(always)]
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { scanner: Scanner::new(text) }
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
        if self.peek() != b'{' {
            self.skip()?;
            return Ok(false);
        }
        let mut seen = 0_u64;
        let mut cursor = self.scanner.resume();
        cursor.pos += 1;
        let mut first = self.scanner.peek(&mut cursor);
        if first == b'}' {
            cursor.pos += 1;
            self.scanner.save(&cursor);
            return Ok(true);
        }
        loop {
            let name = self.scanner.read_name(&mut cursor, first)?;
            let key = if name.escaped { find_escaped(name.bytes) } else { K::find(name.bytes) };
            if let Some(key) = key {
                if seen >> key.index() & 1 == 1 {
                    return Err(EventError::Duplicate { at, name: key.name() });
                }
                seen |= 1 << key.index();
                self.scanner.save(&cursor);
                visit(key, self)?;
                cursor = self.scanner.resume();
            } else if self.scanner.skip_member(&mut cursor)? {
                first = b'"';
                continue;
            }
            let byte = self.scanner.peek(&mut cursor);
            if byte != b',' && byte != b'}' {
                return Err(syntax(cursor.pos));
            }
            cursor.pos += 1;
            if byte == b'}' {
                self.scanner.save(&cursor);
                return Ok(true);
            }
            first = self.scanner.peek_quote(&mut cursor);
        }
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
        self.scanner.pos += 1;
        if self.peek() == b'}' {
            self.scanner.pos += 1;
            return Ok(true);
        }
        loop {
            let mut cursor = self.scanner.resume();
            let first = self.scanner.peek(&mut cursor);
            let name = self.scanner.read_name(&mut cursor, first)?;
            self.scanner.save(&cursor);
            visit(name, self)?;
            if self.is_last(b'}')? {
                return Ok(true);
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
        self.scanner.pos += 1;
        if self.peek() == b']' {
            self.scanner.pos += 1;
            return Ok(true);
        }
        loop {
            visit(self)?;
            if self.is_last(b']')? {
                return Ok(true);
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
        let mut cursor = self.scanner.resume();
        let Some(raw) = self.scanner.read_string(&mut cursor) else {
            return Err(syntax(self.scanner.pos));
        };
        self.scanner.save(&cursor);
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
        self.scanner.skip_value()
    }

    /// Skips a value and tells where it stands.
    pub(super) fn span(&mut self) -> Result<std::ops::Range<usize>, EventError> {
        self.peek();
        let start = self.scanner.pos;
        self.skip()?;
        Ok(start..self.scanner.pos)
    }

    /// Checks that nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), EventError> {
        self.peek();
        if self.scanner.pos == self.scanner.text.len() {
            Ok(())
        } else {
            Err(syntax(self.scanner.pos))
        }
    }

    /// Reads what stands behind a member or element: a comma or the closing bracket.
    #[inline]
    fn is_last(&mut self, bracket: u8) -> Result<bool, EventError> {
        let byte = self.peek();
        if byte != b',' && byte != bracket {
            return Err(syntax(self.scanner.pos));
        }
        self.scanner.pos += 1;
        Ok(byte == bracket)
    }

    /// The next byte that is not white space, or 0 at the end.
    #[inline(always)]
    fn peek(&mut self) -> u8 {
        let mut cursor = self.scanner.resume();
        let byte = self.scanner.peek(&mut cursor);
        self.scanner.save(&cursor);
        byte
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

/// The key whose name has escapes.
#[cold]
fn find_escaped<K: Keys>(name: &[u8]) -> Option<K> {
    K::find(unescape(name)?.as_bytes())
}

/// How many bytes are looked at together.
const BLOCK: usize = 64;
/// How many blocks are looked at in advance.
const WINDOW: usize = 64;

/// A text, and where in it the *special* bytes stand: those that end a run of plain ones in a
/// string, which are quotes, backslashes and control characters. The end counts as one.
struct Scanner<'a> {
    text: &'a [u8],
    /// A bit for each byte of each block in the window, set where it is special.
    special: [u64; WINDOW],
    /// Where the window begins.
    start: usize,
    /// The brackets that close the levels of a value around the innermost.
    outer: [u8; MAX_DEPTH],
    /// The parts of the [`Cursor`], while no function has it.
    pos: usize,
    base: usize,
    ahead: NonZeroU64,
}

/// A position in a text, and the special bytes ahead.
///
/// It is only lent to functions that are inlined, so that its parts stay in registers; others
/// [save](Scanner::save) it, or take and return the position alone.
struct Cursor<'a> {
    text: &'a [u8],
    pos: usize,
    /// Where the block begins in which the next special byte stands.
    base: usize,
    /// The special bytes of that block that stand at `pos` or behind it.
    ahead: NonZeroU64,
}

impl Cursor<'_> {
    /// Where the next special byte stands.
    #[inline(always)]
    fn next_special(&self) -> usize {
        self.base + self.ahead.trailing_zeros() as usize
    }

    /// The byte that comes next, or 0 at the end.
    #[inline(always)]
    fn byte(&self) -> u8 {
        byte_at(self.text, self.pos)
    }

    /// The next special byte and those behind it, with the first in the low bits; 0 where there are
    /// not four of them.
    #[inline(always)]
    fn special_bytes(&self) -> u32 {
        chunk(self.text, self.next_special()).map_or(0, u32::from_le_bytes)
    }
}

impl<'a> Scanner<'a> {
    #[inline(always)]
    fn new(text: &'a [u8]) -> Self {
        let mut scanner = Self {
            text,
            special: [0; WINDOW],
            // No text is so long, so the window moves when it is first needed.
            start: usize::MAX / 2 + 1,
            outer: [0; MAX_DEPTH],
            pos: 0,
            base: 0,
            ahead: NonZeroU64::MIN,
        };
        let cursor = scanner.cursor(0);
        scanner.save(&cursor);
        scanner
    }

    /// The cursor where it was saved.
    #[inline(always)]
    fn resume(&self) -> Cursor<'a> {
        Cursor { text: self.text, pos: self.pos, base: self.base, ahead: self.ahead }
    }

    #[inline(always)]
    fn save(&mut self, cursor: &Cursor<'a>) {
        (self.pos, self.base, self.ahead) = (cursor.pos, cursor.base, cursor.ahead);
    }

    /// The cursor at any position.
    #[inline(always)]
    fn cursor(&mut self, pos: usize) -> Cursor<'a> {
        let base = pos & !(BLOCK - 1);
        let ahead = self.special(base) & (!0 << (pos % BLOCK));
        let (base, ahead) = match NonZeroU64::new(ahead) {
            Some(ahead) => (base, ahead),
            None => self.find_block(base + BLOCK),
        };
        Cursor { text: self.text, pos, base, ahead }
    }

    /// Moves the window to where a block begins, and tells the special bytes of that block.
    #[inline(never)]
    fn look(&mut self, start: usize) -> u64 {
        self.start = start;
        let rest = self.text.get(start..).unwrap_or_default();
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        let mut masks = self.special.iter_mut();
        // In this order, lest a mask be taken for no block.
        for (block, mask) in blocks.iter().zip(&mut masks) {
            *mask = find_special(block);
        }
        if let Some(mask) = masks.next() {
            let mut block = [0; BLOCK];
            block[..tail.len()].copy_from_slice(tail);
            *mask = find_special(&block);
        }
        masks.for_each(|mask| *mask = !0);
        self.special[0]
    }

    /// The special bytes of the block that begins at `base`.
    #[inline(always)]
    fn special(&mut self, base: usize) -> u64 {
        match self.special.get(base.wrapping_sub(self.start) / BLOCK) {
            Some(special) => *special,
            None => self.look(base),
        }
    }

    /// The first block with special bytes, at `base` or behind it.
    #[inline(always)]
    fn find_block(&mut self, base: usize) -> (usize, NonZeroU64) {
        let special = self.special.get(base.wrapping_sub(self.start) / BLOCK);
        match special.copied().and_then(NonZeroU64::new) {
            Some(special) => (base, special),
            None => self.find_far_block(base),
        }
    }

    #[inline(never)]
    fn find_far_block(&mut self, mut base: usize) -> (usize, NonZeroU64) {
        loop {
            if let Some(special) = NonZeroU64::new(self.special(base)) {
                return (base, special);
            }
            base += BLOCK;
        }
    }

    /// Goes behind the next special byte.
    #[inline(always)]
    fn pass_special(&mut self, cursor: &mut Cursor<'a>) {
        cursor.pos = cursor.next_special() + 1;
        match NonZeroU64::new(cursor.ahead.get() & (cursor.ahead.get() - 1)) {
            Some(ahead) => cursor.ahead = ahead,
            None => (cursor.base, cursor.ahead) = self.find_block(cursor.base + BLOCK),
        }
    }

    /// Goes behind white space and tells the byte that comes next, or 0 at the end.
    #[inline(always)]
    fn peek(&mut self, cursor: &mut Cursor<'a>) -> u8 {
        let byte = cursor.byte();
        if byte > b' ' {
            return byte;
        }
        self.skip_white_space(cursor);
        cursor.byte()
    }

    /// The same where a name is likely, in a text that is indented.
    #[inline(always)]
    fn peek_quote(&mut self, cursor: &mut Cursor<'a>) -> u8 {
        if cursor.byte() == b'\n' && self.pass_line_end(cursor) {
            return b'"';
        }
        self.peek(cursor)
    }

    /// The same where a closing bracket is likely, in a text that is indented.
    #[inline(always)]
    fn peek_bracket(&mut self, cursor: &mut Cursor<'a>) -> u8 {
        let byte = cursor.byte();
        if byte > b' ' {
            return byte;
        }
        if byte == b'\n' {
            self.pass_special(cursor);
            cursor.pos += indentation(cursor.text, cursor.pos);
        }
        self.peek(cursor)
    }

    /// Goes behind the end of a line; `true` if then there are nothing but a few spaces before a
    /// quote, and goes there. Its place is known already, so nothing waits for the spaces.
    #[inline(always)]
    fn pass_line_end(&mut self, cursor: &mut Cursor<'a>) -> bool {
        self.pass_special(cursor);
        let quote = cursor.next_special();
        let is_next = is_indented_quote(cursor.text, cursor.pos, quote);
        if is_next {
            cursor.pos = quote;
        }
        is_next
    }

    /// Goes behind white space, which is one space most of the time.
    #[inline(always)]
    fn skip_white_space(&mut self, cursor: &mut Cursor<'a>) {
        if cursor.byte() == b' ' && byte_at(cursor.text, cursor.pos + 1) > b' ' {
            cursor.pos += 1;
        } else {
            self.save(cursor);
            self.skip_lines();
            *cursor = self.resume();
        }
    }

    /// Goes behind white space from the saved cursor on.
    #[inline(never)]
    fn skip_lines(&mut self) {
        let mut cursor = self.resume();
        if cursor.byte() == b'\n' {
            self.pass_special(&mut cursor);
            cursor.pos += indentation(cursor.text, cursor.pos);
        }
        if cursor.byte() <= b' ' {
            let pos = self.skip_spaces(cursor.pos);
            cursor = self.cursor(pos);
        }
        self.save(&cursor);
    }

    /// Where the white space ends that begins at `pos`.
    #[inline(never)]
    fn skip_spaces(&self, pos: usize) -> usize {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let rest = self.text.get(pos..).unwrap_or_default();
        pos + rest.iter().take_while(|byte| is_space(byte)).count()
    }

    /// Skips a value of any kind, from the saved cursor on.
    fn skip_value(&mut self) -> Result<(), EventError> {
        let mut cursor = self.resume();
        let (mut depth, mut close) = (0, 0);
        loop {
            let first = self.peek(&mut cursor);
            let start = cursor.pos;
            // The first byte of the name that comes next, if one does.
            let mut name = None;
            if first == b'"' {
                if !self.skip_string(&mut cursor) {
                    return Err(syntax(start));
                }
            } else if first == b'{' || first == b'[' {
                cursor.pos += 1;
                let inner = self.peek_quote(&mut cursor);
                // Both closing brackets stand two places behind the opening ones.
                if inner == first + 2 {
                    cursor.pos += 1;
                } else {
                    let Some(outer) = self.outer.get_mut(depth) else {
                        return Err(EventError::TooDeep { offset: cursor.pos });
                    };
                    (*outer, close) = (close, first + 2);
                    depth += 1;
                    if first == b'[' {
                        continue;
                    }
                    name = Some(inner);
                }
            } else if !self.skip_scalar(&mut cursor) {
                return Err(syntax(start));
            }
            if depth == 0 {
                self.save(&cursor);
                return Ok(());
            }
            loop {
                if let Some(first) = name
                    && !self.skip_texts(&mut cursor, &mut depth, first)?
                {
                    break;
                }
                name = None;
                let byte = self.peek_bracket(&mut cursor);
                if byte == b',' {
                    cursor.pos += 1;
                    if close == b']' {
                        break;
                    }
                    name = Some(self.peek_quote(&mut cursor));
                    continue;
                }
                if byte != close {
                    return Err(syntax(cursor.pos));
                }
                cursor.pos += 1;
                depth -= 1;
                if depth == 0 {
                    self.save(&cursor);
                    return Ok(());
                }
                close = self.outer.get(depth).copied().unwrap_or(0);
            }
        }
    }

    /// Skips members of an object, of whose name the `first` byte is known, as long as their values
    /// are strings or objects of such, and stand as most hosts write them. Goes on to a value, and
    /// then is `false`, or behind one.
    #[inline(always)]
    fn skip_texts(
        &mut self,
        cursor: &mut Cursor<'a>,
        depth: &mut usize,
        first: u8,
    ) -> Result<bool, EventError> {
        if first != b'"' {
            return Err(syntax(cursor.pos));
        }
        loop {
            let start = cursor.pos;
            self.pass_special(cursor);
            let end = cursor.special_bytes();
            let is_spaced = is_prefix(end, *b"\": \"");
            if !is_spaced && !is_prefix(end, *b"\":\"") {
                if !is_prefix(end, *b"\":") {
                    if !self.end_string(cursor, end) || self.peek(cursor) != b':' {
                        return Err(syntax(start));
                    }
                    cursor.pos += 1;
                    return Ok(false);
                }
                self.pass_special(cursor);
                cursor.pos += 1;
                if is_prefix(end, *b"\":{\"") {
                    let Some(outer) = self.outer.get_mut(*depth) else {
                        return Err(EventError::TooDeep { offset: cursor.pos + 1 });
                    };
                    *outer = b'}';
                    *depth += 1;
                    cursor.pos += 1;
                    continue;
                }
                cursor.pos += usize::from(is_prefix(end, *b"\": "));
                if !self.skip_word(cursor) {
                    return Ok(false);
                }
                if cursor.byte() != b',' {
                    return Ok(true);
                }
                cursor.pos += 1;
                if self.peek_quote(cursor) != b'"' {
                    return Err(syntax(cursor.pos));
                }
                continue;
            }
            self.pass_special(cursor);
            cursor.pos += 1 + usize::from(is_spaced);
            let start = cursor.pos;
            self.pass_special(cursor);
            let end = cursor.special_bytes();
            if is_prefix(end, *b"\",\"") {
                self.pass_special(cursor);
                cursor.pos += 1;
            } else if is_prefix(end, *b"\",\n") {
                self.pass_special(cursor);
                if !self.pass_line_end(cursor) && self.peek(cursor) != b'"' {
                    return Err(syntax(cursor.pos));
                }
            } else if is_prefix(end, *b"\"},\"")
                // Around the outermost there is none.
                && self.outer.get(*depth - 1) == Some(&b'}')
            {
                *depth -= 1;
                self.pass_special(cursor);
                cursor.pos += 2;
            } else {
                return if self.end_string(cursor, end) { Ok(true) } else { Err(syntax(start)) };
            }
        }
    }

    /// Skips the value of a member; `true` if it goes on to the quote of the next name.
    #[inline(always)]
    fn skip_member(&mut self, cursor: &mut Cursor<'a>) -> Result<bool, EventError> {
        let start = cursor.pos;
        let byte = cursor.byte();
        if byte == b'"' {
            self.pass_special(cursor);
            let end = cursor.special_bytes();
            if is_prefix(end, *b"\",\"") {
                self.pass_special(cursor);
                cursor.pos += 1;
                return Ok(true);
            }
            if !self.end_string(cursor, end) {
                return Err(syntax(start));
            }
        } else if byte == b'{' || byte == b'[' {
            self.save(cursor);
            self.skip_value()?;
            *cursor = self.resume();
        } else if !self.skip_scalar(cursor) {
            return Err(syntax(start));
        }
        Ok(false)
    }

    /// `"name":`, of which the `first` byte is known, and the white space behind it.
    #[inline(always)]
    fn read_name(&mut self, cursor: &mut Cursor<'a>, first: u8) -> Result<Raw<'a>, EventError> {
        let start = cursor.pos;
        if first != b'"' {
            return Err(syntax(start));
        }
        self.pass_special(cursor);
        let end = cursor.special_bytes();
        let mut quote = cursor.next_special();
        let escaped = !is_prefix(end, [b'"']);
        if is_prefix(end, *b"\":") {
            self.pass_special(cursor);
        } else {
            if !self.end_string(cursor, end) {
                return Err(syntax(start));
            }
            quote = cursor.pos - 1;
            if self.peek(cursor) != b':' {
                return Err(syntax(start));
            }
        }
        cursor.pos += 1 + usize::from(is_prefix(end, *b"\": "));
        self.peek(cursor);
        match cursor.text.get(start + 1..quote) {
            Some(bytes) => Ok(Raw { bytes, escaped }),
            None => Err(syntax(start)),
        }
    }

    /// The string whose first quote is next.
    #[inline(always)]
    fn read_string(&mut self, cursor: &mut Cursor<'a>) -> Option<Raw<'a>> {
        self.pass_special(cursor);
        let start = cursor.pos;
        let mut end = cursor.next_special();
        let escaped = byte_at(cursor.text, end) != b'"';
        if escaped {
            end = self.skip_escapes(end)?;
            *cursor = self.cursor(end);
        }
        self.pass_special(cursor);
        Some(Raw { bytes: cursor.text.get(start..end)?, escaped })
    }

    /// Goes behind the string whose first quote is next; `false` when it is none.
    #[inline(always)]
    fn skip_string(&mut self, cursor: &mut Cursor<'a>) -> bool {
        self.pass_special(cursor);
        let end = cursor.special_bytes();
        self.end_string(cursor, end)
    }

    /// Goes behind a string whose first quote was passed; `false` when it is none. The next special
    /// byte is the first of `end`, unless that is 0.
    #[inline(always)]
    fn end_string(&mut self, cursor: &mut Cursor<'a>, end: u32) -> bool {
        if !is_prefix(end, [b'"']) {
            let Some(quote) = self.skip_escapes(cursor.next_special()) else { return false };
            *cursor = self.cursor(quote);
        }
        self.pass_special(cursor);
        true
    }

    /// Goes behind a number or one of the three words; `false` when there is none.
    #[inline(always)]
    fn skip_scalar(&self, cursor: &mut Cursor<'a>) -> bool {
        let word = chunk(cursor.text, cursor.pos).map_or(0, u32::from_le_bytes);
        let len = if is_prefix(word, *b"true") || is_prefix(word, *b"null") {
            4
        } else if is_prefix(word, *b"fals") && byte_at(cursor.text, cursor.pos + 4) == b'e' {
            5
        } else {
            number_len(cursor.text.get(cursor.pos..).unwrap_or_default())
        };
        // There is nothing special in it.
        cursor.pos += len;
        len > 0
    }

    /// Goes behind a number, one of the three words, or a pair of brackets; `false` when there is
    /// none.
    #[inline(always)]
    fn skip_word(&self, cursor: &mut Cursor<'a>) -> bool {
        let first = cursor.byte();
        if first == b'{' || first == b'[' {
            let is_pair = byte_at(cursor.text, cursor.pos + 1) == first + 2;
            cursor.pos += 2 * usize::from(is_pair);
            return is_pair;
        }
        self.skip_scalar(cursor)
    }

    /// Where the quote stands that ends a string in which the first special byte is no quote.
    #[inline(never)]
    fn skip_escapes(&mut self, at: usize) -> Option<usize> {
        let mut cursor = self.cursor(at);
        loop {
            let at = cursor.next_special();
            match byte_at(cursor.text, at) {
                b'"' => return Some(at),
                b'\\' => self.pass_special(&mut cursor),
                _ => return None,
            }
            match cursor.byte() {
                // They are special themselves.
                b'"' | b'\\' => self.pass_special(&mut cursor),
                b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = cursor.text.get(at + 2..at + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }
}

/// Whether a word begins with these bytes, of which the first is in its low bits.
#[inline(always)]
fn is_prefix<const N: usize>(word: u32, bytes: [u8; N]) -> bool {
    let (mut expected, mut mask) = (0, 0);
    for (n, byte) in bytes.into_iter().enumerate() {
        expected |= u32::from(byte) << (8 * n);
        mask |= 0xff << (8 * n);
    }
    word & mask == expected
}

/// A byte, or 0 at the end.
#[inline(always)]
fn byte_at(text: &[u8], pos: usize) -> u8 {
    text.get(pos).copied().unwrap_or(0)
}

/// How many spaces stand at `pos`, as far as the first 16 bytes tell.
#[inline(always)]
fn indentation(text: &[u8], pos: usize) -> usize {
    const SPACES: u64 = u64::from_le_bytes([b' '; 8]);
    let spaces = |pos: usize| {
        let others = chunk(text, pos).map_or(!0, |bytes| u64::from_le_bytes(bytes) ^ SPACES);
        others.trailing_zeros() as usize / 8
    };
    match spaces(pos) {
        8 => 8 + spaces(pos + 8),
        few => few,
    }
}

/// Whether there is a quote at `quote`, and from `start` to it at most 15 bytes, all of them spaces.
#[inline(always)]
fn is_indented_quote(text: &[u8], start: usize, quote: usize) -> bool {
    let len = quote.wrapping_sub(start);
    let Some(bytes) = chunk(text, quote.wrapping_sub(15)) else { return false };
    let others = !u8x16::from(bytes).simd_eq(u8x16::from(*b"               \""));
    len <= 15 && others.to_bitmask() >> (15 - len) == 0
}

/// The bytes at `pos`, if there are so many.
#[inline(always)]
fn chunk<const N: usize>(text: &[u8], pos: usize) -> Option<[u8; N]> {
    // No text is so long that this changes the position, but now the sum does not overflow.
    let pos = pos & (usize::MAX >> 1);
    text.get(pos..pos + N)?.try_into().ok()
}

#[cold]
fn syntax(offset: usize) -> EventError {
    EventError::Syntax { offset }
}

/// Marks the special bytes of a block.
#[inline(always)]
fn find_special(block: &[u8; BLOCK]) -> u64 {
    // With the second bit flipped the quote, 0x22, comes below 0x21 where the control characters
    // are, and the space and the exclamation mark leave it. With the highest bit flipped a signed
    // comparison, which is the one that processors have, orders bytes as an unsigned one does.
    const FLIP: u8 = 0x82;
    let (low, backslash) = (i8x16::splat((0x21 ^ 0x80) as i8), i8x16::splat((b'\\' ^ FLIP) as i8));
    block.as_chunks::<16>().0.iter().rev().fold(0, |mask, bytes| {
        let bytes = (u8x16::from(*bytes) ^ u8x16::splat(FLIP)).cast_signed();
        let special = bytes.simd_lt(low) | bytes.simd_eq(backslash);
        mask << 16 | u64::from(special.to_bitmask())
    })
}

/// The length of a number at the beginning of a text, or 0.
#[inline(always)]
fn number_len(text: &[u8]) -> usize {
    let digits = |mut at: usize| {
        let start = at;
        while let Some(b'0'..=b'9') = text.get(at) {
            at += 1;
        }
        if at > start { Some(at) } else { None }
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => match digits(at) {
            Some(at) => at,
            None => return 0,
        },
    };
    if let Some(b'.' | b'e' | b'E') = text.get(at) {
        fraction_end(text, at).unwrap_or(0)
    } else {
        at
    }
}

/// The end of a number's fraction and exponent, which begin at `at`.
#[cold]
fn fraction_end(text: &[u8], mut at: usize) -> Option<usize> {
    let digits = |start: usize| {
        let digits = text.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (digits > 0).then_some(start + digits)
    };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;
    use serde::de::IgnoredAny;
    use serde_json::Value;
    use serde_json::ser::PrettyFormatter;

    use super::*;

    keys! {
        enum Key {
            A = "a",
            Name = "name",
        }
    }

    fn skip_all(text: &[u8]) -> Result<(), EventError> {
        let mut reader = Reader::new(text);
        reader.skip()?;
        reader.end()
    }

    fn names(text: &str) -> Result<Vec<&'static str>, EventError> {
        let mut names = Vec::new();
        read(text.as_bytes(), |key: Key, reader| {
            names.push(key.name());
            reader.skip()
        })?;
        Ok(names)
    }

    #[test]
    fn only_what_is_asked_for_is_visited() {
        assert_eq!(
            names(r#" {"x": [1, {"a": 2}], "name": {}, "nam": 0, "a": "b" } "#),
            Ok(vec!["name", "a"])
        );
        assert_eq!(names("{}"), Ok(vec![]));
    }

    #[test]
    fn a_name_counts_in_every_spelling_and_only_once() {
        assert_eq!(names(r#"{"n\u0061me": 1, "\u0061": 2}"#), Ok(vec!["name", "a"]));
        let twice = EventError::Duplicate { at: "", name: "name" };
        assert_eq!(names(r#"{"name": 1, "name": 1}"#), Err(twice.clone()));
        assert_eq!(names(r#"{"name": 1, "n\u0061me": 2}"#), Err(twice));
        assert_eq!(names(r#"{"x": 1, "x": 1, "A": 1, "a": 1}"#), Ok(vec!["a"]));
    }

    #[test]
    fn a_text_that_is_not_one_object_is_an_error() {
        for text in ["[]", "null", "1", "\"a\"", " true "] {
            assert_eq!(names(text), Err(EventError::NoObject), "{text}");
        }
        for (text, offset) in [
            ("", 0),
            (" ", 1),
            ("{", 1),
            ("{\"a\":1}x", 7),
            ("{\"a\":1}{}", 7),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 1),
            ("{a:1}", 1),
            ("[1 2]", 3),
            ("[1,]", 3),
            ("\u{feff}{}", 0),
            ("{\"x\":{]}", 6),
        ] {
            assert_eq!(names(text), Err(EventError::Syntax { offset }), "{text}");
        }
    }

    #[test]
    fn numbers_words_and_strings_are_checked_where_they_are_skipped() {
        for good in
            ["0", "-0", "10.50e+7", "1E9", "-1e-9", "123456789012345678901234567890", "null"]
        {
            assert_eq!(skip_all(good.as_bytes()), Ok(()), "{good}");
        }
        for wrong in ["01", "-", "1.", ".5", "1e", "1e+", "+1", "0x1", "NaN", "nul", "truE", "'a'"]
        {
            assert!(skip_all(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for good in [r#""""#, r#""\"\\\/\b\f\n\r\t\u00e9""#, "\"\u{7f}\u{80}é\"", r#""\ud800""#] {
            assert_eq!(skip_all(good.as_bytes()), Ok(()), "{good}");
        }
        for wrong in
            ["\"", "\"\n\"", "\"\0\"", r#""\x""#, r#""\u12g4""#, r#""\u123"#, "\"a\\", "\"\u{1f}\""]
        {
            assert!(skip_all(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_string_is_told_in_unicode_or_not_at_all() {
        let text = |text: &str| Reader::new(text.as_bytes()).text().map(|t| t.map(Cow::into_owned));
        assert_eq!(text(r#""\ud83d\ude00\u00e9\n""#), Ok(Some("😀é\n".to_owned())));
        for half in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#] {
            assert_eq!(text(half), Ok(None), "{half}");
        }
        assert_eq!(Reader::new(b"\"\xff\"").text(), Ok(None));
        assert_eq!(text("7"), Ok(None));
    }

    #[test]
    fn nesting_ends_at_its_limit_and_not_in_the_stack() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let limit = MAX_DEPTH;
        assert_eq!(skip_all(nested(limit + 1).as_bytes()), Ok(()), "the innermost is empty");
        assert!(matches!(skip_all(nested(limit + 2).as_bytes()), Err(EventError::TooDeep { .. })));
        assert!(matches!(
            skip_all("[".repeat(1 << 20).as_bytes()),
            Err(EventError::TooDeep { .. })
        ));
        assert!(matches!(
            skip_all("{\"a\":".repeat(1 << 20).as_bytes()),
            Err(EventError::TooDeep { .. })
        ));
    }

    #[test]
    fn white_space_of_any_length_is_none_of_a_value() {
        for n in 0..40 {
            let space = format!("{}\r\n\t{}", " ".repeat(n), " ".repeat(n % 7));
            let text = format!(
                "{space}{{{space}\"a\"{space}:{space}[{space}1{space},{space}2{space}]{space}}}{space}"
            );
            assert_eq!(names(&text), Ok(vec!["a"]), "{n}");
            assert!(names(&text.replace('1', "1\u{a0}")).is_err());
        }
    }

    #[test]
    fn a_string_may_end_at_any_place_of_a_block() {
        for n in 0..70 {
            for end in ["", "\\n", "é", "!", "#", " "] {
                let text = format!("{{\"x\":\"{}{end}\",\"a\":1}}", "y".repeat(n));
                assert_eq!(names(&text), Ok(vec!["a"]), "{text}");
                assert!(names(&text.replace(",\"a\"", "\u{1},\"a\"")).is_err());
            }
        }
    }

    #[test]
    fn lines_may_be_empty_or_end_as_they_like() {
        for space in ["\n\n", "\n \t", "\n\r\n  ", "\n                    ", " \n", "\r\n"] {
            for text in [
                r#"{~"x":~"y",~"a":~1~}"#,
                r#"{"x":~{~"y":~"z",~"z":~[~"z",~2~]~},~"a"~:~"b"~}"#,
                r#"{~"x"~:~[~{~}~,~[~]~]~,~"a":[]}"#,
            ] {
                assert_eq!(names(&text.replace('~', space)), Ok(vec!["a"]), "{text} {space:?}");
            }
        }
    }

    #[test]
    fn brackets_close_what_they_opened() {
        for good in [r#"{"x":[{"y":"z"},{"y":{"z":"z"},"y":"z"}]}"#, r#"[{"y":"z"},"z"]"#] {
            assert_eq!(skip_all(good.as_bytes()), Ok(()), "{good}");
        }
        for wrong in [
            r#"[{"y":"z"},"z":1]"#,
            r#"[{"y":"z"},"z","z":1]"#,
            r#"{"x":{"y":"z"},"z"}"#,
            r#"{"x":{"y":"z"},"z",1}"#,
            r#"{"x":{"y":"z"}]"#,
            r#"{"x":{"y":{"z":"z"},"z":"z"}"#,
            r#"{"x":{"y":"z"},"z":"z"}}"#,
            r#"{"x":[{"y":"z"},"y":"z"]}"#,
            r#"{"x":{"y":"z"},}"#,
        ] {
            assert!(skip_all(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    /// Pieces of JSON that are put together to something like it.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\"a\"",
            "\"name\"",
            "\\",
            "\\u0061",
            "\\ud800",
            "0",
            "1",
            "-",
            ".",
            "e",
            "true",
            "null",
            " ",
            "\n",
            "\"long enough for two blocks of it\"",
            "é",
            "\u{1}",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    /// A value of any kind, with texts that cross blocks.
    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            4 => "[a-z_]{0,12}",
            2 => "[ -~]{0,90}",
            1 => "(\\PC|[\"\\\\\n\u{1}é😀]){0,20}",
        ];
        let leaf = prop_oneof![
            4 => text.clone().prop_map(Value::from),
            1 => any::<i32>().prop_map(Value::from),
            1 => (-1e9..1e9).prop_map(|n: f64| Value::from(n)),
            1 => prop_oneof![Just(Value::Null), Just(Value::from(true)), Just(Value::from(false))],
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                3 => prop::collection::vec((text.clone(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The value as hosts may write it, at any place of a block and of a window.
    fn written() -> impl Strategy<Value = Vec<u8>> {
        let indent = prop::option::of(prop::sample::select(vec!["", " ", "  ", "    ", "\t"]));
        let before = prop_oneof![3 => 0..70_usize, 1 => WINDOW * BLOCK - 200..WINDOW * BLOCK];
        (value(), indent, before, any::<bool>()).prop_map(|(value, indent, before, crlf)| {
            let mut text = vec![b' '; before];
            match indent {
                None => serde_json::to_writer(&mut text, &value).unwrap(),
                Some(indent) => {
                    let format = PrettyFormatter::with_indent(indent.as_bytes());
                    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
                    value.serialize(&mut writer).unwrap();
                }
            }
            if crlf {
                text = String::from_utf8(text).unwrap().replace('\n', "\r\n").into_bytes();
            }
            text
        })
    }

    /// The value that the reader tells.
    fn told(reader: &mut Reader<'_>) -> Result<Value, EventError> {
        match reader.shape() {
            Shape::Object => {
                let mut members = serde_json::Map::new();
                reader.members(|name, reader| {
                    members.insert(name.decode().unwrap().into_owned(), told(reader)?);
                    Ok(())
                })?;
                Ok(Value::Object(members))
            }
            Shape::Array => {
                let mut elements = Vec::new();
                reader.elements(|reader| {
                    elements.push(told(reader)?);
                    Ok(())
                })?;
                Ok(Value::Array(elements))
            }
            Shape::String => Ok(Value::from(reader.text()?.unwrap().into_owned())),
            Shape::Null | Shape::Other => {
                let text = reader.scanner.text;
                Ok(serde_json::from_slice(&text[reader.span()?]).unwrap())
            }
        }
    }

    fn agrees(text: &[u8]) -> Result<(), TestCaseError> {
        let ours = skip_all(text);
        if !matches!(ours, Err(EventError::TooDeep { .. })) {
            let theirs = serde_json::from_slice::<IgnoredAny>(text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", String::from_utf8_lossy(text));
        }
        let ours = Reader::new(text).text();
        if let Ok(theirs) = serde_json::from_slice::<String>(text) {
            prop_assert_eq!(ours, Ok(Some(theirs.into())));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn soup_is_json_to_us_if_it_is_to_serde(text in soup()) {
            agrees(&text)?;
        }

        #[test]
        fn any_json_is_told_as_serde_tells_it(text in written()) {
            prop_assert_eq!(skip_all(&text), Ok(()), "{}", String::from_utf8_lossy(&text));
            let mut reader = Reader::new(&text);
            prop_assert_eq!(told(&mut reader), Ok(serde_json::from_slice(&text).unwrap()));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn json_that_is_broken_anywhere_is_json_to_us_if_it_is_to_serde(
            text in written(),
            at in any::<prop::sample::Index>(),
            byte in prop_oneof![
                prop::sample::select(b"{}[]:,\"\\ \n\r\t0-.eutn\x01\x7f".to_vec()),
                any::<u8>(),
            ],
            how in 0..4,
        ) {
            let mut text = text;
            let start = text.iter().take_while(|byte| **byte == b' ').count();
            let at = start + at.index(text.len() - start);
            match how {
                0 => text[at] = byte,
                1 => { text.remove(at); }
                2 => text.insert(at, byte),
                _ => text.truncate(at),
            }
            agrees(&text)?;
        }

        #[test]
        fn broken_json_is_json_to_us_if_it_is_to_serde(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            how in 0..3,
        ) {
            let mut text = br#"{"name": "a\nb\u00e9", "list": [1, -2.5e3, true, null, {"x": {}}], "long":
                "a string that is longer than a block is, so that it ends in the next one" }"#.to_vec();
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => { text.remove(at); }
                _ => text.insert(at, byte),
            }
            agrees(&text)?;
        }

        #[test]
        fn strings_are_told_as_serde_tells_them(text in ".{0,40}") {
            agrees(serde_json::to_string(&text).unwrap().as_bytes())?;
        }
    }
}
