//! Deliveries of real hosts, replayed from a folder that is not part of this repository.
//!
//! `HOOKGATE_CORPUS` names a folder with `<host>/<event>.json` and, beside each, `<event>.headers`: lines
//! of `Name: value`, where `#` begins a comment that tells where the delivery comes from and which
//! secret it was signed with. What each must give stands in [`TABLE`], by hand. The library judges each
//! at the time at which it was recorded, the program at the present: where a scheme signs the time, it is
//! signed anew. Then the bits of the credentials and of the body are turned, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hookgate::clock::{Clock, SystemClock};
use hookgate::event::Rules;
use hookgate::gate::{GateBody, GateLayer};
use hookgate::key::Keyring;
use hookgate::keystore::KeyStore;
use hookgate::outcome::OUTCOME_HEADER;
use hookgate::scheme::{AzureDevops, Gitee, Schemes, StandardWebhooks};
use hookgate::time::Timestamp;
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::client::Request;
use crate::support::gate::Setup;
use crate::support::host::{TOKEN, prove};
use crate::support::upstream::Upstream;

/// What the files name as secrets, the last but one made up here, the last one for URLs alone.
const KEYS: &str = "base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHk= name=everybody\n\
     s3cret-token name=gitlab weak=allow\n\
     whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=gitlab-signing\n\
     s3cret name=azure weak=allow\n\
     bBg5lrt03VixkX85CNqYIcecC0SIGASE name=gitee\n\
     U2VwYXJhdGVLZXlGb3JVUkxz name=urls use=url\n";
const URL_KEY: &str = "U2VwYXJhdGVLZXlGb3JVUkxz";
const HOOK: &str = "[[hook]]\nname = \"default\"\n[hook.azure_devops]\nuser = \"webhook\"\n";

/// File, provider, proof, and what becomes of it.
const TABLE: [(&str, &str, Proof, &str); 49] = {
    use Proof::{Body, GiteeSigned, GitlabSigned, None, Ping, Token};
    [
        ("azure-devops/git.pullrequest.created", "azure-devops", Token, "ignored"),
        ("azure-devops/git.push", "azure-devops", Token, "forwarded"),
        ("bitbucket-cloud/pullrequest_created", "bitbucket-cloud", Body, "ignored"),
        ("bitbucket-cloud/push", "bitbucket-cloud", Body, "forwarded"),
        ("bitbucket-cloud/push_branch_delete", "bitbucket-cloud", Body, "forwarded"),
        ("bitbucket-cloud/push_tag_create", "bitbucket-cloud", Body, "forwarded"),
        ("bitbucket-server/mirror_synchronized_reflimit", "bitbucket-server", Body, "forwarded"),
        ("bitbucket-server/ping", "bitbucket-server", Ping, "pong"),
        ("bitbucket-server/pr_opened", "bitbucket-server", Body, "ignored"),
        ("bitbucket-server/push", "bitbucket-server", Body, "forwarded"),
        ("bitbucket-server/push_branch_delete", "bitbucket-server", Body, "forwarded"),
        // No provider of ours yet: told to whoever has the URL key.
        ("codecommit-sns/notification_push", "", None, "unsupported"),
        ("codecommit-sns/subscription_confirmation", "", None, "unsupported"),
        ("forgejo/push", "forgejo", Body, "forwarded"),
        ("forgejo/tag_create", "forgejo", Body, "forwarded"),
        ("gerrit/ref-updated", "gerrit", None, "forwarded"),
        ("gij/manual_push", "manual", None, "forwarded"),
        ("gij/reindex_single_github_form", "manual", None, "forwarded"),
        ("gij/reindex_single_gitlab_form", "manual", None, "forwarded"),
        ("gitea/branch_create", "gitea", Body, "forwarded"),
        ("gitea/branch_delete", "gitea", Body, "forwarded"),
        ("gitea/pull_request_opened", "gitea", Body, "ignored"),
        ("gitea/push", "gitea", Body, "forwarded"),
        ("gitea/push_no_secret", "gitea", None, "forwarded"),
        ("gitea/tag_create", "gitea", Body, "forwarded"),
        ("gitee/merge_request_open", "gitee", GiteeSigned, "ignored"),
        ("gitee/push", "gitee", GiteeSigned, "forwarded"),
        ("gitee/push_branch_delete", "gitee", GiteeSigned, "forwarded"),
        ("github/create_tag", "github", Body, "ignored"),
        ("github/delete", "github", Body, "ignored"),
        ("github/ping", "github", Body, "pong"),
        ("github/pull_request_closed", "github", Body, "ignored"),
        ("github/pull_request_opened", "github", Body, "ignored"),
        ("github/push", "github", Body, "forwarded"),
        ("github/push_branch_create", "github", Body, "forwarded"),
        ("github/push_branch_delete", "github", Body, "forwarded"),
        ("github/push_tag", "github", Body, "forwarded"),
        ("github/push_tag_delete", "github", Body, "forwarded"),
        ("gitlab/merge_request_open", "gitlab", Token, "ignored"),
        ("gitlab/push", "gitlab", Token, "forwarded"),
        ("gitlab/push_branch_create", "gitlab", Token, "forwarded"),
        ("gitlab/push_branch_delete", "gitlab", Token, "forwarded"),
        ("gitlab/push_signed", "gitlab", GitlabSigned, "forwarded"),
        ("gitlab/tag_push", "gitlab", Token, "forwarded"),
        ("gogs/branch_delete", "gogs", Body, "forwarded"),
        ("gogs/pull_request_opened", "gogs", Body, "ignored"),
        ("gogs/push", "gogs", Body, "forwarded"),
        ("gogs/tag_create", "gogs", Body, "forwarded"),
        ("gogs/tag_delete", "gogs", Body, "forwarded"),
    ]
};

/// What stands in the headers of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// A signature over the body, good at any time.
    Body,
    /// A token or password, good at any time.
    Token,
    /// Standard Webhooks under GitLab's signing token.
    GitlabSigned,
    /// Gitee's signature, which covers the time and not the body.
    GiteeSigned,
    /// Nothing: only a key in the URL lets it in.
    None,
    /// Nothing, and nothing is needed.
    Ping,
}

#[test]
#[ignore = "needs HOOKGATE_CORPUS"]
fn the_library_judges_every_delivery_as_on_the_day_when_it_was_recorded() {
    let judge = Judge::new();
    for delivery in corpus() {
        let Delivery { name, proof, outcome, request, .. } = &delivery;
        let now = delivery.recorded_at();
        assert_eq!(judge.told(request, now), delivery.without_url_key(), "{name}");
        let keyed = request.clone().to(&format!("/webhook/{URL_KEY}"));
        assert_eq!(judge.told(&keyed, now), *outcome, "{name} with the URL key");
        for (bit, target) in turned(URL_KEY.as_bytes()) {
            let target = format!("/webhook/{}", text(&target));
            let refused = judge.told(&request.clone().to(&target), now);
            assert!(REFUSED.contains(&&*refused), "{name}, bit {bit} of the URL key: {refused}");
        }
        for (what, turned) in delivery.turned_credentials() {
            for target in [&request.target, &keyed.target] {
                let refused = judge.told(&turned.clone().to(target), now);
                assert!(REFUSED.contains(&&*refused), "{name}, {what}: {refused}");
            }
        }
        for (at, turned) in delivery.turned_bodies(128) {
            assert_eq!(judge.told(&turned, now), "unauthorized", "{name}, byte {at}");
        }
        if let Proof::GitlabSigned | Proof::GiteeSigned = proof {
            let hours = |hours: i64| Timestamp::from_millis(now.as_millis() + hours * 3_600_000);
            for then in [SystemClock.now(), hours(2), hours(-2)] {
                assert_eq!(judge.told(request, then), "unauthorized", "{name} at {then}");
            }
        }
    }
}

#[test]
#[ignore = "needs HOOKGATE_CORPUS"]
fn the_program_does_with_every_delivery_what_the_table_says() {
    let upstream = Upstream::start();
    let gate = Setup::new().keys(KEYS).hooks(HOOK).upstream(&upstream).start();
    let (mut outcomes, mut turns) = (BTreeMap::<_, u32>::new(), 0);
    for delivery in corpus() {
        let delivery = delivery.signed_anew();
        let Delivery { name, provider, outcome, request, .. } = &delivery;
        let answer = gate.ask(request);
        assert_eq!(answer.outcome(), delivery.without_url_key(), "{name}");
        let received = upstream.take().len();
        assert_eq!(received, usize::from(answer.outcome() == "forwarded"), "{name}");
        let keyed = request.clone().to(&format!("/webhook/{URL_KEY}"));
        assert_eq!(gate.ask(&keyed).outcome(), *outcome, "{name} with the URL key");
        *outcomes.entry(*outcome).or_default() += 1;
        if *outcome == "forwarded" {
            let received = upstream.take_one();
            assert_eq!(received.line, "POST /webhook HTTP/1.1");
            assert_eq!(received.header("hookgate-provider"), Some(*provider), "{name}");
            assert_eq!(received.header("hookgate-event"), Some("push"), "{name}");
            if *provider == "gitee" {
                let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
                assert_eq!((&body["sign"], &body["password"]), (&"".into(), &"".into()), "{name}");
            } else {
                assert_eq!(received.body, request.body, "{name}");
            }
        }

        let mut client = gate.connect();
        let bodies = delivery.turned_bodies(64).map(|(at, turned)| (format!("byte {at}"), turned));
        for (what, turned) in delivery.turned_credentials().chain(bodies) {
            let answer = client.ask(turned.bytes());
            let outcome = answer.header("hookgate-outcome");
            // A head that cannot be read is answered by the parser.
            let refused =
                outcome == Some("unauthorized") || answer.status == 400 && outcome.is_none();
            assert!(refused, "{name}, {what}: {answer:?}");
            if answer.status == 400 || answer.header("connection") == Some("close") {
                client = gate.connect();
            }
            turns += 1;
        }
        assert_eq!(upstream.take().len(), 0, "{name}");
    }
    eprintln!("replayed {outcomes:?}, refused {turns} with one bit turned");
}

/// Whatever is no delivery with a good proof.
const REFUSED: [&str; 3] = ["unauthorized", "not-found", "no request"];

/// A delivery of the corpus.
#[derive(Clone)]
struct Delivery {
    name: String,
    provider: &'static str,
    proof: Proof,
    outcome: &'static str,
    request: Request,
}

/// Every delivery of the folder; each must be in the table.
fn corpus() -> Vec<Delivery> {
    let folder = std::env::var_os("HOOKGATE_CORPUS");
    let folder = PathBuf::from(folder.expect("HOOKGATE_CORPUS names the folder of the deliveries"));
    let mut names = BTreeSet::new();
    for host in fs::read_dir(&folder).expect("a folder") {
        let host = host.expect("an entry").path();
        if !host.is_dir() {
            continue;
        }
        for file in fs::read_dir(&host).expect("a folder") {
            let file = file.expect("an entry").path();
            assert!(
                matches!(file.extension().and_then(|it| it.to_str()), Some("json" | "headers")),
                "neither a body nor its headers: {}",
                file.display()
            );
            let name = file.strip_prefix(&folder).expect("below the folder").with_extension("");
            names.insert(name.to_str().expect("text").to_owned());
        }
    }
    assert!(!names.is_empty(), "no delivery in {}", folder.display());
    names.into_iter().map(|name| Delivery::read(&folder, name)).collect()
}

impl Delivery {
    fn read(folder: &Path, name: String) -> Self {
        let row = TABLE.iter().find(|(file, ..)| *file == name);
        let Some(&(_, provider, proof, outcome)) = row else {
            panic!("{name} is not in the table");
        };
        let read = |ending: &str| {
            let path = folder.join(format!("{name}.{ending}"));
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let headers = String::from_utf8(read("headers")).expect("text");
        let mut request = Request::post("/webhook").body(read("json"));
        for line in headers.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header");
            request = request.header(name, value.trim());
        }
        Self { name, provider, proof, outcome, request }
    }

    /// What the delivery gives as it came.
    fn without_url_key(&self) -> &'static str {
        if self.proof == Proof::None { "unauthorized" } else { self.outcome }
    }

    /// The time that is signed, or the present.
    fn recorded_at(&self) -> Timestamp {
        let number =
            |name: &str| self.request.value(name).expect("a time").parse().expect("a number");
        match self.proof {
            Proof::GitlabSigned => {
                Timestamp::from_seconds(number("webhook-timestamp")).expect("a time")
            }
            Proof::GiteeSigned => Timestamp::from_millis(number("x-gitee-timestamp")),
            _ => SystemClock.now(),
        }
    }

    /// As the host would send it now.
    fn signed_anew(self) -> Self {
        let request = match self.proof {
            Proof::GitlabSigned => {
                let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
                let bare = names.iter().fold(self.request, |it, name| it.without(name));
                prove(bare, &StandardWebhooks, TOKEN, b"")
            }
            Proof::GiteeSigned => {
                let bare = self.request.without("x-gitee-token").without("x-gitee-timestamp");
                prove(bare, &Gitee::default(), "bBg5lrt03VixkX85CNqYIcecC0SIGASE", b"")
            }
            _ => self.request,
        };
        Self { request, ..self }
    }

    /// With each bit of each decoded credential turned: in one header, and in all that say the same.
    fn turned_credentials(&self) -> impl Iterator<Item = (String, Request)> {
        const NAMES: [&str; 9] = [
            "x-hub-signature-256",
            "x-hub-signature",
            "x-forgejo-signature",
            "x-gitea-signature",
            "x-gogs-signature",
            "x-gitlab-token",
            "webhook-signature",
            "x-gitee-token",
            "authorization",
        ];
        let found = NAMES.iter().filter_map(|name| Some((*name, self.request.value(name)?)));
        // SHA-1 counts for nothing, right or wrong; nor does a signature that is empty.
        let found = found
            .filter(|(_, value)| !value.starts_with("sha1=") && !["", "sha256="].contains(value));
        let all: Vec<_> = found.map(|(name, value)| Credential::read(name, value)).collect();
        let mut turns: Vec<_> = all.iter().map(std::slice::from_ref).collect();
        if all.len() > 1 {
            turns.push(&all);
        }
        let mut requests = Vec::new();
        for credentials in turns {
            for (bit, turned) in turned(&credentials[0].bytes) {
                let what = format!("bit {bit} of {}", credentials[0].name);
                let request = credentials.iter().fold(self.request.clone(), |request, it| {
                    assert_eq!(it.bytes, credentials[0].bytes, "the same in all");
                    request.with(it.name, &format!("{}{}", it.prefix, (it.encode)(&turned)))
                });
                requests.push((what, request));
            }
        }
        requests.into_iter()
    }

    /// With one bit turned in up to so many bytes of the body, where the proof covers it.
    fn turned_bodies(&self, most: usize) -> impl Iterator<Item = (usize, Request)> {
        let body = &self.request.body;
        let covers = matches!(self.proof, Proof::Body | Proof::GitlabSigned);
        let count = if covers { body.len().min(most) } else { 0 };
        (0..count).map(move |n| {
            let at = n * body.len() / count;
            let mut turned = body.clone();
            turned[at] ^= 1 << (n % 8);
            (at, self.request.clone().body(turned))
        })
    }
}

/// What stands in a credential header.
struct Credential {
    name: &'static str,
    prefix: &'static str,
    bytes: Vec<u8>,
    /// How the bytes are written.
    encode: fn(&[u8]) -> String,
}

impl Credential {
    fn read(name: &'static str, value: &str) -> Self {
        let prefix = ["sha256=", "v1,", "Basic "].into_iter().find(|it| value.starts_with(it));
        let prefix = prefix.unwrap_or_default();
        let written = &value.as_bytes()[prefix.len()..];
        let (bytes, encode): (_, fn(&[u8]) -> String) = match (name, prefix) {
            ("x-gitlab-token", _) => (written.to_vec(), text),
            ("x-gitee-token", _) | (_, "v1," | "Basic ") => {
                (BASE64.decode(written).expect("base64"), |bytes| BASE64.encode(bytes))
            }
            _ => (HEXLOWER.decode(written).expect("hex"), |bytes| HEXLOWER.encode(bytes)),
        };
        Self { name, prefix, bytes, encode }
    }
}

/// The bytes with one bit turned, for each bit.
fn turned(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + use<> {
    let bytes = bytes.to_vec();
    (0..8 * bytes.len()).map(move |bit| {
        let mut turned = bytes.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        (bit, turned)
    })
}

/// A character for each byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The library's gate with a clock that stands.
struct Judge {
    keys: KeyStore,
    runtime: Runtime,
}

impl Judge {
    fn new() -> Self {
        let keys = KeyStore::fixed(Keyring::parse(KEYS.as_bytes()).expect("keys"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self { keys, runtime: runtime.expect("a runtime") }
    }

    /// What becomes of a request at that time.
    fn told(&self, request: &Request, now: Timestamp) -> String {
        let layer = GateLayer::builder(self.keys.clone())
            .schemes(Schemes::default().azure_devops(AzureDevops::default().user("webhook")))
            .path("/webhook")
            .rules(Rules::default())
            .clock(now)
            .build()
            .expect("a gate");
        let indexer = service_fn(async |_: http::Request<GateBody<Full<Bytes>>>| {
            let forwarded = HeaderValue::from_static("forwarded");
            let mut response = Response::new(Full::<Bytes>::default());
            response.headers_mut().insert(OUTCOME_HEADER, forwarded);
            Ok::<_, Infallible>(response)
        });
        let mut builder = http::Request::post(&request.target);
        for (name, value) in &request.headers {
            let name = name.parse::<HeaderName>().expect("a name");
            builder = builder.header(name, value.as_bytes());
        }
        // What no request can hold reaches no gate.
        let Ok(request) = builder.body(Full::from(request.body.clone())) else {
            return "no request".into();
        };
        let Ok(answer) = self.runtime.block_on(layer.layer(indexer).oneshot(request));
        answer.headers()[OUTCOME_HEADER].to_str().expect("a word").to_owned()
    }
}
