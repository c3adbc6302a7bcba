//! The service: orders the steps and leaves them to [`super::check`].

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::{BoxError, GateBody, ResponseBody};
use super::check;
use super::future::{Head, ResponseFuture};
use super::layer::Config;
use super::refusals::Account;
use crate::source::Source;

/// A service that only authentic deliveries reach. See the [module docs](super).
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for Gate<S>
where
    S: Service<Request<GateBody<B>>, Response = Response<RB>> + Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    /// Always ready: the inner service's readiness is claimed by verified deliveries alone.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S, B> {
        let (mut parts, body) = request.into_parts();
        let now = self.config.clock.now();
        let keys = self.config.keys.load();
        let declared = body.size_hint().lower();
        let source = parts.extensions.get::<Source>().copied();
        let account = Account::new(self.config.refusals.as_ref(), source);
        let admitted = check::admit(&self.config, &mut parts, source, declared, &keys, now);
        let admission = match admitted {
            Err(rejection) => return ResponseFuture::answer(account.refused_by_head(rejection)),
            Ok(admission) => admission,
        };
        if !admission.is_proven()
            && let Some(limited) = account.used_up()
        {
            return ResponseFuture::answer(limited.provider(admission.provider));
        }
        if self.config.stream {
            let delivery = check::pass(&parts, admission);
            account.judged(delivery.as_ref());
            return match delivery {
                Err(rejection) => ResponseFuture::answer(rejection),
                Ok(delivery) => {
                    parts.extensions.insert(delivery);
                    let request = Request::from_parts(parts, GateBody::stream(body));
                    ResponseFuture::call(self.inner.clone(), request)
                }
            };
        }
        let claim = self.config.budget.claim(source.map(Source::network));
        let head = Head { parts, admission, claim, account };
        ResponseFuture::read(self.inner.clone(), self.config.clone(), head, body)
    }
}

impl<S: fmt::Debug> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).field("config", &self.config).finish()
    }
}
