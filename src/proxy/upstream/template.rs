//! The path of each delivery, made by a template: `upstream_path`.
//!
//! ```text
//! /rest/gitplugin/webhook/1.0/reindex/{upstream_key}
//! /reindex/{owner}/{name}?ref={ref}
//! ```
//!
//! # The template
//!
//! A path of [RFC 3986] that begins with `/`, and behind the first `?` a query. `{name}` stands for a
//! [`Variable`]; `{{` and `}}` for a brace, which is sent as `%7B` or `%7D`. All else is sent as it
//! stands there, so what a URL does not hold must be percent-encoded already. A template with an
//! empty segment inside, or one of `.` or `..`, is refused.
//!
//! # What a value can do
//!
//! Nothing but be the text that it is:
//!
//! 1. Everything in it but `A-Z a-z 0-9 - . _ ~` is percent-encoded: the slash, so that it stays one
//!    segment; `;`, where servers cut off parameters; `&` and `=`, so that it stays one field of a
//!    query. Decoded once it is the value again. (Tomcat refuses an encoded slash unless told
//!    otherwise: there, `{owner}/{name}` or the query fits better than `{repository}`.)
//! 2. A path in which a server could see `.` or `..`, decoded once or twice, is not made.
//! 3. In the path, no value may be empty or missing: one segment fewer is another resource. In the query,
//!    the values that may be unknown of an authentic push (`{host}`, `{owner}`, `{ref}`) are then empty.
//! 4. The whole has at most [`MAX_PATH`] bytes.
//!
//! Scheme, host and port are not part of the template at all.
//!
//! # Secrets
//!
//! The key of the service behind the gate is the only secret among the values; an operator may also
//! have written one into the template itself. So neither the template, nor the [`Values`], nor the
//! [`RenderedPath`] shows text in `Debug`, and no error repeats any. A rendered path belongs in no
//! log and on no disk: it is made just before a delivery is sent.
//!
//! [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986#section-3.3

use std::borrow::Cow;
use std::fmt;

use http::uri::PathAndQuery;
use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_decode_str, percent_encode,
};

use super::client::leaves;
use crate::event::Event;
use crate::provider::Provider;
use crate::secret::Secret;

/// The most bytes of a template: 1 KiB.
pub const MAX_TEMPLATE: usize = 1 << 10;

/// The most bytes of a path with its query: 4 KiB, half of the head that common servers take.
pub const MAX_PATH: usize = 4 << 10;

/// A template for the path below the URL of an upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct PathTemplate {
    path: Vec<Piece>,
    /// With its question mark.
    query: Option<Vec<Piece>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(Variable),
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its column, and never a piece of the text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser =
            Parser { text, at: 0, path: Vec::new(), query: None, segment: Segment::new(0) };
        parser.run().map_err(|(at, kind)| {
            // What stands before a fault has been read and is ASCII.
            TemplateError { column: at + 1, kind }
        })?;
        Ok(Self { path: parser.path, query: parser.query })
    }

    /// Whether `variable` is in the template.
    pub fn needs(&self, variable: Variable) -> bool {
        self.pieces().any(|piece| *piece == Piece::Variable(variable))
    }

    /// The path for a delivery.
    ///
    /// # Errors
    ///
    /// If a value is missing or cannot stand in this path. The same delivery fails again whenever it
    /// is tried; only a missing [`Variable::UpstreamKey`] may be there the next time.
    pub fn render(&self, values: &Values<'_>) -> Result<RenderedPath, RenderError> {
        let mut text = String::new();
        for piece in &self.path {
            append(&mut text, piece, |variable| {
                values.get(variable).filter(|value| !value.is_empty())
            })?;
        }
        if leads_out(&percent_decode(text.as_bytes()).collect::<Vec<_>>()) {
            return Err(RenderError::Dots);
        }
        for piece in self.query.iter().flatten() {
            append(&mut text, piece, |variable| {
                let value = values.get(variable);
                if variable.may_be_unknown() { Some(value.unwrap_or_default()) } else { value }
            })?;
        }
        // The template was checked and the values are encoded: nothing else can be wrong.
        let path = PathAndQuery::try_from(text).map_err(|_| RenderError::TooLong)?;
        Ok(RenderedPath(path))
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.path.iter().chain(self.query.iter().flatten())
    }
}

/// Shows the variables alone.
impl fmt::Debug for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = Variable::ALL.into_iter().filter(|&v| self.needs(v)).collect();
        f.debug_struct("PathTemplate").field("variables", &variables).finish_non_exhaustive()
    }
}

/// What a template can hold a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variable {
    /// `{repository}`: host, owner and name, such as `github.com/acme/widget`; where a delivery has no
    /// address, what the host calls the repository.
    Repository,
    /// `{owner}`: what stands between the host and the name, such as `acme` or `group/subgroup`. A
    /// repository may have none.
    Owner,
    /// `{name}`: the last part of the repository's path, without `.git`.
    Name,
    /// `{host}`: the repository's host, without a port. Unknown where a delivery has no address.
    Host,
    /// `{ref}`: the full name of the ref that changed, such as `refs/heads/main`. Unknown where a
    /// delivery tells of several, or of none.
    Ref,
    /// `{provider}`: who sent the delivery, such as `github`.
    Provider,
    /// `{event}`: what it is for the gate, such as `push`.
    Event,
    /// `{upstream_key}`: the key of the service behind the gate.
    UpstreamKey,
}

impl Variable {
    /// Every variable.
    pub const ALL: [Self; 8] = [
        Self::Repository,
        Self::Owner,
        Self::Name,
        Self::Host,
        Self::Ref,
        Self::Provider,
        Self::Event,
        Self::UpstreamKey,
    ];

    /// The name between the braces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Owner => "owner",
            Self::Name => "name",
            Self::Host => "host",
            Self::Ref => "ref",
            Self::Provider => "provider",
            Self::Event => "event",
            Self::UpstreamKey => "upstream_key",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.as_str() == name)
    }

    /// Whether an authentic push may lack it, while it still says which repository changed.
    const fn may_be_unknown(self) -> bool {
        matches!(self, Self::Owner | Self::Host | Self::Ref)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What stands in the places of a template, for one delivery.
#[derive(Clone)]
pub struct Values<'a>([Option<Cow<'a, [u8]>>; Variable::ALL.len()]);

impl<'a> Values<'a> {
    /// What is known of a delivery. The ref is that of an event with exactly one, and there is no
    /// key yet.
    ///
    /// The identity of a repository is percent-encoded itself, which is undone here, so that nothing
    /// is encoded twice.
    pub fn new(provider: Provider, event: Option<&'a Event<'a>>) -> Self {
        let mut values = Self([const { None }; _]);
        values.set(Variable::Provider, provider.as_str());
        let Some(event) = event else { return values };
        values.set(Variable::Event, event.kind.as_str());
        if let [change] = &event.refs[..] {
            values.set(Variable::Ref, &change.name);
        }
        let Some(repository) = &event.repository else { return values };
        if let Some(key) = repository.key() {
            for (variable, part) in [
                (Variable::Repository, key.as_str()),
                (Variable::Host, key.host()),
                (Variable::Owner, key.owner()),
                (Variable::Name, key.name()),
            ] {
                values.0[variable as usize] = Some(percent_decode_str(part).into());
            }
        } else {
            let whole = repository.identity();
            let (owner, name) = whole.rsplit_once('/').unwrap_or(("", whole));
            values.set(Variable::Repository, whole);
            values.set(Variable::Owner, owner);
            values.set(Variable::Name, name);
        }
        values
    }

    /// The same with this ref, for one call of several.
    pub fn git_ref(mut self, name: &'a str) -> Self {
        self.set(Variable::Ref, name);
        self
    }

    /// The same with the key of the service behind the gate, if there is one now.
    pub fn upstream_key(mut self, key: Option<&'a Secret>) -> Self {
        self.0[Variable::UpstreamKey as usize] = key.map(|key| key.expose().into());
        self
    }

    fn set(&mut self, variable: Variable, value: &'a str) {
        self.0[variable as usize] = Some(value.as_bytes().into());
    }

    fn get(&self, variable: Variable) -> Option<&[u8]> {
        self.0[variable as usize].as_deref()
    }
}

/// Shows which values there are, and none of them.
impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Variable::ALL.into_iter().filter(|&variable| self.get(variable).is_some());
        f.write_str("Values ")?;
        f.debug_set().entries(known).finish()
    }
}

/// A path that may hold the key of the service behind the gate, and so shows nothing in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedPath(PathAndQuery);

impl RenderedPath {
    /// The path itself, to be sent. It must reach no log.
    pub fn into_inner(self) -> PathAndQuery {
        self.0
    }
}

impl fmt::Debug for RenderedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenderedPath(..)")
    }
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateError {
    column: usize,
    kind: TemplateErrorKind,
}

impl TemplateError {
    /// The column in characters, from 1.
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong there.
    pub const fn kind(&self) -> TemplateErrorKind {
        self.kind
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.kind)
    }
}

impl std::error::Error for TemplateError {}

/// What is wrong in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateErrorKind {
    /// More than [`MAX_TEMPLATE`] bytes.
    TooLong,
    /// It does not begin with a slash.
    NoSlash,
    /// A character that a URL does not hold as it is.
    Character,
    /// A percent sign without two hexadecimal digits.
    Percent,
    /// A segment with nothing in it.
    EmptySegment,
    /// A segment that is `.` or `..`, or that servers take for one.
    Dots,
    /// A brace that is not closed.
    Unclosed,
    /// A closing brace that closes nothing.
    Unopened,
    /// There is no such variable.
    UnknownVariable,
}

impl fmt::Display for TemplateErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the path has more than 1024 bytes",
            Self::NoSlash => "the path must begin with /",
            Self::Character => {
                "this character does not stand in a path, write it percent-encoded such as %20"
            }
            Self::Percent => "% must have two hexadecimal digits behind it",
            Self::EmptySegment => "there is nothing between two slashes",
            Self::Dots => "the path must not hold . or ..",
            Self::Unclosed => "this { is not closed, write {{ for a brace",
            Self::Unopened => "this } closes nothing, write }} for a brace",
            Self::UnknownVariable => {
                "unknown variable, expected {repository}, {owner}, {name}, {host}, {ref}, \
                 {provider}, {event} or {upstream_key}"
            }
        })
    }
}

/// Why there is no path for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenderError {
    /// The delivery has no value for this variable, or an empty one.
    Missing(Variable),
    /// A server could read the path as one that leaves its place.
    Dots,
    /// The path would have more than [`MAX_PATH`] bytes.
    TooLong,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(Variable::UpstreamKey) => {
                f.write_str("no key for {upstream_key} is active")
            }
            Self::Missing(variable) => write!(f, "the delivery has no {{{variable}}} for the path"),
            Self::Dots => f.write_str("a value would lead out of the path"),
            Self::TooLong => f.write_str("the path is longer than 4 KiB"),
        }
    }
}

impl std::error::Error for RenderError {}

/// What is not encoded: the *unreserved* characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn append<'v>(
    text: &mut String,
    piece: &Piece,
    value: impl FnOnce(Variable) -> Option<&'v [u8]>,
) -> Result<(), RenderError> {
    let mut push = |part: &str| {
        if text.len() + part.len() > MAX_PATH {
            return Err(RenderError::TooLong);
        }
        text.push_str(part);
        Ok(())
    };
    match piece {
        Piece::Literal(literal) => push(literal),
        Piece::Variable(variable) => {
            let value = value(*variable).ok_or(RenderError::Missing(*variable))?;
            percent_encode(value, ENCODED).try_for_each(push)
        }
    }
}

/// Whether a server could read a path as one that goes up, also if it decodes it a second time.
fn leads_out(decoded: &[u8]) -> bool {
    leaves(decoded) || leaves(&percent_decode(decoded).collect::<Vec<_>>())
}

type Fault = (usize, TemplateErrorKind);

struct Parser<'a> {
    text: &'a str,
    at: usize,
    path: Vec<Piece>,
    query: Option<Vec<Piece>>,
    segment: Segment,
}

/// The segment that is being read.
struct Segment {
    start: usize,
    /// Decoded, with a letter in the place of each variable.
    content: Vec<u8>,
}

impl Segment {
    const fn new(start: usize) -> Self {
        Self { start, content: Vec::new() }
    }
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), Fault> {
        use TemplateErrorKind as Kind;
        if !self.text.starts_with('/') {
            return Err((0, Kind::NoSlash));
        }
        while let Some(&byte) = self.rest().first() {
            if self.at >= MAX_TEMPLATE {
                return Err((self.at, Kind::TooLong));
            }
            match (byte, self.rest().get(1)) {
                (b'{', Some(b'{')) => self.literal("%7B", 2),
                (b'}', Some(b'}')) => self.literal("%7D", 2),
                (b'{', _) => self.variable()?,
                (b'}', _) => return Err((self.at, Kind::Unopened)),
                (b'%', _) => {
                    let is_octet = |octet: &&str| octet[1..].bytes().all(|b| b.is_ascii_hexdigit());
                    let octet = self.text.get(self.at..self.at + 3).filter(is_octet);
                    self.literal(octet.ok_or((self.at, Kind::Percent))?, 3);
                }
                (b'?', _) if self.query.is_none() => {
                    self.end_segment(true)?;
                    self.query = Some(Vec::new());
                    self.literal("?", 1);
                }
                (b'/', _) if self.query.is_none() => {
                    self.end_segment(self.at == 0)?;
                    self.literal("/", 1);
                    self.segment = Segment::new(self.at);
                }
                _ if is_literal(byte) => self.literal(&self.text[self.at..=self.at], 1),
                _ => return Err((self.at, Kind::Character)),
            }
        }
        if self.query.is_none() { self.end_segment(true) } else { Ok(()) }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn variable(&mut self) -> Result<(), Fault> {
        use TemplateErrorKind as Kind;
        let rest = &self.text[self.at + 1..];
        let (name, _) = rest.split_once('}').ok_or((self.at, Kind::Unclosed))?;
        let variable = Variable::named(name).ok_or((self.at, Kind::UnknownVariable))?;
        self.segment.content.push(b'x');
        self.pieces().push(Piece::Variable(variable));
        self.at += name.len() + 2;
        Ok(())
    }

    /// Takes `length` bytes that stand for `literal`.
    fn literal(&mut self, literal: &str, length: usize) {
        self.segment.content.extend(percent_decode_str(literal));
        match self.pieces().last_mut() {
            Some(Piece::Literal(last)) => last.push_str(literal),
            _ => self.pieces().push(Piece::Literal(literal.to_owned())),
        }
        self.at += length;
    }

    fn pieces(&mut self) -> &mut Vec<Piece> {
        self.query.as_mut().unwrap_or(&mut self.path)
    }

    /// Only before the first slash and at the end may there be nothing.
    fn end_segment(&self, may_be_empty: bool) -> Result<(), Fault> {
        let Segment { start, content } = &self.segment;
        if content.is_empty() && !may_be_empty {
            return Err((self.at, TemplateErrorKind::EmptySegment));
        }
        if leads_out(content) { Err((*start, TemplateErrorKind::Dots)) } else { Ok(()) }
    }
}

/// What stands in a path and in a query as it is: RFC 3986 *pchar*, and the two that divide.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Uri};
    use proptest::prelude::*;

    use super::TemplateErrorKind as Kind;
    use super::*;
    use crate::event::{ParseOptions, parse};

    const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";

    fn event(provider: Provider, headers: &[(&'static str, &str)], body: &str) -> Event<'static> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap().into_owned()
    }

    fn push(address: &str, git_ref: &str) -> Event<'static> {
        let body = format!(
            r#"{{"ref":"{git_ref}","before":"1111111","after":"2222222","repository":{{"clone_url":"{address}"}}}}"#
        );
        event(Provider::Github, &[("x-github-event", "push")], &body)
    }

    fn rendered(template: &str, event: &Event<'_>) -> Result<String, RenderError> {
        let (template, secret) = (PathTemplate::parse(template).unwrap(), Secret::new(KEY));
        let values = Values::new(Provider::Github, Some(event)).upstream_key(Some(&secret));
        template.render(&values).map(|path| path.into_inner().to_string())
    }

    #[test]
    fn every_variable_is_one_encoded_segment() {
        let push =
            push("https://git.example.com:3000/group/sub/Widget.git", "refs/heads/fix/a&b;c");
        for (variable, expected) in [
            (Variable::Repository, "git.example.com%3A3000%2Fgroup%2Fsub%2FWidget"),
            (Variable::Owner, "group%2Fsub"),
            (Variable::Name, "Widget"),
            (Variable::Host, "git.example.com"),
            (Variable::Ref, "refs%2Fheads%2Ffix%2Fa%26b%3Bc"),
            (Variable::Provider, "github"),
            (Variable::Event, "push"),
            (Variable::UpstreamKey, KEY),
        ] {
            for (before, after) in [("/", ""), ("/a-", "/b"), ("/x?y=", "&z=%20")] {
                let template = format!("{before}{{{variable}}}{after}");
                let expected = format!("{before}{expected}{after}");
                assert_eq!(rendered(&template, &push), Ok(expected), "{template}");
            }
        }
    }

    #[test]
    fn what_stands_around_variables_is_sent_as_it_stands_there() {
        let push = push("https://github.com/acme/widget", "refs/heads/main");
        for (template, expected) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/?", "/?"),
            ("/a?b=/../c?d", "/a?b=/../c?d"),
            ("/a%2Fb/~c/d:e@f/...", "/a%2Fb/~c/d:e@f/..."),
            ("/{{{name}}}/{{name}}", "/%7Bwidget%7D/%7Bname%7D"),
            ("/{owner}{name}/..{name}", "/acmewidget/..widget"),
            (
                "/rest/gitplugin/webhook/1.0/reindex/{upstream_key}",
                "/rest/gitplugin/webhook/1.0/reindex/sdf34tGdfgGDG345g3y0045TYG23te37",
            ),
        ] {
            assert_eq!(rendered(template, &push).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn the_identity_of_a_repository_is_not_encoded_twice() {
        let push = push("https://dev.azure.com/acme/My%20Tools/_git/\u{fc}bung", "refs/heads/main");
        assert_eq!(rendered("/{owner}/{name}", &push).unwrap(), "/acme%2Fmy%20tools/%C3%BCbung");
        assert_eq!(
            rendered("/{repository}", &push).unwrap(),
            "/dev.azure.com%2Facme%2Fmy%20tools%2F%C3%BCbung"
        );
    }

    #[test]
    fn a_repository_without_an_address_has_a_name_and_no_host() {
        let body = r#"{"type":"ref-updated","refUpdate":{"project":"tools/widget","refName":"refs/heads/a","oldRev":"1111111","newRev":"2222222"}}"#;
        let push = event(Provider::Gerrit, &[], body);
        let path = "/tools%2Fwidget/tools/widget";
        assert_eq!(rendered("/{repository}/{owner}/{name}", &push).unwrap(), path);
        assert_eq!(rendered("/{host}", &push), Err(RenderError::Missing(Variable::Host)));
        assert_eq!(rendered("/x?host={host}", &push).unwrap(), "/x?host=");
        let single =
            event(Provider::Manual, &[("x-bbb-webhook-type", "push")], r#"{"origin":"widget"}"#);
        assert_eq!(rendered("/{name}", &single).unwrap(), "/widget");
        assert_eq!(
            rendered("/{owner}/{name}", &single),
            Err(RenderError::Missing(Variable::Owner))
        );
        assert_eq!(rendered("/x?owner={owner}", &single).unwrap(), "/x?owner=");
    }

    #[test]
    fn a_ref_is_known_only_of_an_event_with_one_or_when_it_is_said() {
        let one = push("https://github.com/acme/widget", "refs/heads/main");
        assert_eq!(rendered("/{ref}", &one).unwrap(), "/refs%2Fheads%2Fmain");
        let mut none = one.clone();
        none.refs.clear();
        let mut two = one.clone();
        two.refs.extend(one.refs.clone());
        for event in [&none, &two] {
            assert_eq!(rendered("/{ref}", event), Err(RenderError::Missing(Variable::Ref)));
            assert_eq!(rendered("/x?ref={ref}&y", event).unwrap(), "/x?ref=&y");
            let values = Values::new(Provider::Github, Some(event)).git_ref("refs/tags/v1");
            let path = PathTemplate::parse("/{ref}").unwrap().render(&values).unwrap();
            assert_eq!(path.into_inner(), "/refs%2Ftags%2Fv1");
        }
    }

    #[test]
    fn a_path_or_query_without_its_repository_event_or_key_is_not_made() {
        let push = push("https://github.com/acme/widget", "refs/heads/main");
        let mut bare = push.clone();
        bare.repository = None;
        for variable in [Variable::Repository, Variable::Name] {
            for template in [format!("/{{{variable}}}"), format!("/x?y={{{variable}}}")] {
                assert!(rendered(&template, &push).is_ok());
                assert_eq!(rendered(&template, &bare), Err(RenderError::Missing(variable)));
            }
        }
        for template in ["/{upstream_key}", "/?key={upstream_key}"] {
            let template = PathTemplate::parse(template).unwrap();
            let values = Values::new(Provider::Github, Some(&push));
            let missing = Err(RenderError::Missing(Variable::UpstreamKey));
            assert_eq!(template.render(&values), missing);
            assert!(template.render(&values.upstream_key(Some(&Secret::new(KEY)))).is_ok());
        }
        let values = Values::new(Provider::Github, None);
        let missing = Err(RenderError::Missing(Variable::Event));
        assert_eq!(PathTemplate::parse("/?e={event}").unwrap().render(&values), missing);
    }

    #[test]
    fn a_key_of_any_characters_that_a_key_has_is_one_segment() {
        let secret = Secret::new("-._~!$&'()*+,;=key");
        let values = Values::new(Provider::Github, None).upstream_key(Some(&secret));
        let path = PathTemplate::parse("/{upstream_key}?{upstream_key}").unwrap().render(&values);
        let encoded = "-._~%21%24%26%27%28%29%2A%2B%2C%3B%3Dkey";
        assert_eq!(path.unwrap().into_inner().to_string(), format!("/{encoded}?{encoded}"));
    }

    fn with(variable: Variable, value: &[u8]) -> Values<'_> {
        let mut values = Values::new(Provider::Github, None);
        values.0[variable as usize] = Some(value.into());
        values
    }

    #[test]
    fn a_value_that_would_lead_out_of_the_path_is_refused_and_one_that_would_not_is_sent() {
        let template = PathTemplate::parse("/reindex/{name}/now?name={name}").unwrap();
        let render = |value: &str| template.render(&with(Variable::Name, value.as_bytes()));
        for value in [
            ".",
            "..",
            "../admin",
            "a/..",
            "a/../../admin",
            "a/./b",
            "..\\admin",
            "..;x",
            "a/..;x/b",
            "%2e%2E",
            "a%2f..%2fb",
            "a/%2e%2e",
            "%2e",
        ] {
            assert_eq!(render(value), Err(RenderError::Dots), "{value}");
        }
        for value in ["...", "a..b", "..a", ".git", "a/.b", "a;..", "%", "//", "a?../b#"] {
            assert!(render(value).is_ok(), "{value}");
        }
        let query = PathTemplate::parse("/x?{name}").unwrap();
        assert!(query.render(&with(Variable::Name, b"../..")).is_ok());
        let two = PathTemplate::parse("/{name}{name}").unwrap();
        assert_eq!(two.render(&with(Variable::Name, b".")), Err(RenderError::Dots));
    }

    #[test]
    fn a_path_of_just_the_limit_is_made_and_a_longer_one_is_not() {
        let template = PathTemplate::parse("/{name}").unwrap();
        let render = |value: &[u8]| template.render(&with(Variable::Name, value));
        assert!(render(&[b'x'; MAX_PATH - 1]).is_ok());
        assert_eq!(render(&[b'x'; MAX_PATH]), Err(RenderError::TooLong));
        assert_eq!(render(&[b'/'; MAX_PATH / 3]).map(drop), Ok(()));
        assert_eq!(render(&[b'/'; MAX_PATH / 3 + 1]), Err(RenderError::TooLong));
        assert_eq!(render(&vec![b'x'; 1 << 24]), Err(RenderError::TooLong));
        let template = PathTemplate::parse("/{name}?{ref}&{ref}").unwrap();
        for (length, expected) in [(1, Ok(())), (2, Err(())), (3, Err(())), (4, Err(()))] {
            let name = vec![b'x'; MAX_PATH - "/?&".len() - 1 + length];
            let made = template.render(&with(Variable::Name, &name));
            assert_eq!(made.map(drop).map_err(drop), expected, "{length}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_template_is_told_with_its_column_and_without_the_text() {
        let long = format!("/{}", "x".repeat(MAX_TEMPLATE));
        for (text, column, kind) in [
            ("", 1, Kind::NoSlash),
            ("canary", 1, Kind::NoSlash),
            ("http://canary/", 1, Kind::NoSlash),
            ("{name}", 1, Kind::NoSlash),
            ("//canary.example/", 2, Kind::EmptySegment),
            ("/canary//b", 9, Kind::EmptySegment),
            ("/canary/../b", 9, Kind::Dots),
            ("/canary/.", 9, Kind::Dots),
            ("/canary/%2e%2E?x", 9, Kind::Dots),
            ("/%252e%252e/canary", 2, Kind::Dots),
            ("/..;canary/", 2, Kind::Dots),
            ("/{name}%2f../canary", 2, Kind::Dots),
            ("/canary b", 8, Kind::Character),
            ("/canary#b", 8, Kind::Character),
            ("/canary\\b", 8, Kind::Character),
            ("/canary\u{fc}", 8, Kind::Character),
            ("/canary?a\n", 10, Kind::Character),
            ("/canary%", 8, Kind::Percent),
            ("/canary%2", 8, Kind::Percent),
            ("/canary%zz", 8, Kind::Percent),
            ("/canary%\u{fc}", 8, Kind::Percent),
            ("/canary%\u{1f980}", 8, Kind::Percent),
            ("/canary/{name", 9, Kind::Unclosed),
            ("/canary/{{name}", 15, Kind::Unopened),
            ("/canary}", 8, Kind::Unopened),
            ("/{canary}", 2, Kind::UnknownVariable),
            ("/{}", 2, Kind::UnknownVariable),
            ("/{Name}", 2, Kind::UnknownVariable),
            ("/{ name}", 2, Kind::UnknownVariable),
            ("/x?y={canary}", 6, Kind::UnknownVariable),
            (&long, MAX_TEMPLATE + 1, Kind::TooLong),
        ] {
            let error = PathTemplate::parse(text).expect_err(text);
            assert_eq!((error.column(), error.kind()), (column, kind), "{text}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(&format!("column {column}: ")) && !shown.contains("canary"));
        }
        assert!(PathTemplate::parse(&long[1..].replacen('x', "/", 1)).is_ok());
        for variable in Variable::ALL {
            assert!(Kind::UnknownVariable.to_string().contains(&format!("{{{variable}}}")));
        }
    }

    #[test]
    fn a_template_says_what_it_needs() {
        let template = PathTemplate::parse("/{upstream_key}/{{owner}}?n={name}").unwrap();
        let needed: Vec<_> = Variable::ALL.into_iter().filter(|&v| template.needs(v)).collect();
        assert_eq!(needed, [Variable::Name, Variable::UpstreamKey]);
    }

    #[test]
    fn nothing_shows_a_key_whether_it_is_a_value_or_stands_in_the_template() {
        let template = PathTemplate::parse("/s3cret/{upstream_key}").unwrap();
        let secret = Secret::new("s3cret-key");
        let values = Values::new(Provider::Github, None).upstream_key(Some(&secret));
        let path = template.render(&values).unwrap();
        let shown = format!("{template:?} {values:?} {path:?}");
        assert_eq!(
            shown,
            "PathTemplate { variables: [UpstreamKey], .. } Values {Provider, UpstreamKey} RenderedPath(..)"
        );
        let secret = Secret::new("s3cret/../key");
        let error = template.render(&values.upstream_key(Some(&secret))).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(prop_oneof![
            any::<Vec<u8>>(),
            "[./;%\\\\2efF?#&=@: {}a-z\u{e9}]{0,12}".prop_map(String::into_bytes),
            "(https?:)?//[a-z@:0-9]{1,20}/?".prop_map(String::into_bytes),
        ])
    }

    fn any_template() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            Just("a-".to_owned()),
            Just("{{".to_owned()),
            proptest::sample::select(&Variable::ALL[..]).prop_map(|v| format!("{{{v}}}")),
        ];
        let segments =
            proptest::collection::vec(proptest::collection::vec(segment.clone(), 1..4), 1..5);
        let query = proptest::option::of(proptest::collection::vec(segment, 0..4));
        (segments, query).prop_map(|(segments, query)| {
            let path: String =
                segments.iter().map(|pieces| format!("/{}", pieces.concat())).collect();
            let query = query.map(|fields| format!("?{}", fields.join("&x=")));
            path + &query.unwrap_or_default()
        })
    }

    proptest! {
        #[test]
        fn no_value_changes_authority_segments_or_fields(
            text in any_template(),
            values in proptest::array::uniform8(any_value()),
        ) {
            let template = PathTemplate::parse(&text).unwrap();
            let values = Values(values.map(|value| value.map(Cow::Owned)));
            let path = match template.render(&values) {
                Ok(path) => path.into_inner(),
                Err(RenderError::Missing(variable)) => {
                    prop_assert!(template.needs(variable));
                    prop_assert!(values.get(variable).unwrap_or_default().is_empty());
                    return Ok(());
                }
                Err(RenderError::Dots) => {
                    let has_dot = |v: &&Variable| values.get(**v).is_some_and(|value| {
                        percent_decode(value).any(|byte| byte == b'.')
                    });
                    prop_assert!(Variable::ALL.iter().any(|v| template.needs(*v) && has_dot(&v)));
                    return Ok(());
                }
                Err(RenderError::TooLong) => {
                    let length: usize = Variable::ALL.into_iter().filter_map(|v| values.get(v)).map(<[u8]>::len).sum();
                    prop_assert!(length > MAX_PATH / 12 / 3);
                    return Ok(());
                }
            };
            let uri: Uri = format!("http://upstream.example:9000{path}").parse().unwrap();
            prop_assert_eq!(uri.scheme_str(), Some("http"));
            prop_assert_eq!(uri.authority().unwrap().as_str(), "upstream.example:9000");
            prop_assert_eq!(uri.path(), path.path());
            prop_assert!(path.as_str().len() <= MAX_PATH);
            prop_assert!(path.as_str().bytes().all(|b| b == b'%' || is_literal(b)));
            let (template_path, template_query) = match text.split_once('?') {
                Some((path, query)) => (path, query),
                None => (&*text, ""),
            };
            let count = |text: &str, byte| text.bytes().filter(|b| *b == byte).count();
            prop_assert_eq!(count(path.path(), b'/'), count(template_path, b'/'));
            prop_assert!(!path.path().contains("//"));
            let query = path.query().unwrap_or_default();
            for byte in [b'&', b'=', b'?', b'/', b';', b'+', b'#'] {
                prop_assert_eq!(count(query, byte), count(template_query, byte));
            }
            for (written, sent) in template_path.split('/').zip(path.path().split('/')) {
                let decoded: Vec<u8> = percent_decode_str(sent).collect();
                prop_assert!(!leaves(&decoded));
                // A segment that is one variable is its value again.
                if let Some(variable) = written.strip_prefix('{').and_then(|w| w.strip_suffix('}')).and_then(Variable::named) {
                    prop_assert_eq!(Some(&decoded[..]), values.get(variable));
                }
            }
        }

        #[test]
        fn no_template_makes_it_panic_and_each_one_that_is_read_renders_in_its_own_shape(
            text in prop_oneof![".{0,60}", "/[a-z{}/.%2e?#]{0,40}", "/([a-z./?%]|\\{(name|ref|upstream_key|x)\\}|[{}]){0,12}"],
        ) {
            let Ok(template) = PathTemplate::parse(&text) else { return Ok(()) };
            let values = Values(Variable::ALL.map(|_| Some(Cow::Borrowed(&b"x"[..]))));
            let path = template.render(&values).unwrap().into_inner();
            let slashes = |path: &str| path.bytes().filter(|b| *b == b'/').count();
            prop_assert_eq!(slashes(path.path()), slashes(text.split('?').next().unwrap()));
        }
    }
}
