//! The same questions to a gate that runs and to the file of one that does not.

use super::client::ControlClient;
use super::error::ControlError;
use super::json::{entry_json, stored_json};
use crate::proxy::spool::{
    Entry, OpenError, Page, Paged, RecordId, Selection, Spool, SpoolConfig, SpoolErrorKind,
    SqliteSpool, Status, Stored,
};
use crate::time::Timestamp;

/// No page of an export goes on after so many bytes of text.
const MAX_EXPORT_BYTES: usize = 8 << 20;

/// Somebody who looks at a spool and decides what becomes of its deliveries.
///
/// # Errors
///
/// Any method fails with a [`ControlError`] if the gate cannot be reached, or if it or the spool refuses.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operator {
    /// Through the socket of a gate that runs.
    Live(ControlClient),
    /// On the file, while no gate runs.
    Offline(SqliteSpool),
}

impl Operator {
    /// Opens the file of a spool that no gate uses. It blocks.
    ///
    /// No limit holds meanwhile, so that nothing is removed that nobody asked for: whose history is kept
    /// how long is said by the configuration of the gate.
    ///
    /// # Errors
    ///
    /// [`InUse`](crate::proxy::spool::OpenErrorKind::InUse) while a gate runs, and what else
    /// [`SqliteSpool::open`] says.
    pub fn offline(mut config: SpoolConfig) -> Result<Self, OpenError> {
        config.max_bytes = u64::MAX;
        config.free_floor = 0;
        config.history_age = std::time::Duration::MAX;
        config.history_bytes = u64::MAX;
        SqliteSpool::open(config).map(Self::Offline)
    }

    /// See [`Spool::list`].
    pub async fn list(
        &self,
        selection: Selection,
        page: Page,
    ) -> Result<Paged<Entry>, ControlError> {
        match self {
            Self::Live(client) => client.list(&selection, page).await,
            Self::Offline(spool) => Ok(spool.list(selection, page).await?),
        }
    }

    /// See [`Spool::show`].
    pub async fn show(&self, id: RecordId) -> Result<Option<Stored>, ControlError> {
        match self {
            Self::Live(client) => client.show(id).await,
            Self::Offline(spool) => Ok(spool.show(id).await?),
        }
    }

    /// What is there, with its content, each as [`stored_json`] writes it. A page ends after 8 MiB.
    ///
    /// Of what is damaged there is only what can be read: the text of [`entry_json`] with a field
    /// `unreadable`.
    pub async fn export(
        &self,
        selection: Selection,
        page: Page,
    ) -> Result<Paged<String>, ControlError> {
        match self {
            Self::Live(client) => client.export(&selection, page).await,
            Self::Offline(spool) => Ok(export(spool, selection, page).await?),
        }
    }

    /// See [`Spool::redeliver`]. A live gate takes its own time in place of `now`.
    pub async fn redeliver(
        &self,
        selection: Selection,
        page: Page,
        now: Timestamp,
    ) -> Result<Paged<RecordId>, ControlError> {
        match self {
            Self::Live(client) => client.change("/spool/redeliver", &selection, page).await,
            Self::Offline(spool) => Ok(spool.redeliver(selection, page, now).await?),
        }
    }

    /// See [`Spool::purge`].
    pub async fn purge(
        &self,
        selection: Selection,
        page: Page,
    ) -> Result<Paged<RecordId>, ControlError> {
        match self {
            Self::Live(client) => client.change("/spool/purge", &selection, page).await,
            Self::Offline(spool) => Ok(spool.purge(selection, page).await?),
        }
    }

    /// See [`Spool::status`].
    pub async fn status(&self) -> Result<Status, ControlError> {
        match self {
            Self::Live(client) => client.status().await,
            Self::Offline(spool) => Ok(spool.status().await?),
        }
    }

    /// Leaves the file to others.
    pub async fn close(self) {
        if let Self::Offline(spool) = self {
            spool.close().await;
        }
    }
}

/// A page of lines. One content is in memory at a time, whatever it is when it is not compressed.
pub(super) async fn export(
    spool: &dyn Spool,
    selection: Selection,
    page: Page,
) -> Result<Paged<String>, crate::proxy::spool::SpoolError> {
    let listed = spool.list(selection, page).await?;
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let mut entries = listed.items.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let line = match spool.show(entry.id).await {
            Ok(Some(stored)) => stored_json(&stored),
            // Somebody removed it meanwhile.
            Ok(None) => continue,
            Err(error) if error.kind() == SpoolErrorKind::Unreadable => unreadable_json(&entry),
            Err(error) => return Err(error),
        };
        bytes += line.len();
        lines.push(line);
        if bytes >= MAX_EXPORT_BYTES && entries.peek().is_some() {
            return Ok(Paged { items: lines, next: Some(entry.id) });
        }
    }
    Ok(Paged { items: lines, next: listed.next })
}

fn unreadable_json(entry: &Entry) -> String {
    let text = entry_json(entry);
    let fields = text.strip_suffix('}').unwrap_or(&text);
    format!("{fields},\"unreadable\":true}}")
}
