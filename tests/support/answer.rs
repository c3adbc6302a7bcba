use std::fmt::Debug;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use hookgate::gate::Rejection;
use hookgate::outcome::{OUTCOME_HEADER, Outcome};

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Why, if the gate gave it.
    pub(crate) rejection: Option<Rejection>,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Debug,
    {
        let (mut parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
            rejection: parts.extensions.remove(),
        }
    }

    pub(crate) fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// What became of the request, which the header and the extension must say alike.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let outcome = self.rejection.as_ref().map(Rejection::outcome);
        let header = self.headers.get(OUTCOME_HEADER).map(|value| value.to_str().unwrap());
        assert_eq!(header, outcome.map(Outcome::as_str));
        outcome
    }

    /// Why, or nothing if the service behind the gate answered.
    pub(crate) fn reason(&self) -> &str {
        self.rejection.as_ref().map_or("", Rejection::reason)
    }
}

/// What a service answers to one request.
pub(crate) async fn ask<S, B, R>(service: &S, request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Debug,
    R: http_body::Body<Data = Bytes>,
    R::Error: Debug,
{
    Answer::read(service.clone().oneshot(request).await.unwrap()).await
}
