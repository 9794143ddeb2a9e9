// SPDX-License-Identifier: GPL-2.0

//! A table of connections that some CPUs update at random, as one that tracks connections does.

use crate::subjects::{Request, Subjects};
use anyhow::Result;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Updates of one run of the program
const UPDATES: u32 = 500;

/// Connections that there are, twice as many as the map has room for
const CONNECTIONS: u64 = 2048;

/// Prints once a second what an update takes.
pub fn run(seconds: &str, threads: &str) -> Result<()> {
    let subjects = Subjects::new()?;
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let threads: u64 = threads.parse()?;
    let (updates, busy_ns) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while began.elapsed() < duration {
                        let request = Request {
                            key: UPDATES,
                            value: CONNECTIONS,
                            ..Default::default()
                        };
                        let run = Instant::now();
                        subjects.run("hammer", request)?;
                        updates.fetch_add(UPDATES.into(), Ordering::Relaxed);
                        busy_ns.fetch_add(run.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        while began.elapsed() < duration {
            thread::sleep(Duration::from_secs(1));
            let updates = updates.swap(0, Ordering::Relaxed);
            let busy_ns = busy_ns.swap(0, Ordering::Relaxed);
            println!(
                "{updates} updates by {threads} CPUs, {} ns each",
                busy_ns / updates.max(1)
            );
        }
        for worker in workers {
            worker.join().expect("no panic")?;
        }
        anyhow::Ok(())
    })
}
