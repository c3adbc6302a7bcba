//! `hookgate completions` and `hookgate man`: the command line, described for shells and readers.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Args, CompletionsArgs, ManArgs};

const NAME: &str = "hookgate";

pub(crate) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), NAME, &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> ExitCode {
    if let Some(folder) = &args.output_dir {
        return match write_all(folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{}: {error}", folder.display())),
        };
    }
    let mut command = Args::command();
    command.build();
    for word in &args.command {
        let Some(found) = command.find_subcommand(word) else {
            eprintln!("error: there is no command {word:?}");
            // As for any other word that is none.
            return ExitCode::from(2);
        };
        command = found.clone();
    }
    match page(command) {
        Ok(page) => print(&page),
        Err(error) => fail(&error.to_string()),
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write_all(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Args::command(), folder)
}

pub(crate) fn print(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
