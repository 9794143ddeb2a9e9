// SPDX-License-Identifier: GPL-2.0

//! The commands of the user.

use crate::{
    map::Map,
    output::{Signals, Stop},
};
use anyhow::{bail, Context, Result};
use std::{
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const LOOK: Duration = Duration::from_millis(5);

/// Runs one in a shell, and waits for it. A signal is handed on to it.
///
/// Errors: it has failed, or a signal has come.
pub fn run(option: &str, command: &str, old: &Map, new: &Map, signals: &Signals) -> Result<()> {
    signals.check()?;
    // The output of maptrace is its report.
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("MAPTRACE_OLD", old.id.to_string())
        .env("MAPTRACE_NEW", new.id.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .spawn()
        .with_context(|| format!("{option}: sh"))?;
    let mut stop = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let (None, Err(err)) = (&stop, signals.check()) {
            if let Some(Stop::Signal(signal)) = err.downcast_ref() {
                // SAFETY: it takes numbers; nobody has waited for the child yet.
                unsafe { libc::kill(child.id() as i32, *signal) };
            }
            stop = Some(err);
        }
        thread::sleep(LOOK);
    };
    match (stop, status.code(), status.signal()) {
        // It has done its work all the same.
        (Some(stop), Some(0), _) => Err(stop.context(format!("{option} has run to its end"))),
        (Some(stop), ..) => Err(stop.context(format!("{option} was ended"))),
        (None, Some(0), _) => Ok(()),
        (None, Some(code), _) => bail!("{option} {command:?} has failed with status {code}"),
        (None, None, signal) => bail!(
            "{option} {command:?} was ended by signal {}",
            signal.unwrap_or_default()
        ),
    }
}
