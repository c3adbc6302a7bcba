//! What the bodies of several hosts have in common: how a repository, a ref and an object id look.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::json::{Raw, Reader, keys};
use super::{Change, Event, EventError, Kind, RefChange, RefKind, Repository};
use crate::repository::{Layout, RepositoryUrl};

/// The one value of a header; an empty one is absent.
///
/// Two values are an error: whoever is behind the gate may read the other.
pub(super) fn header<'h>(
    headers: &'h HeaderMap,
    name: &'static HeaderName,
) -> Result<Option<&'h str>, EventError> {
    header_named(headers, name, name.as_str())
}

/// The same for a header that the configuration names; `field` stands for it in errors.
pub(super) fn header_named<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    field: &'static str,
) -> Result<Option<&'h str>, EventError> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value).filter(|value| !value.is_empty())),
        _ => Err(EventError::Malformed { field }),
    }
}

/// The name of an event, which is copied only if it is none of the `known` ones.
pub(super) fn event_name(name: &str, known: &[&'static str]) -> Cow<'static, str> {
    match known.iter().find(|known| **known == name) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.to_owned()),
    }
}

/// Puts an event together.
///
/// A change needs a repository, which stands at `field`. One whose refs are all told and of which
/// none is a branch or tag is another event.
pub(super) fn event<'a>(
    mut kind: Kind,
    name: Cow<'a, str>,
    action: Option<Cow<'a, str>>,
    repository: Option<Repository<'a>>,
    refs: Vec<RefChange<'a>>,
    field: &'static str,
) -> Result<Event<'a>, EventError> {
    if kind == Kind::Push {
        if repository.is_none() {
            return Err(EventError::Malformed { field });
        }
        if !refs.is_empty() && refs.iter().all(|change| change.kind == RefKind::Other) {
            kind = Kind::Other;
        }
    }
    let name = if is_word(&name) { name } else { Cow::Borrowed("") };
    Ok(Event { kind, name, action: action.filter(|a| is_word(a)), repository, refs })
}

/// An object id: of a commit, or of an annotated tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Id<'a> {
    /// Not told, or not as an id.
    #[default]
    Unknown,
    /// Zeros: there is none.
    None,
    /// An id.
    Some(Cow<'a, str>),
}

impl<'a> Id<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, EventError> {
        let Some(text) = reader.text()? else { return Ok(Self::Unknown) };
        // Without early exits the loops are over all bytes at once.
        let bytes = text.as_bytes();
        let is_hex = bytes.iter().fold(true, |is_hex, byte| is_hex & byte.is_ascii_hexdigit());
        if !is_hex || !(7..=64).contains(&bytes.len()) {
            return Ok(Self::Unknown);
        }
        let is_zero = bytes.iter().fold(true, |is_zero, byte| is_zero & (*byte == b'0'));
        Ok(if is_zero { Self::None } else { Self::Some(text) })
    }

    fn into_option(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Some(id) => Some(id),
            Self::None | Self::Unknown => None,
        }
    }
}

/// What is read of the change of one ref.
#[derive(Default)]
pub(super) struct RefFields<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) old: Id<'a>,
    pub(super) new: Id<'a>,
    pub(super) created: bool,
    pub(super) deleted: bool,
    pub(super) forced: bool,
}

impl<'a> RefFields<'a> {
    /// The change; `None` when it cannot be told, so that the refs of the event are unknown. A
    /// short name is completed with `prefix`.
    pub(super) fn change(self, prefix: &'static str) -> Option<RefChange<'a>> {
        let name = full_name(self.name?, prefix)?;
        let kind = RefKind::of(&name);
        let change = match (&self.old, &self.new) {
            _ if self.deleted => Change::Deleted,
            _ if self.created => Change::Created,
            (Id::None, Id::None) => return None,
            (Id::None, _) => Change::Created,
            (_, Id::None) => Change::Deleted,
            _ if self.forced => Change::Forced,
            _ => Change::Updated,
        };
        Some(RefChange {
            name,
            kind,
            old: self.old.into_option(),
            new: self.new.into_option(),
            change,
        })
    }
}

/// The refs of a list of changes. If one of them cannot be told, none is: rules must not drop a
/// push for the refs that happened to be legible.
pub(super) struct RefList<'a> {
    refs: Vec<RefChange<'a>>,
    all: bool,
}

impl<'a> RefList<'a> {
    pub(super) fn new() -> Self {
        Self { refs: Vec::new(), all: true }
    }

    pub(super) fn push(&mut self, change: Option<RefChange<'a>>) {
        match change {
            Some(change) => self.refs.push(change),
            None => self.all = false,
        }
    }

    /// Makes the refs unknown.
    pub(super) fn forget(&mut self) {
        self.all = false;
    }

    pub(super) fn into_refs(self) -> Vec<RefChange<'a>> {
        if self.all { self.refs } else { Vec::new() }
    }
}

/// The full name of a ref, if it can be one at all.
pub(super) fn full_name<'a>(name: Cow<'a, str>, prefix: &'static str) -> Option<Cow<'a, str>> {
    let is_name = name.bytes().fold(true, |is, byte| is & (byte > b' ') & (byte != 0x7f));
    if !(1..=1024).contains(&name.len()) || !is_name {
        return None;
    }
    Some(if name.starts_with("refs/") { name } else { Cow::Owned(format!("{prefix}{name}")) })
}

/// Whether a text can be shown as a name: it is not empty and holds no control character.
pub(super) fn is_word(text: &str) -> bool {
    let len = text.len();
    // Without early exits the loop is over all bytes at once.
    let is_plain =
        |text: &str| text.bytes().fold(true, |is, byte| is & (b' '..0x7f).contains(&byte));
    (1..=1024).contains(&len) && (is_plain(text) || !text.contains(char::is_control))
}

keys! {
    enum RepositoryKey {
        FullName = "full_name",
        PathWithNamespace = "path_with_namespace",
        CloneUrl = "clone_url",
        GitHttpUrl = "git_http_url",
        HttpUrl = "http_url",
        SshUrl = "ssh_url",
        GitSshUrl = "git_ssh_url",
        GitUrl = "git_url",
        HtmlUrl = "html_url",
        WebUrl = "web_url",
        Url = "url",
        SvnUrl = "svn_url",
        Homepage = "homepage",
    }
}

/// What is read of a repository in the shape that GitHub, GitLab, Gitea, Gogs and Gitee have.
#[derive(Default)]
pub(super) struct RepositoryFields<'a> {
    name: Option<Raw<'a>>,
    http: Option<Raw<'a>>,
    ssh: Option<Raw<'a>>,
    git: Option<Raw<'a>>,
    web: Option<Raw<'a>>,
    url: Option<Raw<'a>>,
    svn: Option<Raw<'a>>,
    homepage: Option<Raw<'a>>,
}

impl<'a> RepositoryFields<'a> {
    /// Reads the object at `at`; anything else has no fields.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader<'a>,
        at: &'static str,
    ) -> Result<(), EventError> {
        let fields = self;
        reader.object(at, |key, reader| {
            let field = match key {
                RepositoryKey::FullName | RepositoryKey::PathWithNamespace => &mut fields.name,
                RepositoryKey::CloneUrl | RepositoryKey::GitHttpUrl | RepositoryKey::HttpUrl => {
                    &mut fields.http
                }
                RepositoryKey::SshUrl | RepositoryKey::GitSshUrl => &mut fields.ssh,
                RepositoryKey::GitUrl => &mut fields.git,
                RepositoryKey::HtmlUrl | RepositoryKey::WebUrl => &mut fields.web,
                RepositoryKey::Url => &mut fields.url,
                RepositoryKey::SvnUrl => &mut fields.svn,
                RepositoryKey::Homepage => &mut fields.homepage,
            };
            let text = reader.raw()?.filter(|text| !text.is_empty());
            *field = field.or(text);
            Ok(())
        })?;
        Ok(())
    }

    /// Takes from `other` what is missing here.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            name: self.name.or(other.name),
            http: self.http.or(other.http),
            ssh: self.ssh.or(other.ssh),
            git: self.git.or(other.git),
            web: self.web.or(other.web),
            url: self.url.or(other.url),
            svn: self.svn.or(other.svn),
            homepage: self.homepage.or(other.homepage),
        }
    }

    /// The repository; `None` when there is neither an address nor a name to tell it by.
    pub(super) fn into_repository(self, layout: Layout) -> Option<Repository<'a>> {
        let Self { name, http, ssh, git, web, url, svn, homepage } = self;
        let mut http = http.and_then(Raw::decode);
        let mut key = http.as_deref().and_then(|http| RepositoryUrl::parse_as(http, layout).ok());
        let mut address = None;
        if key.is_none() {
            let others = [ssh, git, web, url, svn, homepage].into_iter().flatten();
            (key, address) = others
                .filter_map(Raw::decode)
                .find_map(|address| {
                    Some((RepositoryUrl::parse_as(&address, layout).ok()?, address))
                })
                .unzip();
        }
        let is_scp = |address: &Cow<'_, str>| !address.contains("://") && address.contains('@');
        let ssh = match ssh.and_then(Raw::decode) {
            None => url.and_then(Raw::decode).filter(is_scp),
            ssh => ssh,
        };
        // Where there is only another address, it is the one to clone from.
        if ssh.is_none() {
            http = http.or(address);
        }
        Repository::new(name.and_then(Raw::decode), http, ssh, key)
    }
}
