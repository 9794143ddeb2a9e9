// SPDX-License-Identifier: GPL-2.0

//! What it costs the programs of a map that maptrace watches it: a table of connections as in
//! load.rs, and one case after the other.

use crate::{
    load::{self, UPDATES},
    subjects::{command, text, Subjects},
};
use anyhow::{ensure, Context, Result};
use std::{
    io,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What is run meanwhile: `maptrace watch` with a map and options. No map: nobody watches.
/// The first ones are measured on busy CPUs, too.
const CASES: [(&str, &[&str]); 8] = [
    ("", &[]),
    ("conns", &[]),
    ("conns", &["--no-origin"]),
    ("conns", &["--stack"]),
    ("conns", &["--key", "dport=1"]),
    ("conns", &["--pid", "1"]),
    ("conns", &["--failed"]),
    ("plain", &[]),
];

const CASES_BUSY: usize = 3;

/// Measured runs of the program, of which the one in the middle counts: a tick of the timer
/// falls into some.
const ROUNDS: usize = 41;

/// How long the CPUs are busy in each case.
const BUSY: Duration = Duration::from_millis(1500);

/// `maptrace watch`, while it runs
struct Watch {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Watch {
    fn start(id: &str, options: &[&str]) -> Result<Self> {
        let args = ["watch", id, "--json"];
        let args: Vec<_> = args.iter().chain(options).copied().collect();
        let mut child = command(&args).stdout(Stdio::null()).spawn()?;
        let stderr = child.stderr.take().context("no output")?;
        let mut watch = Self {
            child,
            said: BufReader::new(stderr),
        };
        let mut said = String::new();
        while !said.contains("watching") {
            let read = watch.said.read_line(&mut said)?;
            ensure!(read > 0, "it does not watch: {said}");
        }
        Ok(watch)
    }

    /// Ends it. Returns how many changes it has shown, and how many of them it has lost.
    fn end(mut self) -> Result<(u64, u64)> {
        // SAFETY: it takes numbers; nobody has waited for the child yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let mut said = Vec::new();
        self.said.read_to_end(&mut said)?;
        self.child.wait()?;
        let said = text(&said);
        // "1234 changes, 5 lost, 0 missed"
        let numbers: Vec<u64> = said
            .lines()
            .find(|line| line.contains(" changes, "))
            .with_context(|| format!("it has not said what it has shown: {said}"))?
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match *numbers {
            [shown, lost, 0] => Ok((shown, lost)),
            _ => anyhow::bail!("changes were missed: {said}"),
        }
    }
}

/// Runs `measure` in each case, and prints what it returns and what was shown and lost.
fn print(
    cases: &[(&str, &[&str])],
    header: &str,
    mut measure: impl FnMut(&Subjects) -> Result<String>,
) -> Result<()> {
    let subjects = Subjects::new()?;
    // The map is full from then on.
    for _ in 0..10 {
        load::hammer(&subjects)?;
    }
    println!("{:<30} {header} {:>10} {:>10}", "", "shown", "lost");
    for (map, options) in cases {
        let watch = match *map {
            "" => None,
            map => Some(Watch::start(&subjects.id(map)?, options)?),
        };
        let measured = measure(&subjects)?;
        let name = match *map {
            "" => "nobody watches".to_owned(),
            map => format!("watch {map} {}", options.join(" ")),
        };
        let (shown, lost) = watch.map_or(Ok((0, 0)), Watch::end)?;
        println!("{name:<30} {measured} {shown:>10} {lost:>10}");
    }
    Ok(())
}

/// What an update takes on one CPU that does nothing else meanwhile: in instructions, where that
/// is what the guest's clock counts.
pub fn alone() -> Result<()> {
    not_preempted()?;
    let mut before = None;
    print(
        &CASES,
        &format!("{:>10} {:>10}", "ns", "added"),
        |subjects| {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                // What has been changed is shown.
                thread::sleep(Duration::from_millis(200));
                let began = Instant::now();
                load::hammer(subjects)?;
                rounds.push(began.elapsed().as_nanos() as u64 / u64::from(UPDATES));
            }
            rounds.sort_unstable();
            let ns = rounds[ROUNDS / 2];
            let before = *before.get_or_insert(ns);
            Ok(format!("{ns:>10} {:>10}", ns as i64 - before as i64))
        },
    )
}

/// What an update takes on CPUs that are all busy.
pub fn busy(threads: u64) -> Result<()> {
    print(
        &CASES[..CASES_BUSY],
        &format!("{:>10} {:>10}", "updates/s", "ns"),
        |subjects| {
            let mut total = load::Second::default();
            load::run(subjects, BUSY, threads, |second| total += second)?;
            Ok(format!(
                "{:>10} {:>10}",
                (total.updates as f64 / BUSY.as_secs_f64()) as u64,
                total.ns_each()
            ))
        },
    )
}

/// No other process runs on this CPU unless this thread sleeps.
fn not_preempted() -> Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: `param` is valid for the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    ensure!(result == 0, "SCHED_FIFO: {}", io::Error::last_os_error());
    Ok(())
}
