// SPDX-License-Identifier: GPL-2.0

use crate::{
    cli::Watch,
    kernel::{monotonic_ns, Kernel},
    layout::Layout,
    map::{self, parse_selectors, Map},
    origin::{Origin, Resolver, Users},
    output::{errno_name, note, Output, Signals},
    tracer::{Event, KeyFilter, Operation, Options, Stack, Tracer},
};
use anyhow::{ensure, Context, Result};
use jiff::{tz::TimeZone, Timestamp};
use serde_json::{json, Map as JsonMap, Value as Json};
use std::time::{Duration, Instant};

/// How long nobody looks whether there is reason to end.
const LOOK: Duration = Duration::from_millis(100);

/// A map, and how to read what is in it.
struct Watched {
    map: Map,
    key: Layout,
    value: Layout,
}

pub fn run(args: &Watch) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let maps = map::select(&parse_selectors(&args.maps)?, &kernel)?;
    let mut layouts = Vec::new();
    for map in &maps {
        let (key, value, problem) = map.layouts();
        problem.into_iter().for_each(note);
        layouts.push((key, value));
    }
    let key = key_filter(&args.key, &maps, &layouts)?;
    let options = Options {
        operations: match args.op {
            Some(op) => vec![op.into()],
            None => vec![Operation::Update, Operation::Delete],
        },
        pid: args.pid,
        key,
        stack: match (args.stack, args.no_origin) {
            (true, _) => Stack::Whole,
            (false, true) => Stack::None,
            (false, false) => Stack::Origin,
        },
        value_limit: args.max_value,
        failed: args.failed,
        buffer: args.buffer,
    };
    let mut tracer = Tracer::attach(&maps, &kernel, &options)?;
    tracer.notes.drain(..).for_each(note);
    let resolver = match options.stack {
        Stack::None => None,
        _ => Some(Resolver::new(tracer.program_ids())),
    };
    if maps.iter().any(Map::is_lru) && !kernel.tells_reasons() {
        note("what an LRU map evicts is not shown: this kernel does not trace it");
    }
    let labels: Vec<_> = maps
        .iter()
        .zip(&tracer.traced)
        .filter(|(_, traced)| **traced)
        .map(|(map, _)| format!("{} ({})", map.label(), map.type_name))
        .collect();
    note(format!("watching {}", labels.join(", ")));
    let watched = maps
        .into_iter()
        .zip(layouts)
        .map(|(map, (key, value))| Watched { map, key, value })
        .collect();
    let mut watch = Printer {
        args,
        kernel: &kernel,
        watched,
        users: Users::default(),
        resolver,
        clock: Clock::new(),
        output: Output::stdout(),
        shown: 0,
        lost: 0,
        missed: 0,
    };
    let result = watch.run(&mut tracer, &signals);
    // However it ends, what was not shown is said.
    let told = watch.tell_lost(&tracer).and_then(|()| watch.output.flush());
    note(format!(
        "{} changes, {} lost, {} missed",
        watch.shown, watch.lost, watch.missed
    ));
    result.and_then(|status| told.map(|()| status))
}

struct Printer<'a> {
    args: &'a Watch,
    kernel: &'a Kernel,
    watched: Vec<Watched>,
    users: Users,
    resolver: Option<Resolver>,
    clock: Clock,
    output: Output,
    shown: u64,
    lost: u64,
    missed: u64,
}

impl Printer<'_> {
    fn run(&mut self, tracer: &mut Tracer, signals: &Signals) -> Result<u8> {
        let wanted = match self.args.once {
            true => 1,
            false => self.args.count.unwrap_or(u64::MAX),
        };
        let end = self.args.duration.map(|duration| Instant::now() + duration);
        loop {
            signals.check()?;
            for event in tracer.take()? {
                self.show(&event)?;
                if self.shown == wanted {
                    return Ok(0);
                }
            }
            self.tell_lost(tracer)?;
            self.users
                .check(self.watched.iter().map(|watched| &watched.map))?;
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(0);
            }
            let timeout = left.map_or(LOOK, |left| left.min(LOOK));
            self.output
                .wait_for(tracer.poll_fd(), timeout.max(Duration::from_millis(1)))?;
        }
    }

    fn show(&mut self, event: &Event) -> Result<()> {
        self.shown += 1;
        let resolver = self.resolver.as_mut().filter(|_| event.has_maker());
        let origin = resolver.map(|resolver| resolver.origin(&event.stack));
        match self.args.json {
            true => self.show_json(event, origin),
            false => self.show_text(event, origin),
        }
    }

    fn show_text(&mut self, event: &Event, origin: Option<Origin>) -> Result<()> {
        let watched = &self.watched[event.map];
        let mut line = format!(
            "{} {}",
            self.clock.time_of_day(event.time_ns),
            event.operation.name()
        );
        if self.watched.len() > 1 {
            line += &format!(" {}", watched.map.label());
        }
        line += &format!(" {}", watched.key.decode(&event.key));
        if event.operation == Operation::Update {
            line += &format!(" = {}", watched.value.decode(&event.value));
            if event.value.len() < watched.map.value_size {
                line += &format!(
                    " ({} of {} bytes)",
                    event.value.len(),
                    watched.map.value_size
                );
            }
        }
        for flag in flag_names(event.flags) {
            line += &format!(" {flag}");
        }
        if event.reason != 0 {
            line += &format!(" ({})", self.kernel.reason_name(event.reason));
        }
        if event.error != 0 {
            line += &format!(" failed: {}", errno_name(event.error));
        }
        line += &format!(" cpu {}", event.cpu);
        if event.has_maker() {
            line += &format!(" {}[{}]", event.comm, event.pid);
        }
        if let Some(origin) = origin {
            line += &format!(" {origin}");
        }
        self.output.line(line)?;
        if let (true, Some(resolver)) = (self.args.stack, &self.resolver) {
            for address in resolver.without_own(&event.stack) {
                self.output
                    .line(format!("    {}", resolver.frame(*address)))?;
            }
        }
        Ok(())
    }

    fn show_json(&mut self, event: &Event, origin: Option<Origin>) -> Result<()> {
        let watched = &self.watched[event.map];
        let mut json = JsonMap::new();
        let mut put = |name: &str, value: Json| json.insert(name.to_owned(), value);
        put(
            "time",
            self.clock.timestamp(event.time_ns).to_string().into(),
        );
        put(
            "map",
            json!({ "id": watched.map.id, "name": watched.map.name }),
        );
        put("op", event.operation.name().into());
        put("key", watched.key.decode(&event.key).to_json());
        if event.operation == Operation::Update {
            put("value", watched.value.decode(&event.value).to_json());
            if event.value.len() < watched.map.value_size {
                let cut = json!({ "shown": event.value.len(), "of": watched.map.value_size });
                put("value_cut", cut);
            }
            put("flags", flag_names(event.flags).into());
        }
        if self.kernel.tells_reasons() {
            put("reason", self.kernel.reason_name(event.reason).into());
        }
        if event.error != 0 {
            put("errno", errno_name(event.error).into());
        }
        put("cpu", event.cpu.into());
        if event.has_maker() {
            put("pid", event.pid.into());
            put("tid", event.tid.into());
            put("comm", event.comm.clone().into());
        }
        if let Some(origin) = origin {
            let origin = match origin {
                Origin::Program { id, name } => json!({ "prog": { "id": id, "name": name } }),
                Origin::SystemCall { batch } => json!({ "syscall": "bpf", "batch": batch }),
                Origin::Interpreter => json!({ "interpreter": true }),
                Origin::Unknown => Json::Null,
            };
            put("origin", origin);
        }
        let resolver = self.resolver.as_ref().filter(|_| event.has_maker());
        if let (true, Some(resolver)) = (self.args.stack, resolver) {
            let stack = resolver.without_own(&event.stack);
            let frames: Vec<_> = stack
                .iter()
                .map(|address| resolver.frame(*address))
                .collect();
            put("stack", frames.into());
        }
        self.output.line(Json::Object(json))
    }

    /// Says what was lost since it was said the last time.
    fn tell_lost(&mut self, tracer: &Tracer) -> Result<()> {
        let (lost, missed) = (tracer.lost()?, tracer.missed()?);
        let new = lost - self.lost;
        let new_missed = missed - self.missed;
        (self.lost, self.missed) = (lost, missed);
        if new > 0 || new_missed > 0 {
            if self.args.json {
                self.output
                    .line(json!({ "lost": new, "missed": new_missed }))?;
            }
            if new > 0 {
                note(format!(
                    "{new} changes lost: the ring buffer was full (see --buffer)"
                ));
            }
            if new_missed > 0 {
                note(format!(
                    "{new_missed} changes missed: the kernel could not run the tracer"
                ));
            }
        }
        Ok(())
    }
}

/// `BPF_NOEXIST` and the like
fn flag_names(flags: u64) -> Vec<String> {
    const NAMES: [(u64, &str); 5] = [
        (1, "BPF_NOEXIST"),
        (2, "BPF_EXIST"),
        (4, "BPF_F_LOCK"),
        (8, "BPF_F_CPU"),
        (16, "BPF_F_ALL_CPUS"),
    ];
    let mut left = flags;
    let mut names = Vec::new();
    for (flag, name) in NAMES {
        if flags & flag != 0 {
            names.push(name.to_owned());
            left &= !flag;
            // It has the number of the CPU beside it.
            if flag == 8 {
                left &= u64::from(u32::MAX);
            }
        }
    }
    if left != 0 {
        names.push(format!("{left:#x}"));
    }
    names
}

/// What `--key` says, in bytes.
fn key_filter(
    words: &[String],
    maps: &[Map],
    layouts: &[(Layout, Layout)],
) -> Result<Option<KeyFilter>> {
    if words.is_empty() {
        return Ok(None);
    }
    let (layout, _) = layouts.first().context("no map")?;
    ensure!(
        layouts.iter().all(|(other, _)| other == layout),
        "--key: the keys of these maps are not of the same type: {}",
        maps.iter().map(Map::label).collect::<Vec<_>>().join(", ")
    );
    let mut filter = KeyFilter {
        want: vec![0; layout.size],
        mask: vec![0; layout.size],
    };
    for word in words {
        parse_key(word, layout)
            .and_then(|json| layout.encode(&json, &mut filter.want, &mut filter.mask))
            .with_context(|| format!("--key {word}"))?;
    }
    Ok(Some(filter))
}

/// `VALUE`, which can be JSON, or `MEMBER.MEMBER=VALUE`.
pub(super) fn parse_key(word: &str, layout: &Layout) -> Result<Json> {
    let is_struct = matches!(layout.kind, crate::layout::Kind::Struct(_));
    let (path, value) = match word.split_once('=') {
        Some((path, value)) if is_struct && !word.starts_with('{') => (path, value),
        _ => ("", word),
    };
    // Whatever is no JSON is a string: an address, the name of an enum, 0x and digits.
    let mut json = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
    if !path.is_empty() {
        for name in path.rsplit('.') {
            ensure!(!name.is_empty(), "a member without a name");
            json = json!({ name: json });
        }
    }
    Ok(json)
}

/// What time it was by the kernel's clock.
struct Clock {
    /// Between that clock and the time of day, in ns.
    offset: i128,
    zone: TimeZone,
}

impl Clock {
    fn new() -> Self {
        Self {
            offset: Timestamp::now().as_nanosecond() - i128::from(monotonic_ns()),
            zone: TimeZone::system(),
        }
    }

    fn timestamp(&self, time_ns: u64) -> Timestamp {
        let ns = self.offset + i128::from(time_ns);
        Timestamp::from_nanosecond(ns - ns.rem_euclid(1000)).unwrap_or_default()
    }

    fn time_of_day(&self, time_ns: u64) -> String {
        let time = self.timestamp(time_ns).to_zoned_datetime(self.zone.clone());
        time.strftime("%H:%M:%S.%6f").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Kind, Member};

    #[test]
    fn flags_have_names() {
        assert!(flag_names(0).is_empty());
        assert_eq!(flag_names(1), ["BPF_NOEXIST"]);
        assert_eq!(flag_names(6), ["BPF_EXIST", "BPF_F_LOCK"]);
        assert_eq!(flag_names(8 | (3 << 32)), ["BPF_F_CPU"]);
        assert_eq!(flag_names(1 << 40), ["0x10000000000"]);
    }

    #[test]
    fn keys_are_values_or_members() {
        let layout = Layout {
            size: 4,
            kind: Kind::Struct(vec![Member {
                name: "port".to_owned(),
                bit_offset: 0,
                bits: 0,
                layout: Layout::u32(),
            }]),
        };
        assert_eq!(
            parse_key("port=80", &layout).unwrap(),
            json!({ "port": 80 })
        );
        assert_eq!(
            parse_key("a.b=x", &layout).unwrap(),
            json!({ "a": { "b": "x" } })
        );
        assert_eq!(
            parse_key("{\"port\": 1}", &layout).unwrap(),
            json!({ "port": 1 })
        );
        assert_eq!(parse_key("0x01", &Layout::u32()).unwrap(), json!("0x01"));
        assert_eq!(parse_key("7", &Layout::u32()).unwrap(), json!(7));
        assert!(parse_key("a..b=1", &layout).is_err());
    }
}
