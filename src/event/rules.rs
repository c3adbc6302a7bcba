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
/// let events: Events = ["push", "pull_request"].iter().map(|name|
/// name.parse::<Kind>()).collect::<Result<_, _>>()?;
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::{Change, RefChange, RefKind, Repository};
    use super::*;
    use crate::repository::RepositoryUrl;

    fn event(kind: Kind, address: Option<&str>, refs: &[&'static str]) -> Event<'static> {
        let change = |name: &&'static str| RefChange {
            name: Cow::Borrowed(*name),
            kind: RefKind::of(name),
            old: None,
            new: None,
            change: Change::Updated,
        };
        let key = address.map(|address| RepositoryUrl::parse(address).unwrap());
        Event {
            kind,
            name: Cow::Borrowed("x"),
            action: None,
            repository: Repository::new(Some(Cow::Borrowed("acme/widget")), None, None, key),
            refs: refs.iter().map(change).collect(),
        }
    }

    fn rules(repositories: &str, refs: &str) -> Rules {
        Rules {
            events: [Kind::Push, Kind::PullRequest].into_iter().collect(),
            repositories: repositories.parse().unwrap(),
            refs: refs.parse().unwrap(),
        }
    }

    const WIDGET: Option<&str> = Some("https://github.com/acme/widget");

    #[test]
    fn without_rules_every_push_and_nothing_else_is_wanted() {
        let rules = Rules::default();
        let judge = |kind| rules.judge(&event(kind, WIDGET, &["refs/heads/main"]));
        assert_eq!(judge(Kind::Push), Verdict::Wanted);
        assert_eq!(judge(Kind::Ping), Verdict::Pong);
        assert_eq!(judge(Kind::PullRequest), Verdict::Ignored(Rule::Events));
        assert_eq!(judge(Kind::Other), Verdict::Ignored(Rule::Events));
        assert_eq!(rules.judge(&event(Kind::Push, None, &[])), Verdict::Wanted);
    }

    #[test]
    fn kinds_that_are_asked_for_are_wanted() {
        let events: Events = [Kind::PullRequest, Kind::Ping, Kind::Other].into_iter().collect();
        let rules = Rules { events, ..Rules::default() };
        assert_eq!(rules.judge(&event(Kind::PullRequest, WIDGET, &[])), Verdict::Wanted);
        assert_eq!(rules.judge(&event(Kind::Push, WIDGET, &[])), Verdict::Ignored(Rule::Events));
        assert_eq!(rules.judge(&event(Kind::Other, WIDGET, &[])), Verdict::Ignored(Rule::Events));
        assert_eq!("push".parse(), Ok(Kind::Push));
        for wrong in ["Push", "ping", "other", ""] {
            assert!(wrong.parse::<Kind>().unwrap_err().to_string().contains("pull_request"));
        }
    }

    #[test]
    fn a_repository_must_match_by_its_key() {
        let rules = rules("github.com/acme/*,!github.com/acme/secret", "**");
        let judge = |address| rules.judge(&event(Kind::Push, address, &["refs/heads/main"]));
        assert_eq!(judge(WIDGET), Verdict::Wanted);
        assert_eq!(
            judge(Some("git@github.com:acme/secret.git")),
            Verdict::Ignored(Rule::Repositories)
        );
        assert_eq!(
            judge(Some("https://gitlab.com/acme/widget")),
            Verdict::Ignored(Rule::Repositories)
        );
        assert_eq!(judge(None), Verdict::Ignored(Rule::Repositories), "a name alone is no key");
    }

    #[test]
    fn one_wanted_ref_is_enough_and_unknown_ones_pass() {
        let rules = rules("**", "refs/heads/*,!refs/heads/tmp");
        let judge = |refs: &[&'static str]| rules.judge(&event(Kind::Push, WIDGET, refs));
        assert_eq!(judge(&["refs/heads/main"]), Verdict::Wanted);
        assert_eq!(judge(&["refs/tags/v1", "refs/heads/main"]), Verdict::Wanted);
        assert_eq!(judge(&["refs/tags/v1", "refs/heads/tmp"]), Verdict::Ignored(Rule::Refs));
        assert_eq!(judge(&[]), Verdict::Wanted);
        let pull_request = event(Kind::PullRequest, WIDGET, &[]);
        assert_eq!(rules.judge(&pull_request), Verdict::Wanted);
    }
}
