use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;

use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{Key, Keyring};
use hookgate::provider::Provider;
use hookgate::scheme::{Generic, Message, Schemes};
use hookgate::time::Timestamp;

/// The schemes of a hook that has said what is to be said for each provider.
pub(crate) fn schemes() -> Schemes {
    Schemes::default().generic(Generic::new(HeaderName::from_static("x-signature")))
}

/// A delivery as a host sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) provider: Provider,
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    /// The headers that prove it, of those in `headers`.
    pub(crate) credentials: Vec<HeaderName>,
    pub(crate) body: Bytes,
}

impl Sample {
    /// A push of this provider to `/webhook`, without a credential.
    pub(crate) fn of(provider: Provider) -> Self {
        let pairs: &[(&str, &str)] = match provider {
            Provider::Github => &[("x-github-event", "push"), ("x-github-delivery", "d-1")],
            Provider::Gitlab => &[("x-gitlab-event", "Push Hook"), ("idempotency-key", "d-1")],
            Provider::BitbucketCloud => &[
                ("x-event-key", "repo:push"),
                ("x-hook-uuid", "{5d1f}"),
                ("x-request-uuid", "d-1"),
            ],
            Provider::BitbucketServer => {
                &[("x-event-key", "repo:refs_changed"), ("x-request-id", "d-1")]
            }
            Provider::Gitea => &[
                ("x-gitea-event", "push"),
                ("x-gitea-delivery", "d-1"),
                ("x-gogs-event", "push"),
                ("x-github-event", "push"),
            ],
            Provider::Forgejo => &[
                ("x-forgejo-event", "push"),
                ("x-forgejo-delivery", "d-1"),
                ("x-gitea-event", "push"),
                ("x-gogs-event", "push"),
                ("x-github-event", "push"),
            ],
            Provider::Gogs => {
                &[("x-gogs-event", "push"), ("x-gogs-delivery", "d-1"), ("x-github-event", "push")]
            }
            Provider::Gerrit => &[("x-origin-url", "https://review.example.org/a/x")],
            Provider::Gitee => &[("x-gitee-event", "Push Hook")],
            Provider::Manual => &[("x-bbb-webhook-type", "push")],
            // Azure DevOps, generic and Standard Webhooks are told by their credentials.
            _ => &[],
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Self {
            provider,
            method: Method::POST,
            uri: "/webhook".into(),
            headers,
            credentials: Vec::new(),
            body: Bytes::from_static(br#"{"ref":"refs/heads/main","forced":false}"#),
        }
    }

    /// A signed push of GitHub with this body.
    pub(crate) fn github(body: impl Into<Bytes>) -> Self {
        Self::of(Provider::Github).body(body).sign(&super::both_keys())
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn uri(mut self, uri: &str) -> Self {
        self.uri = uri.into();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// With the credential of the first key of the ring that fits, at the present time.
    pub(crate) fn sign(self, keys: &Keyring) -> Self {
        let now = SystemClock.now();
        let fitting = keys.keys().find_map(|key| self.clone().try_sign(key, now));
        fitting.expect("one of the keys fits")
    }

    /// With the credential of this key, if it fits the provider's scheme.
    pub(crate) fn try_sign(mut self, key: &Key, now: Timestamp) -> Option<Self> {
        let schemes = schemes();
        let message = Message { body: &self.body, payload: &self.body, id: "d-1", now };
        let credentials = schemes.get(self.provider)?.sign(&message, key).ok()?;
        self.credentials = credentials.keys().cloned().collect();
        self.headers.extend(credentials);
        Some(self)
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        self.request_with(Full::new(self.body.clone()))
    }

    /// The head with another body.
    pub(crate) fn request_with<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The head in HTTP/1.1 up to the empty line, with these headers more.
    pub(crate) fn head(&self, more: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: gate\r\n", self.method, self.uri);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        head.push_str(more);
        head.push_str("\r\n");
        head.into_bytes()
    }
}
