// SPDX-License-Identifier: GPL-2.0

use super::{
    compare::{Comparison, Pair, Wrong},
    place::Places,
    script,
};
use crate::{
    census::Census,
    cli::Migrate,
    commands::replay::make_empty,
    kernel::Kernel,
    map::{self, Map},
    migration::{Counters, Flushed, Sync},
    origin::{program_maps, Users},
    output::{errno_name, note, Output, Signals},
    plan::{Plan, Side},
};
use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value as Json};
use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::{Duration, Instant},
};

/// How long nobody looks whether there is reason to end.
const LOOK: Duration = Duration::from_millis(100);

/// How often progress is told where nobody looks at a terminal.
const SELDOM: Duration = Duration::from_secs(5);

/// How many entries are listed where something is wrong with them.
const LISTED: usize = 100;

pub fn run(args: &Migrate) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let old = map::select_single(&args.old.parse()?, &kernel)?;
    let new = map::select_single(&args.new.parse()?, &kernel)?;
    ensure!(old.id != new.id, "{} is both of them", old.label());
    let plan = Plan::new(
        &Side::of_map(&old),
        &Side::of_map(&new),
        &args.fields.wishes(),
    );
    super::say(&plan);
    ensure!(
        plan.problems.is_empty(),
        "{} cannot be migrated to {}: nothing was done (see --check)",
        old.label(),
        new.label()
    );
    let places = Places::find(&args.switch, &old, &kernel)?;
    if args.clear {
        let is_used = |(_, maps): &(u32, Vec<u32>)| maps.contains(&new.id);
        // Whoever mixes up both maps has not meant it.
        if let Some((prog, _)) = program_maps()?.into_iter().find(is_used) {
            bail!(
                "--clear: program {prog} uses {}, which is not cleared",
                new.label()
            );
        }
    }
    make_empty(&new, args.clear, "--clear deletes what is there", &signals)?;
    let mut migration = Migration {
        args,
        old: &old,
        new: &new,
        signals: &signals,
        pair: Pair::new(&old, &new, &plan, &signals),
        users: Users::default(),
        began: Instant::now(),
        output: Output::stdout(),
    };
    let sync = Sync::attach(&old, &new, &plan, &kernel)?;
    migration.replay(&sync)?;
    let status = match args.switch.is_wanted() {
        true => migration.switch(sync, &places)?,
        false => migration.follow(sync)?,
    };
    migration.output.flush()?;
    Ok(status)
}

struct Migration<'a> {
    args: &'a Migrate,
    old: &'a Map,
    new: &'a Map,
    signals: &'a Signals,
    pair: Pair<'a>,
    users: Users,
    began: Instant,
    output: Output,
}

impl Migration<'_> {
    /// Waits until the new map was told all that was there.
    fn replay(&mut self, sync: &Sync<'_>) -> Result<()> {
        let total = Census::best(false)
            .0
            .and_then(|census| census.elements().ok())
            .and_then(|elements| elements.get(&self.old.id).copied());
        let total = match self.old.is_array() {
            true => Some(self.old.max_entries.into()),
            false => total,
        };
        note(format!(
            "{} -> {}: moving",
            self.old.label(),
            self.new.label()
        ));
        let mut bar = Bar::new(total);
        loop {
            self.signals.check()?;
            self.users.check([self.old].into_iter())?;
            let done = sync.wait_replayed(LOOK);
            bar.show(sync.info()?.replayed, done);
            if done {
                return Ok(());
            }
        }
    }

    /// Has all that was written so far moved. False: some of it could not be.
    fn flush(&self, sync: &Sync<'_>) -> Result<bool> {
        let end = Instant::now() + self.args.timeout;
        loop {
            let before = sync.counters()?;
            let left = end.saturating_duration_since(Instant::now());
            let flushed = sync.flush(left)?;
            self.signals.check()?;
            let after = sync.counters()?;
            match flushed {
                Flushed::Done => return Ok(true),
                // What does not fit now does not fit the next time.
                Flushed::Left(_) if after.cut > before.cut || after.full > before.full => {
                    return Ok(false)
                }
                Flushed::Left(_) | Flushed::Interrupted if Instant::now() < end => {
                    thread::sleep(LOOK);
                }
                _ => bail!(
                    "the flush has taken {} seconds and is not done{} (--timeout)",
                    self.args.timeout.as_secs_f64(),
                    match after.failed - before.failed {
                        0 => String::new(),
                        failed => format!(
                            ": {failed} times the new map could not be written ({})",
                            errno_name(-after.error as i32)
                        ),
                    }
                ),
            }
        }
    }

    /// Flushes, and compares. Errors: keys were lost on the way, for which there was no room.
    fn settle(&mut self, sync: &Sync<'_>) -> Result<Comparison> {
        let all_told = self.flush(sync)?;
        let comparison = self.pair.compare()?;
        let lost = sync.info()?.lost;
        if !all_told && comparison.wrong.is_empty() {
            note("some of it did not fit at a time, and is gone by now");
        }
        if lost > 0 {
            note(format!(
                "{lost} keys were lost on the way: what was deleted may be left in {}",
                self.new.label()
            ));
        }
        self.list(&comparison)?;
        Ok(comparison)
    }

    fn list(&mut self, comparison: &Comparison) -> Result<()> {
        if self.args.json {
            return Ok(());
        }
        for (key, wrong) in comparison.wrong.iter().take(LISTED) {
            self.output.line(describe(key, wrong))?;
        }
        let more = comparison.wrong.len().saturating_sub(LISTED);
        if more > 0 {
            self.output.line(format!("and {more} more"))?;
        }
        self.output.flush()
    }

    /// Whether what was compared is good enough to go on.
    fn is_good(&self, comparison: &Comparison, nobody_writes: bool) -> bool {
        comparison.differ() == 0
            && (comparison.unfit() == 0 || self.args.partial)
            && (comparison.unsettled() == 0 || !nobody_writes)
    }

    /// The new map follows the old one until somebody ends it.
    fn follow(&mut self, sync: Sync<'_>) -> Result<u8> {
        let comparison = self.settle(&sync)?;
        if self.args.wait {
            let status = u8::from(!self.is_good(&comparison, false));
            self.report(&sync, &comparison, None)?;
            sync.detach()?;
            return Ok(status);
        }
        note(match self.is_good(&comparison, false) {
            true => format!(
                "in sync: {} entries; it goes on until a signal comes",
                comparison.entries
            ),
            false => format!(
                "not in sync: {}; it goes on until a signal comes",
                summary(&comparison)
            ),
        });
        let ended = loop {
            if let Err(stop) = self.signals.check() {
                break stop;
            }
            if let Err(gone) = self.users.check([self.old].into_iter()) {
                break gone;
            }
            self.output.wait_for(-1, LOOK)?;
        };
        self.report(&sync, &comparison, None)?;
        sync.detach()?;
        Err(ended)
    }

    fn switch(&mut self, sync: Sync<'_>, places: &Places) -> Result<u8> {
        let comparison = self.settle(&sync)?;
        // What is written through pointers differs until the writers are stopped: then it counts.
        let is_compared_later =
            self.args.switch.stop.is_some() && (comparison.unfit() == 0 || self.args.partial);
        ensure!(
            is_compared_later || self.is_good(&comparison, false),
            "not in sync, so nothing is switched: {}{}",
            summary(&comparison),
            match comparison.differ() {
                0 => " (--partial switches all the same)",
                _ => "",
            }
        );
        note(format!("in sync: {} entries", comparison.entries));
        let switch = &self.args.switch;
        let began = Instant::now();
        match (&switch.switch, &switch.stop, &switch.start) {
            (_, Some(stop), Some(start)) => {
                script::run("--stop", stop, self.old, self.new, self.signals)
                    .context("nothing is switched")?;
                let stopped = "the old programs were stopped (--stop), and nothing is switched: \
                               start them again";
                let comparison = self.settle(&sync).context(stopped)?;
                ensure!(
                    self.is_good(&comparison, true),
                    "{}: {stopped}",
                    summary(&comparison)
                );
                places.put(self.new, self.old).context(stopped)?;
                let done = script::run("--start", start, self.old, self.new, self.signals);
                if done.is_err() {
                    places.put_back(self.old);
                }
                done.context("neither the old programs run nor the new ones")?;
                let pause = began.elapsed();
                self.report(&sync, &comparison, Some(pause))?;
                sync.detach()?;
            }
            (command, ..) => {
                // The new programs write the new map from some moment on.
                sync.hand_over()?;
                if let Some(command) = command {
                    script::run("--switch", command, self.old, self.new, self.signals)
                        .context("nothing is switched")?;
                }
                places
                    .put(self.new, self.old)
                    .with_context(|| match command {
                        Some(_) => "--switch is done, but the new map is not where the old one is",
                        None => "nothing is switched",
                    })?;
                // What the old programs were about to write when they were replaced.
                let all_told = self.flush(&sync)?;
                if !all_told {
                    note("some of what was written during the switch does not fit");
                }
                let lost = sync.info()?.lost;
                self.report(&sync, &comparison, None)?;
                sync.detach()?;
                if !all_told || lost > 0 {
                    return Ok(1);
                }
            }
        }
        Ok(0)
    }

    fn report(
        &mut self,
        sync: &Sync<'_>,
        comparison: &Comparison,
        pause: Option<Duration>,
    ) -> Result<()> {
        let info = sync.info()?;
        let counters = sync.counters()?;
        let entry = (self.new.key_size + self.new.value_size) as u64;
        let bytes = comparison.entries * entry;
        let seconds = self.began.elapsed().as_secs_f64();
        if self.args.json {
            self.output.line(json!({
                "old": { "id": self.old.id, "name": self.old.name },
                "new": { "id": self.new.id, "name": self.new.name },
                "entries": comparison.entries,
                "bytes": bytes,
                "conversions": counters.updates,
                "deletes": counters.deletes,
                "did_not_fit": { "fields": counters.cut, "map": counters.full },
                "failed": counters.failed,
                "seconds": seconds,
                "pause": pause.map(|pause| pause.as_secs_f64()),
                "lost": info.lost,
                "wrong": comparison.wrong.iter().map(wrong_json).collect::<Vec<_>>(),
            }))?;
            return self.output.flush();
        }
        let pause = pause.map_or_else(String::new, |pause| {
            format!(", {:.3} seconds of pause", pause.as_secs_f64())
        });
        note(format!(
            "{} -> {}: {} entries, {bytes} bytes, {} conversions, {} deletes, {seconds:.1} \
             seconds{pause}, {} lost, {}",
            self.old.label(),
            self.new.label(),
            comparison.entries,
            counters.updates,
            counters.deletes,
            info.lost,
            summary(comparison)
        ));
        let Counters { cut, full, .. } = counters;
        if cut + full > 0 {
            note(format!(
                "what did not fit was tried {cut} times for a field, {full} times for the map"
            ));
        }
        Ok(())
    }
}

fn describe(key: &str, wrong: &Wrong) -> String {
    match wrong {
        Wrong::Cut(field) => format!("- {key}: does not fit into {field}"),
        Wrong::Missing => format!("- {key}: the new map lacks it"),
        Wrong::Different(what) => format!("~ {key}: {what}"),
        Wrong::Extra => format!("+ {key}: the old map does not have it"),
        Wrong::Unsettled => format!("? {key}: changes all the time"),
    }
}

fn wrong_json((key, wrong): &(String, Wrong)) -> Json {
    let (what, detail) = match wrong {
        Wrong::Cut(field) => ("does_not_fit", field.clone()),
        Wrong::Missing => ("missing", String::new()),
        Wrong::Different(what) => ("differs", what.clone()),
        Wrong::Extra => ("extra", String::new()),
        Wrong::Unsettled => ("unsettled", String::new()),
    };
    json!({ "key": key, "what": what, "detail": detail })
}

fn summary(comparison: &Comparison) -> String {
    let mut text = format!("{} differ", comparison.differ());
    for (count, what) in [
        (comparison.unfit(), "do not fit"),
        (comparison.unsettled(), "change all the time"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// How far it has come.
struct Bar {
    total: Option<u64>,
    is_terminal: bool,
    told: Instant,
}

impl Bar {
    fn new(total: Option<u64>) -> Self {
        Self {
            total,
            is_terminal: io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    fn show(&mut self, replayed: u64, done: bool) {
        if self.is_terminal {
            let end = if done { "\n" } else { "" };
            let _ = write!(io::stderr(), "\r{}{end}", bar(replayed, self.total));
        } else if !done && self.told.elapsed() >= SELDOM {
            self.told = Instant::now();
            note(bar(replayed, self.total));
        }
    }
}

fn bar(replayed: u64, total: Option<u64>) -> String {
    const WIDTH: u64 = 30;
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{replayed} entries");
    };
    let part = replayed.min(total);
    let full = part * WIDTH / total;
    format!(
        "[{}{}] {:3} % {replayed} of {total} entries",
        "#".repeat(full as usize),
        ".".repeat((WIDTH - full) as usize),
        part * 100 / total
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_what_is_done() {
        assert_eq!(bar(7, None), "7 entries");
        assert_eq!(
            bar(50, Some(100)),
            "[###############...............]  50 % 50 of 100 entries"
        );
        // More can come meanwhile.
        assert!(bar(200, Some(100)).contains("100 % 200 of 100"));
    }

    #[test]
    fn what_is_wrong_is_summed_up() {
        let mut comparison = Comparison::default();
        assert_eq!(summary(&comparison), "0 differ");
        for wrong in [Wrong::Missing, Wrong::Extra, Wrong::Unsettled] {
            comparison.wrong.push((String::new(), wrong));
        }
        assert_eq!(
            summary(&comparison),
            "1 differ, 1 do not fit, 1 change all the time"
        );
    }
}
