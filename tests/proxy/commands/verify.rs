//! `hookgate verify`: the ways of breaking a delivery, and the cause that it names for each.

use std::fs;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use hookgate::form;
use hookgate::time::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::run_in;
use crate::support::client::Request;
use crate::support::gate::{Finished, write_private};
use crate::support::host::{
    KEY, OTHER_KEY, TOKEN, github_push, gitlab_signed, gitlab_token, host, prove, prove_at,
};

/// Every kind of key, those in force first.
const KEYS: &str = "\
# for tests
sdf34tGdfgGDG345g3y0045TYG23te37 name=plain
whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=token
Qm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M name=old until=2026-01-01T00:00:00Z
TmV4dEtleVRoYXRDb21lc0xhdGVyT25l name=next from=2100-01-01T00:00:00Z
U2VwYXJhdGVLZXlGb3JVUkxz name=urls use=url
base64:SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHkK name=echoed
";
const AT: &str = "2026-11-24T10:00:00Z";
const SIGNATURE: &str = "X-Hub-Signature-256";

fn at() -> Timestamp {
    AT.parse().unwrap()
}

/// GitHub's push, signed over another body than it has.
fn signed_over(signed: impl Into<Vec<u8>>) -> Request {
    let push = host("github").unproved();
    let body = push.body.clone();
    prove(push.body(signed), &hookgate::scheme::Github, KEY, b"").body(body)
}

/// GitHub's push, signed with other bytes than those of a key.
fn signed_with(secret: impl AsRef<[u8]>) -> Request {
    github_push(&format!("base64:{}", BASE64.encode(secret.as_ref())))
}

/// GitHub's push with another body than was signed.
fn body(change: impl FnOnce(String) -> Vec<u8>) -> Request {
    let push = github_push(KEY);
    let text = String::from_utf8(push.body.clone()).unwrap();
    push.body(change(text))
}

/// GitHub's push with its signature written in another way.
fn written(change: impl FnOnce(&str) -> String) -> Request {
    let push = github_push(KEY);
    let digits = push.value(SIGNATURE).unwrap().strip_prefix("sha256=").unwrap().to_owned();
    push.with(SIGNATURE, &change(&digits))
}

/// The standard webhook, signed as of another time.
fn at_time(seconds: i64) -> Request {
    let push = gitlab_signed().unproved();
    let now = at().saturating_add(std::time::Duration::from_secs(3600));
    let signed = Timestamp::from_millis(now.as_millis() - 3_600_000 + seconds * 1000);
    let body = push.body.clone();
    prove_at(push, &hookgate::scheme::Gitlab, TOKEN, &body, signed)
}

fn form_of(push: &Request) -> String {
    form::encode(std::str::from_utf8(&push.body).unwrap())
}

fn json(push: &Request) -> Value {
    serde_json::from_slice(&push.body).unwrap()
}

/// As Python's `json.dumps` writes it: not what came, since it escapes what is not ASCII.
fn pretty_signed() -> Request {
    let push = github_push(KEY);
    let compact = serde_json::to_string(&json(&push)).unwrap();
    signed_over(compact)
}

/// A way to break a delivery: what it is, its provider, what comes, and the causes that explain it.
type Row = (&'static str, &'static str, Request, &'static [&'static str]);

fn table() -> Vec<Row> {
    let github = host("github");
    let push = github_push(KEY);
    let gitea = host("gitea").push();
    let gitea_form = host("gitea")
        .unproved()
        .with("Content-Type", "application/x-www-form-urlencoded")
        .body(form_of(&gitea));
    let github_form = github
        .unproved()
        .with("Content-Type", "application/x-www-form-urlencoded")
        .body(form_of(&push));
    let over_raw = |request: Request| {
        let body = request.body.clone();
        prove(request, &hookgate::scheme::Gitea(hookgate::scheme::Family::Gitea), KEY, &body)
    };
    let over_json = |request: Request, payload: &[u8]| {
        let form = request.body.clone();
        prove(request.body(payload), &hookgate::scheme::Github, KEY, payload).body(form)
    };
    let no_spaces = json(&push).to_string();
    vec![
        ("a key that ended", "github", github_push(OTHER_KEY), &["key-expired"]),
        (
            "a key that has not begun",
            "github",
            signed_with("TmV4dEtleVRoYXRDb21lc0xhdGVyT25l"),
            &["key-not-yet"],
        ),
        ("a key for another use", "github", signed_with("U2VwYXJhdGVLZXlGb3JVUkxz"), &["key-use"]),
        (
            "a key of another scheme",
            "github",
            signed_with("testtesttesttesttesttesttesttest"),
            &["key-kind"],
        ),
        ("the text of a whsec_ key", "github", signed_with(TOKEN), &["key-text"]),
        ("a key with a line end", "github", signed_with(format!("{KEY}\n")), &["key-newline"]),
        ("a key with CRLF", "github", signed_with(format!("{KEY}\r\n")), &["key-newline"]),
        ("a key with a space", "github", signed_with(format!("{KEY} ")), &["key-space"]),
        ("a key in quotation marks", "github", signed_with(format!("\"{KEY}\"")), &["key-quoted"]),
        (
            "a whole line of the key file",
            "github",
            signed_with(format!("{KEY} name=plain")),
            &["key-line"],
        ),
        (
            "a key decoded as base64",
            "github",
            signed_with(BASE64.decode(KEY.as_bytes()).unwrap()),
            &["key-base64"],
        ),
        ("a key in capitals", "github", signed_with(KEY.to_uppercase()), &["key-case"]),
        (
            "the text of a base64: key",
            "github",
            signed_with("SXQncyBhIFNlY3JldCB0byBFdmVyeWJvZHkK"),
            &["key-text"],
        ),
        (
            "a base64: key with a line end",
            "github",
            signed_with("It's a Secret to Everybody"),
            &["key-file-newline"],
        ),
        ("a line end more", "github", body(|text| (text + "\n").into()), &["body-newline-added"]),
        (
            "a line end less",
            "github",
            signed_over([&push.body[..], b"\n"].concat()),
            &["body-newline-lost"],
        ),
        (
            "CRLF from LF",
            "gitea",
            {
                let push = host("gitea").push();
                let text = String::from_utf8(push.body.clone()).unwrap();
                push.body(text.replace('\n', "\r\n"))
            },
            &["body-crlf"],
        ),
        (
            "JSON written compactly",
            "github",
            body(|text| text.replace("\": ", "\":").replace(", \"", ",\"").into()),
            &["body-json"],
        ),
        (
            "JSON with escapes",
            "github",
            body(|text| text.replace('ö', "\\u00f6").replace('ß', "\\u00df").into()),
            &["body-json"],
        ),
        (
            "JSON that is indented",
            "github",
            {
                let pretty = serde_json::to_vec_pretty(&json(&push)).unwrap();
                signed_over(no_spaces).body(pretty)
            },
            &["body-json"],
        ),
        ("JSON with its keys sorted", "github", pretty_signed(), &["body-json"]),
        (
            "Latin-1 in between",
            "github",
            body(|text| text.bytes().map(char::from).collect::<String>().into_bytes()),
            &["body-charset"],
        ),
        ("an end that was added", "github", body(|text| (text + "{}").into()), &["body-appended"]),
        (
            "a body that was lost before it was signed",
            "github",
            signed_over(""),
            &["body-empty-signed"],
        ),
        (
            "a form, its JSON signed",
            "github",
            over_json(github_form, &push.body),
            &["form-payload-signed"],
        ),
        ("JSON, the form signed", "github", signed_over(form_of(&push)), &["form-signed"]),
        ("a form, the form signed", "gitea", over_raw(gitea_form), &["form-signed"]),
        (
            "SHA-1 alone",
            "github",
            {
                let push = github.unproved();
                push.with("X-Hub-Signature", "sha1=126f2c800419c60137ce748d7672e77b65cf16d6")
            },
            &["sha1-only"],
        ),
        (
            "SHA-1 in the other header",
            "github",
            written(|_| "sha1=126f2c800419c60137ce748d7672e77b65cf16d6".into()),
            &["sha1-only"],
        ),
        ("no prefix", "github", written(|digits| digits.into()), &["prefix-missing"]),
        (
            "a prefix in capitals",
            "github",
            written(|digits| format!("SHA256={digits}")),
            &["prefix-case"],
        ),
        (
            "base64",
            "github",
            written(|digits| {
                format!("sha256={}", BASE64.encode(&HEXLOWER.decode(digits.as_bytes()).unwrap()))
            }),
            &["signature-base64"],
        ),
        (
            "quotation marks",
            "github",
            written(|digits| format!("\"sha256={digits}\"")),
            &["signature-quoted"],
        ),
        (
            "a signature twice",
            "github",
            {
                let signature = push.value(SIGNATURE).unwrap().to_owned();
                github_push(KEY).header(SIGNATURE, &signature)
            },
            &["signature-repeated"],
        ),
        (
            "no secret at the host",
            "gitea",
            host("gitea").unproved().header("X-Gitea-Signature", ""),
            &["signature-empty"],
        ),
        (
            "nothing at all",
            "github",
            github.unproved().without("X-Hub-Signature"),
            &["signature-missing"],
        ),
        (
            "the key in the signature's place",
            "github",
            written(|_| KEY.into()),
            &["token-as-signature"],
        ),
        (
            "a signature in the token's place",
            "gitlab",
            {
                let push = gitlab_token().unproved();
                let signed = prove(push.clone(), &hookgate::scheme::Github, KEY, b"");
                let signature = signed.value(SIGNATURE).unwrap().to_owned();
                push.header("X-Gitlab-Token", &signature)
            },
            &["signature-as-token"],
        ),
        ("a token that ended", "gitlab", gitlab_token().signed_with(OTHER_KEY), &["key-expired"]),
        ("another host's rules", "gitlab", github_push(KEY), &["provider"]),
        ("another host's password", "github", host("azure-devops").push(), &["provider"]),
        ("a clock that is late", "gitlab", at_time(-4000), &["clock"]),
        ("a clock that is early", "gitlab", at_time(400), &["clock"]),
        (
            "a clock that is late, and another key",
            "gitlab",
            {
                let push = gitlab_signed().unproved();
                let body = push.body.clone();
                let other = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
                let early = Timestamp::from_millis(at().as_millis() - 4_000_000);
                prove_at(push, &hookgate::scheme::Gitlab, other, &body, early)
            },
            &["clock"],
        ),
        (
            "milliseconds",
            "gitlab",
            at_time(0).with("webhook-timestamp", &at().as_millis().to_string()),
            &["clock-unit"],
        ),
        ("no id", "gitlab", at_time(0).without("webhook-id"), &["id-missing"]),
        (
            "headers that differ",
            "gitea",
            {
                let other = gitea.value("X-Gitea-Signature").unwrap().replace(['0', '1', '2'], "3");
                host("gitea").push().with("X-Gogs-Signature", &other)
            },
            &["signatures-differ"],
        ),
        (
            "Gitee with a password",
            "gitee",
            host("gitee").unproved().header("X-Gitee-Token", KEY),
            &["gitee-mode"],
        ),
        (
            "a part that is missing",
            "github",
            body(|text| text[..100].into()).header("Content-Length", "999"),
            &["body-length"],
        ),
        ("another body", "github", body(|text| text.replace("widgets", "secrets").into()), &[]),
        ("another secret", "github", signed_with("a secret that nobody put down"), &[]),
        (
            "a test of Bitbucket Server",
            "bitbucket-server",
            {
                Request::post("/")
                    .header("X-Event-Key", "diagnostics:ping")
                    .body("{\"test\": true}")
            },
            &["ping"],
        ),
        ("a host that signs nothing", "gerrit", host("gerrit").unproved(), &["nothing-to-verify"]),
        (
            "a line end more and a key with one",
            "github",
            {
                let push = signed_with(format!("{KEY}\n"));
                let body = [&push.body[..], b"\n"].concat();
                push.body(body)
            },
            &["key-newline", "body-newline-added"],
        ),
    ]
}

/// Runs `verify` on what was caught of a request.
#[track_caller]
fn verify(request: &Request, folder: &Arc<TempDir>, args: &[&str]) -> Finished {
    let head = String::from_utf8(request.head("")).unwrap();
    fs::write(folder.path().join("headers.txt"), head).unwrap();
    fs::write(folder.path().join("body"), &request.body).unwrap();
    let fixed = ["verify", "--headers", "headers.txt", "--body", "body", "--at", AT];
    run_in(folder, &[&fixed[..], args].concat())
}

fn folder() -> Arc<TempDir> {
    let folder = Arc::new(TempDir::with_prefix("hookgate-").unwrap());
    write_private(&folder.path().join("webhook.key"), KEYS);
    folder
}

#[test]
fn each_way_of_breaking_a_delivery_is_named() {
    let folder = folder();
    let mut wrong = Vec::new();
    for (what, provider, request, wanted) in table() {
        let args = ["--key-file", "webhook.key", "--provider", provider, "--json"];
        let finished = verify(&request, &folder, &args);
        assert_eq!(
            (finished.code, &*finished.stderr),
            (Some(1), ""),
            "{what}: {}",
            finished.stdout
        );
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(
            (&report["holds"], &report["key"]),
            (&Value::Bool(false), &Value::Null),
            "{what}"
        );
        let causes = report["causes"].as_array().unwrap();
        let codes: Vec<_> = causes.iter().map(|cause| cause["code"].as_str().unwrap()).collect();
        if codes != wanted {
            wrong.push(format!("{what}: {}", finished.stdout));
        }
        let text = verify(&request, &folder, &args[..4]).stdout;
        for output in [&text, &finished.stdout] {
            assert!(!output.contains(KEY) && !output.contains(OTHER_KEY), "{what}: {output}");
        }
        assert!(text.starts_with("does not hold: "), "{what}: {text}");
        assert!(wanted.iter().all(|code| text.contains(&format!("\n{code}: "))), "{what}: {text}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join(""));
}

#[test]
fn what_holds_is_told_with_its_key_and_what_it_covers() {
    let folder = folder();
    let keys = ["--key-file", "webhook.key"];
    for provider in ["github", "gitea", "forgejo", "gogs", "bitbucket-cloud", "bitbucket-server"] {
        let finished = verify(&host(provider).push(), &folder, &keys);
        let wanted = format!("holds: {provider}, key plain, a signature over the body\n");
        assert_eq!((finished.code, &*finished.stdout), (Some(0), &*wanted), "{provider}");
    }
    for (provider, request) in [
        ("gitlab", gitlab_token().push()),
        ("azure-devops", host("azure-devops").push()),
        ("gerrit", host("gerrit").signed_with("U2VwYXJhdGVLZXlGb3JVUkxz")),
    ] {
        let finished = verify(&request, &folder, &keys);
        assert_eq!(finished.code, Some(0), "{provider}: {}", finished.stdout);
        assert!(finished.stdout.contains("which says nothing of the body"), "{}", finished.stdout);
    }
    // Signed just now, and so not as of the time that the others are verified at.
    let request = at_time(0);
    let finished = verify(&request, &folder, &[&keys[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((finished.code, &report["holds"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!((&report["key"], &report["causes"]), (&"token".into(), &Value::Array(vec![])));
}

#[test]
fn a_page_of_recent_deliveries_is_read_and_its_indentation_seen_through() {
    let folder = folder();
    let push = github_push(KEY);
    let signature = push.value(SIGNATURE).unwrap();
    let page = format!(
        "Request URL: https://gate.example.com/webhook\nRequest method: POST\nAccept: */*\n\
         Content-Type: application/json\nX-GitHub-Event: push\nX-Hub-Signature-256: {signature}\n"
    );
    fs::write(folder.path().join("page.txt"), page).unwrap();
    fs::write(folder.path().join("body"), &push.body).unwrap();
    let args = ["verify", "--headers", "page.txt", "--body", "body", "--key-file", "webhook.key"];
    assert_eq!(
        run_in(&folder, &args).stdout,
        "holds: github, key plain, a signature over the body\n"
    );
}

#[test]
fn a_hook_of_the_configuration_says_what_its_senders_do() {
    let folder = folder();
    let config = "[[hook]]\nname = \"a\"\nkey_file = \"webhook.key\"\n[hook.generic]\n\
         header = \"x-signature\"\nprefix = \"sha256=\"\n[[hook]]\nname = \"b\"\npath = \"/b\"\n";
    fs::write(folder.path().join("hookgate.toml"), config).unwrap();
    let push = host("generic").push();
    let args = ["--config", "hookgate.toml", "--hook", "a"];
    let finished = verify(&push, &folder, &args);
    assert_eq!(finished.stdout, "holds: generic, key plain, a signature over the body\n");
    let bare = push.value("x-signature").unwrap().replace("sha256=", "");
    let finished =
        verify(&push.with("x-signature", &bare), &folder, &[&args[..], &["--json"]].concat());
    assert!(finished.stdout.contains("\"signature-form\""), "{}", finished.stdout);
    let finished = verify(&github_push(KEY), &folder, &args[..2]);
    let wanted = "error: there are several hooks, --hook says which: a, b\n";
    assert_eq!((finished.code, &*finished.stderr), (Some(1), wanted));
}

#[test]
fn a_key_file_that_has_nothing_to_verify_with_is_the_cause() {
    let folder = folder();
    write_private(&folder.path().join("webhook.key"), format!("{KEY} use=url\n"));
    let args = ["--key-file", "webhook.key", "--json"];
    for request in [signed_with("a secret that nobody put down"), at_time(0)] {
        let finished = verify(&request, &folder, &args);
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(
            (finished.code, &report["causes"][0]["code"]),
            (Some(1), &"no-key".into()),
            "{report}"
        );
    }
}

#[test]
fn a_key_vouches_only_for_what_it_is_bound_to() {
    let folder = folder();
    for (pattern, code) in [("github.com/acme/*", Some(0)), ("github.com/other/*", Some(1))] {
        write_private(
            &folder.path().join("webhook.key"),
            format!("{KEY} repositories={pattern}\n"),
        );
        let finished = verify(&github_push(KEY), &folder, &["--key-file", "webhook.key"]);
        assert_eq!(finished.code, code, "{}", finished.stdout);
        assert_eq!(finished.stdout.contains("key-repository: "), code == Some(1));
    }
}

#[test]
fn what_cannot_be_read_is_told_without_its_text() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("good", "X-GitHub-Event: push\n");
    write("bad", "s3cret\n");
    write("none", "Accept: */*\n");
    write("bad.key", "s3 cret\n");
    for (headers, body, keys, wanted) in [
        ("bad", "good", "webhook.key", "error: bad: line 1: expected a header, Name: value\n"),
        (
            "none",
            "good",
            "webhook.key",
            "error: no host can be told from the headers: name it with --provider\n",
        ),
        (
            "missing",
            "good",
            "webhook.key",
            "error: missing: No such file or directory (os error 2)\n",
        ),
        (
            "-",
            "-",
            "webhook.key",
            "error: only one of headers and body can come from the standard input\n",
        ),
        ("good", "good", "bad.key", "error: bad.key:1:4: expected option=value after the key\n"),
    ] {
        let args = ["verify", "--headers", headers, "--body", body, "--key-file", keys];
        let finished = run_in(&folder, &args);
        assert_eq!((finished.code, &*finished.stderr, &*finished.stdout), (Some(1), wanted, ""));
    }
    for args in
        [&["verify"][..], &["verify", "--headers", "a", "--body", "b", "--provider", "githb"]]
    {
        assert_eq!(run_in(&folder, args).code, Some(2), "{args:?}");
    }
}
