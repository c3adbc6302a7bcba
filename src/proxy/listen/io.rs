//! A connection's bytes, under the deadlines that hyper does not have.
//!
//! hyper's one timeout for reading a head also counts while a connection is idle, so a connection
//! that may be idle for 75 s could also take 75 s for a head. [`TimedIo`] stands between hyper and
//! the socket and knows from [`Exchanges`] which of the two it is:
//!
//! 1. **Head.** From the beginning of the connection, or from the first byte after an answer, until
//!    the service is called. When the time is up the read fails.
//! 2. **Busy.** From that call until the answer is done. No deadline here: the service has its own
//!    for the body and for its work.
//! 3. **Idle.** From then on, until the next byte. When the time is up the read says end of file,
//!    which hyper takes as the orderly end that it is.
//!
//! A head that came half with the end of the request before it lies in hyper's buffer, unseen from
//! here; it has the idle time until its next byte, which is no more than the connection had anyway.
//!
//! A write that the client takes nothing of fails after a while as well.
//!
//! # Lingering close
//!
//! A server that closes a socket while the client is still sending makes the kernel answer with RST, and an RST
//! can overtake the answer or make the client's kernel throw it away
//! ([RFC 9112 section 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)). So the close has two steps: the write
//! side is shut, then what still comes is read and thrown away until the client closes too or a time has passed.
//! After 64 KiB nothing more is read, which makes the client wait, but the time is still given.
//!
//! # Cost
//!
//! Timers are made when a read or write first has to wait, and moved only to an earlier time; a
//! connection that is kept busy touches the timer once in an idle time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchanges;
use super::stats::{ListenStats, count};

/// How much is read and thrown away in a lingering close, in bytes.
const LINGER_BYTES: usize = 64 * 1024;

/// How long each thing may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// A request's head, from its first byte (the first head: from the connection's beginning).
    /// `None`: neither this nor `idle` is looked at, as HTTP/2 has its own.
    pub(super) head: Option<Duration>,
    /// Nothing between two requests.
    pub(super) idle: Duration,
    /// A write of which the client takes nothing.
    pub(super) write: Duration,
    /// A lingering close.
    pub(super) linger: Duration,
}

/// See the [module docs](self).
pub(super) struct TimedIo<T> {
    inner: T,
    exchanges: Arc<Exchanges>,
    stats: Arc<ListenStats>,
    timeouts: Timeouts,
    wait: Wait,
    /// The requests that had come when `wait` was set.
    requests: u32,
    read_alarm: Alarm,
    write_alarm: Alarm,
    /// When the write that now waits has to have got on.
    write_deadline: Option<Instant>,
    end_of_file: bool,
    closing: Closing,
}

/// What is waited for while nothing is being worked on, and until when.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Head(Instant),
    Idle(Instant),
}

#[derive(Clone, Copy, Debug)]
enum Closing {
    No,
    /// The write side is shut; so many bytes more are read, until then.
    Linger(usize, Instant),
    Done,
}

impl<T> TimedIo<T> {
    pub(super) fn new(
        inner: T,
        exchanges: Arc<Exchanges>,
        stats: Arc<ListenStats>,
        timeouts: Timeouts,
    ) -> Self {
        let head = timeouts.head.unwrap_or_default();
        Self {
            inner,
            wait: Wait::Head(exchanges.began() + head),
            requests: exchanges.requests(),
            exchanges,
            stats,
            timeouts,
            read_alarm: Alarm::default(),
            write_alarm: Alarm::default(),
            write_deadline: None,
            end_of_file: false,
            closing: Closing::No,
        }
    }

    /// What is waited for now: nothing while a request is worked on.
    fn wait(&mut self) -> Option<Wait> {
        if self.timeouts.head.is_none() || self.exchanges.is_busy() {
            return None;
        }
        let requests = self.exchanges.requests();
        if requests != self.requests {
            self.requests = requests;
            self.wait = Wait::Idle(Instant::now() + self.timeouts.idle);
        }
        Some(self.wait)
    }

    /// Notes that bytes have come, with which a head may begin.
    fn received(&mut self) {
        if let Some(head) = self.timeouts.head
            && let Some(Wait::Idle(_)) = self.wait()
        {
            self.wait = Wait::Head(Instant::now() + head);
        }
    }

    /// Ends a read that has waited long enough.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.wait() {
            None => Poll::Pending,
            Some(Wait::Head(deadline)) => {
                ready!(self.read_alarm.poll_at(deadline, cx));
                count(&self.stats.head_timeouts);
                Poll::Ready(Err(timed_out("the request's head took too long")))
            }
            Some(Wait::Idle(deadline)) => {
                ready!(self.read_alarm.poll_at(deadline, cx));
                self.end_of_file = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Ends a write that has waited long enough.
    fn in_time<R>(
        &mut self,
        result: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.write_deadline = None;
            return result;
        }
        let timeout = self.timeouts.write;
        let deadline = *self.write_deadline.get_or_insert_with(|| Instant::now() + timeout);
        ready!(self.write_alarm.poll_at(deadline, cx));
        count(&self.stats.write_timeouts);
        Poll::Ready(Err(timed_out("the client took nothing of what was written")))
    }
}

impl<T: AsyncRead + Unpin> TimedIo<T> {
    fn poll_linger(
        &mut self,
        mut left: usize,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut scratch = [0; 4096];
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                    self.closing = Closing::Linger(left, deadline);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.read_alarm.poll_at(deadline, cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.end_of_file {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    this.received();
                } else if buffer.remaining() > 0 {
                    this.end_of_file = true;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_overdue(cx),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.in_time(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.in_time(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.in_time(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Closing::No = this.closing {
            let result = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.in_time(result, cx))?;
            this.closing = if this.end_of_file || this.exchanges.is_leaving() {
                Closing::Done
            } else {
                Closing::Linger(LINGER_BYTES, Instant::now() + this.timeouts.linger)
            };
        }
        if let Closing::Linger(left, deadline) = this.closing {
            ready!(this.poll_linger(left, deadline, cx));
            this.closing = Closing::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// A timer that is made when it is first needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `deadline` has passed.
    fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It was set for something that is no longer waited for.
            sleep.as_mut().reset(deadline);
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
