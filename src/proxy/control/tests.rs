//! The socket as operators and strangers see it, with a spool behind it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::event::Kind;
use crate::provider::Provider;
use crate::proxy::socket::BindErrorKind;
use crate::proxy::spool::{
    About, Content, Health, LeaseRequest, OpenErrorKind, Page, Record, RecordId, Selection, Spool,
    SpoolConfig, SqliteSpool, State, Stored,
};
use crate::proxy::switch_file::{HookSwitch, SwitchChange, SwitchError, SwitchFile, SwitchTo};
use crate::time::Timestamp;

/// A gate's spool and socket in a folder that goes with them.
struct Bed {
    dir: TempDir,
    spool: Arc<SqliteSpool>,
    changes: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Arc::new(SqliteSpool::open(config(&dir)).unwrap());
        let changes = Arc::<AtomicUsize>::default();
        let counted = changes.clone();
        let control = Control::new().spool(spool.clone(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let server = ControlServer::bind(&dir.path().join(SOCKET_NAME), control).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(server.serve(async move { drop(stopped.await) }));
        Self { dir, spool, changes, stop: Some(stop), served }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(SOCKET_NAME)
    }

    fn live(&self) -> Operator {
        Operator::Live(ControlClient::new(self.path()))
    }

    async fn append(&self, repository: &str, seconds: i64) -> RecordId {
        self.spool.append(push(repository, seconds)).await.unwrap().id()
    }

    /// The delivery that is due first, in the dead letters.
    async fn bury(&self) -> RecordId {
        let mut request = LeaseRequest::new("worker", &["hook"], at(100), at(160));
        request.limit = 1;
        let leased = self.spool.lease(request).await.unwrap().leased.pop().unwrap();
        self.spool.dead_letter(&leased.lease, "upstream answered 404", at(101)).await.unwrap();
        leased.entry.id
    }

    fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    /// What comes back for these bytes, until the other end closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, target: &str) -> String {
        self.raw(format!("GET {target} HTTP/1.1\r\nhost: gate\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, target: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}");
        self.raw(format!("{head}\r\n\r\n{body}").as_bytes()).await
    }
}

fn config(dir: &TempDir) -> SpoolConfig {
    SpoolConfig { free_floor: 0, ..SpoolConfig::new(dir.path().join("spool")) }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds).unwrap()
}

fn push(repository: &str, seconds: i64) -> Record {
    let mut about = About::new("hook", Provider::Github, Kind::Push, at(seconds));
    about.repository = Some(repository.to_owned());
    about.delivery = format!("{repository}-{seconds}");
    let mut headers = HeaderMap::new();
    headers.insert("x-github-event", HeaderValue::from_static("push"));
    let body = format!("{{\"repository\":\"{repository}\",\"at\":{seconds}}}").into();
    Record { about, content: Content { headers, body }, not_before: at(seconds) }
}

fn ids(numbers: &[RecordId]) -> Selection {
    Selection::of_ids(numbers.iter().copied())
}

fn parsed(lines: &[String]) -> Vec<Stored> {
    let read = |line: &String| serde_json::from_str::<json::StoredJson>(line).unwrap().read();
    lines.iter().map(|line| read(line).unwrap()).collect()
}

#[tokio::test]
async fn a_live_gate_and_a_file_say_the_same() {
    let bed = Bed::new();
    for n in 1..=4 {
        bed.append(&format!("github.com/acme/{n}"), n).await;
    }
    let dead = bed.bury().await;
    let live = bed.live();
    let page = Page { after: None, limit: 3 };
    let listed = live.list(Selection::default(), page).await.unwrap();
    assert_eq!(listed, bed.spool.list(Selection::default(), page).await.unwrap());
    assert_eq!((listed.items.len(), listed.next), (3, Some(listed.items[2].id)));
    let shown = live.show(dead).await.unwrap();
    assert_eq!(shown, bed.spool.show(dead).await.unwrap());
    assert_eq!(shown.unwrap().entry.last_error.as_deref(), Some("upstream answered 404"));
    assert_eq!(live.show(RecordId::new(99).unwrap()).await.unwrap(), None);
    let status = live.status().await.unwrap();
    assert_eq!((status.health, status.pending, status.dead), (Health::Open, 3, 1));

    let exported = live.export(Selection::default(), page).await.unwrap();
    let whole = bed.spool.export(Selection::default(), page).await.unwrap();
    assert_eq!((parsed(&exported.items), exported.next), (whole.items, whole.next));
    let rest = Page { after: exported.next, limit: 3 };
    let rest = live.export(Selection::default(), rest).await.unwrap();
    assert_eq!((parsed(&rest.items).len(), rest.next), (1, None));
    let none = live.export(ids(&[]), Page::default()).await.unwrap();
    assert_eq!((none.items.len(), none.next), (0, None));
}

#[tokio::test]
async fn only_what_is_selected_is_listed_sent_again_or_removed() {
    let bed = Bed::new();
    let live = bed.live();
    let mut all = Vec::new();
    for n in 1..=4 {
        all.push(bed.append(&format!("github.com/acme/{n}"), n).await);
    }
    let dead = bed.bury().await;
    let listed = async |selection| {
        let listed = live.list(selection, Page::default()).await.unwrap().items;
        listed.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(Selection::of_state(State::Dead)).await, [dead]);
    let before = Selection { received_before: Some(at(3)), ..Selection::default() };
    assert_eq!(listed(before).await, all[..2]);
    let repository = Some("github.com/acme/4".to_owned());
    assert_eq!(listed(Selection { repository, ..Selection::default() }).await, all[3..]);
    let hook = Some("other".to_owned());
    assert_eq!(listed(Selection { hook, ..Selection::default() }).await, []);
    assert_eq!(listed(ids(&[all[2], all[1]])).await, all[1..3]);

    assert_eq!(bed.changes(), 0);
    let now = at(0);
    let again = live.redeliver(Selection::of_state(State::Dead), Page::default(), now).await;
    assert_eq!((again.unwrap().items, bed.changes()), (vec![dead], 1));
    assert_eq!(bed.spool.show(dead).await.unwrap().unwrap().entry.state, State::Pending);
    let again = live.redeliver(Selection::of_state(State::Dead), Page::default(), now).await;
    assert_eq!((again.unwrap().items, bed.changes()), (vec![], 1), "nothing is no change");
    let purged = live.purge(ids(&all[1..3]), Page::default()).await.unwrap();
    assert_eq!((purged.items, bed.changes()), (all[1..3].to_vec(), 2));
    let purged = live.purge(Selection::default(), Page { after: None, limit: 1 }).await.unwrap();
    assert_eq!((purged.items, purged.next), (vec![all[0]], Some(all[0])));
    assert_eq!(listed(Selection::default()).await, [all[3]]);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_changes_nothing() {
    let bed = Bed::new();
    let id = bed.append("github.com/acme/a", 1).await;
    for (target, status, wanted) in [
        ("/", "404 Not Found", "nothing of that name"),
        ("/hooks", "404 Not Found", "nothing of that name"),
        ("/spool/1/2", "404 Not Found", "nothing of that name"),
        ("/spool/99", "404 Not Found", "there is no delivery 99"),
        ("/spool/x", "400 Bad Request", "not the number of a delivery"),
        ("/spool/0", "400 Bad Request", "not the number of a delivery"),
        ("/spool?state=alive", "400 Bad Request", "unknown state"),
        ("/spool?stat=dead", "400 Bad Request", "unknown parameter"),
        ("/spool/export?limit=x", "400 Bad Request", "not a positive number"),
        ("/spool/purge", "405 Method Not Allowed", "only POST is taken here"),
        ("/spool/redeliver", "405 Method Not Allowed", "allow: POST"),
    ] {
        let answer = bed.get(target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{target}: {answer}");
        assert!(answer.contains("application/problem+json"), "{target}: {answer}");
        assert!(answer.contains(wanted), "{target}: {answer}");
    }
    let large = format!("{{\"ids\":[1{}]}}", ",1".repeat(200_000));
    for (target, body, status, wanted) in [
        ("/spool", "{}", "405 Method Not Allowed", "only GET is taken here"),
        ("/spool/1", "{}", "405 Method Not Allowed", "allow: GET"),
        ("/spool/purge", "", "400 Bad Request", "EOF"),
        ("/spool/purge", "[]x", "400 Bad Request", ""),
        ("/spool/purge", "{}", "400 Bad Request", "say which deliveries"),
        ("/spool/purge", "{\"all\":false}", "400 Bad Request", "say which deliveries"),
        ("/spool/purge", "{\"state\":[\"dead\"]}", "400 Bad Request", "unknown field"),
        ("/spool/purge", "{\"states\":[\"alive\"]}", "400 Bad Request", "unknown state"),
        ("/spool/purge", "{\"ids\":[-1]}", "400 Bad Request", "positive"),
        ("/spool/purge", "{\"before\":\"now\",\"all\":true}", "400 Bad Request", "RFC 3339"),
        ("/spool/purge", &large, "413 Payload Too Large", "at most 262144 bytes"),
    ] {
        let answer = bed.post(target, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{target}: {answer}");
        assert!(answer.contains(wanted), "{target}: {answer}");
    }
    assert!(bed.raw(b"no HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    assert_eq!((bed.spool.status().await.unwrap().pending, bed.changes()), (1, 0));

    let answer = bed.get("/spool/1").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"id\":1"), "{answer}");
    let answer = bed.post("/spool/purge", "{\"all\":true}").await;
    assert!(answer.contains(&format!("{{\"items\":[{id}],\"next\":null}}")), "{answer}");
    assert_eq!(bed.changes(), 1);
}

#[tokio::test]
async fn a_spool_that_is_closed_or_missing_is_told_and_no_panic() {
    let bed = Bed::new();
    bed.spool.close().await;
    assert!(bed.get("/spool").await.starts_with("HTTP/1.1 503 "));
    let error = bed.live().list(Selection::default(), Page::default()).await.unwrap_err();
    assert_eq!(error.kind(), ControlErrorKind::Refused);
    assert_eq!(error.to_string(), "the spool is closed");
    assert_eq!(bed.live().status().await.unwrap().health, Health::Closed);

    let path = bed.dir.path().join("other.sock");
    let server = ControlServer::bind(&path, Control::new()).unwrap();
    let served = tokio::spawn(server.serve(std::future::pending()));
    let other = Operator::Live(ControlClient::new(&path));
    let error = other.show(RecordId::new(1).unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "this gate has no spool");
    served.abort();
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_goes_with_the_gate() {
    let mut bed = Bed::new();
    let mode = fs::metadata(bed.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bed.live().status().await.unwrap();
    drop(bed.stop.take());
    (&mut bed.served).await.unwrap();
    assert!(!bed.path().exists());
    let error = bed.live().status().await.unwrap_err();
    assert_eq!(error.kind(), ControlErrorKind::NotRunning);
}

#[tokio::test]
async fn a_socket_that_was_left_is_replaced_and_anything_else_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = ControlClient::new(&path).status().await.unwrap_err();
    assert_eq!(error.kind(), ControlErrorKind::NotRunning);
    let server = ControlServer::bind(&path, Control::new()).unwrap();
    let served = tokio::spawn(server.serve(std::future::pending()));
    let error = ControlClient::new(&path).status().await.unwrap_err();
    assert_eq!(error.kind(), ControlErrorKind::Refused);
    served.abort();
    let _ = served.await;
    assert!(!path.exists());

    fs::write(&path, "precious").unwrap();
    let error = ControlServer::bind(&path, Control::new()).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::NotASocket);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_told_on_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x".repeat(100)).join(SOCKET_NAME);
    let error = ControlServer::bind(&path, Control::new()).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::PathTooLong);
    assert!(error.to_string().contains("too long for a Unix socket"), "{error}");
    let error = ControlClient::new(&path).status().await.unwrap_err();
    assert!(error.to_string().contains("too long for a Unix socket"), "{error}");
    let missing = dir.path().join("missing").join(SOCKET_NAME);
    let error = ControlServer::bind(&missing, Control::new()).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::Io);
}

#[tokio::test]
async fn the_file_is_refused_while_a_gate_has_it_and_keeps_its_history_without_one() {
    let mut bed = Bed::new();
    let id = bed.append("github.com/acme/a", 1).await;
    let request = LeaseRequest::new("worker", &["hook"], at(1), at(60));
    let leased = bed.spool.lease(request).await.unwrap().leased.pop().unwrap();
    bed.spool.ack(&leased.lease, at(1)).await.unwrap();
    let offline = || Operator::offline(config(&bed.dir));
    assert_eq!(offline().unwrap_err().kind(), OpenErrorKind::InUse);
    drop(bed.stop.take());
    (&mut bed.served).await.unwrap();
    bed.spool.close().await;

    // By the default configuration it would be too old or too much at some time.
    let operator = offline().unwrap();
    let shown = operator.show(id).await.unwrap().unwrap();
    assert_eq!(shown.entry.state, State::Delivered);
    let lines = operator.export(Selection::default(), Page::default()).await.unwrap().items;
    assert_eq!(parsed(&lines), [shown]);
    let again = operator.redeliver(ids(&[id]), Page::default(), at(9)).await.unwrap();
    assert_eq!(again.items, [id]);
    assert_eq!(operator.list(ids(&[id]), Page::default()).await.unwrap().items[0].due_at, at(9));
    assert_eq!(operator.status().await.unwrap().pending, 1);
    assert_eq!(operator.purge(ids(&[id]), Page::default()).await.unwrap().items, [id]);
    operator.close().await;
    offline().unwrap().close().await;
}

#[tokio::test]
async fn an_export_ends_a_page_before_it_is_too_large() {
    let bed = Bed::new();
    for n in 1..=3 {
        // What compresses well is as large as it is when it is read.
        let mut record = push("github.com/acme/a", n);
        record.content.body = vec![b' '; 5 << 20].into();
        bed.spool.append(record).await.unwrap();
    }
    let live = bed.live();
    let first = live.export(Selection::default(), Page::default()).await.unwrap();
    assert_eq!((first.items.len(), first.next.map(RecordId::get)), (2, Some(2)));
    let page = Page { after: first.next, ..Page::default() };
    let rest = live.export(Selection::default(), page).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_loses_his_place_and_others_have_theirs() {
    let bed = Bed::new();
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(bed.path()).await.unwrap();
        stream.write_all(b"GET /spool HTTP/1.1\r\n").await.unwrap();
        silent.push(stream);
    }
    // Time passes only when everybody waits.
    let asked = tokio::time::timeout(Duration::from_secs(80), bed.get("/")).await;
    assert!(asked.unwrap().starts_with("HTTP/1.1 404 "));
}

/// A gate with one hook, `a`.
#[derive(Default)]
struct Fake {
    switch: std::sync::Mutex<SwitchFile>,
    changes: AtomicUsize,
}

impl LiveGate for Fake {
    fn status(&self) -> Result<GateStatus, Stopping> {
        Err(Stopping)
    }

    fn switch(&self, change: &SwitchChange) -> Result<Vec<HookSwitch>, SwitchError> {
        let mut switch = self.switch.lock().unwrap();
        *switch = switch.changed(change, &["a"], at(0))?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(vec![switch.switch("a", true)])
    }

    fn log(&self, change: &LogChange) -> Result<LogStatus, String> {
        let level = change.level.clone().unwrap_or_else(|| "info".into());
        if level == "loud" {
            return Err("there is no such level".into());
        }
        Ok(LogStatus { level, format: "text".into() })
    }
}

#[tokio::test]
async fn switches_and_log_are_changed_by_what_is_understood_and_by_nothing_else() {
    let bed = Bed::new();
    let path = bed.dir.path().join("gate.sock");
    let fake = Arc::new(Fake::default());
    let server = ControlServer::bind(&path, Control::new().gate(fake.clone())).unwrap();
    let served = tokio::spawn(server.serve(std::future::pending()));
    let client = ControlClient::new(&path);
    let change = |hook: Option<&str>, to| SwitchChange { hook: hook.map(str::to_owned), to };
    let switches = client.switch(&change(Some("a"), SwitchTo::Disabled)).await.unwrap();
    let (from, since) = ("operator".to_owned(), Some(at(0).to_string()));
    let disabled = SwitchStatus { hook: "a".into(), enabled: false, from, since };
    assert_eq!(switches, [disabled]);
    let switches = client.switch(&change(None, SwitchTo::AsConfigured)).await.unwrap();
    assert_eq!((switches[0].enabled, &*switches[0].from), (true, "configuration"));
    let error = client.switch(&change(Some("b"), SwitchTo::Enabled)).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no hook of this name; there is a");
    let error = client.gate_status().await.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ControlErrorKind::Refused, "the gate stops"));
    assert_eq!(client.log().await.unwrap().level, "info");
    let level = |level: &str| LogChange { level: Some(level.into()), format: None };
    assert_eq!(client.set_log(&level("debug")).await.unwrap().level, "debug");
    let error = client.set_log(&level("loud")).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no such level");

    let raw = async |method: &str, target: &str, body: &str| {
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let changes = fake.changes.load(Ordering::Relaxed);
    for (method, target, body, status, wanted) in [
        ("POST", "/status", "", "405", "only GET is taken here"),
        ("GET", "/switch", "", "405", "only POST is taken here"),
        ("PUT", "/log", "{}", "405", "only POST is taken here"),
        ("GET", "/switch/a", "", "404", "nothing of that name"),
        ("POST", "/switch", "", "400", "EOF"),
        ("POST", "/switch", "{\"to\":\"disabled\"}", "400", "say which hook"),
        (
            "POST",
            "/switch",
            "{\"to\":\"disabled\",\"hook\":\"a\",\"all\":true}",
            "400",
            "say which",
        ),
        ("POST", "/switch", "{\"to\":\"off\",\"hook\":\"a\"}", "400", "a hook can be"),
        ("POST", "/switch", "{\"to\":\"disabled\",\"hok\":\"a\"}", "400", "unknown field"),
        ("POST", "/log", "{\"levl\":\"debug\"}", "400", "unknown field"),
    ] {
        let answer = raw(method, target, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {body}: {answer}");
        assert!(answer.contains(wanted), "{target} {body}: {answer}");
    }
    assert_eq!(fake.changes.load(Ordering::Relaxed), changes);
    served.abort();

    let error = ControlClient::new(bed.path()).gate_status().await.unwrap_err();
    assert_eq!(error.to_string(), "this gate has no status");
}

#[test]
fn the_status_of_a_gate_is_read_as_it_was_written() {
    let status = GateStatus {
        spool: Some(SpoolStatus(crate::proxy::spool::Status {
            health: Health::Open,
            pending: 1,
            leased: 0,
            dead: 2,
            delivered: 3,
            bytes: 4,
            history_bytes: 5,
            max_bytes: 6,
            file_bytes: 7,
            free_bytes: None,
            oldest: Some(at(8)),
            attempts: 9,
            set_aside: Vec::new(),
        })),
        hooks: vec![HookStatus {
            switch: SwitchStatus {
                hook: "a".into(),
                enabled: true,
                from: "configuration".into(),
                since: None,
            },
            configured: true,
            path: "/a".into(),
            key_file: "/a.key".into(),
            upstream: None,
        }],
        ..GateStatus::default()
    };
    let text = json::write(&status);
    assert!(text.contains("\"hooks\":[{\"hook\":\"a\",\"enabled\":true,"), "{text}");
    assert_eq!(serde_json::from_str::<GateStatus>(&text).unwrap(), status);
    let strange = text.replace("\"health\":\"open\"", "\"health\":\"fine\"");
    assert!(serde_json::from_str::<GateStatus>(&strange).is_err());
}
