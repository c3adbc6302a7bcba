//! One request, as a git host sends it: no redirect is followed and nothing is tried again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Longer than the gate may take.
const TIMEOUT: Duration = Duration::from_secs(40);

pub(super) struct Client {
    uri: Uri,
    host: HeaderValue,
    http: Legacy<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The head of the answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Client {
    /// An error never holds the URL: it may end with a key.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        const EXPECTED: &str = "--to: expected a URL such as https://gate.example.com/webhook";
        let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(EXPECTED.into());
        }
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or(EXPECTED)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| EXPECTED)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let http = Legacy::builder(TokioExecutor::new()).build(HttpsConnector::from((tcp, tls)));
        Ok(Self { uri, host, http })
    }

    pub(super) async fn post(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host.clone());
        let agent = concat!("hookgate/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        let origin = self.host.to_str().unwrap_or_default();
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

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(path) = ca_file else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| format!("{shown}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{shown}: there is no certificate"));
    }
    Ok(roots)
}
