// SPDX-License-Identifier: GPL-2.0

//! | module | question |
//! | --- | --- |
//! | [`set`] | which pairs of maps are it, and can they be moved? |
//! | [`check`] | what would be done? |
//! | [`run`] | what is done after what? |
//! | [`member`] | how is one pair of them moved? |
//! | [`compare`] | do both maps of a pair hold the same? |
//! | [`place`] | where are the old maps found, and the new ones put? |
//! | [`script`] | what do the commands of the user do? |
//! | [`state`] | where does it stand, if nobody is there? |
//! | [`kept`] | how is what is pinned looked at, and taken away? |
//! | [`report`] | what is said? |

mod check;
mod compare;
mod kept;
mod member;
mod place;
mod report;
mod run;
mod script;
mod set;
mod state;

use crate::cli::Migrate;
use anyhow::Result;

pub use kept::status;

pub fn run(args: &Migrate) -> Result<u8> {
    match (&args.abort, args.check) {
        (Some(directory), _) => kept::abort(directory),
        (None, true) => check::run(args),
        (None, false) => run::run(args),
    }
}
