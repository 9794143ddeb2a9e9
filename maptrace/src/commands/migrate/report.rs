// SPDX-License-Identifier: GPL-2.0

//! What is said of a migration.

use super::{
    compare::{Comparison, Wrong},
    set::Maps,
};
use crate::{
    kernel::TraceLinkInfo,
    migration::Counters,
    output::{note, Output},
};
use anyhow::Result;
use serde_json::{json, Value as Json};
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How often progress is told where nobody looks at a terminal.
const SELDOM: Duration = Duration::from_secs(5);

/// How many entries are listed where something is wrong with them.
const LISTED: usize = 100;

/// What the link of a pair has done when it ended, or was asked.
#[derive(Clone, Copy)]
pub struct Done {
    pub counters: Counters,
    /// Keys that were lost on the way, and are so.
    pub lost: u64,
}

impl Done {
    pub fn new(info: &TraceLinkInfo, healed: u64, counters: Counters) -> Self {
        Self {
            counters,
            lost: info.lost.saturating_sub(healed),
        }
    }
}

pub struct Report<'a> {
    pub maps: &'a Maps,
    pub done: Done,
    /// `None` where whoever made it was killed.
    pub comparison: Option<&'a Comparison>,
    /// Into what something may not fit, beside the map.
    pub unfit: &'static str,
    pub seconds: f64,
    pub pause: Option<f64>,
}

impl Report<'_> {
    pub fn print(&self, as_json: bool, output: &mut Output) -> Result<()> {
        match as_json {
            true => {
                output.line(self.to_json())?;
                output.flush()
            }
            false => {
                self.to_text().iter().for_each(note);
                Ok(())
            }
        }
    }

    fn bytes(&self) -> Option<u64> {
        let new = &self.maps.new;
        let entry = (new.key_size + new.value_size * new.cpus) as u64;
        self.comparison.map(|it| it.entries * entry)
    }

    fn to_json(&self) -> Json {
        let Maps { old, new } = self.maps;
        let Counters {
            updates,
            deletes,
            cut,
            full,
            failed,
            both,
            ..
        } = self.done.counters;
        let wrong = self.comparison.map(|it| {
            let wrong = it.wrong.iter().map(wrong_json);
            wrong.collect::<Vec<_>>()
        });
        json!({
            "old": { "id": old.id, "name": old.name },
            "new": { "id": new.id, "name": new.name },
            "entries": self.comparison.map(|it| it.entries),
            "bytes": self.bytes(),
            "conversions": updates,
            "deletes": deletes,
            "did_not_fit": { "fields": cut, "map": full },
            "failed": failed,
            "written_by_both": both,
            "seconds": self.seconds,
            "pause": self.pause,
            "lost": self.done.lost,
            "wrong": wrong,
        })
    }

    fn to_text(&self) -> Vec<String> {
        let Counters {
            updates,
            deletes,
            cut,
            full,
            both,
            ..
        } = self.done.counters;
        let entries = match (self.comparison, self.bytes()) {
            (Some(comparison), Some(bytes)) => {
                format!("{} entries, {bytes} bytes, ", comparison.entries)
            }
            _ => String::new(),
        };
        let pause = self.pause.map_or_else(String::new, |pause| {
            format!(", {pause:.3} seconds of pause")
        });
        let compared = self.comparison.map_or_else(String::new, |comparison| {
            format!(", {}", summary(comparison))
        });
        let mut lines = vec![format!(
            "{} -> {}: {entries}{updates} conversions, {deletes} deletes, {:.1} seconds{pause}, \
             {} lost{compared}",
            self.maps.old.label(),
            self.maps.new.label(),
            self.seconds,
            self.done.lost,
        )];
        if both > 0 {
            lines.push(format!(
                "the old programs have done {both} operations on keys that the new ones had written"
            ));
        }
        if cut + full > 0 {
            lines.push(format!(
                "what did not fit was tried {cut} times for {}, {full} times for the map",
                self.unfit
            ));
        }
        lines
    }
}

/// Lists the entries with which something is wrong.
pub fn list(comparison: &Comparison, output: &mut Output) -> Result<()> {
    for (key, wrong) in comparison.wrong.iter().take(LISTED) {
        output.line(describe(key, wrong))?;
    }
    let more = comparison.wrong.len().saturating_sub(LISTED);
    if more > 0 {
        output.line(format!("and {more} more"))?;
    }
    output.flush()
}

fn describe(key: &str, wrong: &Wrong) -> String {
    match wrong {
        Wrong::Cut(field) => format!("- {key}: does not fit into {field}"),
        Wrong::NotConverted(why) => format!("- {key}: {why}"),
        Wrong::Missing => format!("- {key}: the new map lacks it"),
        Wrong::Different(what) => format!("~ {key}: {what}"),
        Wrong::Extra => format!("+ {key}: the old map does not have it"),
        Wrong::Unsettled => format!("? {key}: changes all the time"),
    }
}

fn wrong_json((key, wrong): &(String, Wrong)) -> Json {
    let (what, detail) = match wrong {
        Wrong::Cut(field) => ("does_not_fit", field.clone()),
        Wrong::NotConverted(why) => ("not_converted", why.clone()),
        Wrong::Missing => ("missing", String::new()),
        Wrong::Different(what) => ("differs", what.clone()),
        Wrong::Extra => ("extra", String::new()),
        Wrong::Unsettled => ("unsettled", String::new()),
    };
    json!({ "key": key, "what": what, "detail": detail })
}

pub fn summary(comparison: &Comparison) -> String {
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
pub struct Bar {
    total: Option<u64>,
    is_terminal: bool,
    told: Instant,
}

impl Bar {
    pub fn new(total: Option<u64>) -> Self {
        Self {
            total,
            is_terminal: io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    pub fn show(&mut self, replayed: u64, done: bool) {
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
