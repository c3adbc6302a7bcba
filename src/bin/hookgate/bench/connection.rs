//! One connection: requests that are ready as bytes go out, and of the answers only what is counted is kept.
//!
//! A client must cost less than the endpoint that it measures. So this writes bytes, allocates nothing for a request,
//! and reads answers with `httparse`, the parser of hyper, whose client builds and takes apart more than is counted.
//!
//! How an answer ends is RFC 9112, section 6.3.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hookgate::outcome::{OUTCOME_HEADER, Outcome};
use httparse::{EMPTY_HEADER, Header, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::tally::{Answer, ErrorKind, Failure};
use super::target::Stream;

/// Of an answer's head.
const MOST_HEADERS: usize = 100;
/// What is read at once, at first.
const READ: usize = 8 << 10;
/// A head that is longer is no good answer.
const MOST_HEAD: usize = 64 << 10;

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    /// What was read is from `begin` to `end`.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// One for all requests: it is set anew when it goes off too early.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
}

/// How the body of an answer ends.
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

struct AnswerHead {
    answer: Answer,
    framing: Framing,
    is_kept: bool,
}

impl Connection {
    pub(super) fn over(stream: Box<dyn Stream>, deadline: Instant) -> Self {
        Self {
            stream,
            buffer: vec![0; READ],
            begin: 0,
            end: 0,
            timer: Box::pin(sleep_until(deadline.into())),
            deadline,
        }
    }

    /// Whether the other side closed it, or said what nobody asked for, as far as is known without waiting.
    pub(super) async fn has_ended(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_ended(cx).is_ready())).await
    }

    /// Ends when the other side closes. May be dropped at any time.
    pub(super) async fn ended(&mut self) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_fill(cx).map(|_| ())
    }

    /// Sends `head` and `rest`, and takes the whole answer; with it, whether the connection can be used again.
    pub(super) async fn exchange(
        &mut self,
        head: &[u8],
        rest: &[u8],
        deadline: Instant,
    ) -> Result<(Answer, bool), Failure> {
        self.deadline = deadline;
        let is_sent = self.send(head, rest).await?;
        let head = self.head().await?;
        match head.framing {
            Framing::Length(length) => self.skip(length).await?,
            Framing::Chunked => self.skip_chunks().await?,
            Framing::Close => {
                while self.fill().await? > 0 {
                    self.begin = self.end;
                }
            }
        }
        let is_kept = is_sent && head.is_kept && self.begin == self.end;
        Ok((head.answer, is_kept))
    }

    /// Whether all was sent. If not, there is an answer already, or the connection is broken, which reading tells.
    async fn send(&mut self, mut head: &[u8], mut rest: &[u8]) -> Result<bool, Failure> {
        poll_fn(|cx| {
            while !(head.is_empty() && rest.is_empty()) {
                let slices = [IoSlice::new(head), IoSlice::new(rest)];
                let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices);
                match written {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(false)),
                    Poll::Ready(Ok(count)) => {
                        let of_head = count.min(head.len());
                        head = &head[of_head..];
                        rest = &rest[count - of_head..];
                    }
                    Poll::Pending => return self.poll_unsent(cx),
                }
            }
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(result) => Poll::Ready(Ok(result.is_ok())),
                Poll::Pending => self.poll_unsent(cx),
            }
        })
        .await
    }

    /// What may come before all is sent: an answer, such as 413, or the end of the time.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        if self.poll_fill(cx).is_ready() {
            return Poll::Ready(Ok(false));
        }
        self.poll_late(cx).map(Err)
    }

    /// The head of the answer; those of status 1xx before it are passed over.
    async fn head(&mut self) -> Result<AnswerHead, Failure> {
        loop {
            if self.begin < self.end
                && let Some((length, head)) = parse(&self.buffer[self.begin..self.end])?
            {
                self.begin += length;
                if head.answer.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            if self.end - self.begin >= MOST_HEAD {
                return Err(protocol("a head of more than 64 KiB"));
            }
            self.more().await?;
        }
    }

    async fn skip(&mut self, mut length: u64) -> Result<(), Failure> {
        loop {
            let here = length.min((self.end - self.begin) as u64);
            self.begin += here as usize;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn skip_chunks(&mut self) -> Result<(), Failure> {
        loop {
            let text = &self.buffer[self.begin..self.end];
            match httparse::parse_chunk_size(text) {
                Ok(Status::Complete((length, 0))) => {
                    self.begin += length;
                    return self.skip_trailer().await;
                }
                Ok(Status::Complete((length, size))) => {
                    self.begin += length;
                    self.skip(size.saturating_add(b"\r\n".len() as u64)).await?;
                }
                Ok(Status::Partial) => self.more().await?,
                Err(_) => return Err(protocol("no size of a chunk")),
            }
        }
    }

    async fn skip_trailer(&mut self) -> Result<(), Failure> {
        loop {
            let mut headers = [EMPTY_HEADER; MOST_HEADERS];
            match httparse::parse_headers(&self.buffer[self.begin..self.end], &mut headers) {
                Ok(Status::Complete((length, _))) => {
                    self.begin += length;
                    return Ok(());
                }
                Ok(Status::Partial) if self.end - self.begin < MOST_HEAD => self.more().await?,
                Ok(Status::Partial) => return Err(protocol("a trailer of more than 64 KiB")),
                Err(error) => return Err(protocol(&error.to_string())),
            }
        }
    }

    /// At least one byte more.
    async fn more(&mut self) -> Result<(), Failure> {
        match self.fill().await? {
            0 => Err(reset("closed before the answer was there")),
            _ => Ok(()),
        }
    }

    /// How many bytes came; none at the end.
    async fn fill(&mut self) -> Result<usize, Failure> {
        poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| reset(&error.to_string()))),
            Poll::Pending => self.poll_late(cx).map(Err),
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
            if self.end == self.buffer.len() {
                self.buffer.resize(self.end * 2, 0);
            }
        }
        let mut space = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(Failure::timeout());
            }
            self.timer.as_mut().reset(self.deadline.into());
        }
    }
}

/// The head at the beginning of `text` and its length, once it is all there.
fn parse(text: &[u8]) -> Result<Option<(usize, AnswerHead)>, Failure> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(text) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(protocol(&error.to_string())),
    };
    let status = response.code.unwrap_or_default();
    let mut framing = match status {
        ..200 | 204 | 304 => Framing::Length(0),
        _ => Framing::Close,
    };
    let has_body = matches!(framing, Framing::Close);
    let mut is_kept = response.version == Some(1);
    let mut outcome = None;
    for Header { name, value } in &*response.headers {
        let has = |word: &str| {
            value
                .split(|byte| *byte == b',')
                .any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        if has_body && name.eq_ignore_ascii_case("transfer-encoding") {
            framing = if has("chunked") { Framing::Chunked } else { Framing::Close };
        } else if has_body && name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let length = length.ok_or_else(|| protocol("a length that is no number"))?;
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(length);
            }
        } else if name.eq_ignore_ascii_case("connection") {
            is_kept = if is_kept { !has("close") } else { has("keep-alive") };
        } else if name.eq_ignore_ascii_case(OUTCOME_HEADER.as_str()) {
            outcome = Outcome::ALL
                .iter()
                .map(|outcome| outcome.as_str())
                .find(|known| known.as_bytes() == *value);
        }
    }
    is_kept &= !matches!(framing, Framing::Close);
    Ok(Some((length, AnswerHead { answer: Answer { status, outcome }, framing, is_kept })))
}

fn protocol(text: &str) -> Failure {
    Failure { kind: ErrorKind::Protocol, text: text.into() }
}

fn reset(text: &str) -> Failure {
    Failure { kind: ErrorKind::Reset, text: text.into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What is made of this answer, which comes in pieces of `piece` bytes; the connection stays open.
    async fn exchange(text: &str, piece: usize) -> Result<(u16, bool), ErrorKind> {
        let (here, mut there) = duplex(piece);
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut connection = Connection::over(Box::new(here), deadline);
        let serving = async {
            there.read_exact(&mut [0; 9]).await.expect("a request");
            let _ = there.write_all(text.as_bytes()).await;
            if text.ends_with("<end>") {
                drop(there);
                return None;
            }
            Some(there)
        };
        let exchanging = async move { connection.exchange(b"head", b" body", deadline).await };
        let (answer, _open) = tokio::join!(exchanging, serving);
        answer.map(|(answer, is_kept)| (answer.status, is_kept)).map_err(|failure| failure.kind)
    }

    #[tokio::test]
    async fn an_answer_ends_where_its_framing_says() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok((200, true))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, true))),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                Ok((200, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                Ok((200, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
                Ok((200, true)),
            ),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Ok((200, false))),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Ok((200, false))),
            ("HTTP/1.1 200 OK\r\n\r\nabc<end>", Ok((200, false))),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc<end>", Err(ErrorKind::Reset)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Err(ErrorKind::Timeout)),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", Err(ErrorKind::Protocol)),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
                Err(ErrorKind::Protocol),
            ),
        ] {
            for piece in [1, 7, 4096] {
                assert_eq!(exchange(text, piece).await, expected, "{piece}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_all_is_sent_is_taken() {
        let (here, mut there) = duplex(64);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut connection = Connection::over(Box::new(here), deadline);
        there.write_all(b"HTTP/1.1 413 no\r\ncontent-length: 0\r\n\r\n").await.expect("space");
        let result = connection.exchange(b"head", &[b'.'; 1000], deadline).await;
        let (answer, is_kept) = result.map_err(|failure| failure.text).expect("an answer");
        assert_eq!((answer.status, is_kept), (413, false));
    }
}
