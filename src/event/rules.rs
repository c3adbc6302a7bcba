//! Whether an event is wanted.

use std::fmt;

use super::{Event, Kind};
use crate::repository::{Patterns, RefPatterns};

/// What a hook wants to come through.
///
/// The default is every push of every repository.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rules {
    /// Which events.
    pub events: Events,
    /// Of which repositories.
    pub repositories: Patterns,
    /// Of which refs. Says nothing of pull requests.
    pub refs: RefPatterns,
}

impl Rules {
    /// What becomes of an event that is authentic.
    ///
    /// 1. A ping is answered by the gate.
    /// 2. Its kind must be wanted.
    /// 3. Its repository must match. One that is known only by a name matches no list but the
    ///    empty one.
    /// 4. One of the refs of a push must match. Unknown refs pass: a push too many costs less than
    ///    one that is lost.
    pub fn judge(&self, event: &Event<'_>) -> Verdict {
        match event.kind {
            Kind::Ping => return Verdict::Pong,
            kind if !self.events.contains(kind) => return Verdict::Ignored(Rule::Events),
            _ => {}
        }
        if !self.repositories.is_empty() {
            let key = event.repository.as_ref().and_then(|repository| repository.key());
            if !key.is_some_and(|key| self.repositories.matches(key)) {
                return Verdict::Ignored(Rule::Repositories);
            }
        }
        if event.kind == Kind::Push
            && !event.refs.is_empty()
            && !event.refs.iter().any(|change| self.refs.matches(&change.name))
        {
            return Verdict::Ignored(Rule::Refs);
        }
        Verdict::Wanted
    }
}

/// The kinds of events that a hook wants.
///
/// ```
/// use hookgate::event::{Events, Kind};
///
/// let events: Events = ["push", "pull_request"].iter().map(|name| name.parse::<Kind>()).collect::<Result<_, _>>()?;
/// assert!(events.contains(Kind::PullRequest));
/// # Ok::<(), hookgate::event::UnknownKind>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    push: bool,
    pull_request: bool,
}

/// Pushes.
impl Default for Events {
    fn default() -> Self {
        Self { push: true, pull_request: false }
    }
}

impl Events {
    /// Whether events of this kind are wanted; of pings and others never.
    pub const fn contains(self, kind: Kind) -> bool {
        match kind {
            Kind::Push => self.push,
            Kind::PullRequest => self.pull_request,
            Kind::Ping | Kind::Other => false,
        }
    }
}

/// Kinds that nobody can want add nothing.
impl FromIterator<Kind> for Events {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        let mut events = Self { push: false, pull_request: false };
        for kind in kinds {
            events.push |= kind == Kind::Push;
            events.pull_request |= kind == Kind::PullRequest;
        }
        events
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It comes through.
    Wanted,
    /// The gate answers it itself.
    Pong,
    /// It does not come through, for this rule.
    Ignored(Rule),
}

/// A rule by which an event is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The kind of the event.
    Events,
    /// The repository.
    Repositories,
    /// The refs.
    Refs,
}

impl Rule {
    /// Its name in configuration, answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Repositories => "repositories",
            Self::Refs => "refs",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
