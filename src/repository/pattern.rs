//! Patterns over the keys of repositories, and over the names of refs.
//!
//! Both have the same wildcards: `*` for anything within a segment, `**` as a whole segment for any
//! number of segments, `?` for one character, and `[…]` for one out of a class. A leading `!`
//! excludes.
//!
//! A name matches a list when at least one pattern takes it in and none excludes it; the order says
//! nothing. A list of nothing but exclusions takes in everything else, and an empty list
//! everything.
//!
//! A pattern that could never match is refused when it is read, since a rule that silently drops
//! every push is worse than an error: a scheme or user before the host, a host alone, `*` where
//! `**` is meant, a short name for a ref, braces.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::{RepositoryUrl, push_encoded};

/// The longest pattern, in bytes, with everything encoded that is encoded in keys.
const MAX_LEN: usize = 1024;

/// One pattern over the keys of repositories, such as `github.com/acme/*` or `!**/archive/**`.
///
/// It stands over the whole key, `host[:port]/owner/…/name`. The host is read in lower case, `.git`
/// at the end goes, and on hosts that do not care about case neither does the pattern. As
/// in keys, a port stands only where the web's is unusual.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    excludes: bool,
    exact: Arc<Glob>,
    /// The same in lower case, for hosts that do not care.
    folded: Arc<Glob>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When it could match nothing, or uses what is not supported.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (excludes, body) = split_mark(text)?;
        let (host, _) = body.split_once('/').unwrap_or((body, ""));
        if body.contains("://") || host.contains('@') {
            return Err(Kind::Address.into());
        }
        let body = body.strip_suffix(".git").unwrap_or(body);
        if host.is_empty() {
            return Err(Kind::NoHost.into());
        }
        if body.ends_with('/') {
            return Err(Kind::LastSlash.into());
        }
        if !body.contains('/') && body != "**" {
            return Err(Kind::HostAlone.into());
        }
        let glob = match ipv6(host) {
            Some(host_glob) => host_glob + &encode(&body[host.len()..])?,
            None => {
                let mut glob = encode(body)?;
                let end = glob.find('/').unwrap_or(glob.len());
                glob[..end].make_ascii_lowercase();
                glob
            }
        };
        let folded = Arc::new(Glob::new(&glob.to_ascii_lowercase())?);
        Ok(Self { text: text.to_owned(), excludes, exact: Arc::new(Glob::new(&glob)?), folded })
    }

    /// Whether what matches is excluded: the pattern begins with `!`.
    pub fn excludes(&self) -> bool {
        self.excludes
    }

    /// Whether it stands for the key of a repository; an exclusion stands for what it excludes.
    fn stands_for(&self, key: &str, ignores_case: bool) -> bool {
        if ignores_case { self.folded.matches(key) } else { self.exact.matches(key) }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// The text that was read.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// A list of [`Pattern`]s. The default is the empty list, which every repository matches.
///
/// ```
/// use hookgate::repository::{Patterns, RepositoryUrl};
///
/// let patterns = Patterns::parse_list("github.com/acme/*,!github.com/acme/secret")?;
/// assert!(patterns.matches(&RepositoryUrl::parse("git@github.com:acme/widget.git")?));
/// assert!(!patterns.matches(&RepositoryUrl::parse("git@github.com:acme/secret.git")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    list: Vec<Pattern>,
}

impl Patterns {
    /// Reads patterns that stand one after another with commas between them.
    ///
    /// # Errors
    ///
    /// When one of them is not a pattern, or nothing stands there: an empty text is no list, lest
    /// it be taken for one of everything.
    pub fn parse_list(text: &str) -> Result<Self, PatternError> {
        text.split(',').map(|pattern| Pattern::parse(pattern.trim())).collect()
    }

    /// Whether a repository is taken in and not excluded.
    pub fn matches(&self, repository: &RepositoryUrl) -> bool {
        let (key, ignores_case) = (repository.as_str(), repository.ignores_case());
        let patterns = self.iter();
        is_match(patterns.map(|p| (p.excludes, move || p.stands_for(key, ignores_case))))
    }

    /// Whether the list holds nothing, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The patterns, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.list.iter()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self { list: patterns.into_iter().collect() }
    }
}

impl FromStr for Patterns {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse_list(text)
    }
}

/// The texts of the patterns with commas between them, as [`Patterns::parse_list`] reads them.
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(&self.list, f)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

/// A list of patterns over the full names of refs, such as `refs/heads/*` or `!refs/heads/tmp/**`.
///
/// The default is the empty list, which every ref matches. Case counts, as it does in git.
#[derive(Clone, Default)]
pub struct RefPatterns {
    list: Vec<RefPattern>,
}

#[derive(Clone)]
struct RefPattern {
    text: String,
    excludes: bool,
    glob: Arc<Glob>,
}

impl RefPatterns {
    /// A list of patterns.
    ///
    /// # Errors
    ///
    /// When one of them could match nothing (it begins neither with `refs/` nor with `**`), or uses
    /// what is not supported.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, PatternError> {
        let list = patterns.into_iter().map(|text| {
            let (excludes, body) = split_mark(text.as_ref())?;
            if !body.starts_with("refs/") && !body.starts_with("**") {
                return Err(Kind::ShortRef.into());
            }
            let glob = Arc::new(Glob::new(body)?);
            Ok(RefPattern { text: text.as_ref().to_owned(), excludes, glob })
        });
        Ok(Self { list: list.collect::<Result<_, PatternError>>()? })
    }

    /// Reads patterns that stand one after another with commas between them.
    ///
    /// # Errors
    ///
    /// Those of [`RefPatterns::new`]; an empty text is one too.
    pub fn parse_list(text: &str) -> Result<Self, PatternError> {
        Self::new(text.split(',').map(str::trim))
    }

    /// Whether a ref, by its full name, is taken in and not excluded.
    pub fn matches(&self, name: &str) -> bool {
        is_match(self.list.iter().map(|p| (p.excludes, || p.glob.matches(name))))
    }

    /// Whether the list holds nothing, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromStr for RefPatterns {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse_list(text)
    }
}

/// The texts of the patterns with commas between them.
impl fmt::Display for RefPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(self.list.iter().map(|pattern| &pattern.text), f)
    }
}

impl fmt::Debug for RefPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|pattern| &pattern.text)).finish()
    }
}

impl PartialEq for RefPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.list.iter().map(|p| &p.text).eq(other.list.iter().map(|p| &p.text))
    }
}

impl Eq for RefPatterns {}

/// The error of reading a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    Character,
    Address,
    NoHost,
    HostAlone,
    LastSlash,
    ShortRef,
    Stars,
    Percent,
    Syntax,
    TooLong,
}

impl From<Kind> for PatternError {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "an empty pattern",
            Kind::Character => "a pattern holds a control character, a brace or a backslash",
            Kind::Address => {
                "a pattern begins with the host, without scheme and user, such as github.com/acme/*"
            }
            Kind::NoHost => "a pattern begins with the host and not with a slash",
            Kind::HostAlone => {
                "a pattern of one segment matches no repository, write host/** or ** for all"
            }
            Kind::LastSlash => "a pattern with a slash at its end matches nothing, write /* or /**",
            Kind::ShortRef => {
                "a pattern for refs begins with refs/ or **, such as refs/heads/* or refs/tags/v*"
            }
            Kind::Stars => "`**` stands alone between slashes, and `*` within a segment",
            Kind::Percent => "a percent sign that does not encode a byte",
            Kind::TooLong => "a pattern is longer than 1024 bytes",
            Kind::Syntax => "a class such as [0-9] that does not close or has no order",
        })
    }
}

impl std::error::Error for PatternError {}

/// The rule of a list, over pairs of whether a pattern excludes and whether it stands for the name.
fn is_match<F: FnOnce() -> bool>(patterns: impl Iterator<Item = (bool, F)>) -> bool {
    let (mut asks, mut included) = (false, false);
    for (excludes, stands_for) in patterns {
        if excludes {
            if stands_for() {
                return false;
            }
        } else {
            asks = true;
            included = included || stands_for();
        }
    }
    included || !asks
}

/// A pattern as it is matched.
struct Glob {
    /// Whether `**/` stands before the prefix, which then can begin at any segment.
    anywhere: bool,
    /// What every name that matches begins with.
    prefix: String,
    rest: Rest,
}

/// What follows the prefix. Most patterns are of the first three kinds, which need no engine.
enum Rest {
    Nothing,
    /// `*`
    Segment,
    /// `**`
    Anything,
    Glob(GlobMatcher),
}

impl Glob {
    fn new(glob: &str) -> Result<Self, PatternError> {
        if glob.len() > MAX_LEN {
            return Err(Kind::TooLong.into());
        }
        if glob.split('/').any(|segment| segment.contains("**") && segment != "**") {
            return Err(Kind::Stars.into());
        }
        let (anywhere, body) = match glob.strip_prefix("**/") {
            Some(body) => (true, body),
            None => (false, glob),
        };
        let (prefix, rest) = split(body);
        let rest = match rest {
            "" if !body.is_empty() => Rest::Nothing,
            "*" => Rest::Segment,
            "**" => Rest::Anything,
            _ => {
                let (prefix, rest) = (split(glob).0.to_owned(), Rest::Glob(compile(glob)?));
                return Ok(Self { anywhere: false, prefix, rest });
            }
        };
        Ok(Self { anywhere, prefix: prefix.to_owned(), rest })
    }

    fn matches(&self, name: &str) -> bool {
        let mut part = name;
        loop {
            // Most that differ do so in the first byte, and there is no call to see that.
            let (first, wanted) = (part.bytes().next(), self.prefix.bytes().next());
            if (wanted.is_none() || wanted == first)
                && let Some(tail) = part.strip_prefix(&*self.prefix)
                && self.rest.matches(tail, name)
            {
                return true;
            }
            if !self.anywhere {
                return false;
            }
            let Some(slash) = part.bytes().position(|byte| byte == b'/') else { return false };
            part = &part[slash + 1..];
        }
    }
}

impl Rest {
    /// Whether it stands for the `tail` of `name`.
    fn matches(&self, tail: &str, name: &str) -> bool {
        match self {
            Self::Nothing => tail.is_empty(),
            // Names are short: a plain loop is faster than a search.
            Self::Segment => tail.bytes().all(|byte| byte != b'/'),
            Self::Anything => true,
            Self::Glob(glob) => glob.is_match(name),
        }
    }
}

/// What stands before the first wildcard or class, and the rest.
fn split(glob: &str) -> (&str, &str) {
    glob.split_at(glob.find(['*', '?', '[']).unwrap_or(glob.len()))
}

fn compile(glob: &str) -> Result<GlobMatcher, PatternError> {
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(false)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|_| Kind::Syntax.into())
}

fn split_mark(text: &str) -> Result<(bool, &str), PatternError> {
    let (excludes, body) = match text.strip_prefix('!') {
        Some(body) => (true, body),
        None => (false, text),
    };
    if body.is_empty() {
        return Err(Kind::Empty.into());
    }
    if body.contains(|c: char| c.is_control() || matches!(c, '{' | '}' | '\\')) {
        return Err(Kind::Character.into());
    }
    Ok((excludes, body))
}

/// The pattern with everything but its wildcards, slashes and classes encoded as it is in keys.
fn encode(text: &str) -> Result<String, PatternError> {
    let mut glob = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'/' | b'*' | b'?' => glob.push(char::from(*byte)),
            b'[' => {
                let end = rest.iter().position(|b| *b == b']').ok_or(Kind::Syntax)?;
                let class = rest.get(..end).filter(|class| class.is_ascii()).ok_or(Kind::Syntax)?;
                glob.push('[');
                glob.extend(class.iter().copied().map(char::from));
                glob.push(']');
                rest = &rest[end + 1..];
            }
            b'%' => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let [high, low, tail @ ..] = rest else { return Err(Kind::Percent.into()) };
                let (high, low) = digit(high).zip(digit(low)).ok_or(Kind::Percent)?;
                push_encoded(&mut glob, (high << 4 | low) as u8);
                rest = tail;
            }
            byte => push_encoded(&mut glob, *byte),
        }
    }
    Ok(glob)
}

/// The glob for a host that is an IPv6 address in brackets, which else would be read as a class.
fn ipv6(host: &str) -> Option<String> {
    let (address, port) = host.strip_prefix('[')?.split_once(']')?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(format!("[[]{address}[]]{port}"))
}

fn write_list<T: fmt::Display>(
    list: impl IntoIterator<Item = T>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    for (n, pattern) in list.into_iter().enumerate() {
        write!(f, "{}{pattern}", if n == 0 { "" } else { "," })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(list: &str, address: &str) -> bool {
        let url = RepositoryUrl::parse(address).unwrap();
        Patterns::parse_list(list).unwrap().matches(&url)
    }

    #[test]
    fn a_star_stays_within_a_segment_and_two_go_across() {
        assert!(matches("github.com/acme/*", "git@github.com:acme/widget.git"));
        assert!(!matches("github.com/acme/*", "git@github.com:acme2/widget.git"));
        assert!(matches("gitlab.com/acme/**", "https://gitlab.com/acme/tools/widget"));
        assert!(!matches("gitlab.com/acme/*", "https://gitlab.com/acme/tools/widget"));
        assert!(matches("gitlab.com/**/widget", "https://gitlab.com/acme/tools/widget"));
        assert!(!matches("gitlab.com/**/widget", "https://gitlab.com/acme/tools/widget2"));
        assert!(matches("*/acme/*", "https://git.example.com/acme/widget"));
        assert!(matches("**", "https://git.example.com/acme/tools/widget"));
        assert!(matches("h.example/a/v[0-9]?", "https://h.example/a/v12"));
        assert!(!matches("h.example/a/v[0-9]?", "https://h.example/a/vx2"));
        assert!(!matches("h.example/a?b", "https://h.example/a/b"));
    }

    #[test]
    fn what_is_excluded_is_out_wherever_the_exclusion_stands() {
        for list in [
            "github.com/acme/*,!github.com/acme/secret",
            "!github.com/acme/secret,github.com/acme/*",
        ] {
            assert!(matches(list, "https://github.com/acme/widget"));
            assert!(!matches(list, "https://github.com/acme/secret"));
        }
        assert!(matches("!github.com/acme/secret", "https://github.com/other/widget"));
        assert!(!matches("!github.com/acme/secret", "https://github.com/acme/secret"));
    }

    #[test]
    fn an_empty_list_takes_everything_and_an_empty_text_is_no_list() {
        let url = RepositoryUrl::parse("https://github.com/acme/widget").unwrap();
        assert!(Patterns::default().matches(&url) && Patterns::default().is_empty());
        assert!(RefPatterns::default().matches("refs/heads/main"));
        for text in ["", ",", "github.com/acme/*,", "!"] {
            assert!(Patterns::parse_list(text).is_err(), "{text}");
            assert!(RefPatterns::parse_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn case_counts_where_the_host_may_care() {
        assert!(matches("GitHub.com/Acme/*", "https://github.com/acme/Widget"));
        assert!(matches("*/Acme/*", "https://github.com/aCME/Widget"));
        assert!(matches("Git.Example.com/Acme/*", "https://git.example.com/Acme/widget"));
        assert!(!matches("git.example.com/Acme/*", "https://git.example.com/acme/widget"));
        assert!(!matches("*/Acme/*", "https://git.example.com/acme/widget"));
    }

    #[test]
    fn a_pattern_may_be_written_as_the_address_is() {
        assert!(matches("github.com/acme/widget.git", "https://github.com/acme/widget"));
        let azure = "https://dev.azure.com/acme/My%20Project/_git/widget";
        assert!(matches("dev.azure.com/acme/my project/*", azure));
        assert!(matches("dev.azure.com/acme/My%20Project/*", azure));
        assert!(matches("h.example/a/b%2Cc", "https://h.example/a/b,c"));
        assert!(matches("h.example/%61/*", "https://h.example/a/b"));
        assert!(matches("[::1]:3000/a/*", "http://[0::1]:3000/a/b"));
        assert!(!matches("[::1]:3000/a/*", "http://[::2]:3000/a/b"));
        assert!(matches("localhost:7990/a/*", "http://localhost:7990/a/b"));
        assert!(!matches("localhost/a/*", "http://localhost:7990/a/b"));
    }

    #[test]
    fn a_pattern_that_could_match_nothing_is_refused() {
        for wrong in [
            "https://github.com/acme/*",
            "git@github.com:acme/*",
            "github.com",
            "*",
            "/acme/*",
            "github.com/acme/",
            "github.com/acme**",
            "github.com/***",
            "github.com/{acme,other}/*",
            "github.com/acme\\*",
            "github.com/acme/[a-",
            "github.com/acme/[z-a]",
            "github.com/acme/%4",
            "github.com/acme/%zz",
            "github.com/ac\tme/*",
        ] {
            let error = Pattern::parse(wrong).expect_err(wrong).to_string();
            assert!(!error.ends_with('.') && error.starts_with(|c: char| !c.is_uppercase()));
            assert!(Pattern::parse(&format!("!{wrong}")).is_err(), "{wrong}");
        }
        for wrong in ["main", "v*", "heads/main", "*", "refs/heads/a**", "refs/heads/{a,b}"] {
            assert!(RefPatterns::new([wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ref_patterns_match_full_names() {
        let patterns =
            RefPatterns::new(["refs/heads/*", "refs/tags/v*", "!refs/heads/tmp"]).unwrap();
        for name in ["refs/heads/main", "refs/tags/v1.0"] {
            assert!(patterns.matches(name), "{name}");
        }
        for name in ["refs/heads/tmp", "refs/heads/a/b", "refs/tags/1.0", "refs/notes/x", "main"] {
            assert!(!patterns.matches(name), "{name}");
        }
        assert!(RefPatterns::parse_list("**, !refs/tags/**").unwrap().matches("refs/heads/a/b"));
        assert!(!RefPatterns::parse_list("**, !refs/tags/**").unwrap().matches("refs/tags/a/b"));
        assert!(!RefPatterns::new(["refs/heads/Main"]).unwrap().matches("refs/heads/main"));
    }

    #[test]
    fn a_list_prints_as_it_was_read() {
        for text in ["github.com/acme/*", "GitHub.com/Acme/*,!**/x.git,h.example/a%20b/[0-9]*"] {
            let patterns = Patterns::parse_list(text).unwrap();
            assert_eq!(patterns.to_string(), text);
            assert_eq!(patterns.to_string().parse(), Ok(patterns.clone()));
            assert_ne!(Ok(patterns), Patterns::parse_list("**"));
        }
        let text = "refs/heads/*,!refs/heads/tmp";
        assert_eq!(RefPatterns::parse_list(text).unwrap().to_string(), text);
    }

    proptest! {
        #[test]
        fn patterns_that_need_no_engine_match_as_the_engine_does(
            glob in "(refs/|\\*\\*/)?([ab*]{1,2}/){0,2}([ab]{0,2}|\\*\\*?)",
            name in "(refs/)?([ab]{1,2}/){0,3}[ab]{1,2}",
        ) {
            let Ok(read) = Glob::new(&glob) else { return Ok(()) };
            prop_assert_eq!(read.matches(&name), compile(&glob).unwrap().is_match(&name));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = Pattern::parse(&text);
            let _ = RefPatterns::new([format!("refs/{text}")]);
        }

        #[test]
        fn the_key_of_a_repository_is_a_pattern_that_matches_it(
            host in "([a-z]{1,6}\\.example|\\[::[1-9]\\])(:3000)?",
            path in prop::collection::vec("[A-Za-z0-9][A-Za-z0-9 ,*!?%25é~+-]{0,6}", 1..4),
        ) {
            let path = path.join("/").replace('%', "%25");
            let Ok(url) = RepositoryUrl::parse(&format!("https://{host}/{path}")) else {
                return Ok(());
            };
            let patterns = Patterns::parse_list(url.as_str()).unwrap();
            prop_assert!(patterns.matches(&url));
            let other = RepositoryUrl::parse(&format!("https://{url}x")).unwrap();
            prop_assert!(!patterns.matches(&other));
        }
    }
}
