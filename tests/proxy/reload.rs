//! Key files, configurations and certificates that change while requests come, in the ways in which files
//! are changed in the real world.
//!
//! Each change must be in force within two seconds, and none of the requests that come meanwhile may fail:
//! they are signed with a key that every version of the file has. The tests run each way a few times under a
//! light load. The same ways, many times under a thousand requests a second, are a test of their own that
//! takes minutes.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::app::App;
use hookgate::proxy::config::{Config, Overrides};

use crate::support::gate::{Gate, Setup, write_private};
use crate::support::host::{KEY, github_push};
use crate::support::load::{Load, Report};
use crate::support::tls::Pair;
use crate::support::upstream::Upstream;
use crate::support::{until, within};

/// In which time a change is in force.
const IN_FORCE: Duration = Duration::from_secs(2);

const HOOK: &str = "[[hook]]\nname = \"default\"\n";

/// How much is asked of each way.
#[derive(Clone, Copy, Debug)]
struct Scale {
    per_second: u32,
    connections: u32,
    /// How often each way is gone.
    rounds: usize,
    /// How many exchanges in a row one of Kubernetes' volumes gets.
    swaps: usize,
}

const LIGHT: Scale = Scale { per_second: 25, connections: 2, rounds: 2, swaps: 10 };
const FULL: Scale = Scale { per_second: 1000, connections: 16, rounds: 10, swaps: 1000 };

/// What came of one way.
#[derive(Debug)]
struct Outcome {
    load: Report,
    /// How long each change took to be in force.
    changes: Vec<Duration>,
}

/// A gate under load, and its key file.
struct Stand {
    gate: Gate,
    upstream: Upstream,
    load: Option<Load>,
    path: PathBuf,
    changes: Vec<Duration>,
    /// The number of the key that is in the file now, beside the one that always is.
    version: usize,
}

/// The key that is in the file in its `n`th version, and in no other.
fn key(n: usize) -> String {
    format!("ReloadedKeyOfVersion{n:012}")
}

/// The key file in its `n`th version. All versions are of the same length.
fn text(n: usize) -> String {
    format!("{KEY} name=steady\n{} name=changing\n", key(n))
}

impl Stand {
    /// A gate whose key file is made by `lay` and stands at the path that it gives.
    fn new(scale: &Scale, lay: impl FnOnce(&Path, &str) -> PathBuf) -> Self {
        let upstream = Upstream::start();
        upstream.forget();
        let setup = Setup::new().hooks(HOOK).upstream(&upstream);
        let path = lay(setup.folder().path(), &text(0));
        let gate = setup.args(&["--key-file", path.to_str().expect("text")]).start();
        assert!(takes(&gate, &key(0)) && !takes(&gate, &key(1)));
        let steady = github_push(KEY).bytes();
        let load = Load::start(gate.address(), scale.per_second, scale.connections, &steady);
        Self { gate, upstream, load: Some(load), path, changes: Vec::new(), version: 0 }
    }

    /// A key file of its own in the folder `keys`.
    fn plain(scale: &Scale) -> Self {
        Self::new(scale, |folder, text| {
            fs::create_dir(folder.join("keys")).expect("a folder");
            let path = folder.join("keys/webhook.key");
            write_private(&path, text);
            path
        })
    }

    fn folder(&self) -> &Path {
        self.path.parent().expect("a folder")
    }

    /// Changes the file to its next version, and waits until that is in force.
    #[track_caller]
    fn change(&mut self, how: impl FnOnce(&Self, &str)) {
        let next = self.version + 1;
        how(self, &text(next));
        self.in_force(next, Instant::now());
    }

    /// Waits until this version is in force and the last one is not.
    #[track_caller]
    fn in_force(&mut self, version: usize, since: Instant) {
        let (new, old) = (key(version), key(self.version));
        let done = within(IN_FORCE, || takes(&self.gate, &new).then_some(()));
        assert!(done.is_some(), "not in force after {:?}: {}", since.elapsed(), self.gate.log());
        assert!(!takes(&self.gate, &old), "the old key is still in force");
        self.changes.push(since.elapsed());
        self.version = version;
    }

    /// The version in force stays so, though the file is something else.
    #[track_caller]
    fn stays(&self) {
        assert!(
            takes(&self.gate, &key(self.version)) && !takes(&self.gate, &key(self.version + 1))
        );
    }

    /// How often the key file was refused.
    fn failures(&self) -> f64 {
        let file = self.path.display();
        self.gate
            .metric(&format!("hookgate_key_reloads_total{{file=\"{file}\",result=\"failure\"}}"))
    }

    /// Ends the load, none of which may have failed.
    #[track_caller]
    fn finish(mut self) -> Outcome {
        let load = self.load.take().expect("a load").stop();
        assert_eq!(load.failures, [""; 0], "requests failed");
        assert!(self.upstream.count() >= load.took.len());
        let finished = self.gate.stop();
        assert_eq!(finished.code, Some(0));
        Outcome { load, changes: self.changes }
    }
}

/// Whether a delivery that is signed with this key is let in.
#[track_caller]
fn takes(gate: &Gate, key: &str) -> bool {
    match gate.ask(&github_push(key)).told() {
        (200, "forwarded") => true,
        (401, "unauthorized") => false,
        other => panic!("{other:?}"),
    }
}

/// Writes a new file beside the old one and moves it over that.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    write_private(&new, text);
    fs::rename(&new, path).expect("a file to replace");
}

fn link(target: impl AsRef<Path>, at: impl AsRef<Path>) {
    symlink(target, at).expect("a link");
}

/// Points the link elsewhere, in one step.
fn relink(target: impl AsRef<Path>, at: &Path) {
    let new = at.with_extension("new");
    link(target, &new);
    fs::rename(&new, at).expect("a link to replace");
}

// --- The ways

fn written_in_place(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        stand.change(|stand, text| fs::write(&stand.path, text).expect("ours"));
    }
    stand.finish()
}

fn replaced_by_a_rename(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        stand.change(|stand, text| replace(&stand.path, text));
    }
    // A watch that followed the old file would be blind by now.
    stand.change(|stand, text| fs::write(&stand.path, text).expect("ours"));
    stand.finish()
}

fn moved_aside_and_made_anew(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        stand.change(|stand, text| {
            let backup = stand.folder().join("webhook.key~");
            fs::rename(&stand.path, &backup).expect("ours");
            write_private(&stand.path, text);
            fs::remove_file(&backup).expect("ours");
        });
    }
    stand.finish()
}

/// What Kubernetes does with a volume: `..data` is a link to a folder, and a new folder takes its place.
fn exchanged_as_kubernetes_does(scale: &Scale) -> Outcome {
    fn put(folder: &Path, version: usize, text: &str) {
        let name = format!("..2026_11_24_{version}");
        fs::create_dir(folder.join(&name)).expect("a folder");
        write_private(&folder.join(&name).join("webhook.key"), text);
        link(&name, folder.join("..data_tmp"));
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a link");
        if let Some(old) = version.checked_sub(1) {
            fs::remove_dir_all(folder.join(format!("..2026_11_24_{old}"))).expect("a folder");
        }
    }
    let mut stand = Stand::new(scale, |folder, text| {
        let volume = folder.join("volume");
        fs::create_dir(&volume).expect("a folder");
        put(&volume, 0, text);
        link("..data/webhook.key", volume.join("webhook.key"));
        volume.join("webhook.key")
    });
    let folder = stand.folder().to_owned();
    let mut swaps = 0;
    for _ in 0..scale.rounds {
        swaps += 1;
        stand.change(|_, text| put(&folder, swaps, text));
    }
    // Many in a row, of which the last counts.
    for _ in 0..scale.swaps {
        swaps += 1;
        put(&folder, swaps, &text(swaps));
    }
    stand.in_force(swaps, Instant::now());
    stand.finish()
}

fn folder_deleted_and_made_again(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        let folder = stand.folder().to_owned();
        fs::remove_dir_all(&folder).expect("ours");
        until("it is noticed", || (stand.failures() > 0.0).then_some(()));
        stand.stays();
        stand.change(|stand, text| {
            fs::create_dir(&folder).expect("ours");
            write_private(&stand.path, text);
        });
        // And at once.
        stand.change(|stand, text| {
            fs::remove_dir_all(&folder).expect("ours");
            fs::create_dir(&folder).expect("ours");
            write_private(&stand.path, text);
        });
        // And by another name.
        stand.change(|stand, text| {
            fs::rename(&folder, folder.with_extension("old")).expect("ours");
            fs::create_dir(&folder).expect("ours");
            write_private(&stand.path, text);
        });
        fs::remove_dir_all(folder.with_extension("old")).expect("ours");
    }
    stand.finish()
}

fn linked_folder_flipped(scale: &Scale) -> Outcome {
    fn put(folder: &Path, release: usize, text: &str) -> PathBuf {
        let release = folder.join(format!("release-{release}"));
        fs::create_dir(&release).expect("a folder");
        write_private(&release.join("webhook.key"), text);
        release
    }
    let mut stand = Stand::new(scale, |folder, text| {
        link(put(folder, 0, text), folder.join("current"));
        folder.join("current/webhook.key")
    });
    let current = stand.folder().to_owned();
    let folder = current.parent().expect("a folder").to_owned();
    for n in 1..=scale.rounds {
        stand.change(|_, text| relink(put(&folder, n, text), &current));
    }
    stand.change(|stand, text| fs::write(&stand.path, text).expect("ours"));
    stand.change(|stand, text| replace(&stand.path, text));
    stand.finish()
}

fn target_of_a_link_edited_or_replaced(scale: &Scale) -> Outcome {
    let mut stand = Stand::new(scale, |folder, text| {
        for name in ["keys", "elsewhere", "third"] {
            fs::create_dir(folder.join(name)).expect("a folder");
        }
        write_private(&folder.join("elsewhere/real.key"), text);
        link("../elsewhere/real.key", folder.join("keys/webhook.key"));
        folder.join("keys/webhook.key")
    });
    let folder = stand.gate.folder().path().to_owned();
    let real = folder.join("elsewhere/real.key");
    let third = folder.join("third/real.key");
    for _ in 0..scale.rounds {
        stand.change(|_, text| fs::write(&real, text).expect("ours"));
        stand.change(|_, text| replace(&real, text));
        stand.change(|stand, text| {
            write_private(&third, text);
            relink("../third/real.key", &stand.path);
        });
        stand.change(|_, text| replace(&third, text));
        stand.change(|stand, text| {
            fs::write(&real, text).expect("ours");
            relink("../elsewhere/real.key", &stand.path);
        });
    }
    stand.finish()
}

fn half_written(scale: &Scale) -> Outcome {
    use std::io::Write;
    let mut stand = Stand::plain(scale);
    let half = |stand: &Stand, text: &str, upto: usize| {
        let mut file = File::create(&stand.path).expect("ours");
        file.write_all(&text.as_bytes()[..upto]).expect("ours");
        file
    };
    for _ in 0..scale.rounds {
        let next = stand.version + 1;
        let all = text(next);
        let first_line = all.find('\n').expect("a line") + 1;
        // Between two keys, within the second, and without the last newline: each a good file but the
        // second, and none of them is the whole one.
        let mut longest = Duration::ZERO;
        for upto in [0, first_line - 1, first_line, first_line + 8, all.len() - 1] {
            let began = Instant::now();
            drop(half(&stand, &all, upto));
            // The writer's pace; the next piece comes before the second read.
            std::thread::sleep(Duration::from_millis(100));
            longest = longest.max(began.elapsed());
        }
        fs::write(&stand.path, text(stand.version)).expect("ours");
        // On a machine that stood still meanwhile, one of the pieces was all that there was.
        if longest < Duration::from_millis(400) {
            stand.stays();
        }
        until("all is as it was", || takes(&stand.gate, &key(stand.version)).then_some(()));
        // A slow writer is waited for.
        let mut file = half(&stand, &all, first_line + 8);
        let failures = stand.failures();
        until("it is noticed", || (stand.failures() > failures).then_some(()));
        stand.stays();
        stand.change(|_, text| file.write_all(&text.as_bytes()[first_line + 8..]).expect("ours"));
        // A file that never gets its last newline is taken all the same.
        stand.change(|stand, text| fs::write(&stand.path, text.trim_end()).expect("ours"));
    }
    stand.finish()
}

fn of_the_same_length_and_time(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        stand.change(|stand, text| {
            let before = fs::metadata(&stand.path).expect("ours");
            fs::write(&stand.path, text).expect("ours");
            let file = File::options().write(true).open(&stand.path).expect("ours");
            file.set_modified(before.modified().expect("a time")).expect("ours");
            let after = fs::metadata(&stand.path).expect("ours");
            assert_eq!(before.len(), after.len());
            assert_eq!(before.modified().ok(), after.modified().ok());
        });
    }
    stand.finish()
}

fn spoilt(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        let next = text(stand.version + 1);
        let bad_line = format!("{next}{KEY} name=other\n");
        let not_text = [next.as_bytes(), b"\xff\xfe\n"].concat();
        let large = next.clone() + &"#".repeat(64 * 1024);
        let wrong: [(&[u8], &str); 6] = [
            (b"", "line 1, column 1: the file has no key"),
            (bad_line.as_bytes(), "line 3, column 1: this key stands in the file already"),
            (b"# all keys are gone\n", "line 1, column 1: the file has no key"),
            (&not_text, "line 3, column 1: the file is not UTF-8"),
            (b"short\n", "line 1, column 1: a key of fewer than 16 bytes needs weak=allow"),
            (large.as_bytes(), "larger than 65536 bytes"),
        ];
        for (bytes, error) in wrong {
            let failures = stand.failures();
            fs::write(&stand.path, bytes).expect("ours");
            until("it is counted", || (stand.failures() > failures).then_some(()));
            stand.gate.shows(&format!("\"error\":\"{error}\""));
            stand.stays();
        }
        stand.change(|stand, text| fs::write(&stand.path, text).expect("ours"));
    }
    // The gate is as ready as it was.
    assert_eq!(stand.gate.probe("/ready").status, 200);
    stand.finish()
}

fn gone_for_a_while(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        let failures = stand.failures();
        fs::remove_file(&stand.path).expect("ours");
        until("it is counted", || (stand.failures() > failures).then_some(()));
        stand.stays();
        stand.change(|stand, text| write_private(&stand.path, text));
        // A folder in its place, or a link that leads nowhere, is no key file either.
        let failures = stand.failures();
        fs::remove_file(&stand.path).expect("ours");
        fs::create_dir(&stand.path).expect("ours");
        until("it is counted", || (stand.failures() > failures).then_some(()));
        stand.stays();
        stand.change(|stand, text| {
            fs::remove_dir(&stand.path).expect("ours");
            write_private(&stand.path, text);
        });
        // The gate is as ready as it was.
        assert_eq!(stand.gate.probe("/ready").status, 200);
    }
    stand.finish()
}

fn looked_at_by_a_signal(scale: &Scale) -> Outcome {
    let mut stand = Stand::plain(scale);
    for _ in 0..scale.rounds {
        stand.change(|stand, text| {
            fs::write(&stand.path, text).expect("ours");
            stand.gate.signal("HUP");
        });
        stand.gate.signal("HUP");
        stand.stays();
    }
    stand.gate.says("looking at every file, as told by SIGHUP");
    stand.finish()
}

type Way = fn(&Scale) -> Outcome;

/// The ways, by name.
const WAYS: [(&str, Way); 12] = [
    ("written in place", written_in_place),
    ("replaced by a rename", replaced_by_a_rename),
    ("moved aside and made anew", moved_aside_and_made_anew),
    ("exchanged as Kubernetes does", exchanged_as_kubernetes_does),
    ("folder deleted and made again", folder_deleted_and_made_again),
    ("linked folder flipped", linked_folder_flipped),
    ("target of a link edited or replaced", target_of_a_link_edited_or_replaced),
    ("half written", half_written),
    ("of the same length and time", of_the_same_length_and_time),
    ("spoilt", spoilt),
    ("gone for a while", gone_for_a_while),
    ("looked at by a signal", looked_at_by_a_signal),
];

#[test]
fn a_key_file_may_be_written_in_place() {
    written_in_place(&LIGHT);
}

#[test]
fn a_key_file_may_be_replaced_by_a_rename() {
    replaced_by_a_rename(&LIGHT);
}

#[test]
fn a_key_file_may_be_moved_aside_and_made_anew() {
    moved_aside_and_made_anew(&LIGHT);
}

#[test]
fn a_key_file_may_be_exchanged_as_kubernetes_does() {
    exchanged_as_kubernetes_does(&LIGHT);
}

#[test]
fn the_folder_of_a_key_file_may_be_deleted_and_made_again() {
    folder_deleted_and_made_again(&Scale { rounds: 1, ..LIGHT });
}

#[test]
fn a_linked_folder_may_be_flipped() {
    linked_folder_flipped(&LIGHT);
}

#[test]
fn the_target_of_a_link_may_be_edited_or_replaced() {
    target_of_a_link_edited_or_replaced(&Scale { rounds: 1, ..LIGHT });
}

#[test]
fn a_half_written_key_file_is_waited_for() {
    half_written(&Scale { rounds: 1, ..LIGHT });
}

#[test]
fn a_change_that_leaves_length_and_time_alone_is_seen() {
    of_the_same_length_and_time(&LIGHT);
}

#[test]
fn a_key_file_that_is_spoilt_leaves_the_last_good_keys_in_force() {
    spoilt(&Scale { rounds: 1, ..LIGHT });
}

#[test]
fn a_key_file_that_is_gone_leaves_the_last_good_keys_in_force() {
    gone_for_a_while(&Scale { rounds: 1, ..LIGHT });
}

#[test]
fn a_signal_has_every_file_looked_at() {
    looked_at_by_a_signal(&LIGHT);
}

#[test]
#[ignore = "takes minutes: every way many times, under 1,000 requests a second"]
fn every_change_is_in_force_within_two_seconds_under_a_thousand_requests_a_second() {
    let mut all = Report::default();
    let mut slowest = Duration::ZERO;
    for (name, way) in WAYS {
        let began = Instant::now();
        let Outcome { load, changes } = way(&FULL);
        let rate = load.took.len() as f64 / began.elapsed().as_secs_f64();
        let longest = changes.iter().max().copied().unwrap_or_default();
        eprintln!("{name}: {load}, {rate:.0} a second; {} changes, {longest:.1?}", changes.len());
        slowest = slowest.max(longest);
        all.add(load);
    }
    eprintln!("all: {all}; the slowest change was in force after {slowest:.1?}");
    assert!(slowest <= IN_FORCE);
}

// --- What has no load of its own

#[test]
fn a_key_file_that_is_missing_at_first_is_taken_when_it_comes() {
    let upstream = Upstream::start();
    let setup = Setup::new().hooks(HOOK).upstream(&upstream);
    // A link that leads nowhere yet, so that none is made in its place.
    let folder = setup.folder().path().to_owned();
    link("later/webhook.key", folder.join("webhook.key"));
    let gate = setup.args(&["--key-file", "webhook.key"]).start();
    assert!(!takes(&gate, KEY));
    assert_eq!(gate.probe("/ready").status, 503);
    fs::create_dir(folder.join("later")).expect("a folder");
    write_private(&folder.join("later/webhook.key"), text(0));
    let since = Instant::now();
    until("it is in force", || takes(&gate, KEY).then_some(()));
    assert!(since.elapsed() <= IN_FORCE, "{:?}", since.elapsed());
    assert_eq!(gate.probe("/ready").status, 200);
}

#[test]
fn a_key_file_that_no_folder_holds_is_in_force_and_reported() {
    // As a container sees a bind-mounted file after it was replaced on the host.
    let upstream = Upstream::start();
    let setup = Setup::new().hooks(HOOK).upstream(&upstream);
    let path = setup.path("pinned.key");
    write_private(&path, text(0));
    let pinned = File::open(&path).expect("ours");
    fs::remove_file(&path).expect("ours");
    let path = format!("/proc/{}/fd/{}", std::process::id(), pinned.as_raw_fd());
    let gate = setup.args(&["--key-file", &path]).start();
    assert!(takes(&gate, KEY));
    let warning = gate.logged("a warning", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("mount the directory"))
    });
    assert_eq!((&warning["level"], &warning["path"]), (&"WARN".into(), &(*path).into()));
}

#[test]
fn a_key_begins_and_ends_by_itself() {
    let upstream = Upstream::start();
    let now = SystemClock.now();
    let soon = now.saturating_add(Duration::from_millis(1500));
    let text = format!(
        "{KEY} name=steady\n{} name=old until={soon}\n{} name=new from={soon}\n",
        key(1),
        key(2)
    );
    let gate = Setup::new().keys(&text).hooks(HOOK).upstream(&upstream).start();
    let state = |state: &str| {
        gate.metric(&format!("hookgate_keys{{file=\"webhook.key\",state=\"{state}\"}}"))
    };
    assert_eq!((state("active"), state("not_yet"), state("expired")), (2.0, 1.0, 0.0));
    assert!(takes(&gate, &key(1)) && !takes(&gate, &key(2)));
    // Never both, never none: the one ends when the other begins.
    until("the new one has begun", || {
        let before = SystemClock.now() < soon;
        let told = (takes(&gate, &key(1)), takes(&gate, &key(2)));
        let after = SystemClock.now() >= soon;
        match told {
            (true, false) => assert!(before, "the old one goes on"),
            (false, true) => assert!(after, "the new one is early"),
            // The moment came between the two.
            _ => assert!(before && after, "{told:?}"),
        }
        (told == (false, true)).then_some(())
    });
    assert!(takes(&gate, KEY));
    assert_eq!((state("active"), state("not_yet"), state("expired")), (2.0, 0.0, 1.0));
    let reloads = "hookgate_key_reloads_total{file=\"webhook.key\",result=\"success\"}";
    assert_eq!(gate.metric(reloads), 0.0);
}

#[test]
fn a_good_configuration_is_in_force_for_the_next_request_and_a_bad_one_changes_nothing() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let hook = |name: &str, upstream: &Upstream, more: &str| {
        let url = upstream.url();
        format!(
            "[[hook]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"{url}\"\ndedupe_window = \"0s\"\n{more}\n"
        )
    };
    let setup = Setup::new().keys(&text(0));
    write_private(&setup.path("other.key"), format!("{} name=other\n", key(9)));
    let gate = setup.config(&hook("a", &first, "")).start();
    let path = gate.path("hookgate.toml");
    let told = |path: &str, key: &str| gate.ask(&github_push(key).to(path)).status;
    let reloads = |result: &str| {
        gate.metric(&format!("hookgate_config_reloads_total{{result=\"{result}\"}}"))
    };
    let in_force = |what: &str, condition: &dyn Fn() -> bool| {
        let since = Instant::now();
        until(what, || condition().then_some(()));
        assert!(since.elapsed() <= IN_FORCE, "{what}: {:?}", since.elapsed());
    };
    let steady = github_push(KEY).to("/a").bytes();
    let load = Load::start(gate.address(), LIGHT.per_second, LIGHT.connections, &steady);

    // Another hook, with keys of its own.
    let both = hook("a", &first, "") + &hook("b", &second, "key_file = \"other.key\"");
    replace(&path, &both);
    in_force("a second hook", &|| told("/b", &key(9)) == 200);
    assert_eq!((told("/b", KEY), told("/a", &key(9))), (401, 401));
    assert_eq!(second.count(), 1);

    // Bad ones, which say where.
    for (n, (text, place)) in [
        (format!("{both}nonsense\n"), "hookgate.toml:13:9"),
        (format!("{both}[limits]\nmax_bodi = \"1B\"\n"), "hookgate.toml:14:1"),
        (String::from("[[hook]]\nname = \"a\"\nupstream = \"nowhere\"\n"), "hookgate.toml:3:12"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, text).expect("ours");
        in_force("the failure", &|| reloads("failure") == (n + 1) as f64);
        let problem = gate.logged(place, |line| {
            line["problem"].as_str().is_some_and(|problem| problem.starts_with(place))
        });
        assert_eq!(problem["level"], "ERROR");
        assert_eq!((told("/b", &key(9)), told("/a", KEY)), (200, 200));
    }

    // A hook that is disabled, one that goes elsewhere, one that is gone; requests in flight are not dropped.
    let off =
        hook("a", &second, "") + &hook("b", &second, "key_file = \"other.key\"\nenabled = false");
    let before = second.count();
    replace(&path, &off);
    in_force("it is disabled", &|| told("/b", &key(9)) == 403);
    in_force("the service is another", &|| second.count() > before);
    let count = first.count();
    assert_eq!((told("/a", KEY), first.count()), (200, count));
    let load = load.stop();
    assert_eq!(load.failures, [""; 0], "{load}");
    replace(&path, &hook("a", &second, "providers = [\"github\"]\nkey_file = \"other.key\""));
    in_force("the hook is gone", &|| told("/b", &key(9)) == 404);

    // What cannot change says so.
    let elsewhere =
        format!("[limits]\nconnections = 7\n{}", hook("a", &second, "key_file = \"other.key\""));
    replace(&path, &elsewhere);
    let warning = gate.says("this change takes effect only after a restart");
    assert_eq!(warning["key"], "limits.connections");
    assert_eq!(told("/a", &key(9)), 200);
}

#[test]
fn what_changes_between_the_first_look_and_the_watch_is_not_lost() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    write_private(&path("webhook.key"), text(0));
    write_private(&path("cert.pem"), &old.certificate);
    write_private(&path("key.pem"), &old.key);
    let config = "[tls]\ncertificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n\
         [[hook]]\nname = \"a\"\npath = \"/a\"\nkey_file = \"webhook.key\"\nenabled = ";
    fs::write(path("hookgate.toml"), format!("{config}false\n")).expect("ours");
    let overrides = Overrides {
        config: Some(path("hookgate.toml")),
        listen: Some("127.0.0.1:0".into()),
        health: Some("off".into()),
        state_dir: Some(path("state")),
        ..Overrides::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let read = Config::load(&overrides).expect("a configuration");
    let app = App::build(read, overrides).expect("an app");
    let address = app.local_addr().as_ip().expect("TCP");
    fs::write(path("hookgate.toml"), format!("{config}true\n")).expect("ours");
    replace(&path("cert.pem"), &new.certificate);
    replace(&path("key.pem"), &new.key);
    write_private(&path("webhook.key"), text(1));
    let since = Instant::now();
    let running = runtime.spawn(app.run(std::future::pending()));
    let request = github_push(&key(1)).to("/a").bytes();
    until("all of it is in force", || {
        let mut client = new.connect(address).ok()?;
        client.try_send(&request).ok()?;
        (client.try_answer().ok()?.status == 202).then_some(())
    });
    assert!(since.elapsed() <= IN_FORCE, "{:?}", since.elapsed());
    running.abort();
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let upstream = Upstream::start();
    let setup = Setup::new().keys(&text(0));
    let (certificate, private) = (setup.path("cert.pem"), setup.path("key.pem"));
    write_private(&certificate, &old.certificate);
    write_private(&private, &old.key);
    let config = format!("[tls]\ncertificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n{HOOK}");
    let gate = setup.hooks(&config).upstream(&upstream).start();
    let push = github_push(KEY).bytes();
    let mut kept = old.connect(gate.address()).expect("TLS");
    assert_eq!(kept.ask(&push).status, 200);
    assert!(new.connect(gate.address()).is_err());
    // One of the two files alone is no pair, so the old one is shown.
    replace(&certificate, &new.certificate);
    gate.says("certificate is not taken, the old pair stays in use");
    assert_eq!(old.connect(gate.address()).expect("TLS").ask(&push).status, 200);
    replace(&private, &new.key);
    let since = Instant::now();
    until("the new one is shown", || new.connect(gate.address()).is_ok().then_some(()));
    assert!(since.elapsed() <= IN_FORCE, "{:?}", since.elapsed());
    assert!(old.connect(gate.address()).is_err());
    assert_eq!(new.connect(gate.address()).expect("TLS").ask(&push).status, 200);
    assert_eq!(kept.ask(&push).status, 200, "the old connection goes on");
    // One that cannot be read changes nothing.
    fs::write(&private, "-----BEGIN nothing").expect("ours");
    until("it is refused", || {
        let log = gate.log();
        (log.matches("certificate is not taken").count() > 1).then_some(())
    });
    assert_eq!(new.connect(gate.address()).expect("TLS").ask(&push).status, 200);
}
