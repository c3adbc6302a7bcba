//! What operators said of hooks with `hookgate enable` and `disable`: a file in the state folder that stands
//! above the configuration's `enabled`, so that it holds after a restart, too.
//!
//! ```text
//! # What `hookgate enable` and `hookgate disable` said; it stands above `enabled` in the configuration.
//! # hook  position  since
//! default disabled 2026-11-24T17:40:00.123Z
//! end
//! ```
//!
//! 1. **A hook without a line** is as the configuration says. Lines of hooks that the configuration has no
//!    more are kept: such a hook may come back.
//! 2. **The file is whole or it is damaged.** It is written beside its place, brought to the disk and put there
//!    by one rename, with mode 0600, and its last line says that nothing is missing. A gate reads it when it
//!    starts, and from then on writes it alone.
//! 3. **Damage opens nothing.** Of a file that cannot be read, or in which anything is not as it should be, the
//!    good lines hold, and every hook without one is disabled: it may have been. The next change writes that
//!    down, so that the file is whole again and the hooks stay as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::state::{StateError, StateLock};
use crate::time::Timestamp;

/// The file's name in the state folder.
pub const SWITCH_FILE: &str = "switch";

/// A file that an operator's commands made has some 60 bytes a hook.
const MAX_BYTES: u64 = 1 << 20;

const HEAD: &str = "\
# What `hookgate enable` and `hookgate disable` said; it stands above `enabled` in the configuration.
# hook  position  since
";
const END: &str = "end";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchFile {
    positions: BTreeMap<String, Position>,
    damage: Option<String>,
}

/// One line of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    enabled: bool,
    since: Timestamp,
}

/// A hook and its switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSwitch {
    /// The hook's name.
    pub hook: String,
    /// Whether it lets deliveries in.
    pub enabled: bool,
    /// What says so.
    pub origin: SwitchOrigin,
}

/// What says whether a hook is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwitchOrigin {
    /// The configuration.
    Configuration,
    /// An operator, at this time.
    Operator(Timestamp),
    /// Nobody any more: the file is damaged, so the hook is disabled.
    Damaged,
}

/// What an operator wants of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchChange {
    /// The hook; none is all of them.
    pub hook: Option<String>,
    /// What it is to be.
    pub to: SwitchTo,
}

/// What a hook is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchTo {
    /// Enabled, whatever the configuration says.
    Enabled,
    /// Disabled, whatever the configuration says.
    Disabled,
    /// As the configuration says, now and when that changes.
    AsConfigured,
}

impl SwitchFile {
    /// Reads the file of a state folder. One that is missing says nothing.
    pub fn read(folder: &Path) -> Self {
        let damaged = |damage: String| Self { damage: Some(damage), ..Self::default() };
        let mut text = Vec::new();
        let read = File::open(folder.join(SWITCH_FILE))
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
        match read {
            Ok(_) if text.len() as u64 > MAX_BYTES => damaged("it is larger than 1 MiB".into()),
            Ok(_) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::default(),
            Err(error) => damaged(error.to_string()),
        }
    }

    /// What is wrong with the file, if something is. Nothing of its text is repeated.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The switch of a hook of which the configuration says `configured`.
    pub fn switch(&self, hook: &str, configured: bool) -> HookSwitch {
        let (enabled, origin) = match self.positions.get(hook) {
            Some(position) => (position.enabled, SwitchOrigin::Operator(position.since)),
            None if self.damage.is_some() => (false, SwitchOrigin::Damaged),
            None => (configured, SwitchOrigin::Configuration),
        };
        HookSwitch { hook: hook.to_owned(), enabled, origin }
    }

    /// The same with a change. `hooks` are those of the configuration.
    ///
    /// # Errors
    ///
    /// [`SwitchError::UnknownHook`] if there is no such hook.
    pub fn changed(
        &self,
        change: &SwitchChange,
        hooks: &[&str],
        now: Timestamp,
    ) -> Result<Self, SwitchError> {
        let chosen = match &change.hook {
            None => hooks,
            Some(hook) => match hooks.iter().position(|known| known == hook) {
                Some(at) => &hooks[at..=at],
                None => return Err(SwitchError::unknown(hooks)),
            },
        };
        let mut positions = self.positions.clone();
        if self.damage.is_some() {
            let lost = hooks.iter().filter(|hook| !self.positions.contains_key(**hook));
            let disabled = Position { enabled: false, since: now };
            positions.extend(lost.map(|hook| ((*hook).to_owned(), disabled)));
        }
        match change.to {
            SwitchTo::AsConfigured if change.hook.is_none() => positions.clear(),
            SwitchTo::AsConfigured => positions.retain(|hook, _| !chosen.contains(&&**hook)),
            to => {
                let enabled = to == SwitchTo::Enabled;
                for hook in chosen {
                    let position = positions.entry((*hook).to_owned());
                    let position = position.or_insert(Position { enabled, since: now });
                    // What already is so, is so since then.
                    if position.enabled != enabled {
                        *position = Position { enabled, since: now };
                    }
                }
            }
        }
        Ok(Self { positions, damage: None })
    }

    /// Puts the file in its place, or takes it away if there is nothing to say. It blocks until the disk
    /// has it.
    ///
    /// # Errors
    ///
    /// What the operating system says; the old file is then still there.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(SWITCH_FILE);
        if self.positions.is_empty() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else {
            let beside = folder.join(format!(".{SWITCH_FILE}.new"));
            // Of an earlier life; nobody else writes here.
            let _ = fs::remove_file(&beside);
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
        }
        // So that it is so after the power has failed, too.
        File::open(folder)?.sync_all()
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (hook, Position { enabled, since }) in &self.positions {
            let position = if *enabled { "enabled" } else { "disabled" };
            let _ = writeln!(text, "{hook} {position} {since}");
        }
        text + END + "\n"
    }

    fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut twice = Vec::new();
        let mut ended = false;
        for (number, line) in text.lines().enumerate() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let position = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [END] if !ended => {
                    ended = true;
                    continue;
                }
                [hook, position, since] if !ended => Position::parse(position, since)
                    .filter(|_| is_name(hook) && !file.positions.contains_key(hook))
                    .map(|position| (hook, position)),
                _ => None,
            };
            match position {
                Some((hook, position)) => {
                    file.positions.insert(hook.to_owned(), position);
                }
                None => {
                    // Of two lines about one hook, neither can be trusted.
                    twice.extend(words.first().map(|hook| (*hook).to_owned()));
                    let line = number + 1;
                    file.damage
                        .get_or_insert_with(|| format!("line {line} is not as it should be"));
                }
            }
        }
        file.positions.retain(|hook, _| !twice.contains(hook));
        if !ended {
            file.damage.get_or_insert_with(|| "its end is missing".to_owned());
        }
        file
    }
}

/// Whether the configuration could name a hook so.
fn is_name(hook: &str) -> bool {
    hook.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Position {
    fn parse(position: &str, since: &str) -> Option<Self> {
        let enabled = match position {
            "enabled" => true,
            "disabled" => false,
            _ => return None,
        };
        Some(Self { enabled, since: since.parse().ok()? })
    }
}

/// Changes the file of a gate that does not run. `hooks` are those of its configuration, each with what that
/// says of it; the answer is how all of them are now. It blocks.
///
/// # Errors
///
/// [`SwitchError`]; nothing is changed then.
pub fn change_offline(
    folder: &Path,
    change: &SwitchChange,
    hooks: &[(&str, bool)],
    now: Timestamp,
) -> Result<Vec<HookSwitch>, SwitchError> {
    let _lock = StateLock::take(folder).map_err(SwitchError::State)?;
    let names: Vec<_> = hooks.iter().map(|(name, _)| *name).collect();
    let file = SwitchFile::read(folder).changed(change, &names, now)?;
    file.write(folder).map_err(SwitchError::Write)?;
    Ok(hooks.iter().map(|&(name, configured)| file.switch(name, configured)).collect())
}

/// Why a switch is not as an operator wishes.
#[derive(Debug)]
#[non_exhaustive]
pub enum SwitchError {
    /// There is no hook of this name; these there are.
    UnknownHook(Vec<String>),
    /// The state folder cannot be had.
    State(StateError),
    /// The file cannot be written, so nothing was changed.
    Write(io::Error),
    /// The hooks are disabled, but the file cannot be written: after a restart they are as before.
    NotKept(io::Error),
    /// The gate stops.
    Stopping,
}

impl SwitchError {
    fn unknown(hooks: &[&str]) -> Self {
        Self::UnknownHook(hooks.iter().map(|hook| (*hook).to_owned()).collect())
    }
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownHook(hooks) => {
                write!(f, "there is no hook of this name; there is {}", hooks.join(", "))
            }
            Self::State(error) => error.fmt(f),
            Self::Write(error) => {
                write!(f, "nothing is changed, the switch file cannot be written: {error}")
            }
            Self::NotKept(error) => write!(
                f,
                "disabled, but only until a restart: the switch file cannot be written: {error}"
            ),
            Self::Stopping => f.write_str("the gate stops"),
        }
    }
}

impl std::error::Error for SwitchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HOOKS: [&str; 3] = ["a", "b", "c"];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds).unwrap()
    }

    fn change(hook: Option<&str>, to: SwitchTo) -> SwitchChange {
        SwitchChange { hook: hook.map(str::to_owned), to }
    }

    /// Each hook's first letter, capital if enabled, and where that comes from.
    fn told(file: &SwitchFile, configured: bool) -> String {
        let switches = HOOKS.map(|hook| file.switch(hook, configured));
        let told = switches.map(|switch| {
            let origin = match switch.origin {
                SwitchOrigin::Configuration => 'c',
                SwitchOrigin::Operator(_) => 'o',
                SwitchOrigin::Damaged => 'd',
            };
            format!("{}{origin}", if switch.enabled { '+' } else { '-' })
        });
        told.join(" ")
    }

    #[test]
    fn what_is_written_is_read_again_and_only_its_owner_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        assert_eq!(SwitchFile::read(folder), SwitchFile::default());
        let mut file = SwitchFile::default();
        for (n, (hook, to)) in [(Some("b"), SwitchTo::Disabled), (Some("a"), SwitchTo::Enabled)]
            .into_iter()
            .enumerate()
        {
            file = file.changed(&change(hook, to), &HOOKS, at(n as i64)).unwrap();
            file.write(folder).unwrap();
            assert_eq!(SwitchFile::read(folder), file);
        }
        let path = folder.join(SWITCH_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            ["a enabled 2027-01-15T08:00:01Z", "b disabled 2027-01-15T08:00:00Z", "end"]
        );
        assert_eq!((told(&file, true), told(&file, false)), ("+o -o +c".into(), "+o -o -c".into()));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_hook_goes_back_to_the_configuration_and_with_the_last_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let all = SwitchFile::default().changed(&change(None, SwitchTo::Disabled), &HOOKS, at(0));
        let all = all.unwrap();
        assert_eq!(told(&all, true), "-o -o -o");
        let one = all.changed(&change(Some("b"), SwitchTo::AsConfigured), &HOOKS, at(1)).unwrap();
        assert_eq!(told(&one, true), "-o +c -o");
        one.write(dir.path()).unwrap();
        let none = one.changed(&change(None, SwitchTo::AsConfigured), &HOOKS, at(1)).unwrap();
        none.write(dir.path()).unwrap();
        none.write(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_already_is_so_is_so_since_then() {
        let first = SwitchFile::default();
        let first = first.changed(&change(None, SwitchTo::Disabled), &HOOKS, at(0)).unwrap();
        let again = first.changed(&change(Some("a"), SwitchTo::Disabled), &HOOKS, at(9)).unwrap();
        assert_eq!(again, first);
        let other = first.changed(&change(Some("a"), SwitchTo::Enabled), &HOOKS, at(9)).unwrap();
        assert_eq!(other.switch("a", false).origin, SwitchOrigin::Operator(at(9)));
    }

    #[test]
    fn a_hook_that_there_is_not_is_told_with_those_that_there_are() {
        let changed = SwitchFile::default();
        let changed = changed.changed(&change(Some("d"), SwitchTo::Disabled), &HOOKS, at(0));
        let error = changed.unwrap_err().to_string();
        assert_eq!(error, "there is no hook of this name; there is a, b, c");
    }

    #[test]
    fn a_line_of_a_hook_that_is_gone_is_kept() {
        let file = SwitchFile::default();
        let file = file.changed(&change(Some("a"), SwitchTo::Disabled), &HOOKS, at(0)).unwrap();
        let file = file.changed(&change(None, SwitchTo::Enabled), &["b"], at(1)).unwrap();
        assert_eq!(told(&file, true), "-o +o +c");
    }

    #[test]
    fn damage_opens_no_hook_and_leaves_the_good_lines() {
        let good = "a enabled 2026-11-24T17:40:00Z\nb disabled 2026-11-24T17:40:00Z\n";
        let whole = format!("# a comment\n\n{good}end\n");
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            fs::write(dir.path().join(SWITCH_FILE), text).unwrap();
            SwitchFile::read(dir.path())
        };
        assert_eq!(
            (read(whole.as_bytes()).damage(), &*told(&read(whole.as_bytes()), true)),
            (None, "+o -o +c")
        );
        for (text, wanted) in [
            (String::new(), "-d -d -d"),
            (good.to_owned(), "+o -o -d"),
            (good[..40].to_owned(), "+o -d -d"),
            (whole.replace("end", "and"), "+o -o -d"),
            (whole.replace("b disabled", "b disable"), "+o -d -d"),
            (whole.replace("b disabled", "a disabled"), "-d -d -d"),
            (whole.replace("b disabled 2026", "b disabled 2O26"), "+o -d -d"),
            (format!("{whole}c enabled 2026-11-24T17:40:00Z\n"), "+o -o -d"),
            (format!("{whole}end\n"), "+o -o -d"),
            (whole.replace("b d", "b\0 d"), "+o -d -d"),
        ] {
            let file = read(text.as_bytes());
            assert!(file.damage().is_some(), "{text:?}");
            assert_eq!(
                (told(&file, true), told(&file, false)),
                (wanted.into(), wanted.into()),
                "{text:?}"
            );
        }
        assert!(read(&[0xff; 100]).damage().is_some());
        assert_eq!(read(&vec![b'#'; 2 << 20]).damage(), Some("it is larger than 1 MiB"));
        fs::remove_file(dir.path().join(SWITCH_FILE)).unwrap();
        fs::create_dir(dir.path().join(SWITCH_FILE)).unwrap();
        assert_eq!(told(&SwitchFile::read(dir.path()), true), "-d -d -d");
    }

    #[test]
    fn a_change_of_a_damaged_file_makes_it_whole_and_leaves_the_others_disabled() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SWITCH_FILE), "a enabled 2026-11-24T17:40:00Z\n").unwrap();
        let damaged = SwitchFile::read(dir.path());
        assert_eq!(told(&damaged, true), "+o -d -d");
        let file = damaged.changed(&change(Some("b"), SwitchTo::Enabled), &HOOKS, at(0)).unwrap();
        assert_eq!((told(&file, true), file.damage()), ("+o +o -o".into(), None));
        file.write(dir.path()).unwrap();
        assert_eq!(SwitchFile::read(dir.path()), file);
        let all = damaged.changed(&change(None, SwitchTo::AsConfigured), &HOOKS, at(0)).unwrap();
        assert_eq!(told(&all, true), "+c +c +c");
    }

    #[test]
    fn a_file_is_changed_only_while_no_gate_has_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = [("a", true), ("b", false)];
        let disable = change(Some("a"), SwitchTo::Disabled);
        let lock = StateLock::take(dir.path()).unwrap();
        let refused = change_offline(dir.path(), &disable, &hooks, at(0)).unwrap_err();
        assert!(matches!(refused, SwitchError::State(StateError::InUse(_))), "{refused}");
        assert!(!dir.path().join(SWITCH_FILE).exists());
        drop(lock);
        let switches = change_offline(dir.path(), &disable, &hooks, at(0)).unwrap();
        assert_eq!(switches[0].origin, SwitchOrigin::Operator(at(0)));
        assert_eq!(
            switches[1],
            HookSwitch { hook: "b".into(), enabled: false, origin: SwitchOrigin::Configuration }
        );
        assert_eq!(SwitchFile::read(dir.path()).switch("a", true), switches[0]);
    }
}
