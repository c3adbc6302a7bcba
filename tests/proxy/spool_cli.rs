//! `hookgate spool`, on a file that no gate uses and on one that somebody serves: both must do the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hookgate::event::Kind;
use hookgate::provider::Provider;
use hookgate::proxy::control::{Control, ControlServer, SOCKET_NAME};
use hookgate::proxy::spool::{
    About, Content, LeaseRequest, Record, Spool, SpoolConfig, SqliteSpool,
};
use hookgate::time::Timestamp;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::gate::{Finished, Setup};
use crate::support::host::{KEY, github_push};
use crate::support::until;
use crate::support::upstream::{Reply, Upstream};

/// What must never come out.
const CANARY: &str = "c4n4ry-3f9a1b";

/// Five deliveries: 1 was given up, 2 arrived, 3 is being sent, 4 and 5 wait.
struct Bed {
    folder: Arc<TempDir>,
    /// The spool and its socket, unless the commands open the file.
    served: Option<(Arc<SqliteSpool>, Runtime)>,
}

impl Bed {
    fn offline() -> Self {
        let (folder, spool, runtime) = filled();
        runtime.block_on(spool.close());
        Self { folder, served: None }
    }

    fn live() -> Self {
        let (folder, spool, runtime) = filled();
        let spool = Arc::new(spool);
        let path = folder.path().join("state").join(SOCKET_NAME);
        let control = Control::new().spool(spool.clone(), || {});
        let server = runtime.block_on(async { ControlServer::bind(&path, control).unwrap() });
        runtime.spawn(server.serve(std::future::pending()));
        Self { folder, served: Some((spool, runtime)) }
    }

    fn both() -> [Self; 2] {
        [Self::offline(), Self::live()]
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        let mut setup = Setup::bare(&["spool"]).args(args).args(&["--state-dir", "state"]);
        if self.served.is_none() {
            setup = setup.args(&["--offline"]);
        }
        let finished = setup.within(&self.folder).run();
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains(CANARY), "{text}");
        }
        finished
    }

    /// What a command that succeeds prints.
    #[track_caller]
    fn good(&self, args: &[&str]) -> String {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
        finished.stdout
    }

    /// What a command that fails with this code says.
    #[track_caller]
    fn bad(&self, args: &[&str], code: i32) -> String {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(code), "{args:?}: {}", finished.stderr);
        finished.stderr
    }

    /// Number and state of what `list` shows.
    #[track_caller]
    fn listed(&self, args: &[&str]) -> Vec<(u64, String)> {
        let mut all = vec!["list", "--json"];
        all.extend(args);
        let text = self.good(&all);
        let entry = |line: &str| {
            let entry: Value = serde_json::from_str(line).unwrap();
            (entry["id"].as_u64().unwrap(), entry["state"].as_str().unwrap().to_owned())
        };
        text.lines().map(entry).collect()
    }

    #[track_caller]
    fn numbers(&self, args: &[&str]) -> Vec<u64> {
        self.listed(args).into_iter().map(|(id, _)| id).collect()
    }
}

fn filled() -> (Arc<TempDir>, SqliteSpool, Runtime) {
    let folder = Arc::new(TempDir::with_prefix("hookgate-").unwrap());
    let mut config = SpoolConfig::new(folder.path().join("state/spool"));
    config.free_floor = 0;
    config.history_age = Duration::MAX;
    let spool = SqliteSpool::open(config).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for (n, repository) in ["a", "b", "c", "d", "d"].iter().enumerate() {
            spool.append(push(n as i64 + 1, repository)).await.unwrap();
        }
        let mut request = LeaseRequest::new("worker", &["default"], at(10), at(1_000_000_000));
        request.limit = 3;
        let leased = spool.lease(request).await.unwrap().leased;
        spool.dead_letter(&leased[0].lease, "upstream answered 404", at(11)).await.unwrap();
        spool.ack(&leased[1].lease, at(12)).await.unwrap();
    });
    (folder, spool, runtime)
}

/// 2024-01-01T00:00:00Z and so many seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_704_067_200 + seconds).unwrap()
}

fn push(n: i64, repository: &str) -> Record {
    let mut about = About::new("default", Provider::Github, Kind::Push, at(n));
    about.event = Some("push".into());
    about.repository = Some(format!("github.com/acme/{repository}"));
    about.refs = vec!["refs/heads/main".into()];
    about.delivery = format!("delivery-{n}");
    about.key_name = Some("2024-01".into());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-github-event", HeaderValue::from_static("push"));
    let mut sensitive = HeaderValue::from_static(CANARY);
    sensitive.set_sensitive(true);
    headers.insert("authorization", sensitive);
    let body = if n == 5 { b"\x00\xff".to_vec() } else { format!("{{\"n\":{n}}}").into_bytes() };
    Record { about, content: Content { headers, body: body.into() }, not_before: at(n) }
}

#[test]
fn the_list_is_a_table_for_people_and_lines_of_json_for_programs() {
    for bed in Bed::both() {
        let table = bed.good(&["list"]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[0])[..4], ["ID", "STATE", "RECEIVED", "AGE"], "{table}");
        assert_eq!(words(lines[1])[..3], ["1", "dead", "2024-01-01T00:00:01Z"], "{table}");
        assert!(lines[1].ends_with("upstream answered 404"), "{table}");
        assert!(lines[4].contains("github.com/acme/d"), "{table}");

        let states: Vec<_> = bed.listed(&[]).into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, ["dead", "delivered", "leased", "pending", "pending"]);
        assert_eq!(bed.numbers(&["--state", "dead,leased"]), [1, 3]);
        assert_eq!(bed.numbers(&["--hook", "other"]), [0; 0]);
        assert_eq!(bed.numbers(&["--repository", "github.com/acme/d"]), [4, 5]);
        assert_eq!(bed.numbers(&["--repository", "git@github.com:Acme/d.git"]), [4, 5]);
        assert_eq!(bed.numbers(&["--before", "2024-01-01T00:00:03Z"]), [1, 2]);
        assert_eq!(bed.numbers(&["--before", "36500d"]), [0; 0]);
        assert_eq!(bed.numbers(&["--before", "1h"]).len(), 5);
        assert_eq!(bed.numbers(&["--after", "3"]), [4, 5]);

        let some = bed.run(&["list", "--json", "--limit", "2"]);
        assert_eq!(some.stdout.lines().count(), 2);
        assert!(some.stderr.contains("there are more: --after 2 shows them"), "{}", some.stderr);
        let all = bed.run(&["list", "--limit", "5"]);
        assert_eq!((all.stdout.lines().count(), all.stderr.as_str()), (6, ""));
        let none = bed.run(&["list", "--hook", "other"]);
        assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "there are none\n"));
    }
}

#[test]
fn a_delivery_is_shown_with_its_headers_and_body_and_without_secrets() {
    for bed in Bed::both() {
        let text = bed.good(&["show", "1"]);
        for wanted in ["2024-01\n", "delivery-1\n", "x-github-event: push\n", "\n\n{\"n\":1}\n"] {
            assert!(text.contains(wanted), "{wanted:?} in {text}");
        }
        assert!(!text.contains("authorization"), "{text}");
        let json: Value = serde_json::from_str(&bed.good(&["show", "1", "--json"])).unwrap();
        assert_eq!(json["body"], "{\"n\":1}");
        assert_eq!(json["last_error"], "upstream answered 404");
        assert_eq!(json["headers"][0]["name"], "content-type");
        let json: Value = serde_json::from_str(&bed.good(&["show", "5", "--json"])).unwrap();
        assert_eq!((&json["body"], &json["body_base64"]), (&Value::Null, &"AP8=".into()));
        assert_eq!(bed.bad(&["show", "99"], 1), "error: there is no delivery 99\n");
        assert!(bed.bad(&["show", "x"], 2).contains("not the number of a delivery"));
    }
}

#[test]
fn deliveries_are_sent_again_by_number_or_by_state_and_those_that_cannot_be_are_told() {
    for bed in Bed::both() {
        let text = bed.good(&["redeliver", "--dead"]);
        assert!(text.starts_with("1 delivery will be sent again"), "{text}");
        assert_eq!(bed.numbers(&["--state", "dead"]), [0; 0]);
        let finished = bed.run(&["redeliver", "2", "3", "99", "2"]);
        assert_eq!(finished.code, Some(1));
        assert!(finished.stdout.starts_with("1 delivery will be sent again"), "{finished:?}");
        let leased = match bed.served {
            Some(_) => "is being sent at this moment",
            None => "was being sent when the gate ended, and will be again",
        };
        let told = format!("error: there is no delivery 99\nerror: delivery 3 {leased}\n");
        assert_eq!(finished.stderr, told);
        assert_eq!(bed.numbers(&["--state", "pending"]), [1, 2, 4, 5]);
        let json: Value =
            serde_json::from_str(&bed.run(&["redeliver", "1", "99", "--json"]).stdout).unwrap();
        assert_eq!(json, serde_json::json!({"redelivered": [1], "missing": [99], "leased": []}));
        assert!(bed.good(&["redeliver", "--all", "--hook", "other"]).starts_with("0 deliveries"));
        for wrong in [
            &["redeliver"][..],
            &["redeliver", "--hook", "default"],
            &["redeliver", "1", "--dead"],
            &["redeliver", "1", "--hook", "default"],
            &["redeliver", "--all", "--state", "dead"],
            &["redeliver", "--state", "alive"],
            &["redeliver", "--dead", "--before", "yesterday"],
        ] {
            bed.bad(wrong, 2);
        }
    }
}

#[test]
fn nothing_is_removed_without_a_selection_and_a_yes() {
    for bed in Bed::both() {
        bed.bad(&["purge", "--yes"], 2);
        bed.bad(&["purge", "--yes", "--repository", "github.com/acme/d"], 2);
        assert!(bed.bad(&["purge", "--all"], 1).contains("say --yes"));
        assert_eq!(bed.listed(&[]).len(), 5);

        assert_eq!(bed.good(&["purge", "--dead", "--yes"]), "1 delivery removed\n");
        let finished = bed.run(&["purge", "1", "4", "--yes", "--json"]);
        assert_eq!(finished.code, Some(1));
        let json: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(json, serde_json::json!({"purged": [4], "missing": [1], "leased": []}));
        assert_eq!(bed.good(&["purge", "--all", "--yes"]), "2 deliveries removed\n");
        assert_eq!(bed.listed(&[]), [(3, "leased".to_owned())]);
    }
}

#[test]
fn an_export_has_a_line_for_each_delivery_and_overwrites_nothing() {
    for bed in Bed::both() {
        let text = bed.good(&["export"]);
        assert_eq!(text.lines().count(), 5);
        let one = bed.good(&["export", "--state", "dead"]);
        assert_eq!(one, bed.good(&["show", "1", "--json"]));
        assert!(text.starts_with(&one));
        assert_eq!(bed.good(&["export", "--hook", "other"]), "");

        let finished = bed.run(&["export", "--output", "all.jsonl"]);
        assert_eq!(
            (finished.code, finished.stderr.as_str()),
            (Some(0), "5 deliveries in all.jsonl\n")
        );
        let path = bed.folder.path().join("all.jsonl");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bed.bad(&["export", "--output", "all.jsonl", "--state", "dead"], 1);
        assert!(error.contains("all.jsonl: File exists"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn the_status_counts_what_is_there() {
    for bed in Bed::both() {
        let text = bed.good(&["status"]);
        assert!(text.starts_with("health") && text.contains("takes deliveries"), "{text}");
        let json: Value = serde_json::from_str(&bed.good(&["status", "--json"])).unwrap();
        let counts = ["pending", "leased", "dead", "delivered"].map(|name| json[name].as_u64());
        assert_eq!(counts, [Some(2), Some(1), Some(1), Some(1)]);
        assert_eq!((&json["health"], &json["reason"]), (&"open".into(), &Value::Null));
    }
}

#[test]
fn the_state_folder_is_found_by_the_configuration_too() {
    let bed = Bed::live();
    let setup = || Setup::bare(&["spool", "list", "--json"]).within(&bed.folder);
    let finished = setup().config("state_dir = \"state\"\n").run();
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 5));
    let finished = setup().env("HOOKGATE_STATE_DIR", "state").run();
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 5));
    let finished = setup().config("state_dir = 1\n").run();
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("hookgate.toml:1:13"), "{}", finished.stderr);
}

#[test]
fn who_asks_the_wrong_way_is_told_the_right_one() {
    let bed = Bed::live();
    let error = bed.bad(&["list", "--offline"], 1);
    assert_eq!(error, "error: a gate runs with state: leave --offline out, or stop it first\n");
    let bed = Bed::offline();
    let live = Setup::bare(&["spool", "list", "--state-dir", "state"]).within(&bed.folder).run();
    assert_eq!(live.code, Some(1));
    assert!(
        live.stderr.starts_with("error: no gate listens on state/control.sock"),
        "{}",
        live.stderr
    );
    assert!(live.stderr.contains("--offline"), "{}", live.stderr);
    let error = Setup::bare(&["spool", "list", "--offline", "--state-dir", "elsewhere"])
        .within(&bed.folder)
        .run();
    assert_eq!(
        (error.code, error.stderr.as_str()),
        (Some(1), "error: there is no spool in elsewhere\n")
    );
    assert!(!bed.folder.path().join("elsewhere").exists());
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let bed = Bed::offline();
    for command in ["list --json", "list", "export", "show 1", "status"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Command::new(env!("CARGO_BIN_EXE_hookgate"))
            .arg("spool")
            .args(command.split(' '))
            .args(["--offline", "--state-dir", "state"])
            .current_dir(bed.folder.path())
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(0), "{command}");
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "", "{command}");
    }
}

#[test]
fn the_gate_that_runs_is_asked_and_sends_again_what_it_is_told_to() {
    let upstream = Upstream::with(Reply::Answer(404, &[], "not here"));
    let gate = Setup::new().keys(&format!("{KEY} name=a\n")).upstream(&upstream).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "set-aside"));
    let spool = |args: &[&str]| {
        let args = [args, &["--json", "--state-dir", "state"]].concat();
        let finished = Setup::bare(&["spool"]).args(&args).within(gate.folder()).run();
        assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
        finished.stdout
    };
    let dead = spool(&["list", "--state", "dead"]);
    let dead: Value = serde_json::from_str(dead.trim()).unwrap();
    assert_eq!(dead["last_error"], "upstream answered 404", "{dead}");
    let shown = spool(&["show", &dead["id"].to_string()]);
    assert!(shown.contains("refs/heads/main") && !shown.contains(KEY), "{shown}");

    upstream.take();
    upstream.reply(Reply::Answer(200, &[], "indexed"));
    spool(&["redeliver", "--dead"]);
    until("it arrives", || (upstream.count() == 2).then_some(()));
    until("it is in the history", || {
        spool(&["list", "--state", "delivered"]).contains("github").then_some(())
    });
    assert_eq!(spool(&["list", "--state", "dead"]), "");
    let offline = Setup::bare(&["spool", "list", "--offline", "--state-dir", "state"]);
    let refused = offline.within(gate.folder()).run();
    assert_eq!(refused.code, Some(1), "the gate has it: {}", refused.stdout);
    assert_eq!(gate.stop().code, Some(0));
}
