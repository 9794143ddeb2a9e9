// SPDX-License-Identifier: GPL-2.0

use crate::{
    cli::Record,
    format::{By, End, Header, Hex, Line, RecordedMap, VERSION},
    kernel::{monotonic_ns, Kernel},
    keys::clear_behind_prefix,
    map::{self, Map},
    origin::Users,
    output::{note, Output, Signals},
    tracer::{Event, Operation, Options, Stack, Tracer},
};
use anyhow::{ensure, Context, Result};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

/// How long nobody looks whether there is reason to end.
const LOOK: Duration = Duration::from_millis(100);

pub fn run(args: &Record) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let map = map::select_single(&args.map.parse()?, &kernel)?;
    let options = Options {
        operations: vec![Operation::Update, Operation::Delete],
        pid: None,
        key: None,
        stack: Stack::None,
        value_limit: usize::MAX,
        failed: false,
        buffer: args.buffer,
    };
    // Before the file is made: an error leaves none behind.
    let maps = [map];
    let tracer = Tracer::attach(&maps, &kernel, &options)?;
    let [map] = maps;
    let output = open(&args.file, args.force)?;
    if map.is_lru() {
        note(match kernel.tells_reasons() {
            true => {
                "what an LRU map evicts is recorded late: a key that comes back at once can be \
                 missing"
            }
            false => "what an LRU map evicts is not recorded: this kernel does not trace it",
        });
    }
    let mut recorder = Recorder {
        percpu: map.is_percpu(),
        map,
        tracer,
        output,
        began: monotonic_ns(),
        end: End::default(),
        limit: args.count.unwrap_or(u64::MAX),
    };
    let result = recorder.run(args.duration, &signals);
    // However it ends, but for a file that cannot be written, it is a whole recording.
    let finished = recorder.finish();
    let End {
        elements,
        changes,
        lost,
        missed,
    } = recorder.end;
    note(format!(
        "{elements} elements, {changes} changes, {lost} lost, {missed} missed"
    ));
    result.and(finished)?;
    ensure!(
        lost == 0 && missed == 0,
        "the recording lacks changes{}",
        if lost > 0 {
            ": a larger ring buffer may help (--buffer)"
        } else {
            ""
        }
    );
    Ok(0)
}

fn open(path: &Path, force: bool) -> Result<Output> {
    if path.as_os_str() == "-" {
        return Ok(Output::stdout());
    }
    let mut options = File::options();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file = options.open(path).map_err(|err| {
        let hint = match err.kind() {
            io::ErrorKind::AlreadyExists => " (--force overwrites it)",
            _ => "",
        };
        anyhow::anyhow!("{}: {err}{hint}", path.display())
    })?;
    Ok(Output::new(Box::new(file) as Box<dyn Write>))
}

struct Recorder {
    map: Map,
    percpu: bool,
    tracer: Tracer,
    output: Output,
    /// By the clock of the events.
    began: u64,
    end: End,
    limit: u64,
}

impl Recorder {
    fn run(&mut self, duration: Option<Duration>, signals: &Signals) -> Result<()> {
        let end = duration.map(|duration| Instant::now() + duration);
        self.write(&Header {
            maptrace: VERSION,
            time: Timestamp::now().to_string(),
            map: RecordedMap {
                id: self.map.id,
                name: self.map.name.clone(),
                type_name: self.map.type_name.clone(),
                key_size: self.map.key_size,
                value_size: self.map.value_size,
                max_entries: self.map.max_entries,
                cpus: self.map.cpus,
                percpu: self.percpu,
            },
        })?;

        // The tracers are attached: what changes from here on is in the ring buffer, which is
        // emptied meanwhile.
        let mut changes = VecDeque::new();
        let Self {
            map,
            tracer,
            output,
            end: counts,
            ..
        } = self;
        map.for_each(|key, values| {
            signals.check()?;
            let line = Line::Element {
                key: Hex(key.to_vec()),
                values: values.into_iter().map(Hex).collect(),
            };
            output.line(serde_json::to_string(&line)?)?;
            counts.elements += 1;
            if counts.elements % 64 == 0 {
                changes.extend(tracer.take()?);
            }
            Ok(())
        })?;
        // What was made until now belongs to the moment of the elements.
        let moment = monotonic_ns();
        let mut late = VecDeque::new();
        loop {
            signals.check()?;
            let taken = self.tracer.take()?;
            let last = taken.iter().any(|event| event.time_ns > moment) || taken.is_empty();
            late.extend(taken);
            if last {
                break;
            }
        }
        changes.extend(late);
        let (before, after): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|event| event.time_ns <= moment);
        for event in before {
            self.change(event)?;
        }
        self.write(&Line::Consistent)?;
        for event in after {
            self.change(event)?;
        }

        let mut users = Users::default();
        loop {
            signals.check()?;
            users.check([&self.map].into_iter())?;
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if self.end.changes >= self.limit || left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            for event in self.tracer.take()? {
                self.change(event)?;
            }
            let timeout = left.map_or(LOOK, |left| left.min(LOOK));
            self.output
                .wait_for(self.tracer.poll_fd(), timeout.max(Duration::from_millis(1)))?;
        }
    }

    /// Writes what is in the ring buffer, and the last line.
    fn finish(&mut self) -> Result<()> {
        self.end.missed = self.tracer.missed()?;
        self.tracer.detach()?;
        loop {
            let events = self.tracer.take()?;
            if events.is_empty() {
                break;
            }
            for event in events {
                self.change(event)?;
            }
        }
        self.end.lost = self.tracer.lost()?;
        let end = self.end.clone();
        self.write(&Line::End(end))?;
        self.output.flush()
    }

    fn write(&mut self, line: &impl serde::Serialize) -> Result<()> {
        self.output
            .line(serde_json::to_string(line).context("a line of the recording")?)
    }

    fn change(&mut self, mut event: Event) -> Result<()> {
        self.end.changes += 1;
        if self.map.is_trie() {
            clear_behind_prefix(&mut event.key);
        }
        let by = By {
            time_ns: event.time_ns.saturating_sub(self.began),
            pid: event.pid,
            comm: event.comm,
        };
        let line = match event.operation {
            Operation::Update => Line::Update {
                key: Hex(event.key),
                value: Hex(event.value),
                flags: event.flags,
                cpu: event.cpu,
                by,
            },
            Operation::Delete => Line::Delete {
                key: Hex(event.key),
                by,
            },
        };
        self.write(&line)
    }
}
