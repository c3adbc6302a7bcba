//! How an operation gets to the writer, and its result back.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::codec::{COMPRESS_ABOVE, Encoded};
use super::queue::{Answer, Queue};
use crate::proxy::spool::{Record, SpoolError, SpoolErrorKind};

/// At most so many operations wait for the writer; whoever comes then waits to be let in.
const MAX_WAITING: usize = 1024;

/// What the writer is asked for.
pub(super) enum Message {
    Job(Box<dyn Job>),
    /// The reader met an error.
    Fault(rusqlite::Error),
    /// To end, and to say when that is done.
    Close(oneshot::Sender<()>),
}

/// An operation of the writer.
pub(super) trait Job: Send {
    /// How many bytes it writes, about.
    fn weight(&self) -> usize;
    /// Does it, and keeps the result.
    fn apply(&mut self, queue: &mut Queue<'_>) -> rusqlite::Result<()>;
    /// Tells the result, now that it is durable, or that it is not.
    fn answer(self: Box<Self>, committed: Result<(), SpoolError>);
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Jobs {
    writer: Sender<Message>,
    waiting: Arc<Semaphore>,
}

impl Jobs {
    pub(super) fn new(writer: Sender<Message>) -> Self {
        Self { writer, waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Has the writer do `operation`, which writes `weight` bytes, about.
    ///
    /// As soon as it was let in, it is done, whether the future is dropped or not.
    pub(super) async fn run<T, F>(self, weight: usize, operation: F) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Queue<'_>) -> Answer<T> + Send + 'static,
    {
        let permit = self.enter().await?;
        let (reply, answer) = oneshot::channel();
        self.send(Task {
            weight,
            operation: Some(operation),
            result: None,
            reply,
            _permit: permit,
        });
        answer.await.unwrap_or_else(closed)
    }

    /// The same with a record, which is encoded first; a large one where it may take its time.
    pub(super) async fn run_with<T, F>(self, record: Record, operation: F) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Queue<'_>, &Encoded) -> Answer<T> + Send + 'static,
    {
        let permit = self.enter().await?;
        let (reply, answer) = oneshot::channel();
        let is_large = record.content.body.len() > COMPRESS_ABOVE;
        let hand_over = move || {
            let record = Encoded::new(record);
            let weight = record.body.len() + record.headers.len();
            let operation = Some(move |queue: &mut Queue<'_>| operation(queue, &record));
            self.send(Task { weight, operation, result: None, reply, _permit: permit });
        };
        if is_large {
            // It goes on by itself, whether anybody waits for it or not.
            drop(spawn_blocking(hand_over));
        } else {
            hand_over();
        }
        answer.await.unwrap_or_else(closed)
    }

    /// Tells the writer; `false` if it has ended.
    pub(super) fn tell(&self, message: Message) -> bool {
        self.writer.send(message).is_ok()
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, SpoolError> {
        self.waiting.clone().acquire_owned().await.map_err(|_| SpoolErrorKind::Closed.into())
    }

    fn send(&self, job: impl Job + 'static) {
        // If the writer has ended, the reply is dropped, and that is the answer.
        self.tell(Message::Job(Box::new(job)));
    }
}

/// What it means when whoever was to answer is gone.
pub(super) fn closed<T>(_: oneshot::error::RecvError) -> Result<T, SpoolError> {
    Err(SpoolErrorKind::Closed.into())
}

/// An operation, and to whom its result goes.
struct Task<T, F> {
    weight: usize,
    operation: Option<F>,
    result: Option<Result<T, SpoolError>>,
    reply: oneshot::Sender<Result<T, SpoolError>>,
    _permit: OwnedSemaphorePermit,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Queue<'_>) -> Answer<T> + Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn apply(&mut self, queue: &mut Queue<'_>) -> rusqlite::Result<()> {
        if let Some(operation) = self.operation.take() {
            self.result = Some(operation(queue)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), SpoolError>) {
        let result = match committed {
            Err(error) => Some(Err(error)),
            Ok(()) => self.result,
        };
        if let Some(result) = result {
            // Whoever asked may not wait any more.
            let _ = self.reply.send(result);
        }
    }
}
