//! Deliveries, each of them a new one: another body, id and signature, about the next repository.
//!
//! 1. One sample is made as `hookgate send` makes it, with marks in place of the commits, the
//!    repository's number and the id. Where the marks stand is looked up once.
//! 2. A member of the JSON object with the id, so that no two bodies are equal whatever the host
//!    sends, and behind it what fills the body up to its size.
//! 3. Before the load starts, signatures are made, which cost the most: of a delivery nothing else is kept, since
//!    the rest follows from its number. One that holds the time is made when the delivery is sent, as are those for
//!    which there was no more room.
//! 4. For each delivery the marks are overwritten, and head, signature and body are put together as bytes. Of a
//!    body only the part before the filling is copied; the filling is shared.
//!
//! The commit from which a push goes is the one to which the push before it went, in each repository.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::Key;
use hookgate::provider::Provider;
use hookgate::proxy::config::HookConfig;
use hookgate::time::Timestamp;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, USER_AGENT};

use super::target::Target;
use crate::args::SampleEvent;
use crate::send::client::AGENT;
use crate::send::sample::{Address, Change, random_hex, sample_of};
use crate::send::{Place, place_of_proof, prove};

/// How many digits a commit has.
const COMMIT: usize = 40;
/// And how many of them, the first ones, differ between the deliveries of a run.
const VARYING: usize = 16;
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
    /// Request line and headers of the last delivery, without its proof.
    head: Vec<u8>,
    /// The whole body of the last delivery.
    body: Vec<u8>,
    /// Where the filling begins.
    own: usize,
    filling: Bytes,
    ids_in_head: Vec<usize>,
    befores: Vec<usize>,
    afters: Vec<usize>,
    numbers: Vec<usize>,
    /// How many digits the number of a repository has.
    digits: usize,
    id_at: usize,
    /// Whether a proof holds the time.
    is_dated: bool,
    /// Which part of the deliveries is made here, of how many.
    index: u64,
    parts: u64,
    /// The header lines that prove the first deliveries, one behind the other.
    proofs: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
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
        let run = random_hex(12)?;
        for &at in befores.iter().chain(&afters) {
            body[at + VARYING..at + COMMIT].copy_from_slice(run.as_bytes());
        }
        // A UUID of version 4 by its form.
        let (a, b, c, d) = (&run[..8], &run[8..12], &run[12..15], &run[15..18]);
        let id = format!("{a}-{b}-4{c}-a{d}-000000000000");
        body[id_at..id_at + ID.len()].copy_from_slice(id.as_bytes());
        let mut maker = Self {
            plan,
            head: format!("POST {} HTTP/1.1\r\n", target.path).into_bytes(),
            filling: Bytes::copy_from_slice(&body[own..]),
            body,
            own,
            ids_in_head: Vec::new(),
            befores,
            afters,
            numbers,
            digits,
            id_at,
            is_dated: false,
            index: 0,
            parts: 1,
            proofs: Vec::new(),
            ends: Vec::new(),
        };
        // What can be wrong with a proof is wrong with the first.
        let proof = maker.proof(now)?;
        maker.is_dated = maker.proof(Timestamp::from_millis(0))? != proof;
        let mut headers = sample.headers;
        headers.insert(HOST, target.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_LENGTH, size.into());
        // A header of the proof stands in place of one of the sample.
        for (name, value) in headers.iter().filter(|(name, _)| !proof.contains_key(*name)) {
            let is_id = *value == ID;
            push_line(&mut maker.head, name, if is_id { id.as_bytes() } else { value.as_bytes() });
            if is_id {
                maker.ids_in_head.push(maker.head.len() - b"\r\n".len() - ID.len());
            }
        }
        Ok(maker)
    }

    /// The size of each body.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// What all bodies end with.
    pub(super) fn filling(&self) -> Bytes {
        self.filling.clone()
    }

    /// How many deliveries, from the first on, need no more signing.
    pub(super) fn signed(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Makes the deliveries of this part from now on, and signs the first of them: at most `most`, as many as fit
    /// into `memory` bytes, and not longer than `until`.
    pub(super) fn prepare(
        &mut self,
        index: usize,
        parts: usize,
        most: u64,
        memory: usize,
        until: Instant,
    ) {
        (self.index, self.parts) = (index as u64, parts as u64);
        let mut proofs = Vec::new();
        // Room for one that is longer than those before it.
        let mut next = 256;
        while !self.is_dated && self.signed() < most {
            let used = proofs.len() + self.ends.len() * size_of::<usize>();
            // Reading the clock is cheap beside a signature.
            if used + next > memory || Instant::now() >= until {
                break;
            }
            self.mark(self.signed());
            let before = proofs.len();
            self.push_proof(&mut proofs);
            next = next.max(proofs.len() - before + size_of::<usize>());
            self.ends.push(proofs.len());
        }
        self.proofs = proofs;
    }

    /// Puts the `nth` delivery of this part, other than all others of this run and of any other, into `request`, up
    /// to the filling.
    pub(super) fn make(&mut self, nth: u64, request: &mut Vec<u8>) {
        self.mark(nth);
        request.clear();
        request.extend_from_slice(&self.head);
        match usize::try_from(nth).ok().filter(|nth| *nth < self.ends.len()) {
            Some(nth) => {
                let begin = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
                request.extend_from_slice(&self.proofs[begin..self.ends[nth]]);
            }
            None => self.push_proof(request),
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&self.body[..self.own]);
    }

    /// Overwrites what is the delivery's own.
    fn mark(&mut self, nth: u64) {
        let number = self.index + nth * self.parts;
        let repositories = self.plan.repositories as u64;
        let before = commit(number.wrapping_sub(repositories));
        let after = commit(number);
        for (places, text) in [(&self.befores, before), (&self.afters, after)] {
            for &at in places {
                self.body[at..at + VARYING].copy_from_slice(&text);
            }
        }
        for &at in &self.numbers {
            let mut rest = number % repositories + 1;
            for digit in self.body[at..at + self.digits].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        // The last twelve digits of the id.
        let mut low = [0; 12];
        HEXLOWER.encode_mut(&number.to_be_bytes()[2..], &mut low);
        let end = self.id_at + ID.len();
        self.body[end - low.len()..end].copy_from_slice(&low);
        for at in &self.ids_in_head {
            let end = at + ID.len();
            self.head[end - low.len()..end].copy_from_slice(&low);
        }
    }

    fn push_proof(&self, lines: &mut Vec<u8>) {
        let proof = self.proof(SystemClock.now()).expect("one like it was signed before");
        for (name, value) in &proof {
            push_line(lines, name, value.as_bytes());
        }
    }

    fn proof(&self, now: Timestamp) -> Result<HeaderMap, String> {
        let Plan { hook, provider, key, .. } = &*self.plan;
        let id = String::from_utf8_lossy(&self.body[self.id_at..self.id_at + ID.len()]);
        match place_of_proof(hook, *provider, key)? {
            Place::Headers(scheme) => prove(scheme, &self.body, key, &id, now),
            Place::Url => Ok(HeaderMap::new()),
        }
    }
}

/// The part of a commit that is not the same for the whole run.
fn commit(number: u64) -> [u8; VARYING] {
    // An odd factor: no two numbers give the same, and neighbours do not look alike.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut commit = [0; VARYING];
    HEXLOWER.encode_mut(&mixed.to_be_bytes(), &mut commit);
    commit
}

fn push_line(lines: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

fn places(body: &[u8], mark: &[u8]) -> Vec<usize> {
    if mark.is_empty() {
        return Vec::new();
    }
    let windows = body.windows(mark.len()).enumerate();
    windows.filter(|(_, window)| *window == mark).map(|(at, _)| at).collect()
}
