//! What becomes of what is there.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::proxy::control::Operator;
use hookgate::proxy::spool::{Page, RecordId, Selection, State};
use hookgate::time::Timestamp;
use serde_json::json;

use super::{PAGE, count, deliveries, quick_count};
use crate::args::{SpoolChangeArgs, SpoolPurgeArgs};
use crate::output::{Failure, Out, Progress};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Redeliver(Timestamp),
    Purge,
}

pub(super) async fn redeliver(
    args: &SpoolChangeArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    let done = change(Change::Redeliver(SystemClock.now()), args, operator).await?;
    if args.json {
        return done.json("redelivered", out);
    }
    let when = if is_offline(operator) { " when the gate runs" } else { "" };
    done.text(&format!("will be sent again{when}"), operator, out)
}

pub(super) async fn purge(
    args: &SpoolPurgeArgs,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    if !args.yes && !confirmed(&args.which, operator).await? {
        return Err(Failure::Other("nothing was removed".into()));
    }
    let done = change(Change::Purge, &args.which, operator).await?;
    if args.which.json { done.json("purged", out) } else { done.text("removed", operator, out) }
}

async fn confirmed(args: &SpoolChangeArgs, operator: &Operator) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Other(
            "this removes deliveries for good; say --yes where nobody can be asked".into(),
        ));
    }
    let count = count(operator, &args.selection()).await?;
    eprint!("Remove {} for good? [y/N] ", deliveries(count));
    let mut answer = String::new();
    io::stderr()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(|error| Failure::Other(format!("cannot ask: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn is_offline(operator: &Operator) -> bool {
    matches!(operator, Operator::Offline(_))
}

impl SpoolChangeArgs {
    fn selection(&self) -> Selection {
        let mut selection = self.filter.selection();
        if self.dead {
            selection.states = Some(vec![State::Dead]);
        }
        if !self.ids.is_empty() {
            selection.ids = Some(self.ids.clone());
        }
        selection
    }
}

/// Which deliveries were changed, and which that were named were not.
struct Done {
    changed: Vec<RecordId>,
    missing: Vec<RecordId>,
    leased: Vec<RecordId>,
}

impl Done {
    fn json(&self, name: &str, out: &mut Out) -> Result<ExitCode, Failure> {
        let numbers = |ids: &[RecordId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
        let done = json!({
            name: numbers(&self.changed),
            "missing": numbers(&self.missing),
            "leased": numbers(&self.leased),
        });
        out.line(&done.to_string())?;
        out.flush()?;
        Ok(self.code())
    }

    fn text(&self, what: &str, operator: &Operator, out: &mut Out) -> Result<ExitCode, Failure> {
        out.line(&format!("{} {what}", deliveries(self.changed.len() as u64)))?;
        out.flush()?;
        for id in &self.missing {
            eprintln!("error: there is no delivery {id}");
        }
        for id in &self.leased {
            if is_offline(operator) {
                eprintln!(
                    "error: delivery {id} was being sent when the gate ended, and will be again"
                );
            } else {
                eprintln!("error: delivery {id} is being sent at this moment");
            }
        }
        Ok(self.code())
    }

    fn code(&self) -> ExitCode {
        let is_whole = self.missing.is_empty() && self.leased.is_empty();
        if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

async fn change(
    change: Change,
    args: &SpoolChangeArgs,
    operator: &Operator,
) -> Result<Done, Failure> {
    let selection = args.selection();
    let message = match change {
        Change::Redeliver(_) => "sending again",
        Change::Purge => "removing",
    };
    let progress = Progress::new(message, quick_count(operator, &selection).await?);
    let Some(ids) = &selection.ids else {
        let changed = change_all(change, operator, selection, &progress).await?;
        return Ok(Done { changed, missing: Vec::new(), leased: Vec::new() });
    };
    let ids: BTreeSet<_> = ids.iter().copied().collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let mut done = Done { changed: Vec::new(), missing: Vec::new(), leased: Vec::new() };
    for some in ids.chunks(PAGE) {
        let selection = Selection::of_ids(some.iter().copied());
        let changed = change_all(change, operator, selection, &progress).await?;
        let changed: BTreeSet<_> = changed.into_iter().collect();
        let left: Vec<_> = some.iter().copied().filter(|id| !changed.contains(id)).collect();
        done.changed.extend(changed);
        for id in left {
            let there = operator.list(Selection::of_ids([id]), Page::default()).await?;
            let list = if there.items.is_empty() { &mut done.missing } else { &mut done.leased };
            list.push(id);
        }
    }
    Ok(done)
}

async fn change_all(
    change: Change,
    operator: &Operator,
    selection: Selection,
    progress: &Progress,
) -> Result<Vec<RecordId>, Failure> {
    let mut page = Page { after: None, limit: PAGE };
    let mut changed = Vec::new();
    loop {
        let selection = selection.clone();
        let done = match change {
            Change::Redeliver(now) => operator.redeliver(selection, page, now).await?,
            Change::Purge => operator.purge(selection, page).await?,
        };
        progress.advance(done.items.len());
        changed.extend(done.items);
        page.after = done.next;
        if page.after.is_none() {
            return Ok(changed);
        }
    }
}
