//! Several hooks, what each wants, and who says so.

use hookgate::scheme::{AzureDevops, Generic, Gitee, Github};
use http::HeaderName;

use super::spoil;
use crate::support::client::Request;
use crate::support::gate::{Gate, Setup};
use crate::support::host::{self, KEY, KEYS, OTHER_KEY, github_push, prove};
use crate::support::upstream::Upstream;

#[test]
fn each_hook_has_its_own_path_keys_providers_and_service() {
    let (first, second, third) = (Upstream::start(), Upstream::start(), Upstream::start());
    let setup = Setup::new();
    std::fs::write(setup.path("second.key"), format!("{OTHER_KEY} name=second\n")).expect("a file");
    let config = format!(
        "[upstream]\nurl = \"{}/base/\"\n\
         [[hook]]\nname = \"first\"\npath = \"/first\"\nproviders = [\"github\", \"gitlab\"]\n\
         [[hook]]\nname = \"second\"\npath = \"/a/second/\"\nkey_file = \"second.key\"\n\
         upstream = \"{}\"\nurl_key = \"require\"\n\
         [[hook]]\nname = \"third\"\npath = \"/third\"\nkey_file = \"second.key\"\n\
         upstream = \"{}/reindex\"\nurl_key = \"refuse\"\nrequire = \"signature\"\n\
         providers = [\"azure-devops\", \"gitee\", \"generic\", \"github\"]\n\
         [hook.azure_devops]\nuser = \"webhook\"\nheader = \"X-Gate-Token\"\n\
         [hook.generic]\nheader = \"X-Sign\"\nalgorithm = \"sha512\"\nencoding = \"base64\"\nprefix = \"v0=\"\n\
         event_header = \"X-Kind\"\npush_events = [\"changed\"]\n\
         [[hook]]\nname = \"fourth\"\npath = \"/fourth\"\nproviders = [\"azure-devops\"]\nurl_key = \"refuse\"\n\
         [hook.azure_devops]\nuser = \"webhook\"\n\
         [[hook]]\nname = \"fifth\"\npath = \"/fifth\"\nproviders = [\"azure-devops\", \"github\"]\n\
         url_key = \"refuse\"\n[hook.azure_devops]\nheader = \"X-Gate-Token\"\n",
        first.url(),
        second.url(),
        third.url(),
    );
    let gate = setup.keys(KEYS).hooks(&config).start();
    let paths = |upstream: &Upstream| -> Vec<_> {
        upstream.take().into_iter().map(|received| received.line).collect()
    };
    let told = |request: &Request| {
        let answer = gate.ask(request);
        (answer.status, answer.outcome().to_owned())
    };
    let forwarded = || (200, "forwarded".to_owned());
    let unauthorized = || (401, "unauthorized".to_owned());
    let not_found = || (404, "not-found".to_owned());

    assert_eq!(told(&github_push(KEY).to("/first")), forwarded());
    assert_eq!(told(&github_push(OTHER_KEY).to("/first")), unauthorized());
    assert_eq!(
        told(&host::host("gerrit").push().to(&format!("/first/{KEY}"))),
        (400, "malformed".into())
    );
    assert_eq!(told(&host::host("gogs").push().to("/first")), unauthorized());
    assert_eq!(told(&github_push(KEY).to("/webhook")), not_found());
    assert_eq!(paths(&first), ["POST /base/first HTTP/1.1"]);

    let keyed = format!("/a/second/{OTHER_KEY}");
    assert_eq!(told(&github_push(OTHER_KEY).to(&keyed)), forwarded());
    assert_eq!(told(&host::host("gerrit").push().to(&keyed)), forwarded());
    assert_eq!(told(&github_push(OTHER_KEY).to("/a/second")), unauthorized());
    assert_eq!(told(&github_push(KEY).to(&keyed)), unauthorized());
    assert_eq!(told(&github_push(OTHER_KEY).to(&format!("/a/second/{KEY}"))), unauthorized());
    assert_eq!(paths(&second), ["POST /a/second HTTP/1.1"; 2]);

    let generic = Generic::new(HeaderName::from_static("x-sign"))
        .prefix("v0=")
        .algorithm(hookgate::scheme::Algorithm::Sha512)
        .encoding(hookgate::scheme::Encoding::Base64);
    let sample = host::host("generic").unproved().to("/third");
    let changed = prove(sample.header("X-Kind", "changed"), &generic, OTHER_KEY, b"");
    assert_eq!(told(&changed), forwarded());
    assert_eq!(told(&changed.clone().with("x-kind", "other")), (200, "ignored".into()));
    assert_eq!(
        told(&changed.clone().with("x-sign", &spoil(changed.value("x-sign").expect("one")))),
        unauthorized()
    );
    assert_eq!(told(&github_push(OTHER_KEY).to("/third")), forwarded());
    assert_eq!(told(&github_push(OTHER_KEY).to(&format!("/third/{OTHER_KEY}"))), not_found());
    // Neither a token nor Gitee's signature, which covers no body, is a signature.
    let azure = host::host("azure-devops").unproved().to("/third");
    let token = AzureDevops::default().header(HeaderName::from_static("x-gate-token"));
    assert_eq!(told(&prove(azure, &token, OTHER_KEY, b"")), unauthorized());
    let gitee = host::host("gitee").unproved().to("/third");
    assert_eq!(told(&prove(gitee, &Gitee::default(), OTHER_KEY, b"")), unauthorized());
    assert_eq!(paths(&third), ["POST /reindex/third HTTP/1.1"; 2]);

    let azure = host::host("azure-devops");
    let as_user = |user: &str| {
        let scheme = AzureDevops::default().user(user);
        prove(azure.unproved().to("/fourth"), &scheme, KEY, b"")
    };
    assert_eq!(told(&as_user("webhook")), forwarded());
    assert_eq!(told(&as_user("other")), unauthorized());
    assert_eq!(told(&prove(azure.unproved().to("/fifth"), &token, KEY, b"")), forwarded());
    assert_eq!(told(&prove(azure.unproved().to("/fifth"), &token, OTHER_KEY, b"")), unauthorized());
    let basic = prove(azure.unproved().to("/fifth"), &AzureDevops::default(), KEY, b"");
    assert_eq!(told(&basic), unauthorized(), "Basic where a header is asked for");
    let received = first.take();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|it| it.header("x-gate-token").is_none()), "{received:?}");
}

#[test]
fn a_hook_lets_through_what_it_wants_and_ignores_the_rest_by_name() {
    let upstream = Upstream::start();
    let config = "[[hook]]\nname = \"default\"\nevents = [\"push\", \"pull_request\"]\n\
         repositories = [\"github.com/acme/*\", \"!github.com/acme/secret\"]\n\
         refs = [\"refs/heads/*\", \"!refs/heads/wip\"]\n\
         [[hook]]\nname = \"pulls\"\npath = \"/pulls\"\nevents = [\"pull_request\"]\n";
    let gate = Setup::new().keys(KEYS).hooks(config).upstream(&upstream).start();
    let github = host::host("github");
    let push = |from: &str, to: &str| {
        let body = github.body.replace(from, to);
        prove(github.unproved().body(body), &Github, KEY, b"")
    };
    let pull = github.unproved().with("x-github-event", "pull_request");
    let pull = prove(pull, &Github, KEY, b"");
    let cases = [
        ("what is wanted", push("main", "main"), None),
        ("a pull request", pull.clone(), None),
        ("another owner", push("acme/", "other/"), Some("repositories")),
        ("the one that is left out", push("widgets", "secret"), Some("repositories")),
        ("a tag", push("refs/heads/main", "refs/tags/v1"), Some("refs")),
        ("a branch below", push("refs/heads/main", "refs/heads/a/b"), Some("refs")),
        ("the branch that is left out", push("refs/heads/main", "refs/heads/wip"), Some("refs")),
        (
            "a push where only pull requests are wanted",
            push("main", "main").to("/pulls"),
            Some("events"),
        ),
        ("a pull request there", pull.to("/pulls"), None),
    ];
    for (what, request, rule) in cases {
        let answer = gate.ask(&request);
        let received = upstream.take().len();
        match rule {
            None => assert_eq!((answer.told(), received), ((200, "forwarded"), 1), "{what}"),
            Some(rule) => {
                assert_eq!((answer.told(), received), ((200, "ignored"), 0), "{what}");
                assert_eq!(answer.json()["rule"], rule, "{what}");
            }
        }
        let stranger = gate.ask(&request.without("x-hub-signature-256"));
        assert_eq!(stranger.told(), (401, "unauthorized"), "{what}, unsigned");
    }
}

#[test]
fn flags_stand_above_the_environment_that_above_the_file_and_that_above_defaults() {
    let (flag, env, file, own) =
        (Upstream::start(), Upstream::start(), Upstream::start(), Upstream::start());
    let config = format!(
        "listen = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\nstate_dir = \"of-the-file\"\n\
         [upstream]\nurl = \"{}\"\n\
         [[hook]]\nname = \"default\"\n\
         [[hook]]\nname = \"own\"\npath = \"/own\"\nkey_file = \"own.key\"\nupstream = \"{}\"\n",
        file.url(),
        own.url()
    );
    let serve = || {
        let setup = Setup::bare(&["serve"]);
        for (name, key) in
            [("own", KEY), ("flag", "FlagKeyFlagKeyFlagKey"), ("env", "EnvKeyEnvKeyEnvKey")]
        {
            std::fs::write(setup.path(format!("{name}.key")), format!("{key} name={name}\n"))
                .expect("a file");
        }
        setup.hooks(&config)
    };
    let answers = |gate: &Gate, key: &str| gate.ask(&github_push(key)).status;

    let gate = serve().start();
    let made = std::fs::read_to_string(gate.path("of-the-file/webhook.key")).expect("a key file");
    let made = made.lines().find_map(|line| line.split_once(" name=")).expect("a key").0.to_owned();
    assert_eq!((answers(&gate, &made), file.take().len()), (200, 1));
    drop(gate);

    let with_env = || {
        serve()
            .env("HOOKGATE_UPSTREAM", &env.url())
            .env("HOOKGATE_KEY_FILE", "env.key")
            .env("HOOKGATE_STATE_DIR", "of-the-environment")
    };
    let gate = with_env().start();
    assert!(gate.path("of-the-environment").exists() && !gate.path("of-the-file").exists());
    assert_eq!((answers(&gate, "EnvKeyEnvKeyEnvKey"), env.take().len()), (200, 1));
    drop(gate);

    let flags =
        ["--upstream", &*flag.url(), "--key-file", "flag.key", "--state-dir", "of-the-flag"];
    let gate = with_env().args(&flags).start();
    assert!(gate.path("of-the-flag").exists() && !gate.path("of-the-environment").exists());
    assert_eq!(answers(&gate, "EnvKeyEnvKeyEnvKey"), 401);
    assert_eq!((answers(&gate, "FlagKeyFlagKeyFlagKey"), flag.take().len()), (200, 1));
    // A hook that names its own keeps it.
    assert_eq!(gate.ask(&github_push(KEY).to("/own")).status, 200);
    assert_eq!(own.take().len(), 1);
    assert_eq!((file.count(), env.count(), flag.count()), (1, 1, 1));
}
