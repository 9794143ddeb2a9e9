// SPDX-License-Identifier: GPL-2.0

use clap::Parser;
use maptrace::{cli::Cli, commands, output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let trouble = cli.command.trouble_status();
    match commands::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(err) => ExitCode::from(output::report(&err, trouble)),
    }
}
