// SPDX-License-Identifier: GPL-2.0

mod check;
mod compare;
mod place;
mod run;
mod script;

use crate::{cli::Migrate, output::note, plan::Plan};
use anyhow::Result;

pub fn run(args: &Migrate) -> Result<u8> {
    match args.check {
        true => check::run(args),
        false => run::run(args),
    }
}

fn say(plan: &Plan) {
    plan.notes.iter().for_each(note);
    plan.problems.iter().for_each(note);
}
