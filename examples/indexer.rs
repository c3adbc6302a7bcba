//! A service to stand behind the gate: it fetches what was pushed, and searches it.
//!
//! Run without arguments it indexes a repository that it makes, with the `git` of the path, and says
//! what it found. To stay:
//!
//! ```sh
//! cargo run --example indexer -- --serve 127.0.0.1:9000 --key-file signing.key \
//!     --data indexer-data --remote git.example.com=/srv/git
//! ```
//!
//! The key file is that of the gate's `upstream_sign_key_file`. Repositories whose names begin with the
//! first part of a `--remote` are fetched from the second: `git.example.com/acme/widgets` from
//! `/srv/git/acme/widgets.git`. All others are fetched from the address in the push, by https or ssh.

#[path = "support/indexer/mod.rs"]
mod indexer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::body::Body;
use axum::http::Request;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::Keyring;
use hookgate::keystore::KeyStore;
use hookgate::scheme::{Message, Scheme, StandardWebhooks};
use hookgate::watch::Watcher;
use http_body_util::BodyExt;
use tower::ServiceExt;

use self::indexer::{BoxError, Indexer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (mut serve, mut remotes) = (None, Vec::new());
    let (mut data, mut key_file) = (PathBuf::from("indexer-data"), PathBuf::from("signing.key"));
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match &*name {
            "--serve" => serve = Some(value),
            "--key-file" => key_file = value.into(),
            "--data" => data = value.into(),
            "--remote" => {
                let (name, place) = value.split_once('=').ok_or("--remote is NAME=PLACE")?;
                remotes.push((name.to_owned(), place.to_owned()));
            }
            _ => return Err(format!("there is no {name}").into()),
        }
    }
    let Some(address) = serve else { return try_it().await };
    // A new key is in force for the next delivery, as in the gate.
    let keys = KeyStore::follow(key_file, &Watcher::spawn()?);
    if keys.load().keys().next().is_none() {
        return Err("no key in the key file".into());
    }
    let router = Indexer::open(&data, remotes)?.router(keys)?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// Pushes a line, tells the service of it as the gate would and as a stranger would, and searches.
async fn try_it() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    git(folder.path(), &["init", "--quiet", "--bare", "acme/widgets.git"])?;
    git(folder.path(), &["init", "--quiet", "work"])?;
    let work = folder.path().join("work");
    fs::write(work.join("README"), "Widgets\nturn \"clockwise\" only.\n")?;
    git(&work, &["add", "README"])?;
    let ada = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    git(&work, &[&ada[..], &["commit", "--quiet", "--message=begin"]].concat())?;
    git(&work, &["push", "--quiet", "../acme/widgets.git", "HEAD"])?;

    let keys = Keyring::parse(b"whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=\n")?;
    let remotes = vec![("git.example.com".into(), folder.path().display().to_string())];
    let indexer = Indexer::open(&folder.path().join("data"), remotes)?;
    let router = indexer.router(KeyStore::fixed(keys.clone()))?;
    let ask = async |request: Request<Body>| {
        let answer = router.clone().oneshot(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        println!("{status} {}", String::from_utf8_lossy(&body).trim());
        Ok::<_, BoxError>((status, String::from_utf8_lossy(&body).into_owned()))
    };

    let body = r#"{"repository":{"git_http_url":"https://git.example.com/acme/widgets.git"}}"#;
    let bytes = body.as_bytes();
    let message = Message { body: bytes, payload: bytes, id: "1", now: SystemClock.now() };
    let signed = StandardWebhooks.sign(&message, keys.keys().next().ok_or("no key")?)?;
    let push = |body: String| {
        let mut request = Request::post("/webhook").body(Body::from(body))?;
        request.headers_mut().extend(signed.clone());
        Ok::<_, BoxError>(request)
    };
    let (forged, _) = ask(push(body.replace("widgets", "secrets"))?).await?;
    let (good, _) = ask(push(body.to_owned())?).await?;
    let search = Request::get("/search?q=%22CLOCKWISE%22").body(Body::empty())?;
    let (found, results) = ask(search).await?;
    let is_there =
        results.contains(r#""line":2"#) && results.contains("git.example.com/acme/widgets");
    if (forged, good, found, is_there) == (401, 200, 200, true) {
        Ok(())
    } else {
        Err("not found".into())
    }
}

fn git(folder: &Path, args: &[&str]) -> Result<(), BoxError> {
    let status = Command::new("git").arg("-C").arg(folder).args(args).status()?;
    if status.success() { Ok(()) } else { Err(format!("git {args:?}: {status}").into()) }
}
