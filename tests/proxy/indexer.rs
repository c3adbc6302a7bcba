//! From `git push` to a search: the hook of `examples/post-receive`, the program, and the service of
//! `examples/indexer.rs` behind it.

#[path = "../../examples/support/indexer/mod.rs"]
mod service;

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hookgate::key::Keyring;
use hookgate::keystore::KeyStore;
use hookgate::scheme::StandardWebhooks;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::service::Indexer;
use crate::support::client::{Answer, Request, ask};
use crate::support::gate::{Gate, Setup, write_private};
use crate::support::host::{KEY, KEYS, OTHER_KEY, TOKEN, prove};
use crate::support::until;

const ADDRESS: &str = "https://git.example.com/acme/widgets.git";

/// A bare repository, somebody's clone of it, and the indexer that fetches from the first.
struct Site {
    folder: TempDir,
    indexer: SocketAddr,
    _running: Runtime,
}

impl Site {
    fn start() -> Self {
        let folder = TempDir::with_prefix("hookgate-").expect("a folder");
        let running = Runtime::new().expect("a runtime");
        let listener = running.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let indexer = listener.local_addr().expect("an address");
        let remotes =
            vec![("git.example.com".into(), folder.path().join("git").display().to_string())];
        let keys = KeyStore::fixed(Keyring::parse(TOKEN.as_bytes()).expect("a key"));
        let service = Indexer::open(&folder.path().join("data"), remotes).expect("an index");
        let router = service.router(keys).expect("a router");
        running.spawn(async move { axum::serve(listener, router).await });
        let site = Self { folder, indexer, _running: running };
        site.git(".", &["init", "--bare", "--initial-branch=main", "git/acme/widgets.git"]);
        site.git(".", &["init", "--initial-branch=main", "work"]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs git with nobody's configuration, and gives what it says.
    #[track_caller]
    fn git<A: AsRef<OsStr>>(&self, folder: &str, args: &[A]) -> String {
        let output = Command::new("git")
            .current_dir(self.path(folder))
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Puts these lines into a file, pushes it to a branch, and gives what the terminal shows.
    #[track_caller]
    fn push(&self, branch: &str, lines: &str) -> String {
        fs::write(self.path("work/notes.txt"), lines).expect("a file");
        self.git("work", &["add", "--all"]);
        self.git("work", &["commit", "--message", lines]);
        self.git("work", &["push", "../git/acme/widgets.git", &format!("HEAD:{branch}")])
    }

    #[track_caller]
    fn search(&self, encoded: &str) -> Answer {
        ask(self.indexer, &Request::new("GET", &format!("/search?q={encoded}")))
    }

    #[track_caller]
    fn found(&self, encoded: &str) -> Vec<Value> {
        let answer = self.search(encoded);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer.json()["results"].as_array().expect("results").clone()
    }

    /// Tells the indexer of a push as the gate would.
    #[track_caller]
    fn tell(&self, address: &str) -> Answer {
        let body = json!({"repository": {"git_http_url": address}}).to_string();
        let request = Request::post("/webhook").body(body.clone());
        ask(self.indexer, &prove(request, &StandardWebhooks, TOKEN, body.as_bytes()))
    }

    /// A gate in front of the indexer, and the hook that tells it of pushes.
    fn gate(&self) -> Gate {
        let config = format!(
            "[[hook]]\nname = \"default\"\nupstream = \"http://{}\"\nupstream_body = \"reindex\"\n\
             upstream_sign_key_file = \"signing.key\"\n",
            self.indexer
        );
        let setup = Setup::new().keys(KEYS).config(&config);
        write_private(&setup.path("signing.key"), format!("{TOKEN} name=indexer\n"));
        let gate = setup.start();
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/post-receive");
        let there = self.path("git/acme/widgets.git/hooks/post-receive");
        fs::copy(hook, there).expect("the hook");
        self.say("webhook", &format!("http://{}/webhook", gate.address()));
        self.say("cloneUrl", ADDRESS);
        self.say("keyFile", gate.path("webhook.key").to_str().expect("text"));
        gate
    }

    /// Says something to the hook.
    fn say(&self, name: &str, value: &str) {
        self.git("git/acme/widgets.git", &["config", &format!("hookgate.{name}"), value]);
    }
}

#[test]
#[ignore = "needs git, curl and openssl"]
fn what_is_pushed_can_be_searched_and_what_was_removed_no_more() {
    let site = Site::start();
    let gate = site.gate();
    let said = site.push("main", "turn \"clockwise\" only\nand never by hand\n");
    assert!(said.contains("hookgate answered 20"), "{said}");
    let found = until("the pushed line", || site.found("CLOCKWISE%22").pop());
    let line = json!({
        "repository": "git.example.com/acme/widgets", "path": "notes.txt", "line": 1,
        "text": "turn \"clockwise\" only",
    });
    assert_eq!(found, line);
    assert_eq!(site.found("by+hand").len(), 1);

    site.push("main", "turn it anyhow\nand never by hand\n");
    until("the new line", || site.found("anyhow").pop());
    assert_eq!(site.found("clockwise"), [Value::Null; 0]);
    assert_eq!(site.found("by+hand").len(), 1);

    // Told with another key, which the gate does not let through.
    write_private(&gate.path("other.key"), format!("{OTHER_KEY}\n"));
    site.say("keyFile", gate.path("other.key").to_str().expect("text"));
    let said = site.push("main", "forged and unheard of\n");
    assert!(said.contains("hookgate answered 401"), "{said}");
    assert_eq!(site.found("unheard"), [Value::Null; 0]);
    assert_eq!(site.found("anyhow").len(), 1);
    site.say("keyFile", gate.path("webhook.key").to_str().expect("text"));
    site.push("topic\"quoted", "on another branch\n");
    until("the branch that is searched", || site.found("unheard").pop());
    assert_eq!(site.found("another+branch"), [Value::Null; 0]);
    let finished = format!("{:?}", gate.stop());
    assert!(!finished.contains(KEY) && !finished.contains(&TOKEN[6..]), "a key is in the log");
}

#[test]
#[ignore = "needs git"]
fn the_indexer_takes_what_its_gate_signed_and_fetches_only_what_it_may() {
    let site = Site::start();
    // Nothing was pushed yet, so there is nothing to be found; and that is no failure.
    assert_eq!(site.tell(ADDRESS).status, 200);
    site.push("main", "turn clockwise\n");
    fs::write(site.path("work/binary"), "turn\0clockwise").expect("a file");
    std::os::unix::fs::symlink("turn clockwise", site.path("work/link")).expect("a link");
    site.push("main", "turn clockwise, please\n");
    assert_eq!(site.found("clockwise"), [Value::Null; 0]);
    let answer = site.tell(ADDRESS);
    assert_eq!((answer.status, &*answer.text()), (200, "indexed git.example.com/acme/widgets\n"));
    assert_eq!(site.found("clockwise").len(), 1);

    let body = json!({"repository": {"git_http_url": ADDRESS}}).to_string();
    let unsigned = Request::post("/webhook").body(body.clone());
    assert_eq!(ask(site.indexer, &unsigned).told(), (401, "unauthorized"));
    let signed = prove(unsigned, &StandardWebhooks, TOKEN, body.as_bytes());
    let forged = signed.body(body.replace("widgets", "gadgets"));
    assert_eq!(ask(site.indexer, &forged).told(), (401, "unauthorized"));

    // Another repository, and ways of fetching that nobody allowed: these might work another time.
    let untouched = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    untouched.set_nonblocking(true).expect("our own listener");
    let port = untouched.local_addr().expect("an address").port();
    for address in [
        "https://git.example.com/acme/gadgets.git",
        &format!("http://127.0.0.1:{port}/acme/widgets.git"),
        &format!("git://127.0.0.1:{port}/acme/widgets.git"),
    ] {
        let answer = site.tell(address);
        assert_eq!((answer.status, &*answer.text()), (500, "not indexed\n"), "{address}");
    }
    assert!(untouched.accept().is_err(), "it was asked by a protocol that is not allowed");
    // And these never will.
    let bare = site.path("git/acme/widgets.git").display().to_string();
    let touched = site.path("touched");
    let touch = format!("ext::touch {}", touched.display());
    for address in [&bare, &format!("file://{bare}"), &touch, "--upload-pack=touch", "", ".."] {
        let status = site.tell(address).status;
        assert!((400..500).contains(&status), "{address}: {status}");
    }
    assert!(!touched.exists());
    fs::rename(&bare, site.path("elsewhere")).expect("the repository");
    assert_eq!(site.tell(ADDRESS).status, 500);
    assert_eq!(site.found("clockwise").len(), 1, "the last good state is still there");

    for query in ["ab", "", "%FF%FF%FF", "a%00b", &"x".repeat(201)] {
        assert_eq!(site.search(query).status, 400, "{query}");
    }
    for query in ["%22+OR+text:turn", "turn+AND+clockwise", "turn*", "clock_ise", "'%3B--"] {
        assert_eq!(site.found(query), [Value::Null; 0], "{query}");
    }
}
