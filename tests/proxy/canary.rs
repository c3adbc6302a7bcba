//! Secrets that must come out nowhere.
//!
//! Every path by which a request is taken or refused is walked with known secrets: in headers, in the URL,
//! in bodies that repeat them, in Basic credentials, in key files and configurations that are wrong. Then the
//! log at level `trace`, what was printed, the metrics, the status, the answers, what the service got and the files of the
//! spool are searched for them: as they are, in pieces, percent-encoded, in base64 and hex, as a list of bytes; and for every
//! MAC that was or could be computed with them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use hmac::{Hmac, KeyInit, Mac};
use hookgate::scheme::{
    Algorithm, AzureDevops, Encoding, Family, Generic, Gitea, Gitee, GiteeMode, Github,
    StandardWebhooks,
};
use http::HeaderName;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustls_pki_types::ServerName;
use sha2::{Sha256, Sha512};
use tokio_rustls::TlsConnector;

use crate::support::client::Request;
use crate::support::gate::{Gate, NO_SPOOL, Setup, write_private};
use crate::support::host::{self, Host, Proof, SIGNED_ID, prove};
use crate::support::tls::Pair;
use crate::support::until;
use crate::support::upstream::{Reply, Upstream};

/// The key of every use, with characters that URLs and JSON may write in another way.
const PLAIN: &str = "Canary~Key(1)+x!3f9aPq7Zt2Lw8Rv5Nb4";
/// The bytes of the signing token.
const TOKEN: &[u8] = b"CanaryToken-7Hs2Kd9Fj4Ls8Qw1";
/// The secret that is no text for a URL.
const ENCODED: &str = "Canary: g\u{f6}tt \"und\" / W\u{f6}lt 5Gh8";
/// What a stranger shows, which may be the secret of somebody else.
const STRAY: &str = "CanaryStray6Tg3Yh8Uj1Ik5Ol2Pm7Qz4";
/// The key of the service behind the gate, which stands in its URL.
const UPSTREAM: &str = "CanaryUpstream9Rf4Vg2Bt7Hy1Nj6";

/// What signs the calls of the service.
const SIGNING: &[u8] = b"CanarySigning-3Jd8Fk2Ls9Qw4Zx6";

fn token() -> String {
    format!("whsec_{}", BASE64.encode(TOKEN))
}

fn encoded() -> String {
    format!("base64:{}", BASE64.encode(ENCODED.as_bytes()))
}

fn keys() -> String {
    format!("{PLAIN} name=plain\n{} name=token\n{} name=encoded\n", token(), encoded())
}

/// How much of a secret is too much.
const PIECE: usize = 12;

/// What is searched for: pieces of the secrets in every form.
#[derive(Clone, Default)]
struct Needles(HashSet<[u8; PIECE]>);

impl Needles {
    /// All secrets, in every form.
    fn new() -> Self {
        let mut needles = Self::default();
        for text in [PLAIN, ENCODED, STRAY, UPSTREAM] {
            needles.secret(text.as_bytes());
        }
        for secret in [TOKEN, SIGNING] {
            needles.secret(secret);
        }
        needles
    }

    fn secret(&mut self, secret: &[u8]) {
        self.bytes(secret);
        let text = std::str::from_utf8(secret).expect("text");
        let escaped = format!("{text:?}");
        let encoded = percent_encode(secret, NON_ALPHANUMERIC).to_string();
        for form in [text, escaped.trim_matches('"'), &encoded, &encoded.to_lowercase()] {
            self.0.extend(form.as_bytes().windows(PIECE).map(piece));
        }
        let whole: String = secret.iter().map(|byte| format!("%{byte:02x}")).collect();
        self.add(&whole);
        self.add(&whole.to_uppercase());
    }

    /// The beginning of a form that is no text of its own.
    fn add(&mut self, form: &str) {
        self.0.insert(piece(&form.as_bytes()[..PIECE]));
    }

    /// The MACs of every message that a scheme makes of these parts.
    fn macs(&mut self, request: &Request) {
        let keys = [PLAIN.as_bytes(), TOKEN, ENCODED.as_bytes(), STRAY.as_bytes()];
        let value = |name: &str| request.value(name).unwrap_or_default().as_bytes().to_vec();
        let standard =
            [&value("webhook-id")[..], b".", &value("webhook-timestamp"), b".", &request.body]
                .concat();
        for key in keys {
            let gitee = [&value("x-gitee-timestamp")[..], b"\n", key].concat();
            for message in [&request.body, &standard, &gitee] {
                let mut sha256 = Hmac::<Sha256>::new_from_slice(key).expect("any length");
                sha256.update(message);
                self.bytes(&sha256.finalize().into_bytes());
                let mut sha512 = Hmac::<Sha512>::new_from_slice(key).expect("any length");
                sha512.update(message);
                self.bytes(&sha512.finalize().into_bytes());
            }
        }
    }

    /// Bytes as they are, in hex, in base64 at each of the three places where they can begin, and as numbers.
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.insert(piece(&bytes[..PIECE]));
        self.add(&HEXLOWER.encode(bytes));
        self.add(&HEXUPPER.encode(bytes));
        for shift in 0..3 {
            let shifted = [&[0; 2][..shift], bytes].concat();
            let from = if shift == 0 { 0 } else { shift + 1 };
            self.add(&BASE64.encode(&shifted)[from..]);
            self.add(&BASE64URL_NOPAD.encode(&shifted)[from..]);
        }
        let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
        self.add(&numbers.join(", "));
        self.add(&numbers.join(","));
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: impl AsRef<[u8]>) {
        if let Some(found) = self.find(text) {
            panic!("{place} shows {found}");
        }
    }

    /// Looks into every file of the spool; returns how many bytes those of the database have.
    #[track_caller]
    fn assert_absent_in_spool(&self, gate: &Path) -> usize {
        let mut bytes = 0;
        for entry in fs::read_dir(gate.join("state/spool")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let content = fs::read(&path).expect("a file");
            self.assert_absent(&path.display().to_string(), &content);
            bytes += content.len();
        }
        bytes
    }

    /// The first piece in the text, and its line.
    fn find(&self, text: impl AsRef<[u8]>) -> Option<String> {
        let bytes = text.as_ref();
        // Few places begin like one of the pieces, and only these are looked up.
        let index = |bytes: &[u8]| {
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
        };
        let mut begins = vec![false; 1 << 24];
        self.0.iter().for_each(|piece| begins[index(piece)] = true);
        let mut windows = bytes.windows(PIECE);
        let at = windows.position(|window| begins[index(window)] && self.0.contains(window))?;
        let from = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = String::from_utf8_lossy(&bytes[from..]).lines().next().map(str::to_owned);
        let piece = String::from_utf8_lossy(&bytes[at..at + PIECE]);
        Some(format!("{piece}: {}", line.unwrap_or_default()))
    }
}

fn piece(bytes: &[u8]) -> [u8; PIECE] {
    bytes.try_into().expect("as long as a piece")
}

/// A gate under watch.
struct Watched {
    gate: Gate,
    upstream: Option<Upstream>,
    needles: Needles,
    /// All answers, as they came.
    answers: String,
    outcomes: BTreeSet<String>,
}

impl Watched {
    fn new(setup: Setup, upstream: Option<Upstream>) -> Self {
        let setup = match &upstream {
            Some(upstream) => {
                setup.args(&["--upstream", &format!("{}/{UPSTREAM}", upstream.url())])
            }
            None => setup,
        };
        Self {
            gate: setup.start(),
            upstream,
            needles: Needles::new(),
            answers: String::new(),
            outcomes: BTreeSet::new(),
        }
    }

    fn ask(&mut self, request: &Request) {
        self.needles.macs(request);
        self.send(request.bytes());
    }

    /// Sends the bytes, and takes all that comes back.
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut client = self.gate.connect();
        let _ = client.try_send(bytes);
        client.half_close();
        let answer = String::from_utf8_lossy(&client.rest()).into_owned();
        self.note(&answer);
    }

    fn note(&mut self, answer: &str) {
        let lower = answer.to_lowercase();
        let outcomes = lower.lines().filter_map(|line| line.strip_prefix("hookgate-outcome: "));
        self.outcomes.extend(outcomes.map(str::to_owned));
        self.answers.push_str(answer);
    }

    /// Stops the gate and looks everywhere.
    fn finish(self) -> BTreeSet<String> {
        let Self { gate, upstream, mut needles, answers, outcomes } = self;
        let received = upstream.as_ref().map(Upstream::take).unwrap_or_default();
        let signed = received.iter().any(|one| one.header("webhook-signature").is_some());
        assert_eq!(signed, upstream.is_some());
        for one in &received {
            let text = format!("{:?} {}", one.headers, one.text());
            needles.assert_absent("the service", &text);
            let path = one.line.strip_prefix(&format!("POST /{UPSTREAM}"));
            let path = path.expect("the path of the URL").replace(&format!("/rest/{UPSTREAM}"), "");
            needles.assert_absent("the path", &path);
        }
        // What the gate signs itself is the service's, and nobody else's.
        for signature in received.iter().filter_map(|one| one.header("webhook-signature")) {
            let mac = signature.strip_prefix("v1,").expect("a version");
            needles.bytes(&BASE64.decode(mac.as_bytes()).expect("base64"));
        }
        for path in ["/metrics", "/ready", "/live"] {
            let answer = gate.probe(path);
            needles.assert_absent(path, format!("{:?}{}", answer.headers, answer.text()));
        }
        let folder = Arc::clone(gate.folder());
        for args in [&["status"][..], &["status", "--json"], &["log"]] {
            let setup = Setup::bare(args).args(&["--state-dir", "state"]).within(&folder);
            let finished = setup.run();
            let is_refused = args[0] == "status" && outcomes.contains("unauthorized");
            assert!(!is_refused || finished.stdout.contains("no active key fits"));
            needles.assert_absent(args[0], format!("{}{}", finished.stdout, finished.stderr));
        }
        let has_spool = folder.path().join("state/spool").exists();
        if has_spool {
            // With the log beside the database, and once more when it is all in one.
            needles.assert_absent_in_spool(folder.path());
        }
        let finished = gate.stop();
        assert_eq!(finished.code, Some(0));
        if has_spool {
            assert!(needles.assert_absent_in_spool(folder.path()) > 4096);
        }
        needles.assert_absent("an answer", &answers);
        needles.assert_absent("what was printed", &finished.stdout);
        needles.assert_absent("the log", &finished.stderr);
        assert!(finished.stderr.contains("DEBUG"), "the log is talkative");
        outcomes
    }
}

const HOOKS: &str = "[limits]\nbody_deadline = \"400ms\"\nmax_body = \"64KiB\"\nin_flight = 1\n\
     [upstream]\ntimeout = \"300ms\"\nanswer_within = \"200ms\"\n\
     [[hook]]\nname = \"default\"\n[hook.generic]\nheader = \"x-signature\"\nprefix = \"sha256=\"\n\
     [[hook]]\nname = \"other\"\npath = \"/other\"\n[hook.gitee]\nmode = \"password\"\n\
     [hook.azure_devops]\nheader = \"x-gate-token\"\n\
     [hook.generic]\nheader = \"x-sign\"\nalgorithm = \"sha512\"\nencoding = \"base64\"\n\
     [[hook]]\nname = \"off\"\npath = \"/off\"\nenabled = false\n\
     [[hook]]\nname = \"single\"\npath = \"/single\"\nproviders = [\"generic\"]\nurl_key = \"refuse\"\n\
     [[hook]]\nname = \"keyed\"\npath = \"/keyed\"\nupstream_path = \"/rest/{upstream_key}\"\n\
     upstream_key_file = \"upstream.key\"\nupstream_sign_key_file = \"signing.key\"\n";

/// Writes the files that [`HOOKS`] name.
fn with_files(setup: Setup) -> Setup {
    write_private(&setup.path("upstream.key"), format!("{UPSTREAM} name=jira use=url\n"));
    let signing = format!("whsec_{} name=signing\n", BASE64.encode(SIGNING));
    write_private(&setup.path("signing.key"), signing);
    setup.keys(&keys())
}

/// Requests that are taken: by every scheme, with every kind of key that it takes.
fn good() -> Vec<Request> {
    let mut requests = Vec::new();
    for host in &host::ALL {
        let key = if let Proof::SigningToken(_) = host.proof { token() } else { PLAIN.to_owned() };
        requests.push(host.signed_with(&key));
        if let Proof::Signature(_) | Proof::Token(_) = host.proof {
            requests.push(host.signed_with(PLAIN).to(&format!("/webhook/{PLAIN}")));
        }
    }
    requests.push(host::github_push(&encoded()));
    let gerrit = host::host("gerrit").unproved();
    for target in [format!("/webhook/{PLAIN}?key={STRAY}"), format!("/webhook/{PLAIN}#{STRAY}")] {
        requests.push(gerrit.clone().to(&target));
    }
    // Bodies that repeat the secret.
    let gitee = host::host("gitee");
    let filled = gitee.body.replace("\"password\": \"\"", &format!("\"password\": \"{PLAIN}\""));
    let password = gitee.unproved().to("/other").body(filled.clone());
    requests.push(prove(password, &Gitee::new(GiteeMode::Password), PLAIN, b""));
    let signed = prove(gitee.unproved().body(filled), &Gitee::default(), PLAIN, b"");
    let sign = format!("\"sign\": \"{}\"", signed.value("x-gitee-token").expect("a token"));
    let text = String::from_utf8(signed.body.clone()).expect("text");
    requests.push(signed.body(text.replace("\"sign\": \"\"", &sign)));
    let gitea = host::host("gitea");
    let body = gitea.body.replacen('{', &format!("{{\"secret\": \"{PLAIN}\","), 1);
    let with_secret = gitea.unproved().body(body.clone());
    requests.push(prove(with_secret, &Gitea(Family::Gitea), PLAIN, body.as_bytes()));
    let query = percent_encode(body.as_bytes(), NON_ALPHANUMERIC);
    let mut get =
        gitea.unproved().without("content-type").to(&format!("/webhook?payload={query}")).body("");
    get.method = "GET".into();
    requests.push(prove(get, &Gitea(Family::Gitea), PLAIN, body.as_bytes()));
    // Other places for the proof.
    let azure = AzureDevops::default().header(HeaderName::from_static("x-gate-token"));
    let request = host::host("azure-devops").unproved().to("/other");
    requests.push(prove(request, &azure, PLAIN, b""));
    let generic = Generic::new(HeaderName::from_static("x-sign"));
    let generic = generic.algorithm(Algorithm::Sha512).encoding(Encoding::Base64);
    let request = host::host("generic").unproved().to("/other");
    requests.push(prove(request, &generic, PLAIN, b""));
    requests.push(host::github_push(PLAIN).to("/keyed"));
    // Pings, and what nobody wants.
    for event in ["ping", "issues"] {
        let request = Request::post("/webhook").header("X-GitHub-Event", event).body("{}");
        requests.push(prove(request, &Github, PLAIN, b""));
    }
    // Secrets in headers that mean nothing here.
    for name in [
        "Cookie",
        "Authorization",
        "Proxy-Authorization",
        "X-Api-Key",
        "X-Invented",
        "Referer",
        "X_Token",
        "hookgate-key",
        "X-Forwarded-For",
        "Forwarded",
        "X-GitHub-Encoded-Secret",
        "X-Hub-Signature",
    ] {
        requests.push(host::github_push(PLAIN).header(name, STRAY));
    }
    requests
}

/// Requests that are refused, with secrets wherever there is room for one.
fn bad() -> Vec<Request> {
    let mut requests = Vec::new();
    let spoilt = |host: &Host| {
        let key = if let Proof::SigningToken(_) = host.proof { token() } else { PLAIN.to_owned() };
        let good = host.signed_with(&key);
        let mut spoilt = vec![good.clone().to("/off"), good.clone().to(&format!("/off/{PLAIN}"))];
        for name in host.credentials() {
            let value = good.value(&name).expect("a credential").to_owned();
            spoilt.push(good.clone().header(&name, &value));
            spoilt.push(good.clone().with(&name, &format!("{value}{STRAY}")));
            spoilt.push(good.clone().with(&name, &value[..value.len() - 1]));
            spoilt.push(good.clone().with(&name, PLAIN));
            spoilt.push(good.clone().with(&name, STRAY));
        }
        if host.covers_body() {
            spoilt.push(good.clone().body(host.body.replace("acme", STRAY)));
        }
        spoilt.push(good.clone().body(format!("{{\"ref\":\"{PLAIN}\",\"secret\":{STRAY}}}")));
        spoilt.push(good.to(&format!("/webhook/{STRAY}")));
        spoilt.push(host.signed_with(&if let Proof::SigningToken(_) = host.proof {
            format!("whsec_{}", BASE64.encode(STRAY.as_bytes()))
        } else {
            STRAY.to_owned()
        }));
        spoilt
    };
    requests.extend(host::ALL.iter().flat_map(spoilt));
    // The key in a URL that leads nowhere, or is not quite right.
    let push = host::host("github").unproved();
    for target in [
        format!("/webhook/{PLAIN}/more"),
        format!("/webhook/{PLAIN}/"),
        format!("/webhook//{PLAIN}"),
        format!("//webhook/{PLAIN}"),
        format!("/elsewhere/{PLAIN}"),
        format!("/{PLAIN}"),
        format!("/webhook?key={PLAIN}"),
        format!("/webhook/{PLAIN}x"),
        format!("/webhook/{}", &PLAIN[1..]),
        format!("/webhook/{}", percent_encode(PLAIN.as_bytes(), NON_ALPHANUMERIC)),
        format!("/single/{PLAIN}"),
        format!("http://gate.test/x/{PLAIN}"),
        format!("http://{STRAY}/webhook/{PLAIN}"),
    ] {
        requests.push(push.clone().to(&target));
        let mut other = push.clone().to(&target);
        other.method = "DELETE".into();
        requests.push(other);
    }
    for method in ["DELETE", "CONNECT", STRAY] {
        let mut other = host::github_push(PLAIN).to(&format!("/webhook/{PLAIN}"));
        other.method = method.into();
        requests.push(other);
    }
    // What is authentic and not what it claims to be.
    for body in [
        format!("{{\"ref\": {PLAIN}"),
        format!("{{\"{PLAIN}\": 1, \"{PLAIN}\": 2, \"ref\": 1, \"ref\": 2}}"),
        format!("\"{PLAIN}\""),
        format!("{{\"repository\": {{\"clone_url\": \"{PLAIN}\"}}}}"),
        format!("{{\"repository\": {{\"clone_url\": \"https://u:{PLAIN}@\"}}}}"),
        PLAIN.to_owned(),
    ] {
        let request = Request::post("/webhook").header("X-GitHub-Event", "push").body(body);
        requests.push(prove(request.clone(), &Github, PLAIN, b""));
        let form = request.header("Content-Type", "application/x-www-form-urlencoded");
        requests.push(prove(form, &Github, PLAIN, b""));
    }
    for (name, value) in [("Content-Type", STRAY), ("Content-Encoding", STRAY)] {
        let request = host::host("github").unproved().with(name, value);
        requests.push(prove(request, &Github, PLAIN, b""));
    }
    let large = format!("{}{}", " ".repeat(64 * 1024), PLAIN);
    requests.push(prove(push.body(large), &Github, PLAIN, b""));
    // Out of time, and other misuse of what is signed.
    let standard = host::host("standard-webhooks");
    let old = hookgate::time::Timestamp::from_millis(1_777_000_000_000);
    requests.push(host::prove_at(standard.unproved(), &StandardWebhooks, &token(), b"", old));
    requests.push(host::prove_at(
        host::host("gitee").unproved(),
        &Gitee::default(),
        PLAIN,
        b"",
        old,
    ));
    let signed = prove(standard.unproved(), &StandardWebhooks, &token(), b"");
    requests.push(signed.with("webhook-id", &format!("{SIGNED_ID}.{STRAY}")));
    requests
}

/// What is no request, or none that ends.
fn broken() -> Vec<Vec<u8>> {
    let push = host::github_push(PLAIN).to(&format!("/webhook/{PLAIN}"));
    let whole = push.bytes();
    let text = String::from_utf8(whole.clone()).expect("text");
    let mut broken: Vec<Vec<u8>> = [
        format!("GET /webhook/{PLAIN} HTTP/9.9\r\n\r\n"),
        format!("{PLAIN}\r\n\r\n"),
        format!("GET /webhook/{PLAIN}\r\n\r\n"),
        text.replacen("HTTP/1.1\r\n", &format!("HTTP/1.1\r\n{PLAIN}\r\n"), 1),
        text.replacen("host: gate.test", &format!("host: {STRAY}/{PLAIN}"), 1),
        text.replacen("host: gate.test", &format!("host: {STRAY}\r\nhost: {PLAIN}"), 1),
        text.replacen(
            "host: gate.test",
            &format!("host: a\r\ntransfer-encoding: {STRAY}, chunked"),
            1,
        ),
        text.replacen("host: gate.test", &format!("host: a\r\nupgrade: {STRAY}"), 1),
        text.replacen("content-length: ", &format!("content-length: {STRAY}"), 1),
        text.replacen("host:", &format!("x-fill: {}\r\nhost:", PLAIN.repeat(600)), 1),
    ]
    .map(String::into_bytes)
    .into();
    // A body that does not come, and one that breaks off.
    broken.push(whole[..whole.len() - 10].to_vec());
    let mut half = push.head("transfer-encoding: chunked\r\n");
    half.extend_from_slice(format!("5\r\n{PLAIN}").as_bytes());
    broken.push(half);
    broken
}

/// What stands behind the gate.
#[derive(Clone, Copy, PartialEq)]
enum Behind {
    Nothing,
    Service,
    ServiceWithoutSpool,
}

fn start(format: &str, behind: Behind, hooks: &str) -> Watched {
    let setup = Setup::bare(&["serve", "--log", "trace", "--log-format", format])
        .args(&["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--state-dir", "state"])
        .hooks(hooks);
    let upstream = (behind != Behind::Nothing).then(Upstream::start);
    Watched::new(with_files(setup), upstream)
}

fn walk(format: &str, behind: Behind) {
    let with_service = behind != Behind::Nothing;
    let mut watched = match behind {
        Behind::ServiceWithoutSpool => start(format, behind, &format!("{NO_SPOOL}{HOOKS}")),
        _ => start(format, behind, HOOKS),
    };
    for request in good() {
        watched.ask(&request);
    }
    let taken = if with_service { "forwarded" } else { "printed" };
    assert_eq!(
        watched.outcomes.iter().collect::<Vec<_>>(),
        [taken, "ignored", "pong"]
            .map(String::from)
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    for request in bad() {
        watched.ask(&request);
    }
    for bytes in broken() {
        watched.send(bytes);
    }
    // A body that never comes, though the connection stays.
    let mut client = watched.gate.connect();
    let push = host::github_push(PLAIN).bytes();
    client.send(&push[..push.len() - 10]);
    let answer = client.answer();
    assert_eq!(answer.told(), (408, "timeout"));
    watched.note(&format!("hookgate-outcome: timeout\n{:?}{}", answer.headers, answer.text()));
    match behind {
        Behind::Nothing => {}
        Behind::Service => service_fails_and_recovers(&mut watched),
        Behind::ServiceWithoutSpool => service_fails(&mut watched),
    }
    let mut wanted = vec![
        "disabled",
        "ignored",
        "malformed",
        "method",
        "not-found",
        "pong",
        "timeout",
        "too-large",
        "unauthorized",
        "unsupported",
        taken,
    ];
    match behind {
        Behind::Nothing => {}
        Behind::Service => wanted.extend(["overloaded", "queued", "set-aside"]),
        Behind::ServiceWithoutSpool => wanted.extend(["overloaded", "upstream-failed"]),
    }
    let outcomes = watched.finish();
    assert_eq!(
        outcomes.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        wanted.into_iter().collect()
    );
}

/// A service that shows secrets in its refusals, breaks off, or is not there.
fn failures() -> [Reply; 7] {
    [
        Reply::Answer(302, &[("location", "http://CanaryStray6Tg3Yh8Uj1Ik5Ol2Pm7Qz4/")], STRAY),
        Reply::Answer(401, &[("www-authenticate", STRAY)], STRAY),
        Reply::Answer(500, &[("set-cookie", STRAY)], STRAY),
        Reply::Raw(
            "HTTP/1.1 200 CanaryStray6Tg3Yh8Uj1Ik5Ol2Pm7Qz4\r\ncontent-length: 100\r\n\r\nhalf",
        ),
        Reply::Raw("CanaryStray6Tg3Yh8Uj1Ik5Ol2Pm7Qz4\r\n\r\n"),
        Reply::Close,
        Reply::Reset,
    ]
}

fn service_fails(watched: &mut Watched) {
    let push = host::github_push(PLAIN);
    for reply in failures() {
        watched.upstream.as_ref().expect("a service").reply(reply);
        watched.ask(&push);
        watched.ask(&push.clone().to("/keyed"));
    }
    answers_late(watched, &push, (504, "upstream-failed"));
    watched.upstream.as_ref().expect("a service").release();
}

/// A service that takes a delivery and says nothing in time.
fn answers_late(watched: &mut Watched, push: &Request, told: (u16, &str)) {
    watched.upstream.as_ref().expect("a service").reply(Reply::Hold);
    let mut held = watched.gate.connect();
    held.send(push.bytes());
    watched.upstream.as_ref().expect("a service").holds(1);
    watched.ask(push);
    let late = held.answer();
    assert_eq!(late.told(), told);
    watched.note(&format!("{:?}{}", late.headers, late.text()));
}

/// The same with a spool, from which all but what was refused arrives in the end.
fn service_fails_and_recovers(watched: &mut Watched) {
    let push = host::github_push(PLAIN);
    for reply in failures() {
        watched.upstream.as_ref().expect("a service").reply(reply);
        watched.ask(&push);
        watched.ask(&push.clone().to("/keyed"));
        let good = Reply::Answer(200, &[], "");
        watched.upstream.as_ref().expect("a service").reply(good);
        watched.gate.drains();
    }
    // Later than a host waits, and later than the gate waits.
    answers_late(watched, &push, (202, "queued"));
    watched.upstream.as_ref().expect("a service").reply(Reply::Answer(200, &[], ""));
    watched.upstream.as_ref().expect("a service").release();
    watched.gate.drains();
    let counts = watched.gate.spool();
    assert_eq!((counts.dead, counts.delivered), (4, 11));
}

#[test]
fn secrets_come_out_nowhere_while_deliveries_are_forwarded() {
    walk("json", Behind::Service);
}

#[test]
fn secrets_come_out_nowhere_while_every_delivery_goes_through_the_spool() {
    let hooks = HOOKS.replace("[[hook]]\n", "[[hook]]\ndelivery = \"spool\"\n");
    let mut watched = start("json", Behind::Service, &hooks);
    let requests = good();
    for request in &requests {
        watched.ask(request);
        // Or else one that says the same as another would not be stored.
        watched.gate.drains();
    }
    let outcomes = ["ignored", "pong", "queued"].map(String::from);
    assert_eq!(watched.outcomes, outcomes.into());
    assert_eq!(watched.gate.spool().delivered, requests.len() - 2);
    watched.finish();
}

#[test]
fn secrets_come_out_nowhere_while_deliveries_are_printed() {
    walk("text", Behind::Nothing);
}

#[test]
fn secrets_come_out_nowhere_of_a_text_log_while_deliveries_are_forwarded() {
    walk("text", Behind::ServiceWithoutSpool);
}

#[test]
fn secrets_come_out_nowhere_of_a_json_log_while_deliveries_are_printed() {
    walk("json", Behind::Nothing);
}

#[test]
fn secrets_come_out_nowhere_over_tls_and_http_2() {
    let pair = Pair::new();
    let setup = Setup::bare(&["serve", "--log", "trace", "--log-format", "json"]).args(&[
        "--listen",
        "127.0.0.1:0",
        "--health",
        "127.0.0.1:0",
        "--state-dir",
        "state",
    ]);
    fs::write(setup.path("cert.pem"), &pair.certificate).expect("a file");
    fs::write(setup.path("key.pem"), &pair.key).expect("a file");
    let tls = "[tls]\ncertificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";
    let setup = with_files(setup).hooks(&format!("{tls}{HOOKS}"));
    let mut watched = Watched::new(setup, Some(Upstream::start()));
    watched.needles.add(&pair.key.lines().nth(1).expect("base64")[20..]);
    let elsewhere = |request: &Request| request.target.starts_with("http://");
    // HTTP/2 makes a long log; every third of the bad ones is enough.
    let requests = good().into_iter().chain(bad().into_iter().step_by(3));
    let requests = requests.filter(|request| !elsewhere(request));
    let requests: Vec<_> = requests.collect();
    let mut told = BTreeSet::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(watched.gate.address()).await.expect("TCP");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(pair.client(&["h2"]));
        let tls = connector.connect(name, stream).await.expect("TLS");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
                .await
                .expect("HTTP/2");
        let connection = tokio::spawn(connection);
        for request in requests {
            watched.needles.macs(&request);
            let target = format!("https://gate.test{}", request.target);
            let mut builder = http::Request::builder().method(&*request.method).uri(target);
            for (name, value) in &request.headers {
                // What HTTP/2 has no place for.
                if !["connection", "content-length"].contains(&&*name.to_lowercase()) {
                    builder = builder.header(name, value);
                }
            }
            let Ok(request) = builder.body(Full::new(Bytes::from(request.body))) else { continue };
            let Ok(answer) = sender.send_request(request).await else { continue };
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            told.extend(
                parts
                    .headers
                    .get("hookgate-outcome")
                    .map(|it| it.to_str().expect("text").to_owned()),
            );
            watched.answers.push_str(&format!("{:?}{:?}", parts.headers, body));
        }
        drop(sender);
        let _ = connection.await;
    });
    for wanted in ["forwarded", "unauthorized", "not-found", "malformed", "pong"] {
        assert!(told.contains(wanted), "{wanted}: {told:?}");
    }
    watched.finish();
}

#[test]
fn a_key_file_that_is_wrong_shows_none_of_its_keys() {
    let needles = Needles::new();
    let setup = Setup::bare(&["serve", "--log", "trace"]).args(&[
        "--listen",
        "127.0.0.1:0",
        "--health",
        "127.0.0.1:0",
        "--state-dir",
        "state",
    ]);
    let gate = setup.keys(&keys()).hook().start();
    let wrong = [
        format!("{PLAIN} nmae=plain\n"),
        format!("{PLAIN} name={PLAIN}/x\n"),
        format!("{PLAIN} {STRAY}\n"),
        format!("{PLAIN} use={STRAY}\n"),
        format!("{PLAIN} from={STRAY}\n"),
        format!("{PLAIN} weak={STRAY}\n"),
        format!("{PLAIN} repositories=!{STRAY}\n"),
        format!("{PLAIN} {STRAY}={PLAIN}\n"),
        format!("{PLAIN}\n{PLAIN}\n"),
        format!("{PLAIN}/{STRAY}\n"),
        format!("whsec_{PLAIN}\n"),
        format!("base64:{PLAIN}\n"),
        format!("{PLAIN} name=\n"),
        format!("{PLAIN} name=a\n\u{e4}{STRAY}\n"),
        format!("{}\n", PLAIN.repeat(10)),
        PLAIN[..11].to_owned(),
    ];
    let failures = "hookgate_key_reloads_total{file=\"webhook.key\",result=\"failure\"}";
    for (n, text) in wrong.into_iter().enumerate() {
        write_private(&gate.path("wrong.key"), &text);
        for command in [&["check", "--key-file", "wrong.key"][..], &["key", "check", "wrong.key"]] {
            let finished = Setup::bare(command).within(gate.folder()).run();
            assert_eq!(finished.code, Some(1), "{text}");
            needles.assert_absent("check", format!("{}{}", finished.stdout, finished.stderr));
        }
        // Every other is enough for the gate that runs.
        if n % 2 == 0 {
            fs::rename(gate.path("wrong.key"), gate.path("webhook.key")).expect("ours");
            gate.signal("HUP");
            until("it is refused", || (gate.metric(failures) == (n / 2 + 1) as f64).then_some(()));
        }
    }
    assert_eq!(gate.ask(&host::github_push(PLAIN)).told(), (202, "printed"));
    needles.assert_absent("metrics", gate.metrics());
    let finished = gate.stop();
    assert!(finished.stderr.contains("key file is not taken"));
    needles.assert_absent("the log", format!("{}{}", finished.stdout, finished.stderr));
}

#[test]
fn a_configuration_that_is_wrong_shows_none_of_its_values() {
    let needles = Needles::new();
    let good = "[[hook]]\nname = \"default\"\n";
    let setup = Setup::bare(&["serve", "--log", "trace", "--log-format", "json"]).args(&[
        "--listen",
        "127.0.0.1:0",
        "--health",
        "127.0.0.1:0",
        "--state-dir",
        "state",
    ]);
    let gate = setup.keys(&keys()).config(good).start();
    let values = [
        format!("listen = \"{STRAY}\"\n"),
        format!("listen = {STRAY}\n"),
        format!("listen = \"{STRAY}\n"),
        format!("listen = ['{STRAY}']\n"),
        format!("listen = {{ a = '{STRAY}' }}\n"),
        format!("listen = \"a\" {STRAY}\n"),
        format!("\"{STRAY}\n"),
        format!("health = \"{STRAY}\"\n"),
        format!("[limits]\nmax_body = \"{STRAY}\"\n"),
        format!("[limits]\nin_flight = \"{STRAY}\"\n"),
        format!("[limits]\nkeep_alive = \"{STRAY}\"\n"),
        format!("[limits]\nper_source = \"{STRAY}\"\n"),
        format!("[upstream]\nurl = \"{STRAY}\"\n"),
        format!("[upstream]\nurl = \"http://{STRAY}@h/\"\n"),
        format!("[upstream]\nurl = \"http://h/?k={STRAY}\"\n"),
        format!("[upstream]\nurl = \"http://h/{STRAY}#x\"\n"),
        format!("[upstream]\nurl = [\"http://h/{STRAY}\"]\n"),
        format!("[upstream]\nurl = \"http://h/{STRAY}\\q\"\n"),
        format!("[upstream]\nurl = 'http://h/{STRAY}\"\n"),
        format!("[upstream]\ntimeout = \"{STRAY}\"\n"),
        format!("{good}providers = [\"{STRAY}\"]\n"),
        format!("{good}enabled = \"{STRAY}\"\n"),
        format!("{good}disabled_status = \"{STRAY}\"\n"),
        format!("{good}url_key = \"{STRAY}\"\n"),
        format!("{good}require = \"{STRAY}\"\n"),
        format!("{good}events = [\"{STRAY}\"]\n"),
        format!("{good}refs = [\"{STRAY}\"]\n"),
        format!("{good}path = \"{STRAY}\"\n"),
        format!("{good}[hook.gitee]\nmode = \"{STRAY}\"\n"),
        format!("{good}[hook.azure_devops]\nheader = \"{STRAY} x\"\n"),
        format!("{good}[hook.azure_devops]\nuser = 3\npassword = \"{STRAY}\"\n"),
        format!("[[hook]]\nname = \"{STRAY} x\"\n"),
    ];
    for text in values {
        for command in ["check", "serve"] {
            let setup = Setup::bare(&[command, "--config", "wrong.toml"]);
            fs::write(setup.path("wrong.toml"), &text).expect("a file");
            let finished = setup.run();
            assert_eq!(finished.code, Some(1), "{text}");
            needles.assert_absent(&text, format!("{}{}", finished.stdout, finished.stderr));
        }
    }
    // Numbers can be secrets as well.
    for text in ["[upstream]\nurl = 3141592653589793\n", "[limits]\nin_flight = 3141592653589793\n"]
    {
        let finished = Setup::bare(&["check"]).config(text).run();
        assert_eq!(finished.code, Some(1), "{text}");
        assert!(!finished.stderr.contains("31415926"), "{}", finished.stderr);
    }
    // And while it runs.
    let failures = "hookgate_config_reloads_total{result=\"failure\"}";
    fs::write(gate.path("hookgate.toml"), format!("[upstream]\nurl = \"{STRAY}\"\n"))
        .expect("ours");
    gate.signal("HUP");
    until("it is refused", || (gate.metric(failures) == 1.0).then_some(()));
    // Flags, and a good URL whose path is nobody's business.
    let flag = Setup::bare(&["serve", "--upstream", &format!("http://u:{STRAY}@h/")]).run();
    assert_eq!(flag.code, Some(1));
    needles.assert_absent("a flag", format!("{}{}", flag.stdout, flag.stderr));
    let env = Setup::bare(&["serve", "--help"])
        .env("HOOKGATE_UPSTREAM", &format!("http://h/{STRAY}"))
        .run();
    needles.assert_absent("the help", format!("{}{}", env.stdout, env.stderr));
    let check = Setup::bare(&["check", "--upstream", &format!("http://h/{STRAY}")]).run();
    assert_eq!(check.code, Some(0));
    assert!(check.stdout.contains("http://h\n"), "{}", check.stdout);
    needles.assert_absent("check", format!("{}{}", check.stdout, check.stderr));
    let finished = gate.stop();
    assert!(finished.stderr.contains("configuration is not taken"));
    needles.assert_absent("the log", format!("{}{}", finished.stdout, finished.stderr));
}

#[test]
fn the_search_finds_what_it_is_to_find() {
    let needles = Needles::new();
    let forms = [
        PLAIN.to_owned(),
        format!("x{}", &PLAIN[5..20]),
        percent_encode(PLAIN.as_bytes(), NON_ALPHANUMERIC).to_string(),
        BASE64.encode(PLAIN.as_bytes()),
        BASE64.encode(format!("u:{PLAIN}").as_bytes()),
        BASE64.encode(format!("us:{PLAIN}").as_bytes()),
        BASE64.encode(format!("use:{PLAIN}").as_bytes()),
        HEXLOWER.encode(PLAIN.as_bytes()),
        format!("{:?}", PLAIN.as_bytes()),
        token(),
        format!("{ENCODED:?}"),
        encoded(),
    ];
    for form in forms {
        assert!(needles.find(format!("a {form} b")).is_some(), "{form}");
    }
    let mut needles = Needles::new();
    let push = host::github_push(PLAIN);
    let signature = push.value("x-hub-signature-256").expect("a signature");
    assert_eq!(needles.find(signature), None);
    needles.macs(&push);
    assert!(needles.find(signature).is_some());
    assert_eq!(needles.find("what has nothing of it, not even a CanaryKey"), None);
}
