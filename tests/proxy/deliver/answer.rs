//! What the gate answers by itself.

use hookgate::scheme::{Family, Gitea, Github, Gitlab};

use super::gate;
use crate::support::client::Request;
use crate::support::gate::Setup;
use crate::support::host::{self, KEY, KEYS, github_push, prove};
use crate::support::upstream::Upstream;

#[test]
fn pings_are_answered_and_what_is_no_push_is_ignored() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let repository = r#""repository":{"clone_url":"https://git.example.com/acme/widgets.git"}"#;
    let github = |event: &str, body: &str| {
        let request = Request::post("/webhook").header("X-GitHub-Event", event).body(body);
        prove(request.header("X-GitHub-Delivery", "d-1"), &Github, KEY, b"")
    };
    let gitea = |event: &str, body: &str| {
        let request = Request::post("/webhook").header("X-Gitea-Event", event).body(body);
        prove(request, &Gitea(Family::Gitea), KEY, body.as_bytes())
    };
    let gitlab = |event: &str, body: &str| {
        let request = Request::post("/webhook").header("X-Gitlab-Event", event).body(body);
        prove(request, &Gitlab, KEY, b"")
    };
    let same = "1f0e2d3c4b5a69788796a5b4c3d2e1f001234567";
    let test =
        format!(r#"{{"ref":"refs/heads/main","before":"{same}","after":"{same}",{repository}}}"#);
    let azure = host::host("azure-devops");
    let azure_test = azure
        .body
        .replace("6c1f0a4e-52b4-4a53-9c55-1f3a5cf5b0aa", "00000000-0000-0000-0000-000000000000");
    let pings = [
        ("GitHub's ping", github("ping", r#"{"zen":"Design for failure.","hook_id":1}"#)),
        ("Gitea's test", gitea("push", &test)),
        ("Gitee's test", host::host("gitee").push().with("X-Gitee-Ping", "true")),
        ("Azure's test", azure.push().body(azure_test)),
    ];
    for (what, request) in pings {
        let answer = gate.ask(&request);
        assert_eq!(answer.told(), (200, "pong"), "{what}");
        assert_eq!(answer.json()["outcome"], "pong");
        let credentials = [
            "x-hub-signature-256",
            "x-gitea-signature",
            "x-gogs-signature",
            "x-gitee-token",
            "authorization",
        ];
        let twin = credentials.iter().fold(request, |request, name| request.without(name));
        assert_eq!(gate.ask(&twin).told(), (401, "unauthorized"), "{what} of a stranger");
    }
    let ignored = [
        ("GitHub's create, beside which a push comes", github("create", "{}")),
        (
            "a pull request",
            github("pull_request", &format!("{{\"action\":\"opened\",{repository}}}")),
        ),
        ("an event that nobody knows", github("some_new_thing", "{}")),
        ("a merge request", gitlab("Merge Request Hook", r#"{"object_kind":"merge_request"}"#)),
        ("an issue", gitea("issues", "{}")),
    ];
    for (what, request) in ignored {
        let answer = gate.ask(&request);
        assert_eq!(answer.told(), (200, "ignored"), "{what}");
        assert_eq!(answer.json()["rule"], "events", "{what}");
    }
    assert_eq!(gate.ask(&github("ping", "{}")).json()["delivery"], "d-1");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_ping_of_bitbucket_server_needs_no_proof_and_gives_none() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let ping = Request::post("/webhook").header("X-Event-Key", "diagnostics:ping");
    for body in ["{\"test\": true}", "{\"test\":true}", " {\n\t\"test\" : true\r\n} "] {
        assert_eq!(gate.ask(&ping.clone().body(body)).told(), (200, "pong"), "{body:?}");
        let chunked = gate.connect().ask(ping.clone().body(body).chunked(3));
        assert_eq!(chunked.told(), (200, "pong"), "{body:?} in chunks");
    }
    let padded = format!("{{\"test\": true}}{}", " ".repeat(64));
    for body in ["{\"test\": false}", "{\"test\": true, \"a\": 1}", "{}", "", &padded] {
        let answer = gate.ask(&ping.clone().body(body));
        assert_eq!(answer.told(), (401, "unauthorized"), "{body:?}");
        let answer = gate.connect().ask(ping.clone().body(body).chunked(100));
        assert_eq!(answer.told(), (401, "unauthorized"), "{body:?} in chunks");
    }
    let good = ping.body("{\"test\": true}");
    let signature = format!("sha256={}", "0".repeat(64));
    for (name, value) in
        [("X-Hub-Signature", &*signature), ("Authorization", "Basic d2ViaG9vazpzM2NyZXQ=")]
    {
        let answer = gate.ask(&good.clone().header(name, value));
        assert_eq!(answer.told(), (401, "unauthorized"), "beside a bad {name}");
    }
    let answer = gate.ask(&good.clone().to("/webhook/nokey"));
    assert_eq!(answer.told(), (401, "unauthorized"), "beside a bad URL key");
    assert_eq!(gate.ask(&good.clone().to(&format!("/webhook/{KEY}"))).told(), (200, "pong"));
    drop(gate);

    let hook = "[[hook]]\nname = \"default\"\nurl_key = \"require\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    assert_eq!(gate.ask(&good).told(), (401, "unauthorized"));
    assert_eq!(gate.ask(&good.clone().to(&format!("/webhook/{KEY}"))).told(), (200, "pong"));
    drop(gate);

    let hook = "[[hook]]\nname = \"default\"\nproviders = [\"github\", \"bitbucket-cloud\"]\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    assert_eq!(gate.ask(&good).told(), (401, "unauthorized"), "a hook without that provider");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_a_delivery_is_not_is_told_only_to_those_who_proved_themselves() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let signed = |body: &str| {
        let request = Request::post("/webhook").header("X-GitHub-Event", "push").body(body);
        prove(request, &Github, KEY, b"")
    };
    let github = host::host("github");
    let malformed = [
        ("nothing", signed("")),
        ("no JSON", signed("ref=main")),
        ("half of it", signed(&github.body[..github.body.len() / 2])),
        ("two of it", signed(&format!("{0}{0}", github.body))),
        ("a list", signed("[]")),
        ("a number", signed("17")),
        ("no repository", signed("{}")),
        ("null for a repository", signed(r#"{"ref":"refs/heads/main","repository":null}"#)),
        ("a text for a repository", signed(r#"{"ref":"refs/heads/main","repository":"x"}"#)),
        (
            "the same field twice",
            signed(&github.body.replacen('{', r#"{"ref":"refs/heads/a","#, 1)),
        ),
        ("a mark before it", signed(&format!("\u{feff}{}", github.body))),
        ("a nest of lists", signed(&format!("{{\"a\":{}", "[".repeat(100_000)))),
    ];
    for (what, request) in malformed {
        let answer = gate.ask(&request);
        assert_eq!(answer.told(), (400, "malformed"), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        let twin = request.without("x-hub-signature-256");
        assert_eq!(gate.ask(&twin).told(), (401, "unauthorized"), "{what}, unsigned");
    }
    let unsupported = [
        ("content-type", "text/plain"),
        ("content-type", "application/xml"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/jsonp"),
        ("content-type", ""),
        ("content-encoding", "gzip"),
        ("content-encoding", "identity, gzip"),
    ];
    for (name, value) in unsupported {
        let request = github_push(KEY).with(name, value);
        assert_eq!(gate.ask(&request).told(), (415, "unsupported"), "{name}: {value}");
        let twin = request.without("x-hub-signature-256");
        assert_eq!(gate.ask(&twin).told(), (401, "unauthorized"), "{name}: {value}, unsigned");
    }
    assert_eq!(upstream.count(), 0);
    for value in ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"] {
        let request = github_push(KEY).with("content-type", value);
        assert_eq!(gate.ask(&request).told(), (200, "forwarded"), "{value}");
    }
    let none = github_push(KEY).without("content-type");
    assert_eq!(gate.ask(&none).told(), (200, "forwarded"));
    // Behind a good URL key, what no host sends is malformed; behind none, it is a stranger.
    let unknown = Request::post(&format!("/webhook/{KEY}")).body(r#"{"hello":"world"}"#);
    assert_eq!(gate.ask(&unknown).told(), (400, "malformed"));
    assert_eq!(gate.ask(&unknown.to("/webhook")).told(), (401, "unauthorized"));
}

#[test]
fn a_path_that_no_hook_has_is_not_found_and_a_method_that_none_takes_is_told() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let push = github_push(KEY);
    let paths = [
        "/",
        "/web",
        "/webhooks",
        "/Webhook",
        "/webhook/a/b",
        "/hooks/webhook",
        "/webhook2",
        "/metrics",
        "/live",
    ];
    for path in paths {
        let answer = gate.ask(&push.clone().to(path));
        assert_eq!(answer.told(), (404, "not-found"), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["status"], 404);
    }
    assert_eq!(gate.ask(&push.clone().to("/webhook/")).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&push.clone().to("/webhook?source=x")).told(), (200, "forwarded"));
    for method in ["DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "post"] {
        let mut request = push.clone();
        request.method = method.into();
        let answer = gate.ask(&request);
        assert_eq!(answer.told(), (405, "method"), "{method}");
        assert_eq!(answer.header("allow"), Some("GET, POST, PUT"), "{method}");
    }
    let count = upstream.count();
    drop(gate);

    let hook = "[[hook]]\nname = \"default\"\nproviders = [\"github\"]\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    for method in ["GET", "PUT", "HEAD"] {
        let mut request = push.clone();
        request.method = method.into();
        let bytes = request.bytes();
        // The answer to HEAD has the length of a body that does not come.
        let answer = String::from_utf8_lossy(&{
            let mut client = gate.connect();
            client.send(&bytes);
            client.half_close();
            client.rest()
        })
        .to_lowercase();
        assert!(answer.starts_with("http/1.1 405"), "{method}: {answer}");
        assert!(answer.contains("allow: post\r\n"), "{method}: {answer}");
    }
    assert_eq!((upstream.count(), count), (2, 2));
}

#[test]
fn a_hook_that_is_switched_off_lets_nobody_in() {
    let upstream = Upstream::start();
    let hooks = "[[hook]]\nname = \"off\"\npath = \"/off\"\nenabled = false\n\
         [[hook]]\nname = \"silent\"\npath = \"/silent\"\nenabled = false\ndisabled_status = 200\n\
         [[hook]]\nname = \"on\"\npath = \"/on\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hooks).upstream(&upstream).start();
    let unproved = host::host("github").unproved();
    for request in [github_push(KEY), unproved.clone()] {
        let answer = gate.ask(&request.clone().to("/off"));
        assert_eq!(answer.told(), (403, "disabled"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(gate.ask(&request.to("/silent")).told(), (200, "disabled"));
    }
    assert_eq!(gate.ask(&github_push(KEY).to("/on")).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&unproved.to("/on")).told(), (401, "unauthorized"));
    assert_eq!(upstream.count(), 1);
    assert_eq!(gate.counted("disabled"), 4.0);
}
