//! `hookgate sign` and `hookgate send`: what they make is what the gate takes.

use std::fs;

use serde_json::Value;

use super::run_in;
use crate::support::client::Request;
use crate::support::gate::{Finished, Gate, Setup, run};
use crate::support::host::{HOOK, KEY, KEYS, OTHER_KEY, TOKEN};
use crate::support::until;
use crate::support::upstream::Upstream;

fn send(gate: &Gate, provider: &str, args: &[&str]) -> Finished {
    let to = format!("http://{}/webhook", gate.address());
    let fixed = ["send", "--config", "hookgate.toml", "--key-file", "webhook.key"];
    let which = ["--provider", provider, "--to", &to];
    run_in(gate.folder(), &[&fixed[..], &which, args].concat())
}

#[test]
fn the_samples_of_every_host_are_authentic_and_about_the_repository() {
    let gate = Setup::new().hooks(HOOK).keys(KEYS).start();
    let mut sent = 0;
    for (provider, repository, identity) in [
        ("github", "https://github.com/acme/widgets", "github.com/acme/widgets"),
        (
            "gitlab",
            "https://gitlab.example.com/acme/tools/widgets.git",
            "gitlab.example.com/acme/tools/widgets",
        ),
        ("bitbucket-cloud", "https://bitbucket.org/acme/widgets", "bitbucket.org/acme/widgets"),
        (
            "bitbucket-server",
            "https://bb.example.com/scm/acme/widgets.git",
            "bb.example.com/acme/widgets",
        ),
        ("gitea", "https://gitea.example.com/acme/widgets", "gitea.example.com/acme/widgets"),
        ("forgejo", "https://forgejo.example.com/acme/widgets", "forgejo.example.com/acme/widgets"),
        ("gogs", "http://gogs.example.com:3000/acme/widgets", "gogs.example.com:3000/acme/widgets"),
        (
            "azure-devops",
            "https://dev.azure.com/acme/tools/_git/widgets",
            "dev.azure.com/acme/tools/widgets",
        ),
        ("gerrit", "https://gerrit.example.com/acme/widgets", "gerrit.example.com/acme/widgets"),
        ("gitee", "https://gitee.com/acme/widgets", "gitee.com/acme/widgets"),
        ("manual", "https://git.example.com/acme/widgets.git", "git.example.com/acme/widgets"),
        ("generic", "https://git.example.com/acme/widgets", "git.example.com/acme/widgets"),
        (
            "standard-webhooks",
            "https://git.example.com/acme/widgets",
            "git.example.com/acme/widgets",
        ),
    ] {
        for (event, name) in [("push", "main"), ("tag", "v1.0")] {
            let args = ["--repository", repository, "--event", event, "--name", name, "--json"];
            let finished = send(&gate, provider, &args);
            let told = format!("{provider} {event}: {} {}", finished.stdout, finished.stderr);
            assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{told}");
            let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
            assert_eq!(
                (&report["status"], &report["outcome"]),
                (&202.into(), &"printed".into()),
                "{told}"
            );
            sent += 1;
            let last = until("a line", || {
                let printed = gate.printed();
                let line = printed.lines().nth(sent - 1).map(str::to_owned)?;
                printed.ends_with('\n').then_some(line)
            });
            let last: Value = serde_json::from_str(&last).expect("JSON");
            assert_eq!(last["repository"], identity, "{told}");
            assert_eq!(
                (&last["provider"], &last["event"]),
                (&provider.into(), &"push".into()),
                "{told}"
            );
            if provider != "manual" {
                let full = format!("refs/{}/{name}", if event == "tag" { "tags" } else { "heads" });
                assert_eq!(last["refs"], Value::from(vec![full]), "{told}");
            }
        }
    }
    for provider in
        ["github", "gitea", "forgejo", "gogs", "bitbucket-server", "azure-devops", "gitee"]
    {
        let finished = send(&gate, provider, &["--event", "ping"]);
        let wanted =
            "200 pong: it is authentic, and a test: answered by the gate and sent nowhere\n";
        assert!(
            finished.stdout.starts_with(wanted),
            "{provider}: {} {}",
            finished.stdout,
            finished.stderr
        );
        assert_eq!(finished.code, Some(0));
    }
    let log = gate.log();
    assert!(!log.contains(KEY) && !log.contains(TOKEN));
}

#[test]
fn the_answer_is_told_in_words_and_by_the_exit_code() {
    let upstream = Upstream::start();
    let hooks = "[[hook]]\nname = \"default\"\nrepositories = [\"github.com/acme/*\"]\nproviders = [\"github\"]\n\
         [[hook]]\nname = \"off\"\npath = \"/off\"\nenabled = false\n";
    let gate = Setup::new().config(hooks).keys(KEYS).upstream(&upstream).start();
    let repository = ["--hook", "default", "--repository", "https://github.com/acme/widgets"];
    let finished = send(&gate, "github", &repository);
    assert!(
        finished.stdout.starts_with("200 forwarded: it was sent to the service, which took it\n")
    );
    assert!(
        finished.stdout.contains("\nsent as github with key plain, delivery "),
        "{}",
        finished.stdout
    );
    assert_eq!(finished.code, Some(0));
    let finished = send(&gate, "github", &["--hook", "default"]);
    assert!(finished.stdout.starts_with("200 ignored: "), "{}", finished.stdout);
    let to = |path: &str| format!("http://{}{path}", gate.address());
    for (path, keys, status) in [
        ("/nowhere", "webhook.key", "404 not-found: no hook has this path\n"),
        ("/off", "webhook.key", "403 disabled: the hook is disabled\n"),
        ("/webhook", "other.key", "401 unauthorized: its proof does not hold for this hook"),
    ] {
        fs::write(gate.path("other.key"), format!("{OTHER_KEY}\n")).expect("a file");
        let args = ["send", "--provider", "github", "--key-file", keys, "--to", &to(path)];
        let finished = run_in(gate.folder(), &args);
        assert!(
            finished.stdout.starts_with(status),
            "{path}: {} {}",
            finished.stdout,
            finished.stderr
        );
        assert_eq!(finished.code, Some(1), "{path}");
    }
    // Something that is no gate.
    let to = upstream.url();
    let args = ["send", "--provider", "github", "--key-file", "webhook.key", "--to", &to];
    let finished = run_in(gate.folder(), &args);
    assert!(finished.stdout.contains("by something that is no gate"), "{}", finished.stdout);
}

#[test]
fn what_cannot_be_sent_is_told_and_no_key_with_it() {
    let setup = Setup::bare(&[]).keys(&format!("{KEY} name=plain use=sign\n"));
    let folder = std::sync::Arc::clone(setup.folder());
    let unused = "http://127.0.0.1:9/webhook";
    for (args, wanted) in [
        (&["--provider", "github", "--to", unused][..], "error: no answer from 127.0.0.1:9: "),
        (
            &["--provider", "gerrit", "--to", unused],
            "error: the key file has no active key that fits gerrit\n",
        ),
        (
            &["--provider", "gerrit", "--key", "plain", "--to", unused],
            "error: key plain does not stand in a URL\n",
        ),
        (&["--provider", "gitlab"], "error: the key file has no active key that fits gitlab\n"),
        (
            &["--provider", "gitlab", "--event", "ping", "--key", "plain"],
            "error: gitlab has no ping",
        ),
        (&["--provider", "generic", "--key", "plain"], "error: [hook.generic] describes"),
        (&["--provider", "github", "--key", "x"], "error: the key file has no key of this name\n"),
        (&["--provider", "github", "--to", "gate:80"], "error: --to: expected a URL such as"),
        (
            &["--provider", "github", "--repository", "widgets"],
            "error: expected the repository's address",
        ),
    ] {
        let finished = run_in(&folder, &[&["send", "--key-file", "webhook.key"], args].concat());
        assert!(finished.stderr.starts_with(wanted), "{args:?}: {}", finished.stderr);
        assert!(!finished.stderr.contains(KEY));
        assert_eq!((finished.code, &*finished.stdout), (Some(1), ""), "{args:?}");
    }
    for args in [&["send"][..], &["send", "--provider", "github", "--event", "star"]] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn what_was_signed_for_a_body_is_taken_with_it() {
    let gate = Setup::new().hooks(HOOK).keys(KEYS).start();
    let body = "{\"ref\":\"refs/heads/main\",\"repository\":{\"clone_url\":\"https://github.com/acme/w.git\"}}\n";
    let sign = |args: &[&str], body: &str| {
        let fixed = ["sign", "--key-file", "webhook.key", "--config", "hookgate.toml"];
        Setup::bare(&[&fixed[..], args].concat()).within(gate.folder()).stdin(body).run()
    };
    let form = hookgate::form::encode(body);
    for (provider, event, body) in [
        ("github", "push", body),
        ("github", "push", &form),
        ("gitea", "push", &form),
        ("gogs", "push", body),
        ("bitbucket-cloud", "repo:push", body),
    ] {
        let finished = sign(&["--provider", provider, "--event", event], body);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{provider}");
        let headers = finished.stdout.lines().map(|line| line.split_once(": ").expect("a header"));
        let request = headers
            .fold(Request::post("/webhook").body(body), |request, (name, value)| {
                request.header(name, value)
            });
        let status = gate.ask(&request).status;
        // Bitbucket's body has another shape, which is looked at once the proof held.
        assert!(
            matches!((status, provider), (202, _) | (400, "bitbucket-cloud")),
            "{provider}: {status}"
        );
        assert!(!finished.stdout.contains(KEY), "{provider}");
    }
    let signed: Value = {
        let finished = sign(&["--provider", "gitlab", "--event", "tag", "--json"], body);
        serde_json::from_str(&finished.stdout).expect("JSON")
    };
    assert_eq!(signed["x-gitlab-event"], "Tag Push Hook");
    assert!(signed["webhook-signature"].is_string() && !signed.to_string().contains(TOKEN));
    // A token is the key: nothing shows it unasked.
    let args = ["--provider", "gitlab", "--key", "plain"];
    let finished = sign(&args, body);
    assert_eq!((finished.code, &*finished.stdout), (Some(1), ""));
    assert!(
        finished.stderr.starts_with("error: this host sends the key itself"),
        "{}",
        finished.stderr
    );
    let finished = sign(&[&args[..], &["--show-key"]].concat(), body);
    assert!(finished.stdout.contains(&format!("x-gitlab-token: {KEY}\n")), "{}", finished.stdout);
    for (args, wanted) in [
        (["--provider", "gerrit"], "error: gerrit signs nothing: the key stands in the URL\n"),
        (["--provider", "standard-webhooks"], ""),
    ] {
        assert_eq!(sign(&args, body).stderr, wanted);
    }
}
