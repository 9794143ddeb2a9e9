// SPDX-License-Identifier: GPL-2.0

use crate::{
    cli::Detach,
    kernel::{need_admin, open_link, Kernel},
    map::{self, parse_selectors},
    migration,
    output::{note, Output, Signals},
};
use anyhow::{ensure, Result};
use serde_json::json;
use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// A detach takes effect at once, and then waits for those who have seen the tracer. Many can wait for
/// the same grace period.
const THREADS: usize = 16;

/// Whoever attaches again and again is not to keep it busy forever.
const PASSES: usize = 10;

pub fn run(args: &Detach) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    need_admin()?;
    let maps = map::select(&parse_selectors(&args.maps)?, &kernel)?;
    let maps: BTreeSet<u32> = maps.into_iter().map(|map| map.id).collect();
    let mut detached = BTreeSet::new();
    let mut left = 0;
    for _ in 0..PASSES {
        signals.check()?;
        let mut links = kernel.trace_links()?;
        links.retain(|info| match args.all {
            true => info.map_id != 0,
            false => maps.contains(&info.map_id),
        });
        left = links.len();
        if left == 0 {
            break;
        }
        let ids: Vec<_> = links.iter().map(|info| info.id).collect();
        detach_all(&ids)?;
        detached.extend(ids);
    }
    let mut output = Output::stdout();
    match args.json {
        true => output.line(json!({ "detached": detached }))?,
        false => output.line(format!("{} links are detached", detached.len()))?,
    }
    output.flush()?;
    ensure!(
        left == 0,
        "somebody attaches tracers again and again: end that first"
    );
    if args.all && !detached.is_empty() {
        note("tracers can be attached again, as long as the module is there");
    }
    Ok(0)
}

/// Detaches links, each of which can be detached already. There can be more than a process may open.
fn detach_all(ids: &[u32]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(link) = open_link(*id)? {
                migration::detach(link.as_fd())?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS.min(ids.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no panic"))
    })
}
