// SPDX-License-Identifier: GPL-2.0

//! One module for each command.

mod detach;
mod diff;
mod list;
mod migrate;
mod record;
mod replay;
mod watch;

use crate::{
    cli::{Cli, Command},
    output::{self, Output},
};
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::{fs, io::Write, path::Path};

/// Runs a command. Returns its exit status.
pub fn run(cli: Cli) -> Result<u8> {
    // What it says of a kernel that lacks something is said better here.
    if !cli.debug {
        libbpf_rs::set_print(None);
    } else {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |_, text| {
            output::note(text.trim_end());
        })));
    }
    match cli.command {
        Command::List(args) => list::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Detach(args) => detach::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Status(args) => migrate::status(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "maptrace", &mut script);
            print(&script)
        }
        Command::Man { directory: None } => {
            let mut page = Vec::new();
            let command = Cli::command().disable_help_subcommand(true);
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&page)
        }
        Command::Man {
            directory: Some(directory),
        } => man_pages(&directory),
    }
}

fn print(text: &[u8]) -> Result<u8> {
    let mut output = Output::stdout();
    output.line(String::from_utf8_lossy(text).trim_end())?;
    output.flush()?;
    Ok(0)
}

/// `maptrace.1`, and one for each command.
fn man_pages(directory: &Path) -> Result<u8> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![("maptrace".to_owned(), command.clone())];
    for command in command.get_subcommands() {
        pages.push((format!("maptrace-{}", command.get_name()), command.clone()));
    }
    for (name, command) in pages {
        let path = directory.join(format!("{name}.1"));
        let mut text = Vec::new();
        clap_mangen::Man::new(command)
            .title(name)
            .render(&mut text)?;
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| path.display().to_string())?;
    }
    Ok(0)
}
