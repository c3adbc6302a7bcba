//! Which trace a request belongs to: [W3C Trace Context](https://www.w3.org/TR/trace-context-2/), Level 2.
//!
//! 1. A `traceparent` that is valid is continued, anything else is as good as none, and a new trace begins:
//!    two of them, an id of zeros, capitals, the version `ff` (section 3.2). Of a version that is not known yet,
//!    what version 00 says is read, and the rest is left out (section 3.2.4, "Versioning of traceparent").
//! 2. `tracestate` belongs to a `traceparent` that was continued, and goes on as it came, its lines in one: at most
//!    [`MAX_MEMBERS`] members and [`MAX_STATE`] characters (section 3.3). One that is wrong is dropped whole.
//! 3. A stranger can send any `traceparent`. It decides what ids a line of the log has, and nothing else: whether a
//!    request is recorded is decided by [`Sampling`] until its credential held. Only then does the flag that came with
//!    it count.
//! 4. Ids are unpredictable enough not to be the same twice, and no secret.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that names trace and parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header with what tracing systems add to that.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most members of a `tracestate`: 32. With more it is dropped.
pub const MAX_MEMBERS: usize = 32;

/// The most characters of a `tracestate` that go on: 512. Of a longer one, members of more than 128 characters are
/// left out first, then those at the end.
pub const MAX_STATE: usize = 512;

/// The id of a trace, never zero. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The id of a span, never zero. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// `None` for zero.
    pub const fn new(id: u128) -> Option<Self> {
        match NonZeroU128::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// As it is sent in binary form.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    /// `None` for zero.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// As it is sent in binary form.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// A fresh one.
    fn random() -> Self {
        Self(NonZeroU64::new(random()).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The flags of a trace: whether it is recorded, and whether its id is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    const SAMPLED: u8 = 0b01;
    const RANDOM: u8 = 0b10;

    /// Whether the one who called records the trace.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// As they are sent. The bits that have no meaning yet are zero.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Bits without a meaning must not be sent on.
    const fn known(bits: u8) -> Self {
        Self(bits & (Self::SAMPLED | Self::RANDOM))
    }
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the one who sends it.
    pub parent_id: SpanId,
    /// Its flags.
    pub flags: Flags,
}

impl TraceParent {
    /// Reads the value of a header; `None` if it is not valid.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let [version] = hex(&known[..2])?;
        let is_well_formed = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        if !is_well_formed || [2, 35, 52].iter().any(|&at| known[at] != b'-') {
            return None;
        }
        let [flags] = hex(&known[53..])?;
        Some(Self {
            trace_id: TraceId::new(u128::from_be_bytes(hex(&known[3..35])?))?,
            parent_id: SpanId::new(u64::from_be_bytes(hex(&known[36..52])?))?,
            flags: Flags::known(flags),
        })
    }

    /// That of a head; `None` if there is none, more than one, or one that is not valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none());
        Self::parse(only?.as_bytes())
    }

    /// As version 00 has it.
    fn to_text(self) -> [u8; LENGTH] {
        let mut text = *b"00-................................-................-..";
        write_hex(&self.trace_id.to_bytes(), &mut text[3..35]);
        write_hex(&self.parent_id.to_bytes(), &mut text[36..52]);
        write_hex(&[self.flags.0], &mut text[53..]);
        text
    }
}

/// As version 00 has it.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_text()))
    }
}

/// The length of version 00, with which all versions begin.
const LENGTH: usize = 55;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The value of each digit in lower case, and [`NO_DIGIT`] of any other byte.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

const NO_DIGIT: u8 = 0xff;

/// So many bytes from twice as many digits. A table, since every request can have them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (VALUES[pair[0] as usize], VALUES[pair[1] as usize]);
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (seen < 16).then_some(bytes)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[(byte >> 4) as usize], DIGITS[(byte & 0xf) as usize]]);
    }
}

/// The `tracestate` of a head, as it may go on: its lines in one, within the limits. `None` if there is none, or it is
/// not valid: then it says nothing to anybody.
///
/// It is only of use beside a [`TraceParent`]. Costs one pass.
pub fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut members: Vec<&str> = Vec::new();
    for line in headers.get_all(TRACESTATE) {
        let parts = line.to_str().ok()?.split(',');
        // Empty members are allowed, and pointless.
        let parts =
            parts.map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty());
        for member in parts {
            let key = member_key(member)?;
            let is_known = members.iter().any(|known| member_key(known) == Some(key));
            if is_known || members.len() == MAX_MEMBERS {
                return None;
            }
            members.push(member);
        }
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    // One more, for the comma that the last has not.
    if length(&members) > MAX_STATE + 1 {
        members.retain(|member| member.len() <= 128);
    }
    while length(&members) > MAX_STATE + 1 {
        members.pop();
    }
    if members.is_empty() {
        return None;
    }
    HeaderValue::try_from(members.join(",")).ok()
}

/// The key of a member that is well formed (section 3.3.1.3).
fn member_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_key_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let is_key = key.len() <= 256
        && key.bytes().all(is_key_byte)
        && key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    // White space around a member is gone already, and a comma ends one.
    let is_value = (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=');
    (is_key && is_value).then_some(key)
}

/// What part of the traces that begin here is recorded.
///
/// It is decided by the last 56 bits of an id, as OpenTelemetry does it, so that others who decide by them agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Ids below that are not recorded.
    threshold: u64,
}

impl Sampling {
    /// Every trace.
    pub const ALL: Self = Self { threshold: 0 };

    const IDS: u64 = 1 << 56;

    /// This part of them, from 0 to 1; `None` for what is no such number.
    pub fn new(ratio: f64) -> Option<Self> {
        let threshold = ((1.0 - ratio) * Self::IDS as f64).round() as u64;
        (0.0..=1.0).contains(&ratio).then_some(Self { threshold })
    }

    const fn takes(self, id: u64) -> bool {
        id & (Self::IDS - 1) >= self.threshold
    }
}

impl Default for Sampling {
    /// [`ALL`](Self::ALL)
    fn default() -> Self {
        Self::ALL
    }
}

/// The place of a request or a call in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanId>,
    is_remote: bool,
    flags: Flags,
    /// What was decided here, whatever the sender says.
    ours: bool,
}

impl Trace {
    /// That of a request with this head: a child of what it names, or the first of a new trace.
    pub fn of_request(headers: &HeaderMap, sampling: Sampling) -> Self {
        let Some(parent) = TraceParent::of(headers) else { return Self::root(sampling) };
        let span_id = SpanId::random();
        Self {
            trace_id: parent.trace_id,
            span_id,
            parent: Some(parent.parent_id),
            is_remote: true,
            flags: parent.flags,
            // The trace's id is the sender's choice, ours is not.
            ours: sampling.takes(span_id.0.get()),
        }
    }

    /// The first of a new trace.
    pub fn root(sampling: Sampling) -> Self {
        let low = random();
        let id = u128::from(random()) << 64 | u128::from(low);
        let ours = sampling.takes(low);
        Self {
            trace_id: TraceId(NonZeroU128::new(id).unwrap_or(NonZeroU128::MIN)),
            span_id: SpanId::random(),
            parent: None,
            is_remote: false,
            flags: Flags(Flags::RANDOM | if ours { Flags::SAMPLED } else { 0 }),
            ours,
        }
    }

    /// That of the request that brought a delivery, of which this was kept.
    pub(crate) fn resumed(kept: TraceParent) -> Self {
        let TraceParent { trace_id, parent_id, flags } = kept;
        let ours = flags.is_sampled();
        Self { trace_id, span_id: parent_id, parent: None, is_remote: false, flags, ours }
    }

    /// That of a call which is made for this.
    pub fn child(&self) -> Self {
        let parent = Some(self.span_id);
        Self { span_id: SpanId::random(), parent, is_remote: false, ..*self }
    }

    /// The trace.
    pub const fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Its span here.
    pub const fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// The span above that; `None` for the first of a trace.
    pub const fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// Whether that span is another process's.
    pub const fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// The flags that go with it.
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// Whether it is to be recorded, if it is known that the sender may have a say in it.
    pub const fn is_sampled(&self, is_authentic: bool) -> bool {
        if is_authentic { self.flags.is_sampled() } else { self.ours }
    }

    /// What tells whoever is called next.
    pub const fn to_parent(&self) -> TraceParent {
        TraceParent { trace_id: self.trace_id, parent_id: self.span_id, flags: self.flags }
    }

    /// Overwrites `traceparent` and `tracestate`.
    pub fn write(&self, state: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.to_parent().to_text()) {
            headers.insert(TRACEPARENT, value);
        }
        match state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }
}

thread_local! {
    static STATE: Cell<[u64; 4]> = Cell::new(seed());
}

/// Seeds that nobody else has; the hasher's keys are random too, and need no error path.
fn seed() -> [u64; 4] {
    std::array::from_fn(|at| getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(at)))
}

/// The next number of this thread: xoshiro256++, "Scrambled Linear Pseudorandom Number Generators", Blackman and
/// Vigna, 2021. The system is asked once a thread, since it takes longer than all else that a refusal needs.
fn random() -> u64 {
    STATE.with(|state| {
        let mut s = state.get();
        let number = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        state.set(s);
        number
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Section 3.2.3, "Examples of HTTP traceparent Headers".
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    fn head(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn state(lines: &[&str]) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(|line| (TRACESTATE, *line)).collect();
        trace_state(&head(&lines)).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_examples_of_the_specification_are_read_and_written() {
        let example = parse(EXAMPLE).unwrap();
        assert_eq!(example.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(example.parent_id.to_string(), "00f067aa0ba902b7");
        assert!(example.flags.is_sampled());
        assert_eq!(example.to_string(), EXAMPLE);
        let not_sampled = parse(&EXAMPLE.replace("-01", "-00")).unwrap();
        assert!(!not_sampled.flags.is_sampled());
        // Level 2, section 3.2.2.5.2: sampled and random.
        assert_eq!(parse(&EXAMPLE.replace("-01", "-03")).unwrap().flags.bits(), 3);
    }

    #[test]
    fn what_is_not_valid_is_none() {
        for wrong in [
            "",
            "00",
            // one character less, one more, another part in the version that has none
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01a",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
            // the version that is forbidden, and ones that are none
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "CC-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // zeros
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            // capitals
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            // other signs
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // a higher version with more, but not behind a hyphen
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what-the-future-will-be-like",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn of_a_higher_version_what_is_known_is_read_and_sent_as_version_00() {
        for higher in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
        ] {
            assert_eq!(parse(higher).unwrap().to_string(), EXAMPLE, "{higher}");
        }
        let unknown = parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd").unwrap();
        assert_eq!(unknown.flags.bits(), 1, "unknown bits are zero when they go on");
    }

    #[test]
    fn two_parents_are_none() {
        let one = head(&[(TRACEPARENT, EXAMPLE)]);
        assert!(TraceParent::of(&one).is_some());
        let two = head(&[(TRACEPARENT, EXAMPLE), (TRACEPARENT, EXAMPLE)]);
        assert_eq!(TraceParent::of(&two), None);
        assert_eq!(TraceParent::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_continues_a_valid_trace_and_begins_one_otherwise() {
        let trace = Trace::of_request(&head(&[(TRACEPARENT, EXAMPLE)]), Sampling::ALL);
        let parent = parse(EXAMPLE).unwrap();
        assert_eq!((trace.trace_id(), trace.parent()), (parent.trace_id, Some(parent.parent_id)));
        assert!(trace.is_remote() && trace.span_id() != parent.parent_id);
        let call = trace.child();
        assert_eq!((call.trace_id(), call.parent()), (parent.trace_id, Some(trace.span_id())));
        assert!(!call.is_remote() && call.span_id() != trace.span_id());
        let resumed = Trace::resumed(trace.to_parent());
        assert_eq!(resumed.child().parent(), Some(trace.span_id()));
        assert_eq!(resumed.flags(), trace.flags());

        let wrong = EXAMPLE.to_uppercase();
        let begun = Trace::of_request(&head(&[(TRACEPARENT, &wrong)]), Sampling::ALL);
        assert_eq!((begun.parent(), begun.is_remote()), (None, false));
        assert_ne!(begun.trace_id(), parent.trace_id);
        assert_eq!(begun.flags().bits(), 3, "sampled, and random");
    }

    #[test]
    fn a_stranger_does_not_decide_what_is_recorded() {
        let none = Sampling::new(0.0).unwrap();
        let asks = Trace::of_request(&head(&[(TRACEPARENT, EXAMPLE)]), none);
        assert!(asks.is_sampled(true) && !asks.is_sampled(false));
        let declines = EXAMPLE.replace("-01", "-00");
        let declines = Trace::of_request(&head(&[(TRACEPARENT, &declines)]), Sampling::ALL);
        assert!(!declines.is_sampled(true) && declines.is_sampled(false));
        // Nor by his choice of an id: that of this one would always be taken.
        let chosen = "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-01";
        let half = Sampling::new(0.5).unwrap();
        let taken = (0..1000)
            .filter(|_| Trace::of_request(&head(&[(TRACEPARENT, chosen)]), half).is_sampled(false));
        assert!((300..700).contains(&taken.count()));
    }

    #[test]
    fn a_ratio_is_the_part_that_is_taken() {
        for (ratio, from, to) in [(0.0, 0, 0), (0.1, 500, 1500), (1.0, 10_000, 10_000)] {
            let sampling = Sampling::new(ratio).unwrap();
            let taken = (0..10_000).filter(|_| Trace::root(sampling).is_sampled(true)).count();
            assert!((from..=to).contains(&taken), "{ratio}: {taken}");
        }
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Sampling::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_state_goes_on_as_it_came_with_its_lines_in_one() {
        assert_eq!(state(&[]), None);
        // Section 3.3.2, "Examples of tracestate HTTP Headers", and section 3.3.1.
        for example in [
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "vendorname1=opaqueValue1,vendorname2=opaqueValue2",
            "fw529a3039@dt=FfffAxd",
        ] {
            assert_eq!(state(&[example]).as_deref(), Some(example));
        }
        let joined = state(&["rojo=1 ,\t, congo=2", "", "zoo=a b!"]);
        assert_eq!(joined.as_deref(), Some("rojo=1,congo=2,zoo=a b!"));
    }

    #[test]
    fn a_state_that_is_wrong_is_dropped_whole() {
        let long = "k".repeat(257);
        for wrong in [
            "rojo",
            "=1",
            "rojo=",
            "Rojo=1",
            "rojo=a=b",
            "ro jo=1",
            "_rojo=1",
            "rojo=1,rojo=2",
            "rojo=1,congo",
            "rojo=\u{e9}",
            &format!("{long}=1"),
            &format!("a={long}"),
        ] {
            assert_eq!(state(&["fine=1", wrong]), None, "{wrong}");
        }
        assert_eq!(state(&["rojo=1", "rojo=2"]), None, "a key in two lines");
    }

    #[test]
    fn no_more_members_and_characters_go_on_than_the_limits() {
        let members =
            |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&[&members(MAX_MEMBERS)]), Some(members(MAX_MEMBERS)));
        assert_eq!(state(&[&members(MAX_MEMBERS + 1)]), None);

        let sized = |name: char, length: usize| format!("{name}={}", "v".repeat(length - 2));
        let exact = [sized('a', 128), sized('b', 128), sized('c', 128), sized('d', 125)].join(",");
        assert_eq!(exact.len(), MAX_STATE);
        assert_eq!(state(&[&exact]), Some(exact.clone()));
        // First those of more than 128 characters, then those at the end.
        assert_eq!(state(&[&format!("{},{exact}", sized('e', 129))]), Some(exact.clone()));
        assert_eq!(state(&[&format!("{exact},f=1")]), Some(exact.clone()));
        assert_eq!(
            state(&[&sized('a', 200), &exact.replace("a=", "g=")]),
            Some(exact.replace("a=", "g="))
        );
    }

    #[test]
    fn ids_differ_on_one_thread_and_on_several() {
        let ids = || (0..2000).map(|_| random()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(ids)).collect();
        let all: Vec<u64> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 8000);
        let ones: u32 = all.iter().map(|id| id.count_ones()).sum();
        assert!((31.0..33.0).contains(&(f64::from(ones) / 8000.0)), "as many ones as zeros");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., flags in 0_u8..4) {
            let written = TraceParent {
                trace_id: TraceId::new(trace).unwrap(),
                parent_id: SpanId::new(span).unwrap(),
                flags: Flags(flags),
            };
            prop_assert_eq!(parse(&written.to_string()), Some(written));
        }

        #[test]
        fn any_bytes_are_read_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(read) = TraceParent::parse(&bytes) {
                let written = read.to_string();
                prop_assert_eq!(&written.as_bytes()[3..52], &bytes[3..52]);
            }
        }

        #[test]
        fn a_change_of_one_byte_is_read_as_what_it_says_or_not_at_all(at in 0_usize..55, byte: u8) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            if let Some(read) = TraceParent::parse(&bytes) {
                let written = read.to_string();
                prop_assert_eq!(&written.as_bytes()[3..52], &bytes[3..52]);
            }
        }

        #[test]
        fn any_state_that_goes_on_is_within_the_limits_and_goes_on_unchanged_again(
            lines in proptest::collection::vec("[ -~]{0,300}|([a-z]{1,9}=[a-z]{1,150},?){0,40}", 0..4),
        ) {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            if let Some(first) = state(&lines) {
                prop_assert!(first.len() <= MAX_STATE && first.split(',').count() <= MAX_MEMBERS);
                prop_assert_eq!(state(&[&first]), Some(first));
            }
        }
    }
}
