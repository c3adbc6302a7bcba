//! The `hookgate` program. It sees only the library's public names.

mod args;
mod bench;
mod check;
mod describe;
mod hook;
mod init;
mod key;
mod live;
mod output;
mod ready;
mod schema;
mod send;
mod serve;
mod spool;
mod url;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, KeyCommand};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Ready(args) => ready::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Key(KeyCommand::Generate(args)) => key::generate(&args),
        Command::Key(KeyCommand::Check(args)) => key::check(&args),
        Command::Key(KeyCommand::List(args)) => key::change::list(&args),
        Command::Key(KeyCommand::Rotate(args)) => key::change::rotate(&args),
        Command::Key(KeyCommand::Revoke(args)) => key::change::revoke(&args),
        Command::Spool(args) => spool::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Sign(args) => send::sign(&args),
        Command::Send(args) => send::send(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Url(args) => url::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Enable(args) => live::switch::enable(&args),
        Command::Disable(args) => live::switch::disable(&args),
        Command::Status(args) => live::status::run(&args),
        Command::Log(args) => live::log::run(&args),
        Command::Schema => schema::run(),
        Command::Completions(args) => describe::completions(&args),
        Command::Man(args) => describe::man(&args),
    }
}

/// What went wrong, with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
