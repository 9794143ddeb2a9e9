// SPDX-License-Identifier: GPL-2.0

//! What ends a command from outside, and how it is said.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    fmt,
    io::{self, BufWriter, Write},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc,
    },
    time::Duration,
};

/// Not an error of anybody.
#[derive(Debug)]
pub enum Stop {
    Signal(i32),
    /// Who reads the output has closed it.
    Closed,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Signal(SIGINT) => f.write_str("interrupted"),
            Stop::Signal(SIGHUP) => f.write_str("the terminal has gone"),
            Stop::Signal(_) => f.write_str("terminated"),
            Stop::Closed => f.write_str("nobody reads the output any more"),
        }
    }
}

impl std::error::Error for Stop {}

/// Says why a command ended. Returns its exit status: `trouble` for an error.
pub fn report(err: &anyhow::Error, trouble: u8) -> u8 {
    // Standard error can be a closed pipe, too.
    let _ = writeln!(io::stderr(), "maptrace: {err:#}");
    match err.downcast_ref::<Stop>() {
        Some(Stop::Signal(signal)) => 128 + *signal as u8,
        _ => trouble,
    }
}

/// For people, beside the output.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "maptrace: {text}");
}

/// The signals that end a command, which looks when it likes. A second one ends it at once.
pub struct Signals {
    caught: Arc<AtomicUsize>,
}

impl Signals {
    pub fn new() -> Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let again = Arc::new(AtomicBool::new(false));
            // First what ends the command: from here on a signal is not lost.
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), signal as usize)
                .and_then(|_| {
                    signal_hook::flag::register_conditional_shutdown(
                        signal,
                        128 + signal,
                        Arc::clone(&again),
                    )
                })
                .and_then(|_| signal_hook::flag::register(signal, again))
                .context("handling signals")?;
        }
        Ok(Self { caught })
    }

    /// Errors: a signal was caught.
    pub fn check(&self) -> Result<()> {
        match self.caught.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Stop::Signal(signal as i32).into()),
        }
    }
}

/// Standard output, or a file.
pub struct Output {
    to: BufWriter<Box<dyn Write>>,
    is_stdout: bool,
}

impl Output {
    pub fn stdout() -> Self {
        Self {
            to: BufWriter::new(Box::new(io::stdout())),
            is_stdout: true,
        }
    }

    pub fn new(to: Box<dyn Write>) -> Self {
        Self {
            to: BufWriter::new(to),
            is_stdout: false,
        }
    }

    pub fn line(&mut self, line: impl fmt::Display) -> Result<()> {
        writeln!(self.to, "{line}").map_err(write_error)
    }

    pub fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(write_error)
    }

    /// Waits for `fd` to be readable, up to `timeout`. Errors: the output was closed meanwhile,
    /// which is noticed though there is nothing to write.
    pub fn wait_for(&mut self, fd: i32, timeout: Duration) -> Result<()> {
        self.flush()?;
        let mut polls = [
            libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            },
            libc::pollfd {
                fd: if self.is_stdout {
                    libc::STDOUT_FILENO
                } else {
                    -1
                },
                events: 0,
                revents: 0,
            },
        ];
        // SAFETY: there are two of them.
        unsafe { libc::poll(polls.as_mut_ptr(), 2, timeout.as_millis() as i32) };
        match polls[1].revents & libc::POLLERR {
            0 => Ok(()),
            _ => Err(Stop::Closed.into()),
        }
    }
}

fn write_error(err: io::Error) -> anyhow::Error {
    match err.kind() {
        io::ErrorKind::BrokenPipe => Stop::Closed.into(),
        _ => anyhow::Error::from(err).context("writing the output"),
    }
}

/// The name of an errno.
pub fn errno_name(errno: i32) -> String {
    // The kernel's own, which no library knows.
    match errno {
        524 => "ENOTSUPP".to_owned(),
        _ => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    }
}

/// Columns that are as wide as what is in them. The ones in `right` are aligned to the right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row
                .iter()
                .enumerate()
                .map(|(i, cell)| match right.contains(&i) {
                    true => format!("{cell:>width$}", width = widths[i]),
                    false => format!("{cell:<width$}", width = widths[i]),
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["ID", "NAME", "N"]), row(["1", "a", "10"])];
        assert_eq!(table(&rows, &[2]), ["ID  NAME   N", "1   a     10"]);
    }

    #[test]
    fn errnos_have_names() {
        assert_eq!(errno_name(7), "E2BIG");
        assert_eq!(errno_name(524), "ENOTSUPP");
    }
}
