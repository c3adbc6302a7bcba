//! `hookgate spool`: looks at deliveries and decides about them, in a running gate or in its file.

mod change;
mod show;

use std::process::ExitCode;

use hookgate::proxy::control::{ControlClient, ControlErrorKind, Operator, SOCKET_NAME};
use hookgate::proxy::spool::{OpenErrorKind, Page, Selection, SpoolConfig, State};
use hookgate::repository::RepositoryUrl;

use crate::args::{SpoolArgs, SpoolCommand, SpoolFilter, SpoolLocation};
use crate::live::state_dir;
use crate::output::{Failure, Out};

/// As many as a page has at most.
const PAGE: usize = 1000;

pub(crate) fn run(args: &SpoolArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let done = runtime.block_on(async {
        let operator = connect(&args.location)?;
        let done = execute(&args.command, &operator, &mut Out::new()).await;
        operator.close().await;
        done
    });
    match done {
        Ok(code) => code,
        // Whoever read it has enough.
        Err(Failure::Pipe) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Control(error)) if error.kind() == ControlErrorKind::NotRunning => {
            fail(&format!(
                "{error}; if no gate runs, --offline works on its file, and if one does, --state-dir or --config \
             says where"
            ))
        }
        Err(Failure::Control(error)) => fail(&crate::chain(&error)),
        Err(Failure::Other(message)) => fail(&message),
    }
}

async fn execute(
    command: &SpoolCommand,
    operator: &Operator,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    match command {
        SpoolCommand::List(args) => show::list(args, operator, out).await,
        SpoolCommand::Show(args) => show::show(args, operator, out).await,
        SpoolCommand::Status(args) => show::status(args, operator, out).await,
        SpoolCommand::Export(args) => show::export(args, operator, out).await,
        SpoolCommand::Redeliver(args) => change::redeliver(args, operator, out).await,
        SpoolCommand::Purge(args) => change::purge(args, operator, out).await,
    }
}

fn connect(location: &SpoolLocation) -> Result<Operator, Failure> {
    let state_dir = state_dir(location.config.as_deref(), location.state_dir.as_deref())?;
    if !location.offline {
        return Ok(Operator::Live(ControlClient::new(state_dir.join(SOCKET_NAME))));
    }
    let config = SpoolConfig::new(state_dir.join("spool"));
    // Otherwise a misspelt folder would be made.
    if !config.folder.join("spool.db").exists() {
        return Err(Failure::Other(format!("there is no spool in {}", state_dir.display())));
    }
    Operator::offline(config).map_err(|error| match error.kind() {
        OpenErrorKind::InUse => Failure::gate_runs(&state_dir),
        _ => Failure::Other(crate::chain(&error)),
    })
}

impl SpoolFilter {
    fn selection(&self) -> Selection {
        let mut selection = Selection::default();
        if !self.state.is_empty() {
            selection.states = Some(self.state.clone());
        }
        selection.hook.clone_from(&self.hook);
        selection.repository =
            self.repository.as_deref().map(|typed| match RepositoryUrl::parse(typed) {
                Ok(address) => address.as_str().to_owned(),
                Err(_) => typed.to_owned(),
            });
        selection.received_before = self.before;
        selection
    }
}

/// How many are selected, where that can be told without looking at each.
async fn quick_count(operator: &Operator, selection: &Selection) -> Result<Option<u64>, Failure> {
    if let Some(ids) = &selection.ids {
        return Ok(Some(ids.len() as u64));
    }
    if selection.hook.is_some()
        || selection.repository.is_some()
        || selection.received_before.is_some()
    {
        return Ok(None);
    }
    let status = operator.status().await?;
    let states = selection.states.as_deref().unwrap_or(&State::ALL);
    let of = |state| match state {
        State::Pending => status.pending,
        State::Leased => status.leased,
        State::Delivered => status.delivered,
        State::Dead => status.dead,
        _ => 0,
    };
    Ok(Some(State::ALL.into_iter().filter(|state| states.contains(state)).map(of).sum()))
}

/// How many are selected.
async fn count(operator: &Operator, selection: &Selection) -> Result<u64, Failure> {
    if let Some(count) = quick_count(operator, selection).await? {
        return Ok(count);
    }
    let mut count = 0;
    let mut page = Page { after: None, limit: PAGE };
    loop {
        let listed = operator.list(selection.clone(), page).await?;
        count += listed.items.len() as u64;
        page.after = listed.next;
        if page.after.is_none() {
            return Ok(count);
        }
    }
}

fn deliveries(count: u64) -> String {
    if count == 1 { "1 delivery".into() } else { format!("{count} deliveries") }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
