// SPDX-License-Identifier: GPL-2.0

use crate::{
    cli::Replay,
    format::{Header, Line, Reader},
    kernel::Kernel,
    map::{self, Map},
    output::{errno_name, note, Signals},
};
use anyhow::{anyhow, ensure, Context, Result};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub fn run(args: &Replay) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let map = map::select_single(&args.map.parse()?, &kernel)?;
    let from = args.file.display();
    let is_stdin = args.file.as_os_str() == "-";
    // A file is read twice: the map is left alone where something is wrong with it.
    if !is_stdin {
        check(open(&args.file, &signals)?, &map, args, &signals)
            .with_context(|| from.to_string())?;
    }
    // A signal interrupts reading, too.
    let problem = |err: anyhow::Error| match signals.check() {
        Ok(()) => err.context(from.to_string()),
        Err(stop) => stop,
    };
    let mut reader = Reader::new(open(&args.file, &signals)?).map_err(problem)?;
    fits(&reader.header, &map).with_context(|| from.to_string())?;
    prepare(&map, args, &signals)?;

    let began = Instant::now();
    let (mut elements, mut changes) = (0_u64, 0_u64);
    while let Some(line) = reader.next_line().map_err(problem)? {
        signals.check()?;
        match &line {
            Line::Element { .. } => elements += 1,
            Line::Update { by, .. } | Line::Delete { by, .. } => {
                changes += 1;
                if args.timed {
                    wait_until(began + Duration::from_nanos(by.time_ns), &signals)?;
                }
            }
            Line::Consistent | Line::End(_) => {}
        }
        apply(&line, &reader.header, &map)?;
    }
    complete(&reader, args.partial).with_context(|| from.to_string())?;
    note(format!(
        "{}: {elements} elements, {changes} changes",
        map.label()
    ));
    Ok(0)
}

/// Standard input, of which nobody knows when more of it comes.
struct Input<'a> {
    signals: &'a Signals,
}

impl Read for Input<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut poll = libc::pollfd {
            fd: libc::STDIN_FILENO,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one.
        while unsafe { libc::poll(&mut poll, 1, 100) } <= 0 {
            self.signals.check().map_err(io::Error::other)?;
        }
        io::stdin().read(to)
    }
}

fn open<'a>(path: &Path, signals: &'a Signals) -> Result<Box<dyn BufRead + 'a>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(Input { signals })));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(BufReader::new(file)))
}

/// Whether all of a recording can be read, and fits.
fn check(from: impl BufRead, map: &Map, args: &Replay, signals: &Signals) -> Result<()> {
    let mut reader = Reader::new(from)?;
    fits(&reader.header, map)?;
    while reader.next_line()?.is_some() {
        signals.check()?;
    }
    complete(&reader, args.partial)
}

fn complete<R: BufRead>(reader: &Reader<R>, partial: bool) -> Result<()> {
    let problem = match reader.end() {
        None => "it has no end: it was cut off".to_owned(),
        Some(end) if end.lost > 0 || end.missed > 0 => {
            format!("it lacks changes: {} lost, {} missed", end.lost, end.missed)
        }
        Some(_) => return Ok(()),
    };
    ensure!(partial, "{problem} (--partial takes it all the same)");
    note(problem);
    Ok(())
}

fn fits(header: &Header, map: &Map) -> Result<()> {
    let recorded = &header.map;
    for (what, was, is) in [
        ("keys", recorded.key_size, map.key_size),
        ("values", recorded.value_size, map.value_size),
    ] {
        ensure!(
            was == is,
            "it was recorded with {what} of {was} bytes, and {} has {is}",
            map.label()
        );
    }
    ensure!(
        recorded.percpu == map.is_percpu(),
        "only one of {} and the map that was recorded has a value for each CPU",
        map.label()
    );
    ensure!(
        recorded.cpus == map.cpus,
        "it was recorded on {} CPUs, and {} has {}",
        recorded.cpus,
        map.label(),
        map.cpus
    );
    Ok(())
}

/// An empty map, or what the user has said.
fn prepare(map: &Map, args: &Replay, signals: &Signals) -> Result<()> {
    if args.keep {
        return Ok(());
    }
    make_empty(
        map,
        args.clear,
        "--clear deletes what is there, --keep leaves it",
        signals,
    )
}

/// Errors: it is not empty, and not to be cleared.
pub(super) fn make_empty(map: &Map, clear: bool, advice: &str, signals: &Signals) -> Result<()> {
    if map.is_array() {
        ensure!(
            !clear,
            "{}: the elements of an array cannot be deleted",
            map.label()
        );
        return Ok(());
    }
    let keys = map.keys(|| signals.check())?;
    ensure!(
        keys.is_empty() || clear,
        "{} is not empty: {advice}",
        map.label()
    );
    for key in keys {
        signals.check()?;
        map.delete(&key)
            .map_err(|err| failed(map, "deleting", &err))?;
    }
    Ok(())
}

fn apply(line: &Line, header: &Header, map: &Map) -> Result<()> {
    match line {
        Line::Element { key, values } => {
            let values: Vec<_> = values.iter().map(|value| value.0.clone()).collect();
            map.update(&key.0, &values)
        }
        Line::Update {
            key, value, cpu, ..
        } => match header.map.percpu {
            true => map.update_cpu(&key.0, &value.0, *cpu),
            false => map.update(&key.0, std::slice::from_ref(&value.0)),
        },
        // It can be gone: the elements show a moment after the change.
        Line::Delete { key, .. } => map.delete(&key.0).map(drop),
        Line::Consistent | Line::End(_) => Ok(()),
    }
    .map_err(|err| failed(map, "writing", &err))
}

fn failed(map: &Map, what: &str, err: &io::Error) -> anyhow::Error {
    match err.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => anyhow!(
            "{}: it is full, it has room for {} elements",
            map.label(),
            map.max_entries
        ),
        Some(errno) => anyhow!("{}: {what} failed: {}", map.label(), errno_name(errno)),
        None => anyhow!("{}: {what} failed: {err}", map.label()),
    }
}

fn wait_until(time: Instant, signals: &Signals) -> Result<()> {
    loop {
        signals.check()?;
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}
