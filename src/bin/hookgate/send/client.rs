//! One request, as a git host sends it: no redirect is followed and nothing is tried again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hookgate::proxy::upstream::{Connector, UpstreamConfig};
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::rt::TokioExecutor;

/// Longer than the gate may take.
const TIMEOUT: Duration = Duration::from_secs(40);

/// What names the program at the other end.
pub(crate) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("hookgate/", env!("CARGO_PKG_VERSION")));

/// The URL to send to, and how its host is reached.
///
/// An error never holds the URL: it may end with a key.
pub(crate) fn endpoint(url: &str, ca_file: Option<&Path>) -> Result<(Uri, UpstreamConfig), String> {
    const EXPECTED: &str = "--to: expected a URL such as https://gate.example.com/webhook";
    let (service, target) = split(url).ok_or(EXPECTED)?;
    let uri: Uri = target.parse().map_err(|_| EXPECTED)?;
    let service = UpstreamConfig::new(service).map_err(|_| EXPECTED)?;
    let service = match ca_file {
        Some(path) => trusting(service, path)?,
        None => service,
    };
    Ok((uri, service))
}

pub(super) struct Client {
    uri: Uri,
    host: HeaderValue,
    /// What an error may show.
    origin: String,
    http: Legacy<HttpsConnector<Connector>, Full<Bytes>>,
}

/// The head of the answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Client {
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let (uri, service) = endpoint(url, ca_file)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority).map_err(|_| "--to: a host that is none")?;
        let origin = service.origin();
        let origin = origin.split_once("://").map_or(&*origin, |(_, host)| host).into();
        let http = Legacy::builder(TokioExecutor::new()).build(service.connector());
        Ok(Self { uri, host, origin, http })
    }

    pub(super) async fn post(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(USER_AGENT, AGENT);
        let origin = &self.origin;
        match tokio::time::timeout(TIMEOUT, self.http.request(request)).await {
            Ok(Ok(answer)) => {
                let (parts, _) = answer.into_parts();
                Ok(Answer { status: parts.status, headers: parts.headers })
            }
            Ok(Err(error)) => Err(format!("no answer from {origin}: {}", crate::chain(&error))),
            Err(_) => Err(format!("no answer from {origin} within {} s", TIMEOUT.as_secs())),
        }
    }
}

/// The service alone, and the URL that is asked of it. Behind a Unix socket, that is one of `localhost`.
fn split(url: &str) -> Option<(&str, String)> {
    if let Some(socket) = url.strip_prefix("unix:") {
        let (socket, path) = socket.split_once(':').unwrap_or((socket, "/"));
        return Some((&url[.."unix:".len() + socket.len()], format!("http://localhost{path}")));
    }
    let begin = url.find("://")? + "://".len();
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    Some((&url[..end], url.into()))
}

fn trusting(service: UpstreamConfig, ca_file: &Path) -> Result<UpstreamConfig, String> {
    let pem = std::fs::read(ca_file).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    let service = service.certificate_authorities(&pem);
    service.map_err(|error| format!("{}: {error}", ca_file.display()))
}
