//! Real files in temporary folders, changed in all the ways in which files are changed.
//!
//! Each is tried four times side by side: with notifications and never a look, without
//! notifications, with looks at the stamps alone, and as it is shipped. So none hides a fault of
//! another.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// What is promised of every change.
const IN_FORCE: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_secs(3600);
const MAX: u64 = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Way {
    Notifications,
    Looks,
    Stamps,
    Both,
}

impl Way {
    const ALL: [Self; 4] = [Self::Notifications, Self::Looks, Self::Stamps, Self::Both];

    fn watcher(self) -> Watcher {
        let watcher = match self {
            Self::Notifications => {
                Watcher::start(true, Pace { look: NEVER, full: NEVER, ..Pace::DEFAULT })
            }
            Self::Looks => Watcher::start(false, Pace::DEFAULT),
            Self::Stamps => {
                let pace = Pace { restless: Duration::ZERO, full: NEVER, ..Pace::DEFAULT };
                Watcher::start(false, pace)
            }
            Self::Both => Watcher::spawn(),
        }
        .unwrap();
        assert_eq!(watcher.is_polling(), matches!(self, Self::Looks | Self::Stamps));
        watcher
    }
}

/// Runs a scenario in each way, in a folder of its own.
fn in_each_way(scenario: impl Fn(Way, &Path) + Sync) {
    thread::scope(|scope| {
        for way in Way::ALL {
            let scenario = &scenario;
            thread::Builder::new()
                .name(format!("{way:?}"))
                .spawn_scoped(scope, move || {
                    let dir = tempfile::tempdir().unwrap();
                    scenario(way, &dir.path().canonicalize().unwrap());
                })
                .unwrap();
        }
    });
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    at: Instant,
    about: Result<String, ReadErrorKind>,
    mode: u32,
    detached: bool,
    confirmed: bool,
    take: Take,
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    more: Condvar,
}

impl Log {
    fn wait_for(&self, what: &str, found: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let (asked, timeout) =
            self.more.wait_timeout_while(asked, IN_FORCE, |asked| !found(asked)).unwrap();
        let way = thread::current();
        assert!(!timeout.timed_out(), "{:?}: {what} not seen in 2 s; {asked:#?}", way.name());
        asked.clone()
    }
}

/// Follows one file. Content without a final newline is suspicious, and taken when confirmed; an
/// empty file is refused.
struct Follower {
    log: Arc<Log>,
    guard: WatchGuard,
}

impl Follower {
    fn new(watcher: &Watcher, path: &Path) -> Self {
        let log = Arc::new(Log::default());
        let guard = watcher.watch(path, MAX, None, {
            let log = Arc::clone(&log);
            move |reading| {
                let content = reading.content();
                let take = match content {
                    Ok(content) if content.bytes().ends_with(b"\n") => Take::Taken,
                    _ if !reading.is_confirmed() => Take::Suspicious,
                    Ok(content) if !content.bytes().is_empty() => Take::Taken,
                    _ => Take::Refused,
                };
                log.asked.lock().unwrap().push(Asked {
                    at: Instant::now(),
                    about: content
                        .map(|content| String::from_utf8(content.bytes().to_vec()).unwrap())
                        .map_err(ReadError::kind),
                    mode: content.map_or(0, FileContent::mode),
                    detached: content.is_ok_and(FileContent::is_detached),
                    confirmed: reading.is_confirmed(),
                    take,
                });
                log.more.notify_all();
                take
            }
        });
        Self { log, guard }
    }

    fn count(&self) -> usize {
        self.log.asked.lock().unwrap().len()
    }

    fn wait_for(&self, what: &str, found: impl Fn(&Asked) -> bool) -> Asked {
        let is_last = |asked: &[Asked]| asked.last().is_some_and(&found);
        self.log.wait_for(what, is_last).last().unwrap().clone()
    }

    fn expect_taken(&self, text: &str) -> Asked {
        self.wait_for(text, |asked| asked.take == Take::Taken && asked.about.as_deref() == Ok(text))
    }

    fn expect_error(&self, kind: ReadErrorKind) -> Asked {
        let asked = self.wait_for(&format!("{kind:?}"), |asked| asked.about == Err(kind));
        assert!(asked.confirmed, "{asked:?}");
        asked
    }
}

fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

/// A volume as Kubernetes lays it out, and how it exchanges it.
fn swap_volume(volume: &Path, name: &str, text: &str) {
    let data = volume.join("..data");
    let old = fs::read_link(&data).ok();
    let new = format!("..{name}");
    fs::create_dir(volume.join(&new)).unwrap();
    fs::write(volume.join(&new).join("keys"), text).unwrap();
    symlink(&new, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), &data).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    } else {
        symlink("..data/keys", volume.join("keys")).unwrap();
    }
}

// === the ways to change a file ===

#[test]
fn a_write_in_place_is_seen() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        fs::write(&path, "two\n").unwrap();
        follower.expect_taken("two\n");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"three\n").unwrap();
        follower.expect_taken("two\nthree\n");
    });
}

#[test]
fn a_file_replaced_by_rename_is_seen_again_and_again() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        replace(&path, "two\n");
        follower.expect_taken("two\n");
        replace(&path, "three\n");
        follower.expect_taken("three\n");
        fs::write(&path, "four\n").unwrap();
        follower.expect_taken("four\n");
    });
}

#[test]
fn a_file_moved_to_a_backup_and_made_anew_is_seen() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        for text in ["two\n", "three\n"] {
            fs::rename(&path, dir.join("keys~")).unwrap();
            fs::write(&path, text).unwrap();
            fs::remove_file(dir.join("keys~")).unwrap();
            follower.expect_taken(text);
        }
        let asked = follower.log.asked.lock().unwrap();
        assert!(asked.iter().all(|asked| asked.about.is_ok()), "the gap was told: {asked:#?}");
    });
}

#[test]
fn a_kubernetes_volume_swapped_many_times_ends_with_the_last() {
    in_each_way(|way, dir| {
        swap_volume(dir, "0", "0\n");
        let follower = Follower::new(&way.watcher(), &dir.join("keys"));
        follower.expect_taken("0\n");
        for round in 1..=3 {
            swap_volume(dir, &round.to_string(), &format!("{round}\n"));
            follower.expect_taken(&format!("{round}\n"));
        }
        for round in 4..=200 {
            swap_volume(dir, &round.to_string(), &format!("{round}\n"));
        }
        follower.expect_taken("200\n");
        // And it is still followed into the last folder.
        fs::write(dir.join("..200/keys"), "in place\n").unwrap();
        follower.expect_taken("in place\n");
    });
}

#[test]
fn a_folder_deleted_and_made_again_is_followed() {
    in_each_way(|way, dir| {
        let folder = dir.join("folder");
        let path = folder.join("keys");
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        // At once, so that the inode may be the same again.
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "two\n").unwrap();
        follower.expect_taken("two\n");
        fs::write(&path, "three\n").unwrap();
        follower.expect_taken("three\n");
        // And with a gap that is told.
        fs::remove_dir_all(&folder).unwrap();
        follower.expect_error(ReadErrorKind::Missing);
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "three\n").unwrap();
        follower.expect_taken("three\n");
    });
}

#[test]
fn a_folder_renamed_away_and_made_again_is_followed() {
    in_each_way(|way, dir| {
        let folder = dir.join("folder");
        let path = folder.join("keys");
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        for (away, text) in [("away1", "two\n"), ("away2", "three\n")] {
            fs::rename(&folder, dir.join(away)).unwrap();
            fs::create_dir(&folder).unwrap();
            fs::write(&path, text).unwrap();
            follower.expect_taken(text);
        }
        // The old one is of no interest any more.
        fs::write(dir.join("away2/keys"), "old\n").unwrap();
        fs::write(&path, "four\n").unwrap();
        follower.expect_taken("four\n");
    });
}

#[test]
fn a_linked_folder_that_is_flipped_is_followed() {
    in_each_way(|way, dir| {
        for release in ["r1", "r2"] {
            fs::create_dir_all(dir.join(release).join("conf")).unwrap();
            fs::write(dir.join(release).join("conf/keys"), format!("{release}\n")).unwrap();
        }
        let current = dir.join("current");
        symlink("r1", &current).unwrap();
        let follower = Follower::new(&way.watcher(), &current.join("conf/keys"));
        follower.expect_taken("r1\n");
        for release in ["r2", "r1", "r2"] {
            symlink(release, dir.join("tmp")).unwrap();
            fs::rename(dir.join("tmp"), &current).unwrap();
            follower.expect_taken(&format!("{release}\n"));
        }
        fs::write(dir.join("r2/conf/keys"), "edited\n").unwrap();
        follower.expect_taken("edited\n");
    });
}

#[test]
fn a_linked_file_is_followed_to_its_target() {
    in_each_way(|way, dir| {
        fs::create_dir(dir.join("real")).unwrap();
        fs::create_dir(dir.join("links")).unwrap();
        let target = dir.join("real/keys");
        fs::write(&target, "one\n").unwrap();
        // Two links, one after the other, in folders of their own.
        symlink(&target, dir.join("links/keys")).unwrap();
        symlink("links/keys", dir.join("keys")).unwrap();
        let follower = Follower::new(&way.watcher(), &dir.join("keys"));
        follower.expect_taken("one\n");
        fs::write(&target, "two\n").unwrap();
        follower.expect_taken("two\n");
        replace(&target, "three\n");
        follower.expect_taken("three\n");
        replace(&target, "four\n");
        follower.expect_taken("four\n");
        // The link in the middle leads elsewhere.
        fs::write(dir.join("other"), "five\n").unwrap();
        fs::remove_file(dir.join("links/keys")).unwrap();
        symlink("../other", dir.join("links/keys")).unwrap();
        follower.expect_taken("five\n");
        fs::write(dir.join("other"), "six\n").unwrap();
        follower.expect_taken("six\n");
    });
}

#[test]
fn the_same_length_with_the_old_mtime_is_seen() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(b"two\n").unwrap();
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
        follower.expect_taken("two\n");
    });
}

// === what may be half of a change ===

#[test]
fn half_a_file_is_not_taken_when_the_rest_follows() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"the first half").unwrap();
        let first = follower.wait_for("the half", |asked| asked.take == Take::Suspicious);
        assert!(!first.confirmed);
        file.write_all(b", the rest\n").unwrap();
        let written = first.at.elapsed();
        follower.expect_taken("the first half, the rest\n");
        // Unless this test itself was held up, the half never came to a second read.
        if written < Pace::DEFAULT.confirm {
            let asked = follower.log.asked.lock().unwrap();
            let half = asked.iter().find(|asked| {
                asked.take == Take::Taken && asked.about.as_deref() == Ok("the first half")
            });
            assert_eq!(half, None);
        }
    });
}

#[test]
fn what_stays_as_it_is_gets_a_second_reading() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "no newline").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        let second = follower.expect_taken("no newline");
        assert!(second.confirmed);
        let asked = follower.log.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 2);
        assert_eq!((asked[0].confirmed, asked[0].take), (false, Take::Suspicious));
        assert!(second.at - asked[0].at >= Duration::from_millis(200), "{asked:#?}");
    });
}

#[test]
fn an_empty_file_is_told_and_what_follows_is_taken() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_taken("one\n");
        File::create(&path).unwrap();
        let empty = follower.wait_for("the empty file", |asked| asked.take == Take::Refused);
        assert_eq!(empty.about, Ok(String::new()));
        assert!(empty.confirmed);
        fs::write(&path, "one\n").unwrap();
        follower.expect_taken("one\n");
    });
}

#[test]
fn a_file_that_is_missing_at_first_is_seen_when_it_comes() {
    in_each_way(|way, dir| {
        let path = dir.join("not/yet/keys");
        let follower = Follower::new(&way.watcher(), &path);
        follower.expect_error(ReadErrorKind::Missing);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "one\n").unwrap();
        follower.expect_taken("one\n");
        fs::remove_file(&path).unwrap();
        follower.expect_error(ReadErrorKind::Missing);
        fs::write(&path, "two\n").unwrap();
        follower.expect_taken("two\n");
    });
}

#[test]
fn a_folder_a_pipe_or_too_much_in_its_place_is_an_error_and_blocks_nothing() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let watcher = way.watcher();
        let follower = Follower::new(&watcher, &path);
        follower.expect_taken("one\n");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        follower.expect_error(ReadErrorKind::NotRegular);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "two\n").unwrap();
        follower.expect_taken("two\n");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        follower.expect_error(ReadErrorKind::NotRegular);
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'x'; 64 * 1024 + 1]).unwrap();
        follower.expect_error(ReadErrorKind::TooLarge { max_bytes: MAX });
        fs::write(&path, "three\n").unwrap();
        follower.expect_taken("three\n");
    });
}

// === what else is told, and what is not ===

#[test]
fn a_changed_mode_is_told_and_a_touched_file_is_not() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        assert_eq!(follower.expect_taken("one\n").mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        follower.wait_for("the mode", |asked| asked.mode == 0o644);
        let before = follower.count();
        replace(&path, "one\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        // A second file shows when the change must have been seen.
        let other = dir.join("other");
        let watcher = &follower.guard.watcher;
        let second = Follower::new(watcher, &other);
        second.expect_error(ReadErrorKind::Missing);
        fs::write(&other, "seen\n").unwrap();
        second.expect_taken("seen\n");
        assert_eq!(follower.count(), before);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_pinned_to_a_removed_file_is_told_once() {
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, "one\n").unwrap();
    let pin = File::open(&path).unwrap();
    let pinned = PathBuf::from(format!("/proc/self/fd/{}", pin.as_raw_fd()));
    let follower = Follower::new(&Way::Looks.watcher(), &pinned);
    assert!(!follower.expect_taken("one\n").detached);
    replace(&path, "two\n");
    let asked = follower.wait_for("the removal", |asked| asked.detached);
    assert_eq!((asked.about, asked.confirmed), (Ok("one\n".to_owned()), true));
    assert_eq!(follower.count(), 2);
}

#[test]
fn what_is_known_already_is_not_told_and_the_next_is() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "one\n").unwrap();
        let (sender, told) = mpsc::channel();
        let known = read(&path, MAX).unwrap();
        let _guard = way.watcher().watch(&path, MAX, Some(&known), move |reading| {
            sender.send(reading.content().unwrap().bytes().to_vec()).unwrap();
            Take::Taken
        });
        replace(&path, "two\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(known.mode())).unwrap();
        assert_eq!(told.recv_timeout(IN_FORCE).unwrap(), b"two\n");
    });
}

#[test]
fn reading_does_not_lead_to_reading() {
    use notify::Watcher as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one\n").unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let mut counter = notify::recommended_watcher({
        let opened = Arc::clone(&opened);
        move |event: notify::Result<notify::Event>| {
            let kind = event.unwrap().kind;
            if matches!(kind, notify::EventKind::Access(notify::event::AccessKind::Open(_))) {
                opened.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .unwrap();
    counter.watch(dir.path(), notify::RecursiveMode::NonRecursive).unwrap();

    let follower = Follower::new(&Way::Notifications.watcher(), &path);
    follower.expect_taken("one\n");
    file.write_all(b"two\n").unwrap();
    follower.expect_taken("one\ntwo\n");
    // A loop would go round several times in this while.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(follower.count(), 2);
    let opened = opened.load(Ordering::Relaxed);
    assert!((2..=3).contains(&opened), "opened {opened} times for two contents");
}

#[test]
fn a_check_comes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, "one\n").unwrap();
    // Nothing else would ever see a change.
    let pace = Pace { look: NEVER, quiet: NEVER, longest: NEVER, ..Pace::DEFAULT };
    let watcher = Watcher::start(false, pace).unwrap();
    let follower = Follower::new(&watcher, &path);
    follower.expect_taken("one\n");
    fs::write(&path, "two\n").unwrap();
    watcher.check_now();
    follower.expect_taken("two\n");
    // Half a file waits for its second read even so.
    fs::write(&path, "three").unwrap();
    watcher.check_now();
    assert!(follower.expect_taken("three").confirmed);
}

#[test]
fn who_waits_for_a_check_is_told_when_all_is_taken_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("keys"), dir.path().join("other"));
    fs::write(&path, "one\n").unwrap();
    fs::write(&other, "more\n").unwrap();
    let pace = Pace { look: NEVER, quiet: NEVER, longest: NEVER, ..Pace::DEFAULT };
    let watcher = Watcher::start(false, pace).unwrap();
    let (taken, also_taken) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicUsize::new(0)));
    let followed = Arc::new(Mutex::new(None));
    let guard = watcher.watch(&path, MAX, None, {
        let (taken, also_taken) = (taken.clone(), also_taken.clone());
        let (followed, watcher) = (followed.clone(), watcher.clone());
        move |reading: Reading<'_>| {
            let text = String::from_utf8_lossy(reading.content().unwrap().bytes()).into_owned();
            if !text.ends_with('\n') && !reading.is_confirmed() {
                return Take::Suspicious;
            }
            if text == "three" {
                // A file that names another one: that is read too.
                let also_taken = also_taken.clone();
                let guard = watcher.watch(&other, MAX, None, move |_| {
                    also_taken.fetch_add(1, Ordering::Relaxed);
                    Take::Taken
                });
                *followed.lock().unwrap() = Some(guard);
            }
            *taken.lock().unwrap() = text;
            Take::Taken
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let check = || {
        let checked = watcher.check_and_wait();
        runtime.block_on(async { tokio::time::timeout(IN_FORCE, checked).await.unwrap() });
        taken.lock().unwrap().clone()
    };
    assert_eq!(check(), "one\n");
    fs::write(&path, "two\n").unwrap();
    assert_eq!(check(), "two\n");
    // Half a file takes two reads.
    fs::write(&path, "three").unwrap();
    assert_eq!(check(), "three");
    assert_eq!(also_taken.load(Ordering::Relaxed), 1);
    assert_eq!(check(), "three");
    drop((guard, followed.lock().unwrap().take()));
}

// === readers and handles ===

#[test]
fn a_reader_that_panics_harms_neither_the_others_nor_its_next_content() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (dir.path().join("bad"), dir.path().join("good"));
    fs::write(&bad, "panic\n").unwrap();
    fs::write(&good, "one\n").unwrap();
    let watcher = Way::Both.watcher();
    let (sender, told) = mpsc::channel();
    let _guard = watcher.watch(&bad, MAX, None, move |reading| {
        let bytes = reading.content().unwrap().bytes().to_vec();
        sender.send(bytes.clone()).unwrap();
        if bytes == b"panic\n" {
            // As a panic, but without a message among the test's output.
            std::panic::resume_unwind(Box::new("as planned"));
        }
        Take::Taken
    });
    assert_eq!(told.recv_timeout(IN_FORCE).unwrap(), b"panic\n");
    let follower = Follower::new(&watcher, &good);
    follower.expect_taken("one\n");
    fs::write(&good, "two\n").unwrap();
    follower.expect_taken("two\n");
    assert!(told.try_recv().is_err(), "asked again about what made it panic");
    fs::write(&bad, "well\n").unwrap();
    assert_eq!(told.recv_timeout(IN_FORCE).unwrap(), b"well\n");
}

#[test]
fn a_dropped_guard_ends_the_calls_and_drops_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::write(&first, "one\n").unwrap();
    fs::write(&second, "one\n").unwrap();
    let watcher = Way::Both.watcher();
    let (stays, goes) = (Follower::new(&watcher, &first), Follower::new(&watcher, &second));
    stays.expect_taken("one\n");
    goes.expect_taken("one\n");
    let Follower { log, guard } = goes;
    drop(guard);
    fs::write(&second, "two\n").unwrap();
    fs::write(&first, "two\n").unwrap();
    stays.expect_taken("two\n");
    assert_eq!(log.asked.lock().unwrap().len(), 1);
    assert_eq!(Arc::strong_count(&log), 1);
}

#[test]
fn the_last_handle_ends_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Way::Both.watcher();
    let follower = Follower::new(&watcher, &dir.path().join("keys"));
    drop(watcher.clone());
    drop(watcher);
    // The guard alone keeps it running.
    follower.expect_error(ReadErrorKind::Missing);
    let Follower { log, guard } = follower;
    let shared = Arc::downgrade(&guard.watcher.handle.shared);
    drop(guard);
    assert_eq!(Arc::strong_count(&log), 1);
    // `notify` ends its thread without waiting for it.
    let deadline = Instant::now() + IN_FORCE;
    while shared.strong_count() > 0 {
        assert!(Instant::now() < deadline, "something still runs");
        thread::yield_now();
    }
}

#[test]
fn a_reader_may_own_the_last_handle() {
    /// Sends, when it is dropped, whether that was due to a panic.
    struct Witness(mpsc::Sender<bool>);
    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send(thread::panicking());
        }
    }
    /// Dropped in the order of its fields.
    struct Owner {
        watcher: Watcher,
        _witness: Witness,
    }
    impl Owner {
        fn take(&self) -> Take {
            assert!(self.watcher.is_polling());
            Take::Refused
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let watcher = Way::Looks.watcher();
    let (sender, dropped) = mpsc::channel();
    let owner = Owner { watcher: watcher.clone(), _witness: Witness(sender) };
    let guard = watcher.watch(dir.path().join("keys"), MAX, None, move |_| owner.take());
    drop(watcher);
    drop(guard);
    // A thread that waits for itself panics.
    assert_eq!(dropped.recv_timeout(IN_FORCE), Ok(false));
}

#[test]
fn many_files_share_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Way::Both.watcher();
    let paths: Vec<_> = (0..50).map(|n| dir.path().join(format!("keys{n}"))).collect();
    let followers: Vec<_> = paths.iter().map(|path| Follower::new(&watcher, path)).collect();
    for (path, follower) in paths.iter().zip(&followers) {
        follower.expect_error(ReadErrorKind::Missing);
        fs::write(path, format!("{}\n", path.display())).unwrap();
    }
    for (path, follower) in paths.iter().zip(&followers) {
        follower.expect_taken(&format!("{}\n", path.display()));
    }
}

// === under load ===

#[test]
fn a_thousand_swaps_under_load_never_show_a_torn_file_and_end_with_the_last() {
    in_each_way(|way, dir| {
        // Long enough that a mixture of two would show.
        let text = |n: usize| format!("{n}\n").repeat(2000);
        swap_volume(dir, "0", &text(0));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let _guard = way.watcher().watch(dir.join("keys"), MAX, None, {
            let taken = Arc::clone(&taken);
            move |reading| {
                let Ok(content) = reading.content() else { return Take::Refused };
                let text = std::str::from_utf8(content.bytes()).unwrap();
                let mut lines = text.lines();
                let first = lines.next().unwrap_or("torn");
                let whole = lines.clone().count() == 1999 && lines.all(|line| line == first);
                taken.lock().unwrap().push(if whole { first.parse().ok() } else { None });
                Take::Taken
            }
        });
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            for round in 1..=1000 {
                swap_volume(dir, &round.to_string(), &text(round));
            }
            let deadline = Instant::now() + IN_FORCE;
            while taken.lock().unwrap().last() != Some(&Some(1000)) {
                if Instant::now() > deadline {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
            done.store(true, Ordering::Relaxed);
        });
        let taken: Vec<Option<usize>> = taken.lock().unwrap().clone();
        assert_eq!(taken.last(), Some(&Some(1000)), "{way:?}: the last was missed");
        let taken: Vec<usize> = taken.into_iter().map(|n| n.expect("a torn file")).collect();
        assert!(taken.is_sorted_by(|a, b| a < b), "{way:?}: {taken:?}");
    });
}

#[test]
fn a_busy_folder_delays_nothing_beyond_the_promise() {
    in_each_way(|way, dir| {
        let path = dir.join("keys");
        fs::write(&path, "0\n").unwrap();
        let follower = Follower::new(&way.watcher(), &path);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut noise = File::create(dir.join("noise")).unwrap();
                while !done.load(Ordering::Relaxed) {
                    noise.write_all(b"x").unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
            });
            // Whatever happens, the noise ends.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                follower.expect_taken("0\n");
                for text in ["1\n", "without a newline"] {
                    replace(&path, text);
                    follower.expect_taken(text);
                }
            }));
            done.store(true, Ordering::Relaxed);
            result.unwrap();
        });
    });
}
