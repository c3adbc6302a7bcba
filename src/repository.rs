//! One identity for a repository, whichever of its addresses was used, and patterns over it.
//!
//! A host gives a repository several addresses: `https://github.com/acme/widget.git`,
//! `git@github.com:acme/widget.git`, `ssh://git@github.com/acme/widget`. [`RepositoryUrl`] reads
//! any of them and keeps one *key*, `github.com/acme/widget`, which rules, coalescing and bound
//! keys compare. [`Patterns`] match on that key.
//!
//! # The key
//!
//! `host[:port]/owner/…/name`, made by these rules:
//!
//! 1. The forms that git reads as network addresses count: `https://`, `http://`, `ssh://`,
//!    `git://`, `svn://` (with `git+ssh`, `ssh+git` and `svn+ssh`), and scp's `user@host:path`.
//!    Anything else, a path in a file system above all, is no address.
//! 2. The user and what stands with it (a password, a token) is dropped and never shown.
//! 3. The host is in lower case, without the dot of a fully qualified name. Hosts that take SSH
//!    under another name too (`ssh.github.com`, `altssh.gitlab.com`, `altssh.bitbucket.org`) have
//!    their usual one.
//! 4. The port counts only in the forms of the web, and there only if it is neither 80 nor 443: it
//!    tells one web service on a host from another. The port of SSH, git or svn only says where a
//!    daemon listens; Bitbucket Server's 7999, Gitea's 2222 and Gerrit's 29418 lead to the same
//!    repository as `https://` on that host. So a service whose *web* port is unusual has two keys,
//!    `git.example.com:3000/acme/widget` and, over SSH, `git.example.com/acme/widget`; the parsers
//!    of events prefer the first, and for bound keys the second counts as the first beside it.
//! 5. Percent-encoding is made uniform: what need not be encoded is decoded, everything else is
//!    encoded once, in upper case. So a key is ASCII without white space, comma, `*`, `!` or `?`.
//!    An encoded slash, a control character, `.` and `..` are errors.
//! 6. Empty segments and a trailing slash go, and so does `.git` at the end.
//! 7. The path keeps its case, unless the host is known not to care: github.com, gitlab.com,
//!    bitbucket.org and Azure DevOps Services have theirs in lower case.
//! 8. Azure DevOps Services is `dev.azure.com/organisation/project/repository` in all its forms:
//!    `dev.azure.com/…/_git/…`, `ssh.dev.azure.com:v3/…`, `*.visualstudio.com` and
//!    `vs-ssh.visualstudio.com:v3/…`. An address without a project means the project of the
//!    repository's name.
//! 9. Bitbucket Server has `/scm/` before project and repository on the web and not over SSH. It
//!    goes where the path of a web address is exactly `scm/project/repository`. (A delivery that
//!    comes from Bitbucket Server loses it below a context path too, and one from another host
//!    keeps it: a group of GitLab may be called `scm`.)
//!
//! Sources: [git-clone, "GIT URLS"](https://git-scm.com/docs/git-clone#_git_urls), [RFC 3986,
//! section 2](https://www.rfc-editor.org/rfc/rfc3986#section-2), and the hosts' own pages.

mod pattern;

use std::fmt;
use std::net::Ipv6Addr;

pub use pattern::{Pattern, PatternError, Patterns, RefPatterns};

/// The longest address that is read, in bytes.
const MAX_LEN: usize = 2048;

/// The schemes that count; the first two are the web's.
const SCHEMES: [&str; 8] = ["https", "http", "ssh", "git", "git+ssh", "ssh+git", "svn", "svn+ssh"];

/// The identity of a repository, read from any of its addresses.
///
/// ```
/// use hookgate::repository::RepositoryUrl;
///
/// let web = RepositoryUrl::parse("https://GitHub.com/Acme/Widget.git")?;
/// let scp = RepositoryUrl::parse("git@github.com:acme/widget")?;
/// assert_eq!(web, scp);
/// assert_eq!(web.as_str(), "github.com/acme/widget");
/// # Ok::<(), hookgate::repository::RepositoryUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryUrl(String);

impl RepositoryUrl {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// When it is no network address that git would read, or not a whole one. The error shows
    /// nothing of it.
    pub fn parse(address: &str) -> Result<Self, RepositoryUrlError> {
        Self::parse_as(address, Layout::Unknown)
    }

    /// Reads an address that comes from a host whose layout of paths is known.
    pub(crate) fn parse_as(address: &str, layout: Layout) -> Result<Self, RepositoryUrlError> {
        if address.len() > MAX_LEN {
            return Err(Kind::TooLong.into());
        }
        let classes = classes(address);
        let is_white = char::is_whitespace;
        if classes & FORBIDDEN != 0 || address.starts_with(is_white) || address.ends_with(is_white)
        {
            return Err(Kind::Character.into());
        }
        let parts = Parts::split(address, classes)?;
        let mut key = String::with_capacity(address.len() + 8);
        parts.push_authority(&mut key)?;
        let path = key.len();
        push_path(&mut key, parts.path, classes & CODED != 0)?;
        if ignores_case(&key[..path]) {
            key[path..].make_ascii_lowercase();
        }
        strip_dot_git(&mut key, path);
        if let Some(azure) = Azure::of(&key[..path]) {
            key = azure.rewrite(&key[path..])?;
        } else if parts.web {
            strip_scm(&mut key, path, layout);
        }
        if key.len() <= path {
            return Err(Kind::NoPath.into());
        }
        Ok(Self(key))
    }

    /// The key, such as `github.com/acme/widget`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without a port.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        }
    }

    /// What stands between the host and the name: an owner, a project, or nested groups such as
    /// `group/subgroup`. Empty where there is only a name.
    pub fn owner(&self) -> &str {
        self.path().rsplit_once('/').map_or("", |(owner, _)| owner)
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        let path = self.path();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// The host, with its port where that counts.
    pub(crate) fn authority(&self) -> &str {
        &self.0[..find(&self.0, b'/').unwrap_or(self.0.len())]
    }

    /// Everything behind the host.
    pub(crate) fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }

    /// Whether the host does not tell upper from lower case in paths.
    pub(crate) fn ignores_case(&self) -> bool {
        ignores_case(self.authority())
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for RepositoryUrl {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What is known of the host that an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing: a path of exactly `scm/project/repository` is taken for Bitbucket Server's.
    Unknown,
    /// It has no `/scm/` of its own.
    #[cfg_attr(not(feature = "event"), allow(dead_code, reason = "only parsers of events know"))]
    Plain,
    /// Bitbucket Server, perhaps below a context path.
    #[cfg_attr(not(feature = "event"), allow(dead_code, reason = "only parsers of events know"))]
    BitbucketServer,
}

/// The error of reading a [`RepositoryUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryUrlError(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TooLong,
    Character,
    NoAddress,
    Scheme,
    Host,
    Port,
    Query,
    Path,
    NoPath,
}

impl From<Kind> for RepositoryUrlError {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl fmt::Display for RepositoryUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::TooLong => "longer than 2048 bytes",
            Kind::Character => {
                "a control character, a backslash or white space around a repository's address"
            }
            Kind::NoAddress => {
                "not a repository's address such as https://host/owner/name or git@host:owner/name"
            }
            Kind::Scheme => "not one of https, http, ssh, git and svn",
            Kind::Host => "not a host",
            Kind::Port => "not a port",
            Kind::Query => "a query or fragment in a repository's address",
            Kind::Path => "a segment that cannot be part of a repository's path",
            Kind::NoPath => "a repository's address without a path",
        })
    }
}

impl std::error::Error for RepositoryUrlError {}

/// An address, cut into pieces that are not yet read.
struct Parts<'a> {
    /// Whether it is one of the web's.
    web: bool,
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn split(address: &'a str, classes: u8) -> Result<Self, RepositoryUrlError> {
        let colon = find(address, b':').ok_or(Kind::NoAddress)?;
        let (scheme, rest) = address.split_at(colon);
        match rest.strip_prefix("://") {
            Some(_) if classes & QUERY != 0 => Err(Kind::Query.into()),
            Some(rest) => Self::split_url(scheme, rest),
            None => Self::split_scp(address, colon),
        }
    }

    fn split_url(scheme: &str, rest: &'a str) -> Result<Self, RepositoryUrlError> {
        let index = SCHEMES.iter().position(|name| scheme.eq_ignore_ascii_case(name));
        let web = index.ok_or(Kind::Scheme)? < 2;
        let (authority, path) = rest.split_at(find(rest, b'/').unwrap_or(rest.len()));
        let (_, host) = split_user(authority)?;
        let end = match host.strip_prefix('[') {
            Some(inner) => inner.find(']').ok_or(Kind::Host)? + 2,
            None => find(host, b':').unwrap_or(host.len()),
        };
        let (host, port) = host.split_at(end);
        let port = match port.strip_prefix(':') {
            Some(port) => port,
            None if port.is_empty() => "",
            None => return Err(Kind::Host.into()),
        };
        Ok(Self { web, host, port, path })
    }

    /// `user@host:path`, where git wants the colon before any slash.
    fn split_scp(address: &'a str, colon: usize) -> Result<Self, RepositoryUrlError> {
        // The first colon is within the brackets where the host is an IPv6 address.
        let colon = match find(&address[..colon], b'[') {
            Some(_) => address.find("]:").ok_or(Kind::Host)? + 1,
            None => colon,
        };
        let (authority, path) = (&address[..colon], &address[colon + 1..]);
        if find(authority, b'/').is_some() {
            return Err(Kind::NoAddress.into());
        }
        let (user, host) = split_user(authority)?;
        // `C:/name` is a path on Windows, `https:/host` a slip, `ext::command` names a helper, and
        // `user:password@host:path` would show a password.
        let first = &path[..find(path, b'/').unwrap_or(path.len())];
        let is_no_host = host.len() == 1 || SCHEMES.iter().any(|s| host.eq_ignore_ascii_case(s));
        if user.is_none() && is_no_host || first.contains('@') || path.starts_with(':') {
            return Err(Kind::NoAddress.into());
        }
        Ok(Self { web: false, host, port: "", path })
    }

    /// Writes `host[:port]`.
    fn push_authority(&self, key: &mut String) -> Result<(), RepositoryUrlError> {
        if let Some(inner) = self.host.strip_prefix('[') {
            let address: Ipv6Addr =
                inner.strip_suffix(']').and_then(|ip| ip.parse().ok()).ok_or(Kind::Host)?;
            key.push_str(&format!("[{address}]"));
        } else {
            let host = self.host.strip_suffix('.').unwrap_or(self.host);
            if host.is_empty() || host.len() > 253 || host.starts_with('-') {
                return Err(Kind::Host.into());
            }
            let mut last = b'.';
            for byte in host.bytes() {
                let is_host = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                if !is_host || byte == b'.' && last == b'.' {
                    return Err(Kind::Host.into());
                }
                last = byte;
            }
            if last == b'.' {
                return Err(Kind::Host.into());
            }
            key.push_str(host);
            key.make_ascii_lowercase();
        }
        let port = match self.port {
            "" => None,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse::<u16>().ok().filter(|&port| port != 0).ok_or(Kind::Port)?)
            }
            _ => return Err(Kind::Port.into()),
        };
        if let Some(usual) = usual_host(key) {
            usual.clone_into(key);
        }
        if let Some(port) = port.filter(|port| self.web && !matches!(port, 80 | 443)) {
            key.push_str(&format!(":{port}"));
        }
        Ok(())
    }
}

/// Cuts `user@` off. Two `@` are read differently by different programs, so they are refused.
fn split_user(authority: &str) -> Result<(Option<&str>, &str), RepositoryUrlError> {
    let Some(at) = find(authority, b'@') else { return Ok((None, authority)) };
    let (user, host) = (&authority[..at], &authority[at + 1..]);
    if find(host, b'@').is_some() { Err(Kind::Host.into()) } else { Ok((Some(user), host)) }
}

/// Where an ASCII character stands. Addresses are short: a plain loop is faster than a search.
fn find(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|b| b == byte)
}

/// Nowhere in an address: a control character, or the backslash, which browsers' rules read as a
/// slash and git's do not.
const FORBIDDEN: u8 = 1;
/// Not in a URL's address of a repository.
const QUERY: u8 = 2;
/// Not in a key as it is. What is, is unreserved, or harmless both in a URL and in a list of
/// patterns.
const CODED: u8 = 4;

/// The classes of each byte.
const CLASSES: [u8; 256] = {
    let mut classes = [CODED; 256];
    let plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~+@=&$();:'";
    let mut n = 0;
    while n < plain.len() {
        classes[plain[n] as usize] = 0;
        n += 1;
    }
    n = 0;
    while n < 0x20 {
        classes[n] |= FORBIDDEN;
        n += 1;
    }
    classes[0x7f] |= FORBIDDEN;
    classes[b'\\' as usize] |= FORBIDDEN;
    classes[b'?' as usize] |= QUERY;
    classes[b'#' as usize] |= QUERY;
    classes
};

/// The classes of all bytes of a text.
fn classes(text: &str) -> u8 {
    text.bytes().fold(0, |classes, byte| classes | CLASSES[usize::from(byte)])
}

fn usual_host(host: &str) -> Option<&'static str> {
    match host {
        "ssh.github.com" => Some("github.com"),
        "altssh.gitlab.com" => Some("gitlab.com"),
        "altssh.bitbucket.org" => Some("bitbucket.org"),
        _ => None,
    }
}

pub(crate) fn ignores_case(authority: &str) -> bool {
    matches!(authority, "github.com" | "gitlab.com" | "bitbucket.org" | "dev.azure.com")
}

/// Writes `/segment` for each segment of a path, in the one percent-encoding; `coded` tells whether
/// there may be something to encode or decode.
fn push_path(key: &mut String, path: &str, coded: bool) -> Result<(), RepositoryUrlError> {
    if !coded && is_plain(path) {
        key.push_str(path);
        return Ok(());
    }
    let mut rest = path;
    loop {
        let end = find(rest, b'/').unwrap_or(rest.len());
        let segment = &rest[..end];
        match segment {
            "" => {}
            "." | ".." => return Err(Kind::Path.into()),
            _ => {
                key.push('/');
                if coded {
                    push_coded(key, segment)?;
                } else {
                    key.push_str(segment);
                }
            }
        }
        if end == rest.len() {
            return Ok(());
        }
        rest = &rest[end + 1..];
    }
}

/// Whether a path begins with a slash, and no segment of it is empty or begins with a dot.
fn is_plain(path: &str) -> bool {
    let (mut last, mut is_plain) = (b'a', path.starts_with('/'));
    for byte in path.bytes() {
        is_plain &= last != b'/' || byte != b'/' && byte != b'.';
        last = byte;
    }
    is_plain && last != b'/'
}

fn push_coded(key: &mut String, segment: &str) -> Result<(), RepositoryUrlError> {
    let start = key.len();
    let mut bytes = segment.bytes();
    while let Some(mut byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next()), digit(bytes.next()));
            byte = high.zip(low).map(|(high, low)| (high << 4 | low) as u8).ok_or(Kind::Path)?;
            if CLASSES[usize::from(byte)] & FORBIDDEN != 0 || byte == b'/' {
                return Err(Kind::Path.into());
            }
        }
        push_encoded(key, byte);
    }
    if matches!(&key[start..], "." | "..") {
        return Err(Kind::Path.into());
    }
    Ok(())
}

/// Writes a byte of a path as it stands in a key.
fn push_encoded(key: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if CLASSES[usize::from(byte)] & CODED == 0 {
        key.push(char::from(byte));
    } else {
        key.push('%');
        key.push(char::from(HEX[usize::from(byte >> 4)]));
        key.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// Cuts `.git` off the end, as often as it is there, so that a key read again is the same key.
fn strip_dot_git(key: &mut String, path: usize) {
    while let Some(rest) = key[path..].strip_suffix(".git") {
        let end = path + rest.strip_suffix('/').unwrap_or(rest).len();
        key.truncate(end);
    }
}

/// Cuts Bitbucket Server's `/scm`, and the context path before it where that is known to be one.
fn strip_scm(key: &mut String, path: usize, layout: Layout) {
    if layout == Layout::Plain || ignores_case(&key[..path]) {
        return;
    }
    let mut slashes = key[path..].rmatch_indices('/').skip(1).map(|(at, _)| path + at);
    let (Some(project), Some(scm)) = (slashes.next(), slashes.next()) else { return };
    if &key[scm..project] == "/scm" && (layout == Layout::BitbucketServer || scm == path) {
        key.replace_range(path..project, "");
    }
}

/// Which of the hosts of Azure DevOps Services an address has.
enum Azure {
    /// `dev.azure.com/organisation/project/_git/repository`
    Web,
    /// `organisation.visualstudio.com/project/_git/repository`, by the former name
    FormerWeb { organisation: String },
    /// `ssh.dev.azure.com:v3/organisation/project/repository`, also by the former name
    Ssh,
}

impl Azure {
    fn of(authority: &str) -> Option<Self> {
        match authority {
            "dev.azure.com" => Some(Self::Web),
            "ssh.dev.azure.com" | "vs-ssh.visualstudio.com" => Some(Self::Ssh),
            _ => {
                let organisation = authority.strip_suffix(".visualstudio.com")?;
                (!organisation.contains('.'))
                    .then(|| Self::FormerWeb { organisation: organisation.to_owned() })
            }
        }
    }

    /// The key for `path`, which begins with a slash and is encoded.
    fn rewrite(&self, path: &str) -> Result<String, RepositoryUrlError> {
        let path = path.to_ascii_lowercase();
        let mut segments = path.split('/').skip(1);
        let organisation = match self {
            Self::FormerWeb { organisation } => organisation,
            Self::Web => segments.next().ok_or(Kind::NoPath)?,
            Self::Ssh => {
                segments.next().filter(|version| *version == "v3").ok_or(Kind::Path)?;
                segments.next().ok_or(Kind::NoPath)?
            }
        };
        let mut rest: Vec<&str> = segments.collect();
        if rest.contains(&"_git") && rest[0] == "defaultcollection" {
            rest.remove(0);
        }
        rest.retain(|segment| !matches!(*segment, "_full" | "_optimized"));
        let (project, repository) = match (self, &rest[..]) {
            (Self::Web | Self::FormerWeb { .. }, ["_git", repository]) => (repository, repository),
            (Self::Web | Self::FormerWeb { .. }, [project, "_git", repository])
            | (Self::Web | Self::Ssh, [project, repository]) => (project, repository),
            _ => return Err(Kind::Path.into()),
        };
        if [project, repository].iter().any(|name| name.starts_with('_')) {
            return Err(Kind::Path.into());
        }
        Ok(format!("dev.azure.com/{organisation}/{project}/{repository}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(address: &str) -> String {
        RepositoryUrl::parse(address).map_or_else(|e| format!("error: {e}"), |url| url.0)
    }

    #[test]
    fn all_forms_of_one_repository_have_one_key() {
        for address in [
            "https://github.com/acme/widget.git",
            "https://github.com/acme/widget",
            "https://github.com/acme/widget/",
            "https://github.com//acme//widget.git/",
            "https://GitHub.com./Acme/Widget",
            "https://github.com:443/acme/widget",
            "http://github.com:80/acme/widget",
            "https://user:secret@github.com/acme/widget",
            "HTTPS://github.com/acme/%77idget%2Egit",
            "git://github.com/acme/widget.git",
            "git://github.com:9418/acme/widget.git",
            "ssh://git@github.com/acme/widget.git",
            "ssh://git@ssh.github.com:443/acme/widget.git",
            "git+ssh://git@github.com/acme/widget.git",
            "svn://github.com/acme/widget",
            "git@github.com:acme/widget.git",
            "git@github.com:/acme/widget.git",
            "github.com:acme/widget",
        ] {
            assert_eq!(key(address), "github.com/acme/widget", "{address}");
        }
    }

    #[test]
    fn what_names_another_repository_has_another_key() {
        let widget = key("https://git.example.com/acme/widget");
        for other in [
            "https://git.example.com/acme/Widget",
            "https://git.example.com/acme/widget2",
            "https://git.example.com/acme/widget.wiki.git",
            "https://git.example.com/acme/tools/widget",
            "https://git.example.com:8443/acme/widget",
            "https://git.example.org/acme/widget",
            "https://git.example.com/acme%20/widget",
        ] {
            assert_ne!(key(other), widget, "{other}");
        }
    }

    #[test]
    fn the_path_keeps_its_case_where_the_host_may_care() {
        assert_eq!(key("https://Git.Example.com/Acme/Widget"), "git.example.com/Acme/Widget");
        assert_eq!(key("git@GitLab.com:Acme/Tools/Widget"), "gitlab.com/acme/tools/widget");
        assert_eq!(key("https://bitbucket.org/Acme/Widget"), "bitbucket.org/acme/widget");
        assert_eq!(key("https://gitlab.example.com/Acme/W"), "gitlab.example.com/Acme/W");
    }

    #[test]
    fn a_port_counts_on_the_web_and_not_over_ssh() {
        assert_eq!(key("http://localhost:3000/acme/widget"), "localhost:3000/acme/widget");
        assert_eq!(key("https://[2001:DB8::1]:3000/a/b"), "[2001:db8::1]:3000/a/b");
        for plain in [
            "ssh://git@git.example.com:2222/acme/widget.git",
            "ssh://git@git.example.com:7999/acme/widget.git",
            "git://git.example.com:9419/acme/widget.git",
            "http://git.example.com:443/acme/widget.git",
            "https://git.example.com:/acme/widget.git",
        ] {
            assert_eq!(key(plain), "git.example.com/acme/widget", "{plain}");
        }
    }

    #[test]
    fn bitbucket_servers_web_and_ssh_addresses_agree() {
        let ssh = key("ssh://git@bitbucket.example.com:7999/prj/widget.git");
        assert_eq!(key("https://bitbucket.example.com/scm/prj/widget.git"), ssh);
        assert_eq!(
            key("https://bitbucket.example.com/scm/~jane/widget.git"),
            key("ssh://git@bitbucket.example.com:7999/~jane/widget.git")
        );
        assert_eq!(
            key("https://bitbucket.example.com/scm/scm/widget.git"),
            key("ssh://git@bitbucket.example.com:7999/scm/widget.git"),
            "a project may be called scm"
        );
        let below = "https://example.com/bitbucket/scm/prj/widget.git";
        let read = RepositoryUrl::parse_as(below, Layout::BitbucketServer).unwrap();
        assert_eq!(read.as_str(), "example.com/prj/widget");
    }

    #[test]
    fn a_group_called_scm_is_not_taken_for_bitbucket_servers_path() {
        for (address, layout) in [
            ("https://gitlab.com/scm/tools/widget.git", Layout::Unknown),
            ("https://git.example.com/scm/tools/widget.git", Layout::Plain),
            ("git@git.example.com:scm/tools/widget.git", Layout::Unknown),
            ("https://git.example.com/acme/scm/tools/widget.git", Layout::Unknown),
            ("https://git.example.com/scm/a/tools/widget.git", Layout::Unknown),
            ("https://git.example.com/scm/widget.git", Layout::BitbucketServer),
        ] {
            let url = RepositoryUrl::parse_as(address, layout).unwrap();
            assert!(url.owner().contains("scm"), "{address} {url}");
        }
    }

    #[test]
    fn all_forms_of_azure_devops_have_one_key() {
        for address in [
            "https://dev.azure.com/Acme/Tools/_git/Widget",
            "https://acme@dev.azure.com/acme/tools/_git/widget",
            "https://dev.azure.com/acme/DefaultCollection/tools/_git/widget",
            "https://dev.azure.com/acme/tools/_git/_optimized/widget",
            "git@ssh.dev.azure.com:v3/acme/Tools/widget",
            "ssh://git@ssh.dev.azure.com:22/v3/acme/tools/widget",
            "https://acme.visualstudio.com/tools/_git/widget",
            "https://acme.visualstudio.com/DefaultCollection/tools/_git/widget",
            "acme@vs-ssh.visualstudio.com:v3/acme/tools/widget",
            "https://dev.azure.com/acme/tools/widget",
        ] {
            assert_eq!(key(address), "dev.azure.com/acme/tools/widget", "{address}");
        }
        assert_eq!(
            key("https://dev.azure.com/acme/_git/widget"),
            "dev.azure.com/acme/widget/widget",
            "a project's first repository has its name"
        );
        assert_eq!(
            key("https://dev.azure.com/acme/My%20Project/_git/my repo"),
            key("git@ssh.dev.azure.com:v3/acme/My Project/my%20repo")
        );
        assert_eq!(
            key("https://tfs.example.com/tfs/DefaultCollection/Tools/_git/Widget"),
            "tfs.example.com/tfs/DefaultCollection/Tools/_git/Widget",
            "a server of one's own keeps its path, which is the same over SSH"
        );
        for not_whole in [
            "https://dev.azure.com/acme",
            "https://dev.azure.com/acme/tools",
            "https://dev.azure.com/acme/tools/_git",
            "https://dev.azure.com/acme/_apis/git/repositories/4bc14d40",
            "git@ssh.dev.azure.com:acme/tools/widget",
            "git@ssh.dev.azure.com:v3/acme/tools",
        ] {
            assert!(RepositoryUrl::parse(not_whole).is_err(), "{not_whole}");
        }
    }

    #[test]
    fn percent_encoding_is_made_uniform() {
        assert_eq!(key("https://h.example/a/b%2bc%7Ed"), "h.example/a/b+c~d");
        assert_eq!(key("https://h.example/a/b,c*!"), "h.example/a/b%2Cc%2A%21");
        assert_eq!(key("https://h.example/a/übung"), "h.example/a/%C3%BCbung");
        assert_eq!(key("https://h.example/a/%c3%bcbung"), "h.example/a/%C3%BCbung");
        assert_eq!(key("https://h.example/a/100%25"), "h.example/a/100%25");
    }

    #[test]
    fn the_pieces_of_a_key_are_host_owner_and_name() {
        let url = RepositoryUrl::parse("http://[::1]:3000/group/sub/widget.git").unwrap();
        assert_eq!((url.host(), url.owner(), url.name()), ("[::1]", "group/sub", "widget"));
        let url = RepositoryUrl::parse("ssh://[::1]/widget").unwrap();
        assert_eq!((url.host(), url.owner(), url.name()), ("[::1]", "", "widget"));
        let url = RepositoryUrl::parse("https://h.example:8443/a/b").unwrap();
        assert_eq!((url.host(), url.owner(), url.name()), ("h.example", "a", "b"));
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for wrong in [
            "",
            " ",
            "widget",
            "repository-origin",
            "github.com/acme/widget",
            "/srv/git/widget.git",
            "./widget",
            "../widget",
            "C:/git/widget",
            "C:\\git\\widget",
            "file:///srv/git/widget.git",
            "ftp://h.example/a/b",
            "ext::sh -c true",
            "https:/github.com/acme/widget",
            "https://",
            "https:///acme/widget",
            "https://github.com",
            "https://github.com/",
            "https://github.com/.git",
            "https://github.com/acme/../victim/widget",
            "https://github.com/acme/%2e%2e/widget",
            "https://github.com/acme/./widget",
            "https://github.com/acme%2Fwidget",
            "https://github.com/acme/widget%00",
            "https://github.com/acme/widget%",
            "https://github.com/acme/widget%zz",
            "https://github.com/acme/widget?x=1",
            "https://github.com/acme/widget#x",
            "https://github.com/acme/widget\n",
            "https://github.com\\@evil.example/acme/widget",
            "https://github.com@evil@example.com/acme/widget",
            "https://git hub.com/acme/widget",
            "https://github..com/acme/widget",
            "https://bücher.example/acme/widget",
            "https://h.example:port/a/b",
            "https://h.example:0/a/b",
            "https://h.example:65536/a/b",
            "https://h.example:+80/a/b",
            "https://[::1/a/b",
            "https://[::g]/a/b",
            "https://[::1]3000/a/b",
            "ssh://-oProxyCommand=x/a/b",
            "user:secret@github.com:acme/widget",
        ] {
            assert!(RepositoryUrl::parse(wrong).is_err(), "{wrong:?}: {}", key(wrong));
        }
        assert!(RepositoryUrl::parse(&format!("https://h.example/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn credentials_are_dropped_and_never_shown() {
        let url = RepositoryUrl::parse("https://jane:s3cret@h.example/a/b").unwrap();
        assert!(!format!("{url} {url:?}").contains("s3cret"));
        for wrong in ["https://jane:s3cret@", "https://jane:s3cret@h.example", "s3cret:/../x"] {
            let error = RepositoryUrl::parse(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{wrong}");
        }
    }

    fn segment() -> impl Strategy<Value = String> {
        "[A-Za-z0-9_][A-Za-z0-9_ +äé-]{0,8}"
            .prop_filter("not one that a host's layout reads", |s| s != "scm" && s.trim() == s)
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_a_key_read_again_is_the_same(
            text in "(https?://|ssh://|git@|HTTP://)?[a-z.:@\\[\\]/%0-9A-F~_é -]{0,40}(\\.git)?/?"
        ) {
            for layout in [Layout::Unknown, Layout::Plain, Layout::BitbucketServer] {
                if let Ok(url) = RepositoryUrl::parse_as(&text, layout) {
                    let again = RepositoryUrl::parse_as(&format!("https://{url}"), Layout::Plain);
                    prop_assert_eq!(again.as_ref(), Ok(&url));
                    prop_assert!(url.as_str().is_ascii());
                    prop_assert!(!url.as_str().contains([' ', ',', '*', '!', '?', '\\']));
                    prop_assert!(!url.host().is_empty() && !url.name().is_empty());
                    prop_assert!(!url.owner().split('/').any(|s| matches!(s, "." | "..")));
                }
            }
        }

        #[test]
        fn no_unicode_makes_it_panic(text in ".{0,60}", layout in 0..3) {
            let layout = [Layout::Unknown, Layout::Plain, Layout::BitbucketServer][layout as usize];
            let _ = RepositoryUrl::parse_as(&text, layout);
        }

        #[test]
        fn all_forms_agree(
            host in prop::sample::select(vec!["github.com", "git.example.com", "Host.Example", "localhost"]),
            path in prop::collection::vec(segment(), 2..5),
            user in prop::sample::select(vec!["", "git@", "jane:secret@"]),
            git in prop::sample::select(vec!["", ".git", ".git/", "/"]),
        ) {
            let path = path.join("/");
            let key = RepositoryUrl::parse(&format!("https://{host}/{path}")).unwrap();
            for form in [
                format!("https://{user}{host}:443/{path}{git}"),
                format!("http://{user}{host}/{path}{git}"),
                format!("ssh://{user}{host}:7999/{path}{git}"),
                format!("git://{host}/{path}{git}"),
                format!("git@{host}:{path}{git}"),
                format!("https://{host}/{}{git}", path.replace(' ', "%20").replace('ä', "%c3%a4")),
            ] {
                prop_assert_eq!(RepositoryUrl::parse(&form), Ok(key.clone()), "{}", form);
            }
        }
    }
}
