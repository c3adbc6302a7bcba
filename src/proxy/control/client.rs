//! The other end of the socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::{ControlError, ControlErrorKind};
use super::json::{ChangeJson, EntryJson, PageJson, StatusJson, StoredJson, write};
use super::live::{GateStatus, LogChange, LogStatus, SwitchJson, SwitchStatus};
use super::{NEXT, query};
use crate::proxy::spool::{Entry, Page, Paged, RecordId, Selection, Status, Stored};
use crate::proxy::switch_file::SwitchChange;

/// A little longer than the gate takes to say that it takes too long.
const PATIENCE: Duration = Duration::from_secs(100);

/// Asks a gate through its socket. Each question has a connection of its own.
///
/// # Errors
///
/// Any question fails with a [`ControlError`] if the gate cannot be reached, or if it refuses.
#[derive(Clone, Debug)]
pub struct ControlClient {
    path: PathBuf,
}

/// What a gate answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl ControlClient {
    /// For the gate that listens at `path`; nothing is asked yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the gate listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the gate is.
    pub async fn gate_status(&self) -> Result<GateStatus, ControlError> {
        self.get("/status").await?.json()
    }

    /// Changes switches, and tells of all of them.
    pub async fn switch(&self, change: &SwitchChange) -> Result<Vec<SwitchStatus>, ControlError> {
        self.post("/switch", write(&SwitchJson::of(change))).await?.json()
    }

    /// What the gate logs.
    pub async fn log(&self) -> Result<LogStatus, ControlError> {
        self.get("/log").await?.json()
    }

    /// Changes what the gate logs, and tells what that is now.
    pub async fn set_log(&self, change: &LogChange) -> Result<LogStatus, ControlError> {
        self.post("/log", write(change)).await?.json()
    }

    pub(super) async fn list(
        &self,
        selection: &Selection,
        page: Page,
    ) -> Result<Paged<Entry>, ControlError> {
        let answer = self.get(&format!("/spool?{}", query::write(selection, page))).await?;
        let page: PageJson<EntryJson> = answer.json()?;
        page.read(EntryJson::read).ok_or_else(ControlError::malformed)
    }

    pub(super) async fn show(&self, id: RecordId) -> Result<Option<Stored>, ControlError> {
        let answer = self.get(&format!("/spool/{id}")).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.json::<StoredJson>()?.read().map(Some).ok_or_else(ControlError::malformed)
    }

    pub(super) async fn export(
        &self,
        selection: &Selection,
        page: Page,
    ) -> Result<Paged<String>, ControlError> {
        let answer = self.get(&format!("/spool/export?{}", query::write(selection, page))).await?;
        let next = match answer.headers.get(NEXT) {
            None => None,
            Some(next) => {
                let next = next.to_str().ok().and_then(|next| next.parse().ok());
                Some(next.ok_or_else(ControlError::malformed)?)
            }
        };
        let text = std::str::from_utf8(answer.good()?).map_err(|_| ControlError::malformed())?;
        Ok(Paged { items: text.lines().map(str::to_owned).collect(), next })
    }

    pub(super) async fn change(
        &self,
        path: &str,
        selection: &Selection,
        page: Page,
    ) -> Result<Paged<RecordId>, ControlError> {
        let body = write(&ChangeJson::of(selection, page));
        let page: PageJson<i64> = self.post(path, body).await?.json()?;
        page.read(RecordId::new).ok_or_else(ControlError::malformed)
    }

    pub(super) async fn status(&self) -> Result<Status, ControlError> {
        let answer = self.get("/spool/status").await?;
        answer.json::<StatusJson>()?.read().ok_or_else(ControlError::malformed)
    }

    async fn get(&self, target: &str) -> Result<Answer, ControlError> {
        let request =
            Request::get(target).body(Full::default()).map_err(|error| broken().because(error))?;
        self.ask(request).await
    }

    async fn post(&self, target: &str, body: String) -> Result<Answer, ControlError> {
        let request = Request::post(target)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| broken().because(error))?;
        self.ask(request).await
    }

    /// Asks, and gives what was answered, whatever it is.
    async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, ControlError> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("hookgate"));
        let asked = timeout(PATIENCE, async {
            let stream = self.connect().await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| broken().because(error))?;
            let exchange = async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Answer { status: head.status, headers: head.headers, body })
            };
            // What the connection itself says in the end, the exchange has said.
            let connection = async {
                let _ = connection.await;
                std::future::pending().await
            };
            tokio::select! {
                answer = exchange => answer.map_err(|error| broken().because(error)),
                answer = connection => answer,
            }
        });
        asked.await.unwrap_or_else(|_| Err(broken().because("it took too long")))
    }

    async fn connect(&self) -> Result<UnixStream, ControlError> {
        let path = self.path.display();
        UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::new(
                ControlErrorKind::NotRunning,
                format!("no gate listens on {path}"),
            ),
            ErrorKind::PermissionDenied => ControlError::new(
                ControlErrorKind::Denied,
                format!("{path} is for the user alone that the gate runs as"),
            ),
            ErrorKind::InvalidInput => ControlError::new(
                ControlErrorKind::NotRunning,
                format!("{path} is too long for a Unix socket, so no gate can listen there"),
            ),
            _ => broken().because(error),
        })
    }
}

impl Answer {
    /// The body of a good answer.
    fn good(&self) -> Result<&[u8], ControlError> {
        if self.status == StatusCode::OK {
            return Ok(&self.body);
        }
        let detail = serde_json::from_slice(&self.body).map(|problem: Problem| problem.detail);
        let detail = detail.unwrap_or_else(|_| format!("the gate answered {}", self.status));
        Err(ControlError::new(ControlErrorKind::Refused, detail))
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        serde_json::from_slice(self.good()?)
            .map_err(|error| ControlError::malformed().because(error))
    }
}

fn broken() -> ControlError {
    ControlError::new(ControlErrorKind::Broken, "the connection to the gate broke off")
}
