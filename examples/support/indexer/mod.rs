//! A small service that searches what was pushed: bare repositories on disk, and a full-text index of
//! their default branches.
//!
//! 1. It trusts the gate alone: what `upstream_sign_key_file` signed comes in, and nothing else. Only
//!    the body is signed, so the address in it counts, and no `hookgate-*` header.
//! 2. A push makes it fetch, and index the branch anew. It answers when that is in force, so what the
//!    gate calls `forwarded` can be found.
//! 3. What may go better next time is answered 500, and what cannot, 422.

mod index;
mod mirror;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use hookgate::delivery::Delivery;
use hookgate::event::Rules;
use hookgate::gate::GateLayer;
use hookgate::keystore::KeyStore;
use hookgate::provider::Provider;
use hookgate::repository::RepositoryUrl;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use self::index::Index;
use self::mirror::Mirrors;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The service. Its folder holds all that it knows; one process at a time.
pub(crate) struct Indexer {
    index: Arc<Index>,
    mirrors: Mirrors,
    /// Two pushes of one repository take turns. It also bounds how many are fetched at a time.
    turns: [Mutex<()>; 16],
}

impl Indexer {
    /// `remotes` says where repositories are fetched from if not from their own address: the
    /// beginning of a name such as `git.example.com/acme`, and the folder or URL in its place.
    pub(crate) fn open(folder: &Path, remotes: Vec<(String, String)>) -> Result<Self, BoxError> {
        fs::create_dir_all(folder)?;
        let index = Arc::new(Index::open(folder.join("index.sqlite"))?);
        let mirrors = Mirrors { folder: folder.to_owned(), remotes };
        Ok(Self { index, mirrors, turns: Default::default() })
    }

    /// `POST /webhook` for a gate that signs with one of these keys, and `GET /search?q=` for people.
    pub(crate) fn router(self, keys: KeyStore) -> Result<Router, BoxError> {
        let gate = GateLayer::builder(keys)
            .providers(Provider::StandardWebhooks)
            .rules(Rules::default())
            .build()?;
        let behind = Router::new().route("/webhook", post(webhook)).layer(gate);
        Ok(behind.route("/search", get(search)).with_state(Arc::new(self)))
    }

    /// Brings the index in step with the repository.
    async fn update(&self, repository: &RepositoryUrl, address: &str) -> Result<(), BoxError> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let turn = hasher.finish() % self.turns.len() as u64;
        let _turn = self.turns[turn as usize].lock().await;
        let (index, name) = (Arc::clone(&self.index), repository.to_string());
        let number = spawn_blocking(move || index.number(&name)).await??;
        let mirror = self.mirrors.fetch(number, repository, address).await?;
        let index = Arc::clone(&self.index);
        spawn_blocking(move || index.rebuild(number, mirror.as_ref())).await?
    }
}

async fn webhook(
    State(indexer): State<Arc<Indexer>>,
    Extension(delivery): Extension<Delivery>,
) -> (StatusCode, String) {
    let repository = delivery.event().and_then(|event| event.repository.as_ref());
    let address = repository.and_then(|it| it.http_url.as_deref().or(it.ssh_url.as_deref()));
    // The name is that of the address which is fetched, whatever else the body says.
    let named = address.and_then(|it| Some((it.to_owned(), RepositoryUrl::parse(it).ok()?)));
    let Some((address, repository)) = named else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "no address to fetch from\n".into());
    };
    let name = repository.to_string();
    // In a task of its own, which comes to its end also if the gate does not wait for it.
    let update = tokio::spawn(async move { indexer.update(&repository, &address).await });
    match update.await.unwrap_or_else(|panicked| Err(panicked.into())) {
        Ok(()) => (StatusCode::OK, format!("indexed {name}\n")),
        Err(error) => {
            eprintln!("{name}: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "not indexed\n".into())
        }
    }
}

async fn search(State(indexer): State<Arc<Indexer>>, uri: Uri) -> impl IntoResponse {
    let (status, answer) = match query(&uri) {
        None => (StatusCode::BAD_REQUEST, json!({"error": "q must be 3 to 200 characters"})),
        Some(query) => {
            let found = spawn_blocking(move || indexer.index.search(&query)).await;
            match found.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(results) => (StatusCode::OK, json!({"results": results})),
                Err(error) => {
                    eprintln!("search: {error}");
                    (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": "not searched"}))
                }
            }
        }
    };
    (status, [(CONTENT_TYPE, "application/json")], format!("{answer}\n"))
}

/// `q`, if it is something that trigrams can find.
fn query(uri: &Uri) -> Option<String> {
    let encoded = uri.query()?.split('&').find_map(|field| field.strip_prefix("q="))?;
    let spaced = encoded.replace('+', " ");
    let query = percent_decode_str(&spaced).decode_utf8().ok()?;
    let is_fit = (3..=200).contains(&query.chars().count()) && !query.contains(char::is_control);
    is_fit.then(|| query.into_owned())
}
