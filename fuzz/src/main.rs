// SPDX-License-Identifier: GPL-2.0

//! Random sequences of bpf(2) around tracers of maps, some of them not quite valid, in rounds: some
//! by one thread, with a model of what has to come of each call, and some by several at once.
//!
//! A round is what its seed says. The seed of the first one is given, and each has the next one.

mod bpf;
mod objects;
mod programs;
mod single;
mod threads;

use anyhow::{bail, Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{
    ffi::CString,
    os::fd::AsRawFd,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Steps of a round by one thread
const STEPS: u32 = 400;
const NR_THREADS: u64 = 4;
const THREADS_TIME: Duration = Duration::from_secs(3);
/// After what time nothing of a round is left
const FREED_AFTER: Duration = Duration::from_secs(60);

const PLAN: [&str; 3] = [
    "one thread: calls end as they have to, tracers run as often as they have to, mirrors are exact",
    "several threads: no run is missing, and mirrors are exact",
    "the module goes and comes",
];

/// What became of the rounds.
#[derive(Default)]
struct Tally {
    rounds: [u64; 2],
    steps: [u64; 2],
    calls: [u64; 2],
    time: [Duration; 2],
    reloads: u64,
    wrong: [Option<String>; 3],
}

/// Takes the module away, which nothing holds between rounds once their links are freed, and
/// inserts it again.
fn reload_module() -> Result<()> {
    let name = c"map_trace";
    let end = Instant::now() + FREED_AFTER;

    // SAFETY: It is a name.
    while unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) } != 0 {
        let err = bpf::errno();

        if err != libc::EWOULDBLOCK || Instant::now() > end {
            bail!("the module does not go: errno {err}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    load_module()
}

fn load_module() -> Result<()> {
    let path = std::env::var("MAP_TRACE_KO").context("MAP_TRACE_KO does not name the module")?;
    let file = std::fs::File::open(&path).with_context(|| path.clone())?;
    let options = CString::default();
    // SAFETY: It is an open file, and a string.
    let err = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            options.as_ptr(),
            0,
        )
    };

    if err != 0 && bpf::errno() != libc::EEXIST {
        bail!("{path} can not be inserted: errno {}", bpf::errno());
    }
    Ok(())
}

/// One round: by one thread where the seed is even. So it is the same one when it is the first.
fn run_round(kernel: &bpf::Kernel, seed: u64, tally: &mut Tally) {
    let kind = (seed % 2) as usize;
    let begin = Instant::now();
    let calls = bpf::CALLS.load(Relaxed);
    let result = if kind == 0 {
        single::World::new(kernel, ChaCha8Rng::seed_from_u64(seed))
            .and_then(|mut world| world.run(STEPS))
            .map(|()| u64::from(STEPS))
    } else {
        threads::run(kernel, seed, NR_THREADS, THREADS_TIME)
    };

    tally.rounds[kind] += 1;
    tally.time[kind] += begin.elapsed();
    tally.calls[kind] += bpf::CALLS.load(Relaxed) - calls;
    match result {
        Ok(steps) => tally.steps[kind] += steps,
        Err(err) => {
            println!(
                "# SEED={seed}: {}",
                format!("{err:#}").replace('\n', "\n# ")
            );
            tally.wrong[kind].get_or_insert(format!("SEED={seed}"));
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let [seconds, seed] = arguments[..] else {
        bail!("usage: map_trace_fuzz SECONDS SEED");
    };

    load_module()?;
    let kernel = bpf::Kernel::new()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tally = Tally::default();
    let mut round = seed;

    println!("TAP version 13\n1..{}", PLAN.len());
    while Instant::now() < end {
        // The last one that is read is what a crash has come of.
        println!("# SEED={round}");
        run_round(&kernel, round, &mut tally);
        if round % 8 == 7 {
            match reload_module() {
                Ok(()) => tally.reloads += 1,
                Err(err) => {
                    println!("# SEED={round}: {err:#}");
                    tally.wrong[2].get_or_insert(format!("SEED={round}"));
                    break;
                }
            }
        }
        round += 1;
    }
    for (kind, name) in ["one thread", "several threads"].iter().enumerate() {
        let seconds = tally.time[kind].as_secs_f64().max(0.001);
        println!(
            "# {name}: {} rounds, {} steps, {} calls, {:.0} calls/s",
            tally.rounds[kind],
            tally.steps[kind],
            tally.calls[kind],
            tally.calls[kind] as f64 / seconds
        );
    }
    println!("# the module was away {} times", tally.reloads);
    for (number, (name, wrong)) in PLAN.iter().zip(&tally.wrong).enumerate() {
        match wrong {
            None => println!("ok {} - {name}", number + 1),
            Some(seed) => println!("not ok {} - {name}: {seed}", number + 1),
        }
    }
    Ok(())
}
