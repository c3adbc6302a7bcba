//! What bodies can do to a gate: arrive in pieces, slowly, never, too large, or otherwise than they
//! were announced. Through a real server where the wire matters, and with bodies made by hand where
//! it cannot be made to misbehave enough.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Empty, Full};
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

use hookgate::gate::{Budget, Gate, GateBody, GateBuilder, GateLayer, SMALL_BODY};
use hookgate::outcome::Outcome;
use hookgate::provider::Provider;
use hookgate::source::Source;

use crate::support::{
    Answer, Client, CountPolls, Indexer, Sample, Server, ask, both_keys, eventually, keys,
};

const MIB: usize = 1024 * 1024;
/// More polls than any of these requests needs, and far fewer than a busy loop makes.
const FEW_POLLS: usize = 50;

fn builder(budget: &Budget) -> GateBuilder {
    GateLayer::builder(keys()).path("/webhook").budget(budget.clone())
}

fn gate(builder: GateBuilder) -> (Gate<Indexer>, Indexer) {
    let indexer = Indexer::default();
    (builder.build().unwrap().layer(indexer.clone()), indexer)
}

/// A gate with its own budget, behind a server that counts polls.
struct Site {
    server: Server,
    polls: CountPolls<Gate<Indexer>>,
    indexer: Indexer,
    budget: Budget,
}

impl Site {
    async fn start(change: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        Self::with_budget(Budget::default(), change).await
    }

    async fn with_budget(budget: Budget, change: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        let (gate, indexer) = gate(change(builder(&budget)));
        let polls = CountPolls::new(gate);
        Self { server: Server::start(polls.clone()).await, polls, indexer, budget }
    }

    async fn client(&self) -> Client {
        Client::to(self.server.address).await
    }

    /// That no future is left, that it took no busy loop to get there, and that nothing is held.
    async fn is_done(&self) {
        eventually("all futures are gone", || self.polls.open() == 0).await;
        assert!(self.polls.polls() < FEW_POLLS, "{} polls", self.polls.polls());
        self.indexer.take();
        eventually("all room is given back", || self.budget.used() == 0).await;
    }

    /// That a request that waits for its sender is left alone meanwhile.
    async fn is_quiet(&self) {
        eventually("the request has begun", || self.polls.polls() > 0).await;
        let before = self.polls.polls();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let polls = self.polls.polls() - before;
        assert!(polls < FEW_POLLS, "{polls} polls while nothing arrives");
    }
}

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn length(bytes: u64) -> String {
    format!("content-length: {bytes}\r\n")
}

mod chunked {
    use super::*;

    #[tokio::test]
    async fn a_chunked_body_passes_however_it_is_cut() {
        for size in [1, 7, 4096] {
            let site = Site::start(|gate| gate).await;
            let sample = Sample::github("{\"ref\":\"refs/heads/main\"}");
            let mut client = site.client().await;
            client.send(&sample.head(CHUNKED)).await;
            for data in sample.body.chunks(size) {
                client.send(&chunk(data)).await;
            }
            client.send(b"0\r\n\r\n").await;
            assert_eq!(client.reply().await.status, 200);
            assert_eq!(site.indexer.only().body, sample.body);
            site.is_done().await;
        }
    }

    #[tokio::test]
    async fn a_chunked_body_with_a_changed_byte_is_refused() {
        let site = Site::start(|gate| gate).await;
        let sample = Sample::github("{\"ref\":\"refs/heads/main\"}");
        let mut client = site.client().await;
        client.send(&sample.head(CHUNKED)).await;
        client.send(&chunk(b"{\"ref\":\"refs/heads/")).await;
        client.send(&chunk(b"evil\"}")).await;
        client.send(b"0\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 401);
        assert_eq!(site.indexer.count(), 0);
        site.is_done().await;
    }

    #[tokio::test]
    async fn a_malformed_signature_is_answered_before_the_first_chunk() {
        let site = Site::start(|gate| gate).await;
        let sample = Sample::of(Provider::Github).header("x-hub-signature-256", "sha256=00");
        let mut client = site.client().await;
        client.send(&sample.head(CHUNKED)).await;
        assert_eq!(client.reply().await.status, 401);
        site.is_done().await;
    }

    #[tokio::test]
    async fn a_chunked_body_that_pauses_costs_nothing_meanwhile_and_passes_when_it_goes_on() {
        let site = Site::start(|gate| gate).await;
        let sample = Sample::github("{\"ref\":\"refs/heads/main\"}");
        let mut client = site.client().await;
        client.send(&sample.head(CHUNKED)).await;
        client.send(&chunk(&sample.body[..5])).await;
        site.is_quiet().await;
        client.send(&chunk(&sample.body[5..])).await;
        client.send(b"0\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
        assert_eq!(site.indexer.only().body, sample.body);
        site.is_done().await;
    }
}

mod disconnect {
    use super::*;

    #[tokio::test]
    async fn a_sender_who_leaves_half_way_leaves_nothing_behind() {
        for framing in [length(100), CHUNKED.into()] {
            let site = Site::start(|gate| gate).await;
            let sample = Sample::github(vec![b'x'; 100]);
            let mut client = site.client().await;
            client.send(&sample.head(&framing)).await;
            let part = &sample.body[..3];
            client.send(&if framing == CHUNKED { chunk(part) } else { part.to_vec() }).await;
            site.is_quiet().await;
            drop(client);
            site.is_done().await;
            assert_eq!(site.indexer.count(), 0);
        }
    }

    #[tokio::test]
    async fn one_who_leaves_before_the_first_byte_of_the_body_leaves_nothing_either() {
        let site = Site::start(|gate| gate).await;
        let mut client = site.client().await;
        client.send(&Sample::github("{}").head(&length(100))).await;
        site.is_quiet().await;
        drop(client);
        site.is_done().await;
        assert_eq!(site.indexer.count(), 0);
    }
}

mod length {
    use super::*;

    /// 2^40 and 2^63-1 aborted, and 2^64-3 panicked, what set a buffer aside by the claim.
    const BEYOND_MEMORY: [u64; 4] = [1 << 40, 1 << 50, (1 << 63) - 1, u64::MAX - 2];

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_answered_before_any_byte() {
        let site = Site::start(|gate| gate).await;
        for claimed in [25 * MIB as u64 + 1].into_iter().chain(BEYOND_MEMORY) {
            let mut client = site.client().await;
            client.send(&Sample::github("{}").head(&length(claimed))).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, 413, "{claimed}");
            assert_eq!(reply.headers["hookgate-outcome"], "too-large");
        }
        site.is_done().await;
    }

    #[tokio::test]
    async fn a_claim_beyond_all_memory_takes_none_and_keeps_no_small_body_out() {
        for claimed in BEYOND_MEMORY {
            let site = Site::start(|gate| gate.max_body(u64::MAX)).await;
            let before = peak_memory();
            let mut liar = site.client().await;
            liar.send(&Sample::github("{}").head(&length(claimed))).await;
            liar.send(b"abc").await;
            site.is_quiet().await;
            let sample = Sample::github(vec![b'x'; 1000]);
            let mut client = site.client().await;
            client.send(&sample.head(&length(1000))).await;
            client.send(&sample.body).await;
            assert_eq!(client.reply().await.status, 200, "{claimed}");
            // Other tests of this process take some of it.
            assert!(peak_memory() - before < 1 << 34, "{claimed}");
            drop(liar);
            site.is_done().await;
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_before_its_length_is_refused_though_its_signature_holds() {
        let site = Site::start(|gate| gate).await;
        let sample = Sample::github("{\"ref\":\"refs/heads/main\"}");
        let mut client = site.client().await;
        client.send(&sample.head(&length(100))).await;
        client.send(&sample.body).await;
        site.is_quiet().await;
        drop(client);
        site.is_done().await;
        assert_eq!(site.indexer.count(), 0);
    }

    #[tokio::test]
    async fn what_follows_the_length_is_no_part_of_the_body() {
        let site = Site::start(|gate| gate).await;
        let body = "{\"ref\":\"refs/heads/main\"}";
        let more = format!("{body} and more");
        for (signed, status) in [(body, 200), (&more[..], 401)] {
            let sample = Sample::github(signed.to_owned());
            let mut client = site.client().await;
            client.send(&sample.head(&length(body.len() as u64))).await;
            client.send(more.as_bytes()).await;
            assert_eq!(client.reply().await.status, status, "{signed}");
        }
        assert_eq!(site.indexer.only().body, body);
        site.is_done().await;
    }

    /// The most address space that this process ever had, in bytes, where the system tells.
    fn peak_memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        peak.map_or(0, |peak| peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
    }
}

mod error {
    use super::*;

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused_though_all_of_it_was_there() {
        let budget = Budget::default();
        let (gate, indexer) = gate(builder(&budget));
        let sample = Sample::github("{\"ref\":\"refs/heads/main\"}");
        for broken in [true, false] {
            let mut body = Script::new([data(&sample.body)]);
            if broken {
                body.steps.push_back(Step::Error);
            }
            let answer = ask(&gate, sample.request_with(body)).await;
            if broken {
                assert_eq!((answer.code(), answer.outcome()), (400, Some(Outcome::Malformed)));
                assert_eq!(indexer.count(), 0);
            } else {
                assert_eq!(answer.code(), 200);
                assert_eq!(indexer.only().body, sample.body);
            }
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn an_error_before_the_first_byte_is_refused() {
        let (gate, indexer) = gate(builder(&Budget::default()));
        let answer = ask(&gate, Sample::github("").request_with(Script::new([Step::Error]))).await;
        assert_eq!((answer.code(), answer.outcome()), (400, Some(Outcome::Malformed)));
        assert_eq!(indexer.count(), 0);
    }

    #[tokio::test]
    async fn a_chunk_that_is_none_is_refused_on_the_wire() {
        let site = Site::start(|gate| gate).await;
        let sample = Sample::github("{}");
        let mut client = site.client().await;
        client.send(&sample.head(CHUNKED)).await;
        client.send(&chunk(&sample.body)).await;
        client.send(b"zz\r\n").await;
        assert_eq!(client.reply().await.status, 400);
        assert_eq!(site.indexer.count(), 0);
        site.is_done().await;
    }
}

mod trailers {
    use super::*;

    #[tokio::test]
    async fn trailers_go_no_further_than_the_gate() {
        for (body, status) in [("{\"ref\":\"a\"}", 200), ("{\"ref\":\"b\"}", 401)] {
            let site = Site::start(|gate| gate).await;
            let sample = Sample::github("{\"ref\":\"a\"}");
            let mut client = site.client().await;
            client.send(&sample.head("trailer: x-evil\r\ntransfer-encoding: chunked\r\n")).await;
            client.send(&chunk(body.as_bytes())).await;
            client.send(b"0\r\nx-evil: 1\r\nx-hub-signature-256: sha256=\r\n\r\n").await;
            assert_eq!(client.reply().await.status, status);
            if status == 200 {
                let received = site.indexer.only();
                assert_eq!((received.body, received.trailers), (sample.body.clone(), None));
            }
            site.is_done().await;
        }
    }

    #[tokio::test]
    async fn trailers_in_the_middle_of_a_body_are_passed_over() {
        let (gate, indexer) = gate(builder(&Budget::default()));
        let sample = Sample::github("{\"ref\":\"a\"}");
        let (first, second) = sample.body.split_at(4);
        let script = || [Step::Trailers, data(first), Step::Trailers, data(second), Step::Trailers];
        let answer = ask(&gate, sample.request_with(Script::new(script()))).await;
        assert_eq!(answer.code(), 200);
        let received = indexer.only();
        assert_eq!((received.body, received.trailers), (sample.body.clone(), None));
        let other = Sample::github("{\"ref\":\"b\"}");
        assert_eq!(ask(&gate, other.request_with(Script::new(script()))).await.code(), 401);
    }
}

mod empty {
    use super::*;

    #[tokio::test]
    async fn empty_frames_change_nothing() {
        let (gate, indexer) = gate(builder(&Budget::default()));
        let sample = Sample::github("{\"ref\":\"a\"}");
        let (first, second) = sample.body.split_at(4);
        let script = || {
            let empty = || data(b"");
            [empty(), data(first), empty(), empty(), Step::Wait, data(second), empty()]
        };
        let answer = ask(&gate, sample.request_with(Script::new(script()))).await;
        assert_eq!(answer.code(), 200);
        assert_eq!(indexer.only().body, sample.body);
        let other = Sample::github("{\"ref\":\"b\"}");
        assert_eq!(ask(&gate, other.request_with(Script::new(script()))).await.code(), 401);
    }

    #[tokio::test]
    async fn a_body_of_no_byte_is_a_body() {
        let (gate, indexer) = gate(builder(&Budget::default()));
        let sample = Sample::github("");
        assert_eq!(ask(&gate, sample.request_with(Empty::<Bytes>::new())).await.code(), 200);
        assert_eq!(ask(&gate, sample.request_with(Script::new([data(b"")]))).await.code(), 200);
        assert!(indexer.take().iter().all(|received| received.body.is_empty()));
        let other = Sample::github("x");
        assert_eq!(ask(&gate, other.request_with(Empty::<Bytes>::new())).await.code(), 401);
    }

    /// On one thread: a loop that never yields would stop this test for good.
    #[tokio::test]
    async fn endless_empty_frames_keep_nobody_waiting_and_end_with_the_deadline() {
        for endless in [Step::Data(Bytes::new()), Step::Trailers] {
            let deadline = Duration::from_millis(300);
            let (gate, indexer) = gate(builder(&Budget::default()).body_deadline(deadline));
            let polls = CountPolls::new(gate.clone());
            let request = Sample::github("{}").request_with(Endless(endless));
            let begun = Instant::now();
            let flood = tokio::spawn({
                let polls = polls.clone();
                async move { ask(&polls, request).await }
            });
            eventually("the flood has begun", || polls.polls() > 2).await;
            for _ in 0..100 {
                assert_eq!(ask(&gate, Sample::github("{}").request()).await.code(), 200);
            }
            assert_eq!(indexer.take().len(), 100);
            let answer = flood.await.unwrap();
            assert_eq!((answer.code(), answer.outcome()), (408, Some(Outcome::Timeout)));
            assert!(begun.elapsed() >= deadline / 2);
        }
    }
}

mod size_hint {
    use super::*;

    #[tokio::test]
    async fn a_hint_that_is_wrong_neither_harms_nor_helps() {
        let (gate, indexer) = gate(builder(&Budget::default()).max_body(1000));
        let body = vec![b'x'; 100];
        let sample = Sample::github(body.clone());
        let range = |lower, upper| {
            let mut hint = SizeHint::new();
            hint.set_upper(upper);
            hint.set_lower(lower);
            hint
        };
        let exact = SizeHint::with_exact;
        for hint in [
            SizeHint::new(),
            exact(100),
            exact(0),
            exact(50),
            exact(1000),
            range(0, 10),
            range(0, u64::MAX),
            range(1000, u64::MAX),
        ] {
            let hinted = |data: &[u8]| {
                let frames = data.chunks(9).map(|data| Step::Data(Bytes::copy_from_slice(data)));
                Script { hint, ..Script::new(frames) }
            };
            let answer = ask(&gate, sample.request_with(hinted(&body))).await;
            assert_eq!(answer.code(), 200, "{hint:?}");
            assert_eq!(indexer.only().body, body);
            let answer = ask(&gate, sample.request_with(hinted(&body[1..]))).await;
            assert_eq!(answer.code(), 401, "{hint:?}");
        }
        for hint in [exact(1001), exact(u64::MAX), range(1001, u64::MAX)] {
            let body = Script { hint, ..Script::new([Step::Panic]) };
            let answer = ask(&gate, sample.request_with(body)).await;
            assert_eq!((answer.code(), answer.outcome()), (413, Some(Outcome::TooLarge)));
        }
        assert_eq!(indexer.count(), 0);
    }

    #[tokio::test]
    async fn a_hint_that_grows_on_the_way_is_held_to_the_limit() {
        for later in [1001, 1 << 40, u64::MAX] {
            let budget = Budget::default();
            let (gate, _) = gate(builder(&budget).max_body(1000));
            let body = Script::new([data(b"x"), Step::Hint(later), data(b"y"), Step::Panic]);
            let answer = ask(&gate, Sample::github("xy").request_with(body)).await;
            assert_eq!((answer.code(), answer.outcome()), (413, Some(Outcome::TooLarge)));
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn the_service_behind_the_gate_gets_an_exact_length_whatever_came() {
        let (gate, indexer) = gate(builder(&Budget::default()));
        let sample = Sample::github("{\"ref\":\"a\"}");
        let frames = sample.body.chunks(3).map(|data| Step::Data(Bytes::copy_from_slice(data)));
        assert_eq!(ask(&gate, sample.request_with(Script::new(frames))).await.code(), 200);
        assert_eq!(indexer.only().hint, Some(11));
        let empty = Sample::github("");
        assert_eq!(ask(&gate, empty.request_with(Script::new([]))).await.code(), 200);
        assert_eq!(indexer.only().hint, Some(0));
    }
}

mod limit {
    use super::*;

    #[tokio::test]
    async fn a_declared_length_decides_before_a_byte_is_asked_for() {
        let (gate, _) = gate(builder(&Budget::default()).max_body(1000));
        for (declared, steps, status) in
            [(1001, vec![Step::Panic], 413), (1000, vec![Step::Data(vec![b'x'; 1000].into())], 200)]
        {
            let body = Script { hint: SizeHint::with_exact(declared), ..Script::new(steps) };
            let answer = ask(&gate, Sample::github(vec![b'x'; 1000]).request_with(body)).await;
            assert_eq!(answer.code(), status);
        }
    }

    #[tokio::test]
    async fn only_a_head_that_is_in_order_is_asked_for_its_body() {
        let site = Site::start(|gate| gate).await;
        let expect = format!("expect: 100-continue\r\n{}", length(2));
        let mut client = site.client().await;
        client.send(&Sample::of(Provider::Github).head(&expect)).await;
        assert_eq!(client.reply().await.status, 401);
        let mut client = site.client().await;
        client.send(&Sample::github("{}").head(&expect)).await;
        assert_eq!(client.reply().await.status, 100);
        client.send(b"{}").await;
        assert_eq!(client.reply().await.status, 200);
        site.is_done().await;
    }

    #[tokio::test]
    async fn an_undeclared_length_is_held_to_the_limit_as_it_arrives() {
        let budget = Budget::default();
        let (gate, indexer) = gate(builder(&budget).max_body(1000));
        for (size, status) in [(1000, 200), (1001, 413)] {
            let sample = Sample::github(vec![b'x'; size]);
            let frames =
                sample.body.chunks(300).map(|data| Step::Data(Bytes::copy_from_slice(data)));
            // Nothing is asked for after the byte that is too much.
            let end = (status == 413).then_some(Step::Panic);
            let body = Script::new(frames.chain(end));
            assert_eq!(ask(&gate, sample.request_with(body)).await.code(), status);
        }
        indexer.only();
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_form_may_have_three_times_as_much() {
        let (gate, _) = gate(builder(&Budget::default()).max_body(100));
        for (form, size, status) in [(true, 300, 200), (true, 301, 413), (false, 300, 413)] {
            let media = if form { "application/x-www-form-urlencoded" } else { "application/json" };
            let body = format!("payload={}", "x".repeat(size - 8));
            let sample = Sample::of(Provider::Github).header("content-type", media).body(body);
            let answer = ask(&gate, sample.sign(&both_keys()).request()).await;
            assert_eq!(answer.code(), status, "{form} {size}");
        }
    }

    #[tokio::test]
    async fn strangers_who_send_more_than_the_limit_are_told_and_leave_no_room_taken() {
        let site = Site::start(|gate| gate.max_body(64 * 1024)).await;
        for framing in [CHUNKED.to_owned(), length(64 * 1024 + 1)] {
            let mut client = site.client().await;
            client.send(&Sample::github("{}").head(&framing)).await;
            if framing == CHUNKED {
                client.send(&chunk(&vec![b'x'; 64 * 1024 + 1])).await;
            }
            assert_eq!(client.reply().await.status, 413);
        }
        site.is_done().await;
    }
}

mod time {
    use super::*;

    /// What becomes of a body of 20,000 bytes that comes by `bytes` a second, and when.
    async fn dribble(bytes: usize) -> (Answer, u64) {
        let budget = Budget::default();
        let (gate, _) = gate(builder(&budget));
        let sample = Sample::github(vec![b'x'; 20_000]);
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let data = sample.body.clone();
        let sending = tokio::spawn(async move {
            for data in data.chunks(bytes.max(1)) {
                if bytes == 0 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                if sender.send_data(Bytes::copy_from_slice(data)).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let answer = ask(&gate, sample.request_with(body)).await;
        sending.abort();
        (answer, begun.elapsed().as_millis() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_in_time_is_given_up_at_the_deadline() {
        let (answer, millis) = dribble(1500).await;
        assert_eq!((answer.code(), answer.outcome()), (408, Some(Outcome::Timeout)));
        assert!((10_000..10_100).contains(&millis), "{millis}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_that_ends_in_time_passes() {
        let (answer, millis) = dribble(2500).await;
        assert_eq!(answer.code(), 200);
        assert!((8000..8100).contains(&millis), "{millis}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_below_the_least_rate_is_given_up_at_half_of_the_time() {
        for bytes in [0, 100, 1000] {
            let (answer, millis) = dribble(bytes).await;
            assert_eq!((answer.code(), answer.outcome()), (408, Some(Outcome::Timeout)));
            assert!((5000..5100).contains(&millis), "{bytes}: {millis}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_below_the_least_rate_later_is_given_up_then() {
        let (gate, _) = gate(builder(&Budget::default()));
        let (mut sender, body) = Channel::<Bytes>::new(1);
        // Enough for seven seconds.
        sender.send_data(vec![b'x'; 7 * 1024].into()).await.unwrap();
        let begun = Instant::now();
        let answer = ask(&gate, Sample::github("x").request_with(body)).await;
        assert_eq!(answer.code(), 408);
        let seconds = begun.elapsed().as_secs_f32();
        assert!((7.9..8.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test]
    async fn the_deadline_holds_on_the_wire() {
        let site = Site::start(|gate| gate.body_deadline(Duration::from_millis(200))).await;
        let mut client = site.client().await;
        client.send(&Sample::github("{}").head(&length(100))).await;
        client.send(b"abc").await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, &reply.headers["hookgate-outcome"]),
            (408, &"timeout".parse().unwrap())
        );
        site.is_done().await;
    }
}

mod room {
    use super::*;

    /// A request that has sent `bytes` and goes on when it is told to.
    struct Held {
        future: Pin<Box<dyn Future<Output = Answer>>>,
        sender: Sender<Bytes>,
    }

    impl Held {
        /// Of a body that declares nothing.
        async fn begin(gate: &Gate<Indexer>, bytes: usize, source: Option<[u8; 4]>) -> Self {
            let (mut sender, body) = Channel::<Bytes>::new(1);
            let mut request = Sample::github(vec![b'x'; bytes]).request_with(body);
            request.extensions_mut().extend(from(source));
            sender.send_data(vec![b'x'; bytes].into()).await.unwrap();
            let gate = gate.clone();
            let mut held =
                Self { future: Box::pin(async move { ask(&gate, request).await }), sender };
            assert!(held.poll().is_pending());
            held
        }

        fn poll(&mut self) -> Poll<Answer> {
            self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        }

        async fn end(self) -> Answer {
            drop(self.sender);
            self.future.await
        }
    }

    fn from(source: Option<[u8; 4]>) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        if let Some(address) = source {
            extensions.insert(Source::new(address.into()));
        }
        extensions
    }

    #[tokio::test]
    async fn a_full_budget_is_answered_503_and_whole_again_when_bodies_are_gone() {
        let budget = Budget::new(MIB, 100);
        let (gate, indexer) = gate(builder(&budget));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(Held::begin(&gate, SMALL_BODY, None).await);
        }
        assert_eq!(budget.used(), MIB);
        let answer = ask(&gate, Sample::github("{}").request()).await;
        assert_eq!((answer.code(), answer.outcome()), (503, Some(Outcome::Overloaded)));
        assert_eq!(answer.headers["retry-after"], "1");
        // A stranger without a credential is told so, and not how full it is.
        let stranger = Sample::of(Provider::Github).request();
        assert_eq!(ask(&gate, stranger).await.code(), 401);
        // One leaves, one goes on to the end.
        drop(held.pop());
        assert_eq!(ask(&gate, Sample::github("{}").request()).await.code(), 200);
        assert_eq!(held.pop().unwrap().end().await.code(), 200);
        assert_eq!(indexer.take().len(), 2);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_large_body_waits_for_its_turn_while_small_ones_go_by() {
        let site = Site::with_budget(Budget::new(4 * MIB, 100), |gate| gate).await;
        let large = Sample::github(vec![b'x'; 2 * MIB]);
        let begin = async || {
            let mut client = site.client().await;
            client.send(&large.head(&length(2 * MIB as u64))).await;
            client.send(&large.body[..MIB]).await;
            client
        };
        let mut first = begin().await;
        eventually("the first has its room", || site.budget.used() == 2 * MIB).await;
        let mut second = site.client().await;
        second.send(&large.head(&length(2 * MIB as u64))).await;
        second.send(&large.body[..1000]).await;
        eventually("both have begun", || site.polls.open() == 2).await;
        let small = Sample::github("{}");
        let mut client = site.client().await;
        client.send(&small.head(&length(2))).await;
        client.send(&small.body).await;
        assert_eq!(client.reply().await.status, 200);
        site.indexer.only();
        assert_eq!(site.budget.used(), 2 * MIB, "what waits holds nothing");

        first.send(&large.body[MIB..]).await;
        assert_eq!(first.reply().await.status, 200);
        assert_eq!(site.budget.used(), 2 * MIB, "the service still holds the first body");
        assert_eq!(site.indexer.only().body, large.body);
        eventually("the second has its room", || site.budget.used() == 2 * MIB).await;
        second.send(&large.body[1000..]).await;
        assert_eq!(second.reply().await.status, 200);
        assert_eq!(site.indexer.only().body, large.body);
        eventually("all is given back", || site.budget.used() == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_that_finds_no_room_in_time_is_answered_503() {
        let budget = Budget::new(4 * MIB, 100);
        let (gate, indexer) = gate(builder(&budget));
        let large = Sample::github(vec![b'x'; 3 * MIB]);
        // The service behind the gate keeps the first body.
        assert_eq!(ask(&gate, large.request()).await.code(), 200);
        assert_eq!(budget.used(), 3 * MIB);
        let begun = Instant::now();
        let answer = ask(&gate, large.request()).await;
        assert_eq!((answer.code(), answer.outcome()), (503, Some(Outcome::Overloaded)));
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(begun.elapsed().as_secs(), 10);
        indexer.take();
        assert_eq!(budget.used(), 0);
        assert_eq!(ask(&gate, large.request()).await.code(), 200);
    }

    #[tokio::test]
    async fn a_copy_that_the_service_keeps_keeps_its_room() {
        let budget = Budget::new(MIB, 100);
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let service = service_fn(move |request: Request<GateBody<Full<Bytes>>>| {
            keep.lock().unwrap().push(request.body().bytes().unwrap().slice(..10));
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(
                Empty::<Bytes>::new(),
            )))
        });
        let gate = builder(&budget).build().unwrap().layer(service);
        let sample = Sample::github(vec![b'x'; 1000]);
        assert_eq!(ask(&gate, sample.request()).await.code(), 200);
        assert_eq!(budget.used(), 1000, "ten bytes of it keep all of it");
        let copy = kept.lock().unwrap()[0].clone();
        kept.lock().unwrap().clear();
        assert_eq!(budget.used(), 1000);
        drop(copy);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_source_has_its_share_until_its_deliveries_are_verified() {
        let budget = Budget::new(4 * MIB, 25);
        let (gate, indexer) = gate(builder(&budget));
        let (one, other) = (Some([192, 0, 2, 1]), Some([192, 0, 2, 2]));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(Held::begin(&gate, SMALL_BODY, one).await);
        }
        let small = async |source| {
            let mut request = Sample::github("{}").request();
            request.extensions_mut().extend(from(source));
            ask(&gate, request).await.code()
        };
        assert_eq!(small(one).await, 503);
        assert_eq!(small(other).await, 200);
        assert_eq!(small(None).await, 200);
        indexer.take();
        // The service keeps the body, but its sender is no stranger any more.
        assert_eq!(held.pop().unwrap().end().await.code(), 200);
        assert_eq!(budget.used(), MIB);
        assert_eq!(small(one).await, 200);
    }

    #[tokio::test]
    async fn a_budget_without_bounds_is_one() {
        let budget = Budget::new(usize::MAX, 100);
        let (gate, indexer) = gate(builder(&budget).max_body(u64::MAX));
        let mut held = Vec::new();
        for _ in 0..8 {
            let body = Script {
                hint: SizeHint::with_exact(u64::MAX),
                ..Script::new([data(b"x"), Step::Stop])
            };
            let request = Sample::github("{}").request_with(body);
            let mut gate = gate.clone();
            let mut future = Box::pin(gate.call(request));
            let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
            held.push(future);
        }
        assert_eq!(ask(&gate, Sample::github("{}").request()).await.code(), 200);
        drop(held);
        indexer.take();
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_gives_its_room_back() {
        let budget = Budget::default();
        let (gate, _) = gate(builder(&budget));
        let (mut sender, body) = Channel::<Bytes>::new(1);
        sender.send_data(vec![b'x'; 1000].into()).await.unwrap();
        let mut gate = gate;
        {
            let mut future = pin!(gate.call(Sample::github("{}").request_with(body)));
            let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
            assert_eq!(budget.used(), 1000);
        }
        assert_eq!(budget.used(), 0);
        assert!(sender.send_data(Bytes::from_static(b"x")).await.is_err(), "the body is dropped");
    }
}

/// A body that does what it is told, and says of its length what it is told.
struct Script {
    steps: VecDeque<Step>,
    hint: SizeHint,
}

#[derive(Clone)]
enum Step {
    Data(Bytes),
    Trailers,
    Error,
    /// Not ready once.
    Wait,
    /// Never ready.
    Stop,
    /// Says from now on that so many bytes are to come.
    Hint(u64),
    /// Must not be reached.
    Panic,
}

fn data(bytes: &[u8]) -> Step {
    Step::Data(Bytes::copy_from_slice(bytes))
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), hint: SizeHint::new() }
    }

    /// So much less is still to come.
    fn came(&mut self, bytes: u64) {
        let mut rest = SizeHint::new();
        if let Some(upper) = self.hint.upper() {
            rest.set_upper(upper.saturating_sub(bytes));
        }
        rest.set_lower(self.hint.lower().saturating_sub(bytes));
        self.hint = rest;
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            return match self.steps.pop_front() {
                None => Poll::Ready(None),
                Some(Step::Data(data)) => {
                    self.came(data.len() as u64);
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
                Some(Step::Error) => {
                    Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
                }
                Some(Step::Wait) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Step::Stop) => {
                    self.steps.push_front(Step::Stop);
                    Poll::Pending
                }
                Some(Step::Hint(bytes)) => {
                    self.hint = SizeHint::with_exact(bytes);
                    continue;
                }
                Some(Step::Panic) => panic!("nothing more may be asked of this body"),
            };
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// The same frame for ever, at once.
struct Endless(Step);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        pin!(Script::new([self.0.clone()])).poll_frame(cx)
    }
}
