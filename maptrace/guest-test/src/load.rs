// SPDX-License-Identifier: GPL-2.0

//! A table of connections that some CPUs update at random, as one that tracks connections does.

use crate::subjects::{Request, Subjects};
use anyhow::Result;
use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Updates of one run of the program
pub const UPDATES: u32 = 500;

/// Connections that there are, twice as many as the map has room for
const CONNECTIONS: u64 = 2048;

/// What the CPUs have done in about a second.
#[derive(Clone, Copy, Default)]
pub struct Second {
    pub updates: u64,
    pub busy_ns: u64,
}

impl Second {
    pub fn ns_each(&self) -> u64 {
        self.busy_ns / self.updates.max(1)
    }
}

impl AddAssign for Second {
    fn add_assign(&mut self, other: Self) {
        self.updates += other.updates;
        self.busy_ns += other.busy_ns;
    }
}

/// Runs the program once.
pub fn hammer(subjects: &Subjects) -> Result<()> {
    let request = Request {
        key: UPDATES,
        value: CONNECTIONS,
        ..Default::default()
    };
    subjects.run("hammer", request)?;
    Ok(())
}

/// Keeps that many CPUs busy with it, and says each second what they have done.
pub fn run(
    subjects: &Subjects,
    duration: Duration,
    threads: u64,
    mut say: impl FnMut(Second),
) -> Result<()> {
    let (updates, busy_ns) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while began.elapsed() < duration {
                        let run = Instant::now();
                        hammer(subjects)?;
                        updates.fetch_add(UPDATES.into(), Ordering::Relaxed);
                        busy_ns.fetch_add(run.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let mut tell = || {
            say(Second {
                updates: updates.swap(0, Ordering::Relaxed),
                busy_ns: busy_ns.swap(0, Ordering::Relaxed),
            })
        };
        while began.elapsed() < duration {
            let left = duration.saturating_sub(began.elapsed());
            thread::sleep(left.min(Duration::from_secs(1)));
            tell();
        }
        for worker in workers {
            worker.join().expect("no panic")?;
        }
        anyhow::Ok(())
    })
}

/// The same, for the command line: prints once a second what an update takes.
pub fn print(seconds: &str, threads: &str) -> Result<()> {
    let threads = threads.parse()?;
    let duration = Duration::try_from_secs_f64(seconds.parse()?)?;
    run(&Subjects::new()?, duration, threads, |second| {
        println!(
            "{} updates by {threads} CPUs, {} ns each",
            second.updates,
            second.ns_each()
        );
    })
}
