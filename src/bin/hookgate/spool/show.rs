//! What is there.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use bytesize::ByteSize;
use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::control::{Operator, entry_json, status_json, stored_json};
use hookgate::proxy::spool::{Entry, Health, Page, Selection, Stored};
use hookgate::proxy::telemetry::{TraceParent, printable, printable_lines};
use hookgate::time::Timestamp;

use super::{PAGE, deliveries, quick_count};
use crate::args::{SpoolExportArgs, SpoolListArgs, SpoolShowArgs, SpoolStatusArgs};
use crate::output::{Failure, Out, Progress, length, not_written, table, time};

pub(super) async fn list(
    args: &SpoolListArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let selection = args.filter.selection();
    let now = SystemClock.now();
    let mut table = table();
    table.set_header([
        "ID",
        "STATE",
        "RECEIVED",
        "AGE",
        "HOOK",
        "PROVIDER",
        "EVENT",
        "REPOSITORY",
        "REFS",
        "TRIES",
        "LAST ERROR",
    ]);
    let mut left = args.limit.get();
    let mut page = Page { after: args.after, limit: PAGE };
    while left > 0 {
        page.limit = left.min(PAGE);
        let listed = operator.list(selection.clone(), page).await?;
        left = left.saturating_sub(listed.items.len());
        for entry in &listed.items {
            if args.json {
                out.line(&entry_json(entry))?;
            } else {
                table.add_row(row(entry, now));
            }
        }
        page.after = listed.next;
        if page.after.is_none() {
            break;
        }
    }
    if !args.json && !table.is_empty() {
        out.table(&table)?;
    }
    out.flush()?;
    if let Some(after) = page.after
        && !operator.list(selection, Page { after: Some(after), limit: 1 }).await?.items.is_empty()
    {
        eprintln!("there are more: --after {after} shows them, or a higher --limit");
    } else if left == args.limit.get() {
        eprintln!("there are none");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(
    args: &SpoolShowArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let Some(stored) = operator.show(args.id).await? else {
        return Err(Failure::Other(format!("there is no delivery {}", args.id)));
    };
    if args.json {
        out.line(&stored_json(&stored))?;
    } else {
        describe(&stored, out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(
    args: &SpoolStatusArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let status = operator.status().await?;
    if args.json {
        out.line(&status_json(&status))?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let size = |bytes| ByteSize::b(bytes).to_string();
    let health = match &status.health {
        Health::Open => "takes deliveries".to_owned(),
        Health::Full(limit) => format!("full: {limit}"),
        Health::Failed(reason) => format!("cannot be used: {}", printable(reason)),
        _ => "closed".to_owned(),
    };
    let bytes = match status.max_bytes {
        u64::MAX => size(status.bytes),
        max => format!("{} of {}", size(status.bytes), size(max)),
    };
    let mut rows = vec![
        ("health", health),
        ("pending", status.pending.to_string()),
        ("leased", status.leased.to_string()),
        ("dead", status.dead.to_string()),
        ("delivered", status.delivered.to_string()),
        ("holds", bytes),
        ("history", size(status.history_bytes)),
        ("on disk", size(status.file_bytes)),
    ];
    if let Some(free) = status.free_bytes {
        rows.push(("free on disk", size(free)));
    }
    if let Some(oldest) = status.oldest {
        let age = length(SystemClock.now().since(oldest));
        rows.push(("oldest", format!("{} ({age} ago)", time(oldest))));
    }
    for name in &status.set_aside {
        rows.push(("set aside", printable(name).into_owned()));
    }
    let mut table = table();
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    out.table(&table)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn export(
    args: &SpoolExportArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let selection = args.filter.selection();
    let Some(path) = &args.output else {
        // It would be written across the lines.
        let progress = if out.is_terminal() {
            Progress::hidden()
        } else {
            Progress::new("exporting", quick_count(operator, &selection).await?)
        };
        export_to(operator, selection, &progress, |line| out.line(line)).await?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    let progress = Progress::new("exporting", quick_count(operator, &selection).await?);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| at(path, &error))?;
    let mut file = BufWriter::new(file);
    let exported = export_to(operator, selection, &progress, |line| {
        file.write_all(line.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .map_err(|error| at(path, &error))
    });
    let exported = exported.await;
    drop(progress);
    let exported = exported.and_then(|count| finish(file, path).map(|()| count));
    match exported {
        Ok(count) => {
            eprintln!("{} in {}", deliveries(count), path.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            eprintln!("error: {} is not complete", path.display());
            Err(failure)
        }
    }
}

async fn export_to(
    operator: &Operator,
    selection: Selection,
    progress: &Progress,
    mut write: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut page = Page { after: None, limit: PAGE };
    let mut count = 0;
    loop {
        let exported = operator.export(selection.clone(), page).await?;
        for line in &exported.items {
            write(line)?;
        }
        count += exported.items.len() as u64;
        progress.advance(exported.items.len());
        page.after = exported.next;
        if page.after.is_none() {
            return Ok(count);
        }
    }
}

fn finish(file: BufWriter<File>, path: &Path) -> Result<(), Failure> {
    let file = file.into_inner().map_err(|error| at(path, error.error()))?;
    file.sync_all().map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    not_written(std::io::Error::other(format!("{}: {error}", path.display())))
}

fn row(entry: &Entry, now: Timestamp) -> [String; 11] {
    let about = &entry.about;
    let refs = match &about.refs[..] {
        [] => String::new(),
        [only] => shown(only),
        [first, rest @ ..] => format!("{} +{}", shown(first), rest.len()),
    };
    [
        entry.id.to_string(),
        entry.state.to_string(),
        time(about.received_at),
        length(now.since(about.received_at)),
        shown(&about.hook),
        about.provider.to_string(),
        shown(about.event.as_deref().unwrap_or(about.kind.as_str())),
        shown(about.repository.as_deref().unwrap_or("-")),
        refs,
        entry.attempts.to_string(),
        shown(entry.last_error.as_deref().unwrap_or_default()),
    ]
}

fn describe(stored: &Stored, out: &mut Out) -> Result<(), Failure> {
    let Stored { entry, content } = stored;
    let about = &entry.about;
    let mut table = table();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([name, &value]);
        }
    };
    let text = |value: &Option<String>| value.as_deref().map(shown);
    line("id", Some(entry.id.to_string()));
    line("state", Some(entry.state.to_string()));
    line("hook", Some(shown(&about.hook)));
    line("provider", Some(about.provider.to_string()));
    line("kind", Some(about.kind.to_string()));
    line("event", text(&about.event));
    line("repository", text(&about.repository));
    for name in &about.refs {
        line("ref", Some(shown(name)));
    }
    line("delivery", Some(shown(&about.delivery)));
    line("key", text(&about.key_name));
    let trace = TraceParent::of(&content.headers);
    line("trace", trace.map(|trace| trace.trace_id.to_string()));
    line("received", Some(time(about.received_at)));
    line("waits since", Some(time(entry.queued_at)));
    line("due", entry.finished_at.is_none().then(|| time(entry.due_at)));
    line("finished", entry.finished_at.map(time));
    line("attempts", Some(entry.attempts.to_string()));
    line("sent by", text(&entry.owner));
    line("last error", text(&entry.last_error));
    line("body", Some(ByteSize::b(content.body.len() as u64).to_string()));
    out.table(&table)?;
    out.line("")?;
    for (name, value) in &content.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        out.line(&format!("{name}: {}", printable_lines(&value)))?;
    }
    out.line("")?;
    if out.is_terminal() {
        let body = String::from_utf8_lossy(&content.body);
        out.bytes(printable_lines(&body).as_bytes())?;
    } else {
        out.bytes(&content.body)?;
    }
    if !content.body.ends_with(b"\n") {
        out.line("")?;
    }
    Ok(())
}

fn shown(text: &str) -> String {
    printable(text).into_owned()
}
