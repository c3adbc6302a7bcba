use std::fs;

use tempfile::TempDir;

use super::*;
use crate::event::Kind;
use crate::provider::{Provider, Providers};
use crate::scheme::UrlKey;
use crate::source::{ClientHeader, Source};

fn folder_with(text: &str) -> (TempDir, Overrides) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookgate.toml");
    fs::write(&path, text).unwrap();
    (dir, Overrides { config: Some(path), ..Overrides::default() })
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let (_dir, overrides) = folder_with(text);
    Config::load(&overrides)
}

/// Line, column and message of every problem.
fn problems(text: &str) -> Vec<(usize, usize, String)> {
    let error = load(text).expect_err(text);
    let place = |problem: &Problem| problem.place.unwrap_or_default();
    error.problems().iter().map(|it| (place(it).0, place(it).1, it.message.clone())).collect()
}

#[test]
fn without_a_file_there_is_one_hook_with_the_defaults() {
    let config = Config::load(&Overrides::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.health.as_ref().unwrap().to_string(), "127.0.0.1:8081");
    assert_eq!(config.limits, Limits::default());
    let [hook] = &config.hooks[..] else { panic!("{config:?}") };
    assert_eq!(
        (hook.name.as_str(), hook.path.as_str(), hook.enabled),
        ("default", "/webhook", true)
    );
    assert_eq!(hook.key_file, Path::new("hookgate-state/webhook.key"));
    assert_eq!((hook.providers, hook.url_key), (Providers::ALL, UrlKey::Accept));
    assert!(hook.upstream.is_none() && !hook.require_signature);
    assert_eq!(load("").unwrap().hooks.len(), 1);
}

const FULL: &str = r#"
listen    = "[::1]:9080"
health    = "off"
state_dir = "state"

[tls]
certificate_file = "tls/cert.pem"
key_file         = "/etc/key.pem"

[limits]
max_body = "1MiB"
body_deadline = "3500ms"
unverified_bytes = "16MiB"
per_source = "50%"
in_flight = 7
connections = 8
keep_alive = "1m"
grace_period = "1h"
shutdown_delay = "0s"

[upstream]
url     = "http://127.0.0.1:9000/jira"
timeout = "2s"

[[hook]]
name      = "one"
providers = ["github", "gitlab"]

[[hook]]
name            = "two"
enabled         = false
disabled_status = 200
path            = "/two/"
key_file        = "two.key"
url_key         = "require"
require         = "signature"
upstream        = "https://indexer.example.com"
events          = ["push", "pull_request"]
repositories    = ["github.com/acme/*", "!github.com/acme/secret"]
refs            = ["refs/heads/*"]
forward_headers = ["x-trace", "x-hub-signature-256"]
[hook.azure_devops]
user   = "webhook"
header = "x-gate-token"
[hook.gitee]
mode = "password"
[hook.generic]
header       = "x-signature"
algorithm    = "sha512"
encoding     = "base64"
prefix       = "sha512="
event_header = "x-event"
push_events  = ["push", "tag"]
"#;

#[test]
fn every_key_is_read() {
    let (dir, overrides) = folder_with(FULL);
    let config = Config::load(&overrides).unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:9080");
    assert_eq!((config.health, config.state_dir), (None, dir.path().join("state")));
    let tls = config.tls.unwrap();
    assert_eq!(tls.certificate, dir.path().join("tls/cert.pem"));
    assert_eq!(tls.key, Path::new("/etc/key.pem"));
    assert_eq!(
        config.limits,
        Limits {
            max_body: 1 << 20,
            body_deadline: Duration::from_millis(3500),
            unverified_bytes: 16 << 20,
            per_source: 50,
            unauthenticated_per_source: None,
            in_flight: 7,
            connections: 8,
            keep_alive: Duration::from_secs(60),
            grace_period: Duration::from_secs(3600),
            shutdown_delay: Duration::ZERO,
        }
    );
    let [one, two] = &config.hooks[..] else { panic!("two hooks") };
    assert_eq!(one.providers, [Provider::Github, Provider::Gitlab].into_iter().collect());
    assert_eq!(one.key_file, dir.path().join("state/webhook.key"));
    assert_eq!(one.upstream.as_ref().unwrap().origin(), "http://127.0.0.1:9000");
    assert_eq!(
        (two.enabled, two.disabled_status.as_u16(), two.path.as_str()),
        (false, 200, "/two")
    );
    assert_eq!((two.url_key, two.require_signature), (UrlKey::Require, true));
    assert_eq!(two.key_file, dir.path().join("two.key"));
    assert_eq!(two.upstream.as_ref().unwrap().origin(), "https://indexer.example.com");
    assert!(two.rules.events.contains(Kind::PullRequest));
    assert!(!one.rules.events.contains(Kind::PullRequest));
    assert_eq!(two.rules.repositories.to_string(), "github.com/acme/*,!github.com/acme/secret");
    assert!(two.rules.refs.matches("refs/heads/x") && !two.rules.refs.matches("refs/tags/x"));
    assert_eq!(two.forward_headers.iter().count(), 2);
    assert_eq!(two.generic_header.as_ref().unwrap(), "x-signature");
    assert_eq!(two.generic_event_header.as_ref().unwrap(), "x-event");
    assert_eq!(two.generic_push_events, ["push", "tag"]);
}

#[test]
fn flags_stand_above_the_file_but_not_above_what_a_hook_names() {
    let (_dir, overrides) = folder_with(FULL);
    let config = Config::load(&Overrides {
        listen: Some("127.0.0.1:1".into()),
        health: Some("127.0.0.1:2".into()),
        upstream: Some("http://flag.example.com".into()),
        key_file: Some("flag.key".into()),
        state_dir: Some("flag-state".into()),
        ..overrides
    })
    .unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.health.unwrap().to_string(), "127.0.0.1:2");
    assert_eq!(config.state_dir, Path::new("flag-state"));
    assert_eq!(config.hooks[0].key_file, Path::new("flag.key"));
    assert_eq!(config.hooks[0].upstream.as_ref().unwrap().origin(), "http://flag.example.com");
    assert_eq!(config.hooks[1].upstream.as_ref().unwrap().origin(), "https://indexer.example.com");
    assert!(config.hooks[1].key_file.ends_with("two.key"));
}

#[test]
fn unknown_keys_are_problems_at_their_place_and_say_what_there_is() {
    for (text, line, column, hint) in [
        ("lisen = \"127.0.0.1:1\"\n", 1, 1, "listen"),
        ("[limits]\nmax_bodi = \"1MiB\"\n", 2, 1, "max_body"),
        ("[[hook]]\nname = \"a\"\n\n[[hook]]\nname = \"b\"\npaht = \"/x\"\n", 6, 1, "path"),
        ("[[hook]]\nname = \"a\"\n[hook.gitee]\nmod = \"sign\"\n", 4, 1, "mode"),
        ("[hooks]\n", 1, 2, "hook"),
        ("min_reindex_interval = \"3s\"\n", 1, 1, "expected"),
    ] {
        let found = problems(text);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, line, column), "{text} {found:?}");
        assert!(found[0].2.contains(hint), "{found:?}");
    }
}

#[test]
fn every_wrong_value_is_told_at_once_with_its_place_and_what_would_be_right() {
    let text = r#"listen = "localhost"
[limits]
max_body = "huge"
body_deadline = "0s"
per_source = "101%"
in_flight = 0
[upstream]
url = "ftp://example.com"
[[hook]]
name = "a b"
disabled_status = 410
path = "webhook"
providers = ["github", "githup"]
url_key = "maybe"
require = "nothing"
upstream = "http://user:canary@example.com"
events = ["push", "issue"]
repositories = ["github.com/["]
refs = ["main"]
forward_headers = ["cookie"]
[hook.azure_devops]
header = "not a header"
[hook.gitee]
mode = "both"
[hook.generic]
header = "x-signature"
algorithm = "md5"
encoding = "base32"
"#;
    let found = problems(text);
    let lines: Vec<_> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(
        lines,
        [1, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24, 27, 28]
    );
    let said = |line: usize| &found.iter().find(|it| it.0 == line).unwrap().2;
    for (line, hint) in [
        (1, "127.0.0.1:8080"),
        (3, "25MiB"),
        (5, "100%"),
        (6, "at least 1"),
        (10, "A-Z"),
        (11, "403"),
        (12, "/webhook"),
        (13, "bitbucket-cloud"),
        (14, "\"require\""),
        (17, "pull_request"),
        (24, "\"password\""),
        (27, "\"sha512\""),
    ] {
        assert!(said(line).contains(hint), "{line}: {}", said(line));
    }
    let all = format!("{found:?}");
    assert!(!all.contains("canary"), "{all}");
}

#[test]
fn a_type_or_syntax_error_tells_its_place_and_no_value() {
    for (text, line, column) in [
        ("listen = 8080\n", 1, 10),
        ("[limits]\nin_flight = \"canary\"\n", 2, 13),
        ("[[hook]]\nname = \"a\"\nenabled = \"canary\"\n", 3, 11),
        ("[upstream]\nurl = \"http://canary\n", 2, 21),
        ("[[hook]]\npath = \"/x\"\n", 1, 1),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1), (line, column), "{text} {found:?}");
        assert!(!found[0].2.contains("canary"), "{found:?}");
    }
}

#[test]
fn hooks_that_cannot_be_told_apart_are_problems() {
    let two = |a: &str, b: &str| {
        format!("[[hook]]\nname = \"a\"\npath = \"{a}\"\n[[hook]]\nname = \"b\"\npath = \"{b}\"\n")
    };
    for (a, b) in [("/x", "/x"), ("/x", "/x/"), ("/x", "/x/y"), ("/x/y", "/x")] {
        assert_eq!(problems(&two(a, b)).len(), 1, "{a} {b}");
    }
    for (a, b) in [("/x", "/y"), ("/x", "/xy"), ("/x", "/x/y/z"), ("/x/a", "/x/b")] {
        assert!(load(&two(a, b)).is_ok(), "{a} {b}");
    }
    let same_name = "[[hook]]\nname = \"a\"\n[[hook]]\nname = \"a\"\npath = \"/b\"\n";
    assert!(problems(same_name)[0].2.contains("the name a"));
    assert_eq!(problems("[[hook]]\nname = \"a\"\nproviders = []\n").len(), 1);
}

#[test]
fn files_and_flags_that_cannot_be_used_are_problems() {
    let missing =
        Overrides { config: Some("/nowhere/hookgate.toml".into()), ..Overrides::default() };
    assert!(Config::load(&missing).unwrap_err().to_string().contains("cannot be read"));
    let flag = Overrides { listen: Some("x".into()), ..Overrides::default() };
    assert!(Config::load(&flag).unwrap_err().to_string().starts_with("--listen: "));
    let ca = "[upstream]\nurl = \"https://a\"\nca_file = \"missing.pem\"\n";
    assert_eq!((problems(ca)[0].0, problems(ca)[0].1), (3, 11));
}

const AT_TOP: &str = r#"allow_from = ["192.0.2.0/24", "::1"]
trusted_proxies = ["10.0.0.0/8", "unix", "2001:db8::/32"]
client_header = "forwarded"
[limits]
unauthenticated_per_source = "60/1m burst 10"
[[hook]]
name = "a"
rate = "100/1m"
repository_rate = "10/1m"
[[hook]]
name = "b"
path = "/b"
allow_from_files = ["lists/github.cidr", "/etc/gate.cidr"]
rate = "off"
"#;

#[test]
fn sources_and_rates_are_read() {
    let (dir, overrides) = folder_with(AT_TOP);
    let config = Config::load(&overrides).unwrap();
    let all = |networks: &[&str]| {
        networks.iter().map(|it| it.parse::<Networks>().unwrap()).collect::<Networks>()
    };
    let proxies = all(&["10.0.0.0/8", "2001:db8::/32"]);
    let proxies = TrustedProxies::new(proxies, ClientHeader::Forwarded).with_unix(true);
    assert_eq!(config.trusted_proxies, proxies);
    let rate = |text: &str| Some(text.parse::<Rate>().unwrap());
    assert_eq!(config.limits.unauthenticated_per_source, rate("60/1m burst 10"));
    let [a, b] = &config.hooks[..] else { panic!("two hooks") };
    let networks = all(&["192.0.2.0/24", "::1"]);
    assert_eq!(a.allow_from, Some(AllowFrom { networks, files: Vec::new() }));
    assert_eq!((a.paces.rate, a.paces.repository_rate), (rate("100/1m"), rate("10/1m")));
    // Its own list stands in place of the one above, which it does not make longer.
    let files = vec![dir.path().join("lists/github.cidr"), "/etc/gate.cidr".into()];
    assert_eq!(b.allow_from, Some(AllowFrom { networks: Networks::default(), files }));
    assert_eq!((b.paces.rate, b.paces.repository_rate), (None, None));
    let defaults = load("").unwrap();
    assert_eq!(defaults.trusted_proxies, TrustedProxies::default());
    assert_eq!(defaults.limits.unauthenticated_per_source, None);
    assert_eq!(defaults.hooks[0].allow_from, None);
    assert!(!defaults.hooks[0].paces.is_limited());
}

#[test]
fn a_wrong_source_or_rate_is_told_at_its_place() {
    let hook = |line: &str| format!("[[hook]]\nname = \"a\"\n{line}\n");
    for (text, line, column, hint) in [
        ("allow_from = [\"::1\", \"canary\"]\n".into(), 1, 22, "192.0.2.0/24"),
        ("allow_from = []\n".into(), 1, 14, "leave this out for everybody"),
        ("allow_from_files = []\n".into(), 1, 20, "leave this out for everybody"),
        // Of a list of addresses that word is no part.
        ("allow_from = [\"unix\"]\n".into(), 1, 15, "expected an address"),
        ("trusted_proxies = [\"10.0.0.1/8\"]\n".into(), 1, 20, "beyond the prefix"),
        (
            "trusted_proxies = [\"::1\", \"unix:\"]\n".into(),
            1,
            27,
            "\"2001:db8::/32\", or \"unix\"",
        ),
        (
            "proxy_protocol = \"require\"\nproxy_protocol_from = [\"10.0.0.1/8\"]\n".into(),
            2,
            24,
            "beyond the prefix",
        ),
        ("client_header = \"x-real-ip\"\n".into(), 1, 17, "\"forwarded\""),
        ("[limits]\nunauthenticated_per_source = \"60\"\n".into(), 2, 30, "\"off\""),
        (hook("allow_from = [\"192.0.2.1:80\"]"), 3, 15, "192.0.2.7"),
        (hook("rate = \"0/1m\""), 3, 8, "60/1m"),
        (hook("repository_rate = \"10/0s\""), 3, 19, "60/1m burst 10"),
    ] {
        let found = problems(&text);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, line, column), "{text} {found:?}");
        assert!(found[0].2.contains(hint) && !found[0].2.contains("canary"), "{found:?}");
    }
    for rate in ["rate", "repository_rate"] {
        let text = format!("[spool]\nenabled = false\n{}", hook(&format!("{rate} = \"1/1m\"")));
        assert!(problems(&text)[0].2.contains("needs the spool"), "{rate}");
        assert!(load(&text.replace("false", "true")).is_ok(), "{rate}");
    }
}

#[test]
fn what_needs_a_restart_is_told_and_what_does_not_is_not() {
    let config = |text: &str| load(&format!("state_dir = \"/s\"\n{text}")).unwrap();
    let now = config("");
    assert_eq!(now.needs_restart(&config("")), Vec::<&str>::new());
    assert_eq!(now.needs_restart(&config("listen = \"127.0.0.1:1\"\n")), ["listen"]);
    assert_eq!(now.needs_restart(&config("[limits]\nconnections = 5\n")), ["limits.connections"]);
    assert!(now.needs_restart(&config("[limits]\nmax_body = \"1MiB\"\n")).is_empty());
    assert!(now.needs_restart(&config("[[hook]]\nname = \"x\"\n")).is_empty());
    assert!(now.needs_restart(&config(AT_TOP)).is_empty());
}

#[test]
fn listeners_may_be_unix_sockets_or_passed_ones_and_paths_belong_to_the_folder_of_the_file() {
    let text =
        "listen = \"unix:run/gate.sock\"\nhealth = \"systemd:health\"\nsocket_mode = \"0600\"\n";
    let (dir, overrides) = folder_with(text);
    let config = Config::load(&overrides).unwrap();
    assert_eq!(config.listen, ListenAddress::Unix(dir.path().join("run/gate.sock")));
    assert_eq!(config.health, Some(ListenAddress::Passed("health".into())));
    assert_eq!(config.socket_mode, 0o600);
    let flags = Overrides {
        listen: Some("systemd:gate".into()),
        health: Some("unix:health.sock".into()),
        upstream: Some("unix:/run/svc.sock:/base".into()),
        ..overrides
    };
    let config = Config::load(&flags).unwrap();
    assert_eq!(config.listen, ListenAddress::Passed("gate".into()));
    assert_eq!(config.health, Some(ListenAddress::Unix("health.sock".into())));
    assert_eq!(config.hooks[0].upstream.as_ref().unwrap().origin(), "unix:/run/svc.sock");
    assert_eq!(load("").unwrap().socket_mode, 0o660);

    let long = format!("listen = \"unix:{}\"\n", "x".repeat(120));
    for (text, column, hint) in [
        ("listen = \"unix:\"\n", 10, "/run/"),
        ("listen = \"systemd:\"\n", 10, "FileDescriptorName"),
        (&long, 10, "too long"),
        ("health = \"unix:\"\n", 10, "/run/"),
        ("socket_mode = \"rw\"\n", 15, "0660"),
        ("socket_mode = \"1777\"\n", 15, "0660"),
        ("socket_mode = \"0066\"\n", 15, "0660"),
        ("socket_mode = \"0698\"\n", 15, "0660"),
        ("upstream.url = \"unix:svc.sock\"\n", 16, "absolute"),
    ] {
        let found = problems(text);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, 1, column), "{text} {found:?}");
        assert!(found[0].2.contains(hint), "{text} {found:?}");
    }
}

#[test]
fn the_proxy_protocol_needs_to_know_from_whom_as_soon_as_others_can_reach_the_listener() {
    let require = "proxy_protocol = \"require\"\n";
    for listen in ["127.0.0.1:1", "[::1]:1", "unix:/run/gate.sock", "systemd:gate"] {
        let config = load(&format!("listen = \"{listen}\"\n{require}")).unwrap();
        assert_eq!(config.proxies, Some(Networks::loopback()), "{listen}");
    }
    let open = "listen = \"0.0.0.0:1\"\n";
    let from = "proxy_protocol_from = [\"10.0.0.0/8\", \"2001:db8::1\"]\n";
    let proxies = load(&format!("{open}{require}{from}")).unwrap().proxies.unwrap();
    assert!(proxies.contains(Source::new([10, 1, 2, 3].into())));
    assert!(!proxies.contains(Source::new([127, 0, 0, 1].into())), "only those that are named");
    assert!(load("proxy_protocol = \"off\"\n").unwrap().proxies.is_none());

    for (text, line, column, hint) in [
        (format!("{open}{require}"), 2, 18, "proxy_protocol_from"),
        (from.to_owned(), 1, 23, "no effect"),
        (format!("proxy_protocol = \"off\"\n{from}"), 2, 23, "no effect"),
        (format!("{require}proxy_protocol_from = []\n"), 2, 23, "nobody"),
        (
            format!("{require}proxy_protocol_from = [\"::1\", \"10.0.0.0/40\"]\n"),
            2,
            31,
            "192.0.2.0/24",
        ),
        ("proxy_protocol = \"auto\"\n".to_owned(), 1, 18, "\"require\""),
    ] {
        let found = problems(&text);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, line, column), "{text} {found:?}");
        assert!(found[0].2.contains(hint), "{text} {found:?}");
    }
}

#[test]
fn a_change_of_where_and_from_whom_is_listened_needs_a_restart() {
    let config = |text: &str| load(&format!("state_dir = \"/s\"\n{text}")).unwrap();
    let plain = config("");
    let require = config("proxy_protocol = \"require\"\n");
    let named = config("proxy_protocol = \"require\"\nproxy_protocol_from = [\"10.0.0.1\"]\n");
    assert_eq!(plain.needs_restart(&config("socket_mode = \"0600\"\n")), ["socket_mode"]);
    assert_eq!(plain.needs_restart(&require), ["proxy_protocol"]);
    assert_eq!(require.needs_restart(&plain), ["proxy_protocol"]);
    assert_eq!(require.needs_restart(&named), ["proxy_protocol_from"]);
    assert_eq!(plain.needs_restart(&config("health = \"unix:/a.sock\"\n")), ["health"]);
    assert!(named.needs_restart(&named.clone()).is_empty());
}

#[test]
fn traces_are_told_to_the_service_and_recorded_unless_something_else_is_said() {
    let tracing = |text: &str| load(text).unwrap().tracing;
    let default = tracing("");
    assert!(default.propagate);
    assert_eq!(default.sampling, crate::proxy::telemetry::Sampling::ALL);
    let other = tracing("[tracing]\npropagate = false\nsample = 0.01\n");
    assert!(!other.propagate);
    assert_eq!(Some(other.sampling), crate::proxy::telemetry::Sampling::new(0.01));
    for wrong in ["1.5", "-0.1", "nan"] {
        let found = problems(&format!("[tracing]\nsample = {wrong}\n"));
        assert_eq!(found, [(2, 10, "expected a part from 0.0 to 1.0".to_owned())], "{wrong}");
    }
    assert_eq!(problems("[tracing]\nsampel = 1.0\n")[0].0, 2);
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_that_cannot_export_says_how_to_get_one_that_can() {
    let found = problems("[tracing]\nendpoint = \"http://127.0.0.1:4318\"\n");
    assert_eq!((found[0].0, found[0].1), (2, 12));
    assert!(found[0].2.contains("--features otlp"), "{found:?}");
}

#[cfg(feature = "otlp")]
#[test]
fn an_endpoint_is_checked_at_its_place_and_a_new_one_needs_a_restart() {
    let config =
        |port: u16| load(&format!("[tracing]\nendpoint = \"http://127.0.0.1:{port}\"\n")).unwrap();
    assert!(config(4318).tracing.export.is_some());
    assert_eq!(config(4318).needs_restart(&config(4318)), Vec::<&str>::new());
    assert_eq!(config(4318).needs_restart(&config(4319)), ["tracing.endpoint"]);
    let found = problems("[tracing]\nendpoint = \"http://user:canary@127.0.0.1\"\n");
    assert_eq!((found[0].0, found[0].1), (2, 12));
    assert!(!found[0].2.contains("canary"), "{found:?}");
}
