//! What the socket answers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::json::{ChangeJson, EntryJson, PageJson, StatusJson, StoredJson, write};
use super::live::{LiveGate, LogChange, Stopping, SwitchJson, SwitchStatus};
use super::{NEXT, operator, query};
use crate::clock::{Clock, SystemClock};
use crate::proxy::spool::{
    Page, Paged, RecordId, Selection, Spool, SpoolError, SpoolErrorKind, SpoolFuture,
};
use crate::proxy::switch_file::SwitchError;

/// The largest body that is taken: some 10,000 numbers of deliveries.
const MAX_BODY: usize = 256 << 10;

/// A larger one is read to its end all the same, so that the answer arrives, but not beyond this.
const MAX_UNREAD: usize = 16 << 20;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the spool may take.
const WORK_TIMEOUT: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/jsonl";
const PROBLEM: &str = "application/problem+json";

/// What a gate lets its operator do. Clones are the same.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

#[derive(Clone, Default)]
struct Parts {
    spool: Option<SpoolPart>,
    gate: Option<Arc<dyn LiveGate>>,
}

#[derive(Clone)]
struct SpoolPart {
    spool: Arc<dyn Spool>,
    on_change: Arc<dyn Fn() + Send + Sync>,
}

/// What is not done, and why.
struct Refusal {
    status: StatusCode,
    detail: String,
    allow: Option<HeaderValue>,
}

type Answered = Result<Response<Full<Bytes>>, Refusal>;

impl Control {
    /// With no part of the gate so far.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// With its spool. `on_change` is called after deliveries were made due or removed, which may give
    /// others their turn; it must not block.
    #[must_use]
    pub fn spool(
        self,
        spool: Arc<dyn Spool>,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        parts.spool = Some(SpoolPart { spool, on_change: Arc::new(on_change) });
        Self(Arc::new(parts))
    }

    /// With what it tells of itself, its switches and its log.
    #[must_use]
    pub fn gate(self, gate: Arc<dyn LiveGate>) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        parts.gate = Some(gate);
        Self(Arc::new(parts))
    }

    /// Always answers.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: fmt::Display>,
    {
        self.route(request).await.unwrap_or_else(Refusal::into_response)
    }

    async fn route<B>(&self, request: Request<B>) -> Answered
    where
        B: Body<Data = Bytes, Error: fmt::Display>,
    {
        let path = request.uri().path().to_owned();
        match path.split('/').skip(1).collect::<Vec<_>>()[..] {
            ["spool", ref rest @ ..] => match &self.0.spool {
                Some(part) => part.route(rest, request).await,
                None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this gate has no spool")),
            },
            ["status" | "switch" | "log"] => match &self.0.gate {
                Some(gate) => live(gate, &path, request).await,
                None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this gate has no status")),
            },
            _ => Err(Refusal::nothing_there()),
        }
    }
}

/// What is asked of the gate itself.
async fn live<B>(gate: &Arc<dyn LiveGate>, path: &str, request: Request<B>) -> Answered
where
    B: Body<Data = Bytes, Error: fmt::Display>,
{
    match path {
        "/status" => {
            only(Method::GET, request.method())?;
            Ok(answer(JSON, write(&gate.status().map_err(Refusal::stopping)?)))
        }
        "/switch" => {
            only(Method::POST, request.method())?;
            let change: SwitchJson = body(request.into_body()).await?;
            let change = change.read().map_err(Refusal::bad)?;
            let gate = gate.clone();
            // It goes on if whoever asked has gone.
            let changed = tokio::task::spawn_blocking(move || gate.switch(&change)).await;
            let changed = changed.unwrap_or(Err(SwitchError::Stopping));
            let switches = changed.map_err(Refusal::of_switch)?;
            let switches: Vec<_> = switches.into_iter().map(SwitchStatus::from).collect();
            Ok(answer(JSON, write(&switches)))
        }
        _ => {
            let change = if request.method() == Method::GET {
                LogChange::default()
            } else {
                only(Method::POST, request.method())?;
                body(request.into_body()).await?
            };
            let log = gate.log(&change).map_err(Refusal::bad)?;
            Ok(answer(JSON, write(&log)))
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl SpoolPart {
    async fn route<B>(&self, rest: &[&str], request: Request<B>) -> Answered
    where
        B: Body<Data = Bytes, Error: fmt::Display>,
    {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_change = matches!(rest, ["redeliver" | "purge"]);
        only(if is_change { Method::POST } else { Method::GET }, request.method())?;
        match *rest {
            [] => self.list(&query).await,
            ["status"] => {
                let status = in_time(self.spool.status()).await?;
                Ok(answer(JSON, write(&StatusJson::from(&status))))
            }
            ["export"] => self.export(&query).await,
            ["redeliver"] => {
                let (selection, page) = change(request.into_body()).await?;
                let now = SystemClock.now();
                let work = self.spool.redeliver(selection, page, now);
                self.change("deliveries are sent again, as the operator wishes", work).await
            }
            ["purge"] => {
                let (selection, page) = change(request.into_body()).await?;
                let work = self.spool.purge(selection, page);
                self.change("deliveries were removed, as the operator wishes", work).await
            }
            [id] => self.show(id).await,
            _ => Err(Refusal::nothing_there()),
        }
    }

    async fn list(&self, query: &str) -> Answered {
        let (selection, page) = query::read(query).map_err(Refusal::bad)?;
        let listed = in_time(self.spool.list(selection, page)).await?;
        Ok(answer(JSON, write(&PageJson::of(&listed, |entry| EntryJson::from(entry)))))
    }

    async fn show(&self, id: &str) -> Answered {
        let id: RecordId = id.parse().map_err(Refusal::bad)?;
        match in_time(self.spool.show(id)).await? {
            Some(stored) => Ok(answer(JSON, write(&StoredJson::from(&stored)))),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no delivery {id}"))),
        }
    }

    async fn export(&self, query: &str) -> Answered {
        let (selection, page) = query::read(query).map_err(Refusal::bad)?;
        let exported = in_time(operator::export(&*self.spool, selection, page)).await?;
        let mut text = exported.items.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let mut response = answer(JSON_LINES, text);
        if let Some(next) = exported.next {
            response.headers_mut().insert(NEXT, next.get().into());
        }
        Ok(response)
    }

    /// Finishes the work and tells of it, whoever still waits for the answer.
    async fn change(&self, message: &'static str, work: SpoolFuture<Paged<RecordId>>) -> Answered {
        let on_change = self.on_change.clone();
        let work = tokio::spawn(async move {
            let changed = work.await?;
            if !changed.items.is_empty() {
                tracing::info!(deliveries = changed.items.len(), "{message}");
                on_change();
            }
            Ok(changed)
        });
        // It ends early only if the runtime does.
        let work = async { work.await.unwrap_or_else(|_| Err(SpoolErrorKind::Closed.into())) };
        let changed = in_time(work).await?;
        Ok(answer(JSON, write(&PageJson::of(&changed, |id| id.get()))))
    }
}

/// Which deliveries a body is about.
async fn change<B>(content: B) -> Result<(Selection, Page), Refusal>
where
    B: Body<Data = Bytes, Error: fmt::Display>,
{
    let change: ChangeJson = body(content).await?;
    change.read().map_err(Refusal::bad)
}

/// What a body asks for.
async fn body<B, T: DeserializeOwned>(body: B) -> Result<T, Refusal>
where
    B: Body<Data = Bytes, Error: fmt::Display>,
{
    let body = match tokio::time::timeout(BODY_TIMEOUT, read(body)).await {
        Ok(body) => body?,
        Err(_) => {
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
        }
    };
    serde_json::from_slice(&body).map_err(Refusal::bad)
}

async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error: fmt::Display>,
{
    let mut body = std::pin::pin!(body);
    let (mut taken, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Refusal::bad)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= MAX_BODY {
            taken.extend_from_slice(&data);
        } else if length > MAX_UNREAD {
            break;
        }
    }
    if length > MAX_BODY {
        let detail = format!("at most {MAX_BODY} bytes are taken");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(taken.freeze())
}

async fn in_time<T>(work: impl Future<Output = Result<T, SpoolError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(WORK_TIMEOUT, work).await {
        Ok(done) => done.map_err(Refusal::of_spool),
        Err(_) => {
            let detail = "the spool did not answer in time; what was asked for may still be done";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

fn only(allowed: Method, method: &Method) -> Result<(), Refusal> {
    if *method == allowed {
        return Ok(());
    }
    let detail = format!("only {allowed} is taken here");
    let allow = HeaderValue::from_str(allowed.as_str()).ok();
    Err(Refusal { allow, ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, detail) })
}

fn answer(media_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), allow: None }
    }

    fn nothing_there() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing of that name")
    }

    fn bad(error: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }

    fn of_spool(error: SpoolError) -> Self {
        let status = match error.kind() {
            SpoolErrorKind::LeaseLost => StatusCode::CONFLICT,
            SpoolErrorKind::Unreadable => StatusCode::INTERNAL_SERVER_ERROR,
            SpoolErrorKind::Full(_) | SpoolErrorKind::Failed | SpoolErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }

    fn of_switch(error: SwitchError) -> Self {
        let status = match error {
            SwitchError::UnknownHook(_) => StatusCode::NOT_FOUND,
            SwitchError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            SwitchError::State(_) | SwitchError::Write(_) | SwitchError::NotKept(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }

    fn stopping(_: Stopping) -> Self {
        Self::of_switch(SwitchError::Stopping)
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let problem = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = answer(PROBLEM, problem.to_string());
        *response.status_mut() = self.status;
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spool = self.0.spool.as_ref().map(|part| &part.spool);
        f.debug_struct("Control").field("spool", &spool).finish_non_exhaustive()
    }
}
