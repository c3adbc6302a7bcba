//! Changes of a key file's text that leave all else in it as it is.
//!
//! 1. A change is made in the text, line by line, and not by writing the ring anew: comments, blank
//!    lines, spacing, line ends and the order stay.
//! 2. A key without a name is called by its line. Before lines move, it is given that name, so that
//!    logs and metrics go on calling it so.
//! 3. What comes out is read back: a change that would make a file which is not taken is an error,
//!    and the file stays.

use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::file::{self, KeyFileError};
use super::material::{Key, KeyKind, KeyState, Uses};
use super::{Keyring, generate};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A key file after a rotation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The new text.
    pub text: Secret,
    /// The name of the new key.
    pub new: String,
    /// The name of the key that it replaces.
    pub old: String,
    /// When that one ends.
    pub until: Timestamp,
}

/// Puts a fresh key before an old one, which ends at `until`, or earlier if it was to.
///
/// The new key is of the old one's kind (a plain one in place of `base64:`), and has its uses and
/// repositories: so it is primary wherever the old one was, and both verify until then. `old` names
/// the key; by default it is the first that is active. `name` is that of the new key; by default it
/// is the day of `now`, with a number behind it if that is taken.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
pub fn rotate(
    text: &[u8],
    old: Option<&str>,
    name: Option<&str>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Rotated, EditError> {
    let ring = Keyring::parse(text).map_err(EditError::Before)?;
    let old = match old {
        Some(name) => ring.keys().find(|key| key.name() == name).ok_or(EditError::NoSuchKey)?,
        None => {
            let mut keys = ring.keys();
            keys.find(|key| key.state(now) == KeyState::Active).ok_or(EditError::NoActiveKey)?
        }
    };
    if old.state(now) != KeyState::Active {
        return Err(EditError::NotActive);
    }
    let until = old.until().map_or(until, |earlier| earlier.min(until));
    let name = name.map_or_else(|| free_name(&ring, now), str::to_owned);
    let lines = Lines::of(text)?;
    let at = lines.line_of(old.name()).ok_or(EditError::NoSuchKey)?;

    let mut changed = Zeroizing::new(String::with_capacity(text.len() + 512));
    for (index, line) in lines.0.iter().enumerate() {
        if index < at {
            changed.push_str(&line.content);
        } else if index == at {
            changed.push_str(line.mark());
            new_line(old, &name, line.end, &mut changed)?;
            let named = with_until(&line.named(index + 1), until);
            changed.push_str(&named[line.mark().len()..]);
        } else {
            changed.push_str(&line.named(index + 1));
        }
        changed.push_str(line.end);
    }
    let text = checked(&changed)?;
    Ok(Rotated { text, new: name, old: old.name().into(), until })
}

/// Takes the key of this name out of the file. A comment that says so stays in its place.
///
/// # Errors
///
/// [`EditError`], also where it is the only key: a file without one is not taken, and the gate would
/// go on with the key that was to go.
pub fn revoke(text: &[u8], name: &str, now: Timestamp) -> Result<Secret, EditError> {
    let ring = Keyring::parse(text).map_err(EditError::Before)?;
    let lines = Lines::of(text)?;
    let at = lines.line_of(name).ok_or(EditError::NoSuchKey)?;
    if ring.keys().len() == 1 {
        return Err(EditError::LastKey);
    }
    let mut changed = Zeroizing::new(String::with_capacity(text.len()));
    for (index, line) in lines.0.iter().enumerate() {
        if index == at {
            changed.push_str(line.mark());
            changed.push_str(&format!("# {name} was revoked at {now}"));
        } else {
            changed.push_str(&line.content);
        }
        changed.push_str(line.end);
    }
    checked(&changed)
}

/// What is written must be what is taken.
fn checked(text: &str) -> Result<Secret, EditError> {
    Keyring::parse(text.as_bytes()).map_err(EditError::After)?;
    Ok(Secret::new(text))
}

fn free_name(ring: &Keyring, now: Timestamp) -> String {
    let day = now.to_string();
    let day = day.get(..10).unwrap_or("key");
    let taken = |name: &str| ring.keys().any(|key| key.name() == name);
    let numbered = (2..).map(|number| format!("{day}-{number}"));
    // A ring has fewer keys than there are numbers.
    std::iter::once(day.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

fn new_line(
    old: &Key,
    name: &str,
    end: &str,
    text: &mut Zeroizing<String>,
) -> Result<(), EditError> {
    if !file::is_name(name) {
        return Err(EditError::BadName);
    }
    let random = |_| EditError::Random;
    if old.kind() == KeyKind::SigningToken {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(random)?;
        text.push_str(file::SIGNING_TOKEN);
        text.push_str(&Zeroizing::new(BASE64.encode(&*bytes)));
    } else {
        let key = generate().map_err(random)?;
        text.push_str(std::str::from_utf8(key.expose()).unwrap_or_default());
    }
    text.push_str(&format!(" name={name}"));
    let kind = match old.kind() {
        KeyKind::SigningToken => KeyKind::SigningToken,
        _ => KeyKind::Plain,
    };
    // Said wherever it would be another set otherwise.
    if old.uses() != Uses::of(kind) {
        text.push_str(&format!(" use={}", old.uses()));
    }
    if let Some(repositories) = old.repositories() {
        text.push_str(&format!(" repositories={repositories}"));
    }
    text.push_str(if end.is_empty() { "\n" } else { end });
    Ok(())
}

/// The line with its key ending at `until`, whatever it said of that before.
fn with_until(line: &str, until: Timestamp) -> Zeroizing<String> {
    let option = format!("until={until}");
    let mut changed = Zeroizing::new(line.to_owned());
    let words: Vec<_> = file::words(line).collect();
    let there = words.iter().skip(1).find(|range| line[(*range).clone()].starts_with("until="));
    match (there, words.last()) {
        (Some(range), _) => changed.replace_range(range.clone(), &option),
        (None, Some(last)) => changed.insert_str(last.end, &format!(" {option}")),
        (None, None) => {}
    }
    changed
}

/// A text by its lines, which joined give it back.
struct Lines(Vec<Line>);

struct Line {
    content: Zeroizing<String>,
    /// `\n`, `\r\n`, or nothing at the end of the text.
    end: &'static str,
}

impl Lines {
    fn of(text: &[u8]) -> Result<Self, EditError> {
        // The ring was read from it.
        let text = std::str::from_utf8(text).map_err(|_| EditError::NoSuchKey)?;
        let lines = text.split_inclusive('\n').map(|line| {
            let end = match line {
                _ if line.ends_with("\r\n") => "\r\n",
                _ if line.ends_with('\n') => "\n",
                _ => "",
            };
            Line { content: Zeroizing::new(line[..line.len() - end.len()].to_owned()), end }
        });
        Ok(Self(lines.collect()))
    }

    /// Where the key of this name stands.
    fn line_of(&self, name: &str) -> Option<usize> {
        let is_it = |index: usize, line: &Line| match line.options() {
            Some(Some(own)) => own == name,
            Some(None) => format!("line-{}", index + 1) == name,
            None => false,
        };
        self.0.iter().enumerate().position(|(index, line)| is_it(index, line))
    }
}

impl Line {
    /// The mark that editors of another system put before the first line.
    fn mark(&self) -> &'static str {
        if self.content.starts_with('\u{feff}') { "\u{feff}" } else { "" }
    }

    /// `None` if there is no key; else its name, if it says one.
    fn options(&self) -> Option<Option<&str>> {
        let line = &self.content[self.mark().len()..];
        let mut words = file::words(line).map(|range| &line[range]);
        words.next()?;
        Some(words.find_map(|word| word.strip_prefix("name=")))
    }

    /// The line with the name that its key has now, where it says none.
    fn named(&self, number: usize) -> Zeroizing<String> {
        let mut line = self.content.clone();
        if self.options() == Some(None)
            && let Some(last) = file::words(&self.content).last()
        {
            line.insert_str(last.end, &format!(" name=line-{number}"));
        }
        line
    }
}

/// Why a key file was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditError {
    /// The file is not a good one as it is.
    Before(KeyFileError),
    /// The change would make a file that is not taken.
    After(KeyFileError),
    /// No key has this name.
    NoSuchKey,
    /// No key is active.
    NoActiveKey,
    /// The key is not active.
    NotActive,
    /// It is the only key.
    LastKey,
    /// Not a name.
    BadName,
    /// The operating system gave no random bytes.
    Random,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before(error) => return error.fmt(f),
            Self::After(error) => return write!(f, "not changed, since then {}", error.kind()),
            Self::NoSuchKey => "no key has this name",
            Self::NoActiveKey => "no key is active",
            Self::NotActive => "this key is not active, so nothing would take its place",
            Self::LastKey => "this is the only key of the file; make another one first",
            Self::BadName => return file::KeyFileErrorKind::BadName.fmt(f),
            Self::Random => "the operating system gave no random bytes",
        })
    }
}

impl std::error::Error for EditError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::key::Use;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);
    const DAY: Timestamp = NOW.saturating_add(Duration::from_secs(24 * 3600));

    const FILE: &str = "\
# key                              options
sdf34tGdfgGDG345g3y0045TYG23te37   name=2026-11 use=sign  # the one that GitHub has

U2VwYXJhdGVLZXlGb3JVUkxz           name=urls use=url
whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab until=2030-01-01T00:00:00Z
base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk=
Tm90T3VyUmVhbEtleUJ1dEFuRXhhbXBsZQ repositories=github.com/acme/*\t
";

    fn rotated(text: &str, old: Option<&str>, name: Option<&str>) -> (String, Rotated) {
        let rotated = rotate(text.as_bytes(), old, name, NOW, DAY).unwrap();
        let text = String::from_utf8(rotated.text.expose().to_vec()).unwrap();
        Keyring::parse(text.as_bytes()).unwrap();
        (text, rotated)
    }

    #[test]
    fn a_new_key_stands_before_the_old_one_which_ends() {
        let (text, done) = rotated(FILE, None, None);
        let lines: Vec<_> = text.lines().collect();
        let old: Vec<_> = FILE.lines().collect();
        let until = " until=2026-11-25T10:00:00Z";
        assert_eq!((&*done.old, &*done.new, done.until), ("2026-11", "2026-11-24", DAY));
        assert!(lines[1].ends_with(" name=2026-11-24 use=sign"), "{text}");
        assert_eq!(lines[2], old[1].replace("use=sign", &format!("use=sign{until}")));
        // Names that are line numbers stay, although the lines move.
        assert_eq!(lines[6], format!("{} name=line-6", old[5]));
        assert_eq!(lines[7], format!("{} name=line-7\t", old[6].trim_end()));
        assert_eq!((lines[0], &lines[3..6]), (old[0], &old[2..5]));
        let ring = Keyring::parse(text.as_bytes()).unwrap();
        assert_eq!(ring.primary(Use::Sign, NOW).unwrap().name(), "2026-11-24");
        assert!(ring.signing(NOW).any(|key| key.name() == "2026-11"));
        assert!(!ring.signing(DAY).any(|key| key.name() == "2026-11"));
    }

    #[test]
    fn a_new_key_has_the_kind_the_uses_and_the_repositories_of_the_old_one() {
        for (old, until) in [("urls", DAY), ("gitlab", DAY), ("line-6", DAY), ("line-7", DAY)] {
            let (text, done) = rotated(FILE, Some(old), Some("fresh"));
            let ring = Keyring::parse(text.as_bytes()).unwrap();
            let key = |name: &str| ring.keys().find(|key| key.name() == name).unwrap();
            let (new, old) = (key("fresh"), key(old));
            assert_eq!((new.uses(), new.repositories()), (old.uses(), old.repositories()));
            assert_eq!((new.from(), new.until(), old.until()), (None, None, Some(until)));
            assert_eq!(done.until, until);
            let token = KeyKind::SigningToken;
            assert_eq!(new.kind() == token, old.kind() == token);
            let place = |name: &str| ring.keys().position(|key| key.name() == name);
            assert_eq!(place("fresh").unwrap() + 1, place(old.name()).unwrap());
        }
        // One that was to end earlier still does.
        let earlier = FILE.replace("until=2030-01-01T00:00:00Z", "until=2026-11-24T12:00:00Z");
        let (text, done) = rotated(&earlier, Some("gitlab"), None);
        assert!(text.contains("name=gitlab until=2026-11-24T12:00:00Z\n"), "{text}");
        assert_eq!(done.until, "2026-11-24T12:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_name_that_is_taken_is_counted_on() {
        let (text, _) = rotated("aaaaaaaaaaaaaaaa name=2026-11-24\n", None, None);
        let (_, done) = rotated(&text, None, None);
        assert_eq!(done.new, "2026-11-24-3");
    }

    #[test]
    fn a_revoked_key_is_gone_and_nothing_else() {
        let text = revoke(FILE.as_bytes(), "urls", NOW).unwrap();
        let text = std::str::from_utf8(text.expose()).unwrap();
        let gone = "# urls was revoked at 2026-11-24T10:00:00Z";
        let wanted = FILE.replace(FILE.lines().nth(3).unwrap(), gone);
        assert_eq!(text, wanted);
        let by_line = revoke(FILE.as_bytes(), "line-6", NOW).unwrap();
        assert!(!by_line.expose().windows(7).any(|seven| seven == b"base64:"));
    }

    #[test]
    fn what_cannot_be_changed_is_left() {
        let rotate =
            |text: &str, old, name| rotate(text.as_bytes(), old, name, NOW, DAY).unwrap_err();
        assert_eq!(rotate(FILE, Some("x"), None), EditError::NoSuchKey);
        assert_eq!(rotate(FILE, None, Some("a b")), EditError::BadName);
        assert!(matches!(rotate(FILE, None, Some("urls")), EditError::After(_)));
        assert!(matches!(rotate("x\n", None, None), EditError::Before(_)));
        let ended = "aaaaaaaaaaaaaaaa name=a until=2020-01-01T00:00:00Z\n";
        assert_eq!(rotate(ended, None, None), EditError::NoActiveKey);
        assert_eq!(rotate(ended, Some("a"), None), EditError::NotActive);
        assert_eq!(revoke(FILE.as_bytes(), "x", NOW).unwrap_err(), EditError::NoSuchKey);
        assert_eq!(revoke(ended.as_bytes(), "a", NOW).unwrap_err(), EditError::LastKey);
        let crowded: String =
            (0..8).map(|n| format!("aaaaaaaaaaaaaaaaaaaaaaa{n} name=k{n}\n")).collect();
        let error = rotate(&crowded, None, None);
        assert_eq!(
            error.to_string(),
            "not changed, since then more than 8 signing keys are active at the same time"
        );
    }

    #[test]
    fn a_mark_and_a_missing_line_end_are_kept() {
        let text = "\u{feff}aaaaaaaaaaaaaaaa name=a\r\nbbbbbbbbbbbbbbbb name=b";
        let (changed, _) = rotated(text, Some("b"), Some("c"));
        assert!(changed.starts_with("\u{feff}aaaaaaaaaaaaaaaa name=a\r\n"), "{changed:?}");
        assert!(changed.ends_with("bbbbbbbbbbbbbbbb name=b until=2026-11-25T10:00:00Z"));
        let revoked = revoke(text.as_bytes(), "a", NOW).unwrap();
        assert!(revoked.expose().starts_with("\u{feff}# a was revoked".as_bytes()));
        let (changed, _) = rotated(text, Some("a"), Some("c"));
        assert!(changed.contains("\r\naaaaaaaaaaaaaaaa name=a until="), "{changed:?}");
    }

    /// A line of a key file; keys and names differ by their number.
    fn line(number: usize) -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just(format!("aaaaaaaaaaaaaaaaaaaa{number}")),
            Just(format!(
                "base64:{}",
                BASE64.encode(format!("any secret at all {number}").as_bytes())
            )),
            Just(format!("whsec_{}", BASE64.encode(format!("{number:032}").as_bytes()))),
        ];
        let options = prop::sample::subsequence(
            vec!["use=sign", "until=2099-01-01T00:00:00Z", "repositories=github.com/acme/*"],
            0..=3,
        );
        let blank = prop_oneof![Just(" "), Just("\t"), Just("    ")];
        let tail = prop_oneof![Just(""), Just("  # a comment"), Just(" ")];
        let named = any::<bool>();
        (key, options, blank, tail, named).prop_map(move |(key, options, blank, tail, named)| {
            let name = if named { format!("{blank}name=key-{number}") } else { String::new() };
            let options: String = options.iter().map(|option| format!("{blank}{option}")).collect();
            format!("{key}{name}{options}{tail}")
        })
    }

    fn text() -> impl Strategy<Value = String> {
        let filler =
            prop_oneof![Just(String::new()), Just("# a note".to_owned()), Just("  ".to_owned())];
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        let lines: Vec<_> = (0..6)
            .map(|number| (prop_oneof![line(number).boxed(), filler.clone().boxed()], end.clone()))
            .collect();
        (line(9), lines, any::<bool>()).prop_map(|(first, lines, closed)| {
            let lines: Vec<_> = lines.into_iter().map(|(line, end)| line + end).collect();
            let text = format!("{first}\n{}", lines.concat());
            if closed { text } else { text.trim_end_matches(['\r', '\n']).to_owned() }
        })
    }

    proptest! {
        #[test]
        fn a_rotation_adds_one_key_ends_one_and_changes_no_other(text in text(), pick in any::<prop::sample::Index>()) {
            let before = Keyring::parse(text.as_bytes()).unwrap();
            let old = pick.get(&before.keys().collect::<Vec<_>>()).name().to_owned();
            let (changed, done) = rotated(&text, Some(&old), None);
            let after = Keyring::parse(changed.as_bytes()).unwrap();
            prop_assert_eq!(after.keys().len(), before.keys().len() + 1);
            let others = after.keys().filter(|key| key.name() != done.new);
            for (was, is) in before.keys().zip(others) {
                prop_assert_eq!(was.name(), is.name());
                prop_assert!(was.secret().matches(is.secret().expose()));
                prop_assert_eq!((was.uses(), was.repositories()), (is.uses(), is.repositories()));
                let until = if was.name() == old { Some(DAY) } else { was.until() };
                prop_assert_eq!(is.until(), until);
            }
            // Without the new line, and what was put in, it is the text that was there.
            let new = changed.split_inclusive('\n').find(|line| line.contains(&format!(" name={}", done.new)));
            let mut rest = changed.replacen(new.unwrap(), "", 1);
            for number in 1..=9 {
                rest = rest.replace(&format!(" name=line-{number}"), "");
            }
            let until = format!("until={DAY}");
            let back = if text.matches("until=").count() == changed.matches("until=").count() {
                rest.replace(&until, "until=2099-01-01T00:00:00Z")
            } else {
                rest.replace(&format!(" {until}"), "")
            };
            prop_assert_eq!(back, text);
        }

        #[test]
        fn a_revocation_takes_one_key_and_changes_no_other_line(text in text(), pick in any::<prop::sample::Index>()) {
            let before = Keyring::parse(text.as_bytes()).unwrap();
            let gone = pick.get(&before.keys().collect::<Vec<_>>()).name().to_owned();
            if before.keys().len() > 1 {
                let changed = revoke(text.as_bytes(), &gone, NOW).unwrap();
                let after = Keyring::parse(changed.expose()).unwrap();
                let names: Vec<_> = after.keys().map(|key| key.name()).collect();
                let rest: Vec<_> = before.keys().map(|key| key.name()).filter(|name| *name != gone).collect();
                prop_assert_eq!(names, rest);
                let changed = std::str::from_utf8(changed.expose()).unwrap();
                let differing = text.lines().zip(changed.lines()).filter(|(was, is)| was != is);
                prop_assert_eq!(differing.count(), 1);
                prop_assert_eq!(text.lines().count(), changed.lines().count());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<Vec<u8>>(), name in any::<String>()) {
            let _ = rotate(&text, None, Some(&name), NOW, DAY);
            let _ = revoke(&text, &name, NOW);
        }
    }
}
