//! The bodies that go in and out of a gate.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::budget::Claim;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

pin_project! {
    /// The body of a request that passed the gate.
    ///
    /// It is what was verified, byte for byte, with an exact [`size_hint`](Body::size_hint) and
    /// without trailers; in [`stream`](super::GateBuilder::stream) mode it is the body as it comes.
    /// Where it is kept is not part of the type: ask for [`bytes`](Self::bytes), or read it as any
    /// body.
    pub struct GateBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProject]
    enum Kind<B> {
        Verified { bytes: Option<Bytes> },
        Stream { #[pin] body: B },
    }
}

impl<B> GateBody<B> {
    pub(crate) fn verified(bytes: Bytes) -> Self {
        Self { kind: Kind::Verified { bytes: Some(bytes) } }
    }

    pub(super) fn stream(body: B) -> Self {
        Self { kind: Kind::Stream { body } }
    }

    /// The whole body, if it is in memory and none of it was read yet. Cloning it copies nothing.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Verified { bytes } => bytes.as_ref(),
            Kind::Stream { .. } => None,
        }
    }
}

impl<B> Body for GateBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.project().kind.project() {
            KindProject::Verified { bytes } => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            KindProject::Stream { body } => {
                body.poll_frame(cx).map_err(|error| BodyError(error.into()))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Verified { bytes } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Stream { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Verified { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Stream { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for GateBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Verified { .. } => "verified",
            Kind::Stream { .. } => "stream",
        };
        f.debug_struct("GateBody").field("kind", &kind).finish_non_exhaustive()
    }
}

/// The error of reading a [`GateBody`]: only a streamed one has any.
#[derive(Debug)]
pub struct BodyError(BoxError);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot read the request's body")
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

pin_project! {
    /// The body of an answer: the inner service's, or the gate's own.
    pub struct ResponseBody<B> {
        #[pin]
        kind: ResponseKind<B>,
    }
}

pin_project! {
    #[project = ResponseKindProject]
    enum ResponseKind<B> {
        Inner { #[pin] body: B },
        Own { bytes: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: ResponseKind::Inner { body } }
    }

    pub(super) fn own(bytes: Bytes) -> Self {
        Self { kind: ResponseKind::Own { bytes: Some(bytes) } }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            ResponseKindProject::Inner { body } => body.poll_frame(cx),
            ResponseKindProject::Own { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Inner { body } => body.is_end_stream(),
            ResponseKind::Own { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Inner { body } => body.size_hint(),
            ResponseKind::Own { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// Bytes that keep their room in the budget until the last clone is gone.
pub(super) fn with_claim(bytes: Bytes, claim: Claim) -> Bytes {
    struct Held {
        bytes: Bytes,
        _claim: Claim,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    if bytes.is_empty() { bytes } else { Bytes::from_owner(Held { bytes, _claim: claim }) }
}
