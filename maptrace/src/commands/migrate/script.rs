// SPDX-License-Identifier: GPL-2.0

//! The commands of the user.

use crate::output::{Signals, Stop};
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{self, Write},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const LOOK: Duration = Duration::from_millis(5);

/// A process, for whoever comes later.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Child {
    pid: u32,
    /// In ticks since the boot: another process can have the id by then.
    began: u64,
}

impl Child {
    fn new(pid: u32) -> Self {
        Self {
            pid,
            began: began(pid).unwrap_or(0),
        }
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// When a process began; `None` if it has ended, though nobody may have waited for it.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind its name, which can have anything in it.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let state = words.next()?;
    let began = words.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(began)
}

/// Runs one in a shell, and waits for it. A signal is handed on to it. It begins when `save` has kept
/// who it is: one that nobody knows of does not run.
///
/// Errors: it has failed, or a signal has come.
pub fn run(
    option: &str,
    command: &str,
    (old, new): (String, String),
    signals: &Signals,
    save: impl FnOnce(Child) -> Result<()>,
) -> Result<()> {
    signals.check()?;
    // The output of maptrace is its report.
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = Command::new("sh")
        .args([
            "-c",
            "read -r _ || exit; exec sh -c \"$1\" < /dev/null",
            "sh",
        ])
        .arg(command)
        .env("MAPTRACE_OLD", old)
        .env("MAPTRACE_NEW", new)
        .stdin(Stdio::piped())
        .stdout(Stdio::from(output))
        .spawn()
        .with_context(|| format!("{option}: sh"))?;
    let mut go = child.stdin.take();
    if let Err(err) = save(Child::new(child.id())) {
        drop(go);
        child.wait()?;
        return Err(err);
    }
    // It can have been killed meanwhile: that is its status.
    let _ = go.as_mut().map(|go| go.write_all(b"\n"));
    drop(go);
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
