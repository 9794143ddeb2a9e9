// SPDX-License-Identifier: GPL-2.0

mod check;

use crate::{cli::Migrate, output::note, plan::Plan};
use anyhow::Result;

pub fn run(args: &Migrate) -> Result<u8> {
    check::run(args)
}

fn say(plan: &Plan) {
    plan.notes.iter().for_each(note);
    plan.problems.iter().for_each(note);
}
