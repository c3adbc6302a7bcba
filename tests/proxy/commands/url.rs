//! `hookgate url`: what it shows, and what only when it is asked.

use std::fs;
use std::sync::Arc;

use serde_json::Value;

use super::run_in;
use crate::support::gate::{Setup, run};
use crate::support::host::{HOOK, KEY, KEYS, TOKEN, host};

const BASE: [&str; 2] = ["--base-url", "https://gate.example.com/"];
const ASK: [&str; 4] = ["url", "--config", "hookgate.toml", "--key-file"];

#[test]
fn every_host_has_its_form_and_a_key_is_shown_only_when_asked_for() {
    let setup = Setup::bare(&[]).config(HOOK).keys(KEYS);
    let folder = Arc::clone(setup.folder());
    let ask = |more: &[&str]| run_in(&folder, &[&ASK[..], &["webhook.key"], &BASE, more].concat());
    let finished = ask(&[]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{}", finished.stdout);
    let text = finished.stdout;
    assert!(
        text.starts_with("hook default: https://gate.example.com/webhook\n\nGitHub, repository: ")
    );
    for title in [
        "GitHub, repository",
        "GitHub, organization",
        "GitLab, project",
        "GitLab, group",
        "GitLab, system hook",
        "Bitbucket Cloud",
        "Bitbucket Data Center",
        "Gitea",
        "Forgejo",
        "Gogs",
        "Azure DevOps",
        "Gerrit",
        "Gitee",
        "Standard Webhooks sender",
        "Any sender with an HMAC over the body",
        "A trigger made by hand",
    ] {
        assert!(text.contains(&format!("\n{title}: ")), "{title}: {text}");
    }
    for line in [
        "  Payload URL                       https://gate.example.com/webhook\n",
        "  Secret                            (key plain of webhook.key; --show-key shows it)\n",
        "  Signing token                     (key token of webhook.key; --show-key shows it)\n",
        "  Basic authentication username     hookgate\n",
        "  Header of the signature           x-signature\n",
        "-d '{\"url\":\"https://gate.example.com/webhook/<key>\",\"events\":[\"ref-updated\"],",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains(KEY) && !text.contains(TOKEN), "{text}");

    let shown = ask(&["--show-key"]).stdout;
    assert!(shown.contains(&format!("\n  Secret                            {KEY}\n")), "{shown}");
    assert!(shown.contains(&format!("\n  Signing token                     {TOKEN}\n")), "{shown}");
    // In a URL only where a host can show it nowhere else.
    let in_url = format!("https://gate.example.com/webhook/{KEY}");
    let (before, rest) = shown.split_once("\nGerrit: ").expect("Gerrit");
    let (gerrit, after) = rest.split_once("\nGitee: ").expect("Gitee");
    assert!(!before.contains(&in_url) && gerrit.matches(&in_url).count() == 2, "{shown}");
    assert_eq!(after.matches(&in_url).count(), 1, "{after}");
}

#[test]
fn what_is_shown_is_what_the_gate_takes() {
    let gate = Setup::new().hook().keys(KEYS).start();
    let base = format!("http://{}", gate.address());
    let args = ["--base-url", &base, "--provider", "gerrit", "--show-key", "--json"];
    let finished = run_in(gate.folder(), &[&ASK[..], &["webhook.key"], &args].concat());
    let hooks: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let fields = hooks[0]["places"][0]["fields"].as_array().expect("fields");
    assert_eq!(
        (fields[0]["name"].as_str(), hooks[0]["hook"].as_str()),
        (Some("url"), Some("default"))
    );
    let url = fields[0]["value"].as_str().expect("a URL").strip_prefix(&base).expect("the base");
    assert_eq!(gate.ask(&host("gerrit").unproved().to(url)).told(), (202, "printed"));
}

#[test]
fn hooks_show_what_they_need_and_no_more() {
    let config = "[[hook]]\nname = \"a\"\nproviders = [\"github\"]\nurl_key = \"require\"\nevents = [\"push\", \"pull_request\"]\n\
         [[hook]]\nname = \"b\"\npath = \"/b\"\nproviders = [\"azure-devops\", \"gerrit\"]\nurl_key = \"refuse\"\n\
         [hook.azure_devops]\nheader = \"x-gate-token\"\n";
    let setup = Setup::bare(&[]).config(config).keys(KEYS);
    let folder = Arc::clone(setup.folder());
    let ask = |more: &[&str]| run_in(&folder, &[&ASK[..], &["webhook.key"], &BASE, more].concat());
    let text = ask(&["--show-key"]).stdout;
    let (a, b) = text.split_once("\nhook b: https://gate.example.com/b\n").expect("two hooks");
    assert!(
        a.contains(&format!(
            "Payload URL                       https://gate.example.com/webhook/{KEY}\n"
        )),
        "{a}"
    );
    assert!(
        a.contains("individual events: Pushes, Pull requests\n") && !a.contains("GitLab"),
        "{a}"
    );
    assert!(
        b.contains(&format!("  HTTP headers                      x-gate-token:{KEY}\n")),
        "{b}"
    );
    assert!(b.contains("  url_key = \"refuse\": this hook takes no key in its URL"), "{b}");
    assert!(!ask(&["--hook", "b"]).stdout.contains("hook a:"));
    let only = ask(&["--provider", "gerrit"]).stdout;
    assert!(only.starts_with("hook b: ") && !only.contains("Azure"), "{only}");
    for (args, wanted) in [
        (&["--provider", "gogs"][..], "error: the hook does not take gogs\n"),
        (&["--hook", "c"], "error: there is no hook of this name; there is a, b\n"),
    ] {
        let finished = ask(args);
        assert_eq!((finished.code, &*finished.stderr, &*finished.stdout), (Some(1), wanted, ""));
    }
    fs::remove_file(folder.path().join("webhook.key")).expect("a file");
    assert!(ask(&[]).stderr.starts_with("error: webhook.key: "));
    for url in
        ["gate.example.com", "ftp://gate", "https://gate/?a", "https://u:p@gate", "https://gate/#a"]
    {
        let finished = run_in(&folder, &[&ASK[..], &["webhook.key", "--base-url", url]].concat());
        assert!(
            finished.stderr.starts_with("error: --base-url: expected a URL"),
            "{url}: {}",
            finished.stderr
        );
        assert_eq!(finished.code, Some(1));
    }
    assert_eq!(run(&["url", "--provider", "githb"]).code, Some(2));
}
