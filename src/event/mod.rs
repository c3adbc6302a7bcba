//! What a delivery says: which repository changed, and which of its refs.
//!
//! [`parse`] reads a body by the rules of the host that sent it and gives an [`Event`], which
//! borrows from the body. [`Rules`] judge it. Nothing here proves anything: that is done before, by
//! the schemes.
//!
//! # What is a push
//!
//! [`Kind::Push`] is a change of a branch or tag, whatever the host calls it:
//!
//! | host | events that are one |
//! |---|---|
//! | GitHub | `push`. Its `create` and `delete` come beside a `push` of the same ref, so they are [`Kind::Other`]: one push is one event. |
//! | GitLab | `Push Hook`, `Tag Push Hook`; of a system hook, by the body: `push`, `tag_push`, `repository_update` |
//! | Bitbucket Cloud | `repo:push`, with as many refs as it has changes |
//! | Bitbucket Server | `repo:refs_changed`, `mirror:repo_synchronized` |
//! | Gitea, Forgejo, Gogs | `push`, `create`, `delete`: Gogs tells of tags and deletions only by the last two, Gitea and Forgejo of deleted branches |
//! | Azure DevOps | `git.push` |
//! | Gerrit | `ref-updated`, `batch-ref-updated`; not of `refs/changes/` and the like |
//! | Gitee | `push_hooks`, `tag_push_hooks` |
//! | manual | `x-bbb-webhook-type: push`, or a body that names a repository and no header at all |
//! | generic, Standard Webhooks | what [`ParseOptions`] say |
//!
//! A push without refs is one of *unknown* refs: a mirror that had too many, a trigger made by hand,
//! or a list with an entry that could not be told. Rules over refs let it pass.
//!
//! # What is a ping
//!
//! [`Kind::Ping`] is what a host sends to try the hook, where it can be told from the real thing:
//! GitHub's `ping`, Bitbucket Server's `diagnostics:ping`, Gitee's `X-Gitee-Ping`, an Azure event of the
//! subscription zero (about a repository that does not exist), and a `push` of Gitea, Forgejo or Gogs
//! whose `before` is its `after`: nothing changed, so there is nothing to index, and whoever clicked
//! *Test Delivery* sees the gate's `pong`. The tests of GitLab and Bitbucket Cloud are ordinary events.
//!
//! # What is an error
//!
//! A body that is not one JSON object, a field that stands twice, and a push of which no repository can
//! be told. All else that is absent, null or of another type is treated as absent.

mod azure_devops;
mod binding;
mod bitbucket_cloud;
mod bitbucket_server;
mod blank;
mod detect;
mod generic;
mod gerrit;
mod gitea;
mod gitee;
mod github;
mod gitlab;
mod json;
mod manual;
mod rules;
mod shape;
mod standard_webhooks;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::HeaderName;

pub use binding::{addresses, is_within};
pub use blank::blank_secrets;
pub use detect::detect_in_body;
pub use rules::{Events, Rule, Rules, Verdict};

use crate::provider::Provider;
use crate::repository::RepositoryUrl;

/// Reads what a delivery says.
///
/// `payload` is the JSON, unwrapped from a form where there was one. One pass over it, and a few short
/// allocations: the key of the repository, the list of refs, and each name that has escapes or is not
/// in the body as it is.
///
/// # Errors
///
/// When the body is not what it claims to be; never for what it does not have to have.
pub fn parse<'a>(
    provider: Provider,
    headers: &HeaderMap,
    payload: &'a [u8],
    options: &ParseOptions,
) -> Result<Event<'a>, EventError> {
    match provider {
        Provider::Github => github::parse(headers, payload),
        Provider::Gitlab => gitlab::parse(headers, payload),
        Provider::BitbucketCloud => bitbucket_cloud::parse(headers, payload),
        Provider::BitbucketServer => bitbucket_server::parse(headers, payload),
        Provider::Gitea => gitea::parse(&gitea::GITEA, headers, payload),
        Provider::Forgejo => gitea::parse(&gitea::FORGEJO, headers, payload),
        Provider::Gogs => gitea::parse(&gitea::GOGS, headers, payload),
        Provider::AzureDevops => azure_devops::parse(payload),
        Provider::Gerrit => gerrit::parse(headers, payload),
        Provider::Gitee => gitee::parse(headers, payload),
        Provider::Manual => manual::parse(headers, payload),
        Provider::Generic => generic::parse(headers, payload, options),
        Provider::StandardWebhooks => standard_webhooks::parse(headers, payload, options),
    }
}

/// What a hook's configuration says of events that no host defines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParseOptions {
    /// The header that names the event of a generic sender. Without one the body is asked, and an
    /// event that has no name is a push.
    pub event_header: Option<HeaderName>,
    /// The names of events that are pushes; `push` unless something else is said.
    pub push_events: Vec<String>,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self { event_header: None, push_events: vec!["push".to_owned()] }
    }
}

/// What a delivery says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What it is for the gate.
    pub kind: Kind,
    /// What the host calls it, such as `push`, `Tag Push Hook` or `repo:refs_changed`. Empty where it has
    /// no name.
    pub name: Cow<'a, str>,
    /// What happened to a pull request, such as `opened`.
    pub action: Option<Cow<'a, str>>,
    /// The repository; of a pull request the one that it goes into. Every push has one.
    pub repository: Option<Repository<'a>>,
    /// What changed. Of a push without any, the refs are unknown.
    pub refs: Vec<RefChange<'a>>,
}

impl Event<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            kind: self.kind,
            name: owned(self.name),
            action: self.action.map(owned),
            repository: self.repository.map(Repository::into_owned),
            refs: self.refs.into_iter().map(RefChange::into_owned).collect(),
        }
    }
}

/// What an event is for the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A change of branches or tags.
    Push,
    /// A pull or merge request, or Gerrit's change, was opened, changed or closed.
    PullRequest,
    /// The host tries the hook.
    Ping,
    /// Anything else.
    Other,
}

impl Kind {
    /// The word in configuration, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Ping => "ping",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads the kinds that a hook can want: `push` and `pull_request`.
impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let kinds = [Self::Push, Self::PullRequest];
        kinds.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownKind(()))
    }
}

/// The error of reading a [`Kind`] that a hook cannot want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind(());

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown event, expected push or pull_request")
    }
}

impl std::error::Error for UnknownKind {}

/// A repository, as a delivery tells of it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repository<'a> {
    /// What the host calls it, such as `acme/widget`. Empty where it says nothing.
    pub name: Cow<'a, str>,
    /// The address to clone it from over the web, as the host writes it or, where it writes none,
    /// as its rules make it. Of a manual trigger the origin, whatever it is.
    pub http_url: Option<Cow<'a, str>>,
    /// The address to clone it from over SSH, likewise.
    pub ssh_url: Option<Cow<'a, str>>,
    key: Option<RepositoryUrl>,
}

impl<'a> Repository<'a> {
    /// `None` when nothing is left to tell it by.
    fn new(
        name: Option<Cow<'a, str>>,
        http_url: Option<Cow<'a, str>>,
        ssh_url: Option<Cow<'a, str>>,
        key: Option<RepositoryUrl>,
    ) -> Option<Self> {
        let name = name.filter(|name| shape::is_word(name)).unwrap_or_default();
        let can_be_told = key.is_some() || !name.is_empty();
        can_be_told.then_some(Self { name, http_url, ssh_url, key })
    }

    /// Its identity. `None` where the delivery gives no address that can be read, only a name.
    pub fn key(&self) -> Option<&RepositoryUrl> {
        self.key.as_ref()
    }

    /// The text by which events of one repository are brought together: the key, or else the name.
    /// It is never empty and holds no credentials.
    pub fn identity(&self) -> &str {
        self.key.as_ref().map_or(&*self.name, RepositoryUrl::as_str)
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Repository<'static> {
        Repository {
            name: owned(self.name),
            http_url: self.http_url.map(owned),
            ssh_url: self.ssh_url.map(owned),
            key: self.key,
        }
    }
}

/// Without the addresses, which may hold credentials.
impl fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("name", &self.name)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The change of one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefChange<'a> {
    /// The full name, such as `refs/heads/main`.
    pub name: Cow<'a, str>,
    /// What it is a name of.
    pub kind: RefKind,
    /// The id of the object that it named before. `None` where there was none, or the host does not tell.
    pub old: Option<Cow<'a, str>>,
    /// The id of the object that it names now. `None` where there is none, or the host does not tell.
    pub new: Option<Cow<'a, str>>,
    /// What happened to it.
    pub change: Change,
}

impl RefChange<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> RefChange<'static> {
        RefChange {
            name: owned(self.name),
            kind: self.kind,
            old: self.old.map(owned),
            new: self.new.map(owned),
            change: self.change,
        }
    }
}

/// What a ref is a name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefKind {
    /// `refs/heads/…`
    Branch,
    /// `refs/tags/…`
    Tag,
    /// Anything else, such as `refs/notes/…` or Gerrit's `refs/changes/…`
    Other,
}

impl RefKind {
    /// By the full name.
    fn of(name: &str) -> Self {
        match name.strip_prefix("refs/") {
            Some(rest) if rest.starts_with("heads/") => Self::Branch,
            Some(rest) if rest.starts_with("tags/") => Self::Tag,
            _ => Self::Other,
        }
    }
}

/// What happened to a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It is new.
    Created,
    /// It moved, as far as the host tells forwards.
    Updated,
    /// It is gone.
    Deleted,
    /// It moved to where it does not follow from what it was.
    Forced,
}

/// Why a delivery is not what it claims to be. It names places and never values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The body is not JSON.
    Syntax {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// The body is nested more than 127 levels deep.
    TooDeep {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// The body is JSON, but no object.
    NoObject,
    /// A field stands twice.
    Duplicate {
        /// The path of the object, empty for the whole.
        at: &'static str,
        /// The field's name.
        name: &'static str,
    },
    /// A field or header that the event needs is missing, or is not what it has to be.
    Malformed {
        /// Its path in the body, or the header's name.
        field: &'static str,
    },
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { offset } => write!(f, "not JSON at byte {offset}"),
            Self::TooDeep { offset } => write!(f, "nested too deep at byte {offset}"),
            Self::NoObject => f.write_str("not a JSON object"),
            Self::Duplicate { at: "", name } => write!(f, "`{name}` stands twice"),
            Self::Duplicate { at, name } => write!(f, "`{at}.{name}` stands twice"),
            Self::Malformed { field } => write!(f, "`{field}` is missing or malformed"),
        }
    }
}

impl std::error::Error for EventError {}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
