//! Deliveries, each of them a new one: another body, id and signature, about the next repository.
//!
//! 1. One sample is made as `hookgate send` makes it, with marks in place of the commits, the
//!    repository's number and the id. Where the marks stand is looked up once.
//! 2. A member of the JSON object with the id, so that no two bodies are equal whatever the host
//!    sends, and behind it what fills the body up to its size.
//! 3. For each delivery the marks are overwritten and the body is signed. Of a body only the part
//!    before the filling is copied; the filling is shared.
//!
//! The commit from which a push goes is the one to which the push before it went, in each repository.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::Key;
use hookgate::provider::Provider;
use hookgate::proxy::config::HookConfig;
use http::header::{HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};

use super::target::Target;
use crate::args::SampleEvent;
use crate::send::client::AGENT;
use crate::send::sample::{Address, Change, random_hex, sample_of};
use crate::send::{Place, place_of_proof, prove};

/// How many digits a commit has.
const COMMIT: usize = 40;
/// An id that no delivery has.
const ID: &str = "00000000-0000-4000-a000-000000000000";

/// What is the same for all deliveries.
pub(super) struct Plan {
    pub(super) hook: HookConfig,
    pub(super) provider: Provider,
    pub(super) key: Arc<Key>,
    pub(super) repository: String,
    pub(super) repositories: usize,
    /// Without one, as small as can be.
    pub(super) size: Option<usize>,
}

/// Clones share the filling, and nothing that changes.
#[derive(Clone)]
pub(super) struct Maker {
    plan: Arc<Plan>,
    uri: Uri,
    headers: HeaderMap,
    /// Those that hold the id.
    id_headers: Vec<HeaderName>,
    /// The whole body of the last delivery.
    body: Vec<u8>,
    /// Where the filling begins.
    own: usize,
    filling: Bytes,
    befores: Vec<usize>,
    afters: Vec<usize>,
    numbers: Vec<usize>,
    /// How many digits the number of a repository has.
    digits: usize,
    id_at: usize,
    /// Different for each run.
    run: String,
}

impl Maker {
    /// An error says what cannot be signed or does not fit.
    pub(super) fn new(plan: Arc<Plan>, target: &Target) -> Result<Self, String> {
        let digits = plan.repositories.to_string().len();
        let mut address = plan.repository.trim_end_matches('/').trim_end_matches(".git").to_owned();
        let mut mark = String::new();
        if plan.repositories > 1 {
            let name = address.rsplit('/').next().unwrap_or_default();
            mark = format!("{name}-{}", "0".repeat(digits));
            address.push_str(&mark[name.len()..]);
        }
        let [before, after] = ["b", "a"].map(|digit| digit.repeat(COMMIT));
        let change = Change::between(SampleEvent::Push, "main", before.clone(), after.clone());
        let address = Address::parse(&address)?;
        let now = SystemClock.now();
        let sample = sample_of(plan.provider, SampleEvent::Push, &address, &change, ID, now)?;
        let mut body = sample.body;
        let [befores, afters] = [before, after].map(|commit| places(&body, commit.as_bytes()));
        let to_number = mark.len() - digits.min(mark.len());
        let numbers = places(&body, mark.as_bytes()).into_iter().map(|at| at + to_number).collect();
        if body.pop() != Some(b'}') {
            return Err(format!("a push of {} is no JSON object", plan.provider));
        }
        body.extend_from_slice(b",\"hookgate_bench\":\"");
        let id_at = body.len();
        body.extend_from_slice(ID.as_bytes());
        let own = body.len();
        let least = own + b"\"}".len();
        let size = plan.size.unwrap_or(least);
        if size < least {
            return Err(format!(
                "--size: a push of {} about this repository has at least {least} bytes",
                plan.provider
            ));
        }
        body.resize(size - b"\"}".len(), b'.');
        body.extend_from_slice(b"\"}");
        let mut headers = sample.headers;
        let id_headers = headers.iter().filter(|(_, value)| *value == ID);
        let id_headers = id_headers.map(|(name, _)| name.clone()).collect();
        headers.insert(HOST, target.host.clone());
        headers.insert(USER_AGENT, AGENT);
        let filling = Bytes::copy_from_slice(&body[own..]);
        let uri = target.path.clone();
        let run = random_hex(12)?;
        let maker = Self {
            plan,
            uri,
            headers,
            id_headers,
            body,
            own,
            filling,
            befores,
            afters,
            numbers,
            digits,
            id_at,
            run,
        };
        // What can be wrong with a proof is wrong with the first.
        maker.proof(ID).map(|_| maker)
    }

    /// The size of each body.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// The delivery of this number, other than all others of this run and of any other.
    pub(super) fn make(&mut self, number: u64) -> Request<Delivery> {
        let repositories = self.plan.repositories as u64;
        let id = self.id(number);
        let before = self.commit(number.wrapping_sub(repositories));
        let after = self.commit(number);
        let repository = format!("{:0width$}", number % repositories + 1, width = self.digits);
        let mut write = |places: &[usize], text: &str| {
            for &at in places {
                self.body[at..at + text.len()].copy_from_slice(text.as_bytes());
            }
        };
        write(&self.befores, &before);
        write(&self.afters, &after);
        write(&self.numbers, &repository);
        write(&[self.id_at], &id);
        let proof = self.proof(&id).expect("one like it was signed before");
        let mut request = Request::new(Delivery {
            own: Bytes::copy_from_slice(&self.body[..self.own]),
            filling: self.filling.clone(),
        });
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        let id = HeaderValue::from_str(&id).expect("digits and hyphens");
        for name in &self.id_headers {
            headers.insert(name, id.clone());
        }
        headers.extend(proof);
        request
    }

    fn proof(&self, id: &str) -> Result<HeaderMap, String> {
        let Plan { hook, provider, key, .. } = &*self.plan;
        match place_of_proof(hook, *provider, key)? {
            Place::Headers(scheme) => prove(scheme, &self.body, key, id, SystemClock.now()),
            Place::Url => Ok(HeaderMap::new()),
        }
    }

    /// A UUID of version 4 by its form.
    fn id(&self, number: u64) -> String {
        let run = &self.run;
        let low = number & 0xffff_ffff_ffff;
        format!("{}-{}-4{}-a{}-{low:012x}", &run[..8], &run[8..12], &run[12..15], &run[15..18])
    }

    fn commit(&self, number: u64) -> String {
        // An odd factor: no two numbers give the same, and neighbours do not look alike.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut commit = HEXLOWER.encode(&mixed.to_be_bytes());
        commit.push_str(&self.run);
        commit
    }
}

fn places(body: &[u8], mark: &[u8]) -> Vec<usize> {
    if mark.is_empty() {
        return Vec::new();
    }
    let windows = body.windows(mark.len()).enumerate();
    windows.filter(|(_, window)| *window == mark).map(|(at, _)| at).collect()
}

/// The body of a delivery.
pub(super) struct Delivery {
    own: Bytes,
    filling: Bytes,
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = [&mut this.own, &mut this.filling].into_iter().find(|part| !part.is_empty());
        Poll::Ready(next.map(|part| Ok(Frame::data(std::mem::take(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.own.is_empty() && self.filling.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.own.len() + self.filling.len()) as u64)
    }
}
