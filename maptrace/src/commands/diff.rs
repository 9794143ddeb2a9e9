// SPDX-License-Identifier: GPL-2.0

use crate::{
    cli::Diff,
    kernel::Kernel,
    layout::{same, Decoded, Difference, Layout},
    map::{self, decode_values, Map},
    output::{note, Output, Signals},
};
use anyhow::{ensure, Result};
use serde_json::{json, Map as JsonMap};
use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

/// How often a key is looked at while one of the maps changes it.
const ROUNDS: u32 = 12;

/// How often both have to hold still, and to differ.
const STILL: u32 = 4;

/// The pauses between, which double: 1 ms, 2 ms and so on up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

pub(super) type Values = Option<Vec<Vec<u8>>>;

/// Two maps with values of one layout.
struct Pair {
    a: Map,
    b: Map,
    key: Layout,
    value: Layout,
    /// The bits of a value that mean something.
    mask: Vec<u8>,
}

/// What is said of a key.
#[derive(Debug, PartialEq)]
enum Verdict {
    Same,
    Different(Values, Values),
    /// One of them changes all the time.
    Unsettled,
}

pub fn run(args: &Diff) -> Result<u8> {
    let signals = Signals::new()?;
    let kernel = Kernel::new()?;
    let pair = Pair::new(
        map::select_single(&args.a.parse()?, &kernel)?,
        map::select_single(&args.b.parse()?, &kernel)?,
    )?;
    let mut output = Output::stdout();
    let (mut compared, mut different, mut unsettled) = (0_u64, 0_u64, 0_u64);
    for key in pair.candidates(&signals, &mut compared)? {
        signals.check()?;
        let look = || Ok((pair.a.lookup(&key)?, pair.b.lookup(&key)?));
        match judge(look, |a, b| pair.same(a, b), pause)? {
            Verdict::Same => {}
            Verdict::Different(a, b) => {
                different += 1;
                pair.print(args, &key, &a, &b, &mut output)?;
                output.flush()?;
            }
            Verdict::Unsettled => {
                unsettled += 1;
                let key = pair.key.decode(&key);
                match args.json {
                    true => output.line(json!({ "key": key.to_json(), "unsettled": true }))?,
                    false => output.line(format!("? {key}: changes all the time"))?,
                }
                output.flush()?;
            }
        }
    }
    let what = |count: u64, text: &str| match count {
        0 => String::new(),
        _ => format!(", {count} {text}"),
    };
    note(format!(
        "{compared} keys, {different} differ{}",
        what(unsettled, "change all the time")
    ));
    Ok(match (different, unsettled) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 1,
    })
}

pub(super) fn pause(round: u32) {
    thread::sleep(Duration::from_millis(1 << round.min(10)).min(LONGEST_PAUSE));
}

/// Looks at a key until it is the same, or both maps hold still and it is not.
///
/// `look` reads one map after the other. Where a map changes between two looks, nothing follows
/// from a difference: one value was read later. A mirror that is one change behind catches up
/// within a pause.
fn judge(
    mut look: impl FnMut() -> Result<(Values, Values)>,
    same: impl Fn(&Values, &Values) -> bool,
    mut pause: impl FnMut(u32),
) -> Result<Verdict> {
    let mut still = 0;
    for round in 0..ROUNDS {
        let (a, b) = look()?;
        // What was read first is what it was all the while, if it is the same afterwards.
        let (a_after, b_after) = look()?;
        if a == a_after && same(&a, &b) || b == b_after && same(&a_after, &b) {
            return Ok(Verdict::Same);
        }
        if a == a_after && b == b_after {
            still += 1;
            if still == STILL {
                return Ok(Verdict::Different(a, b));
            }
        }
        pause(round);
    }
    Ok(Verdict::Unsettled)
}

impl Pair {
    fn new(a: Map, b: Map) -> Result<Self> {
        for (what, left, right) in [
            ("keys", a.key_size, b.key_size),
            ("values", a.value_size, b.value_size),
        ] {
            ensure!(
                left == right,
                "{} has {what} of {left} bytes, and {} of {right}: they cannot be compared",
                a.label(),
                b.label()
            );
        }
        ensure!(
            a.is_percpu() == b.is_percpu(),
            "only one of {} and {} has a value for each CPU: they cannot be compared",
            a.label(),
            b.label()
        );
        let (key, value, problem) = a.layouts();
        let (other_key, other_value, other_problem) = b.layouts();
        problem.into_iter().chain(other_problem).for_each(note);
        let pick = |what: &str, left: Layout, right: Layout| match (&left.kind, &right.kind) {
            (_, crate::layout::Kind::Bytes) => left,
            (crate::layout::Kind::Bytes, _) => right,
            _ if left == right => left,
            _ => {
                note(format!(
                    "the {what} of {} and of {} have other types: these are those of {}",
                    a.label(),
                    b.label(),
                    a.label()
                ));
                left
            }
        };
        let key = pick("keys", key, other_key);
        let value = pick("values", value, other_value);
        let mut mask = vec![0; value.size];
        value.mark(&mut mask);
        Ok(Self {
            key,
            value,
            mask,
            a,
            b,
        })
    }

    fn same(&self, a: &Values, b: &Values) -> bool {
        match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| same(a, b, &self.mask)),
            _ => false,
        }
    }

    /// The keys that differ where one map is read after the other.
    fn candidates(&self, signals: &Signals, compared: &mut u64) -> Result<Vec<Vec<u8>>> {
        let mut left = HashMap::new();
        self.a.for_each(|key, values| {
            left.insert(key.to_vec(), values);
            signals.check()
        })?;
        *compared = left.len() as u64;
        let mut candidates = Vec::new();
        let mut seen = HashSet::new();
        self.b.for_each(|key, values| {
            signals.check()?;
            // A key can come twice, where the kernel has to begin again.
            if !seen.insert(key.to_vec()) {
                return Ok(());
            }
            match left.remove(key) {
                Some(other) if self.same(&Some(other.clone()), &Some(values)) => return Ok(()),
                Some(_) => {}
                None => *compared += 1,
            }
            candidates.push(key.to_vec());
            Ok(())
        })?;
        candidates.extend(left.into_keys());
        candidates.sort();
        Ok(candidates)
    }

    fn print(
        &self,
        args: &Diff,
        key: &[u8],
        a: &Values,
        b: &Values,
        output: &mut Output,
    ) -> Result<()> {
        let percpu = self.a.is_percpu();
        let show = |values: &Values| {
            values
                .as_ref()
                .map(|values| decode_values(&self.value, values, percpu))
        };
        let key = self.key.decode(key);
        if args.json {
            let mut json = JsonMap::new();
            json.insert("key".to_owned(), key.to_json());
            for (name, values) in [("a", a), ("b", b)] {
                if let Some(value) = show(values) {
                    json.insert(name.to_owned(), value.to_json());
                }
            }
            return output.line(serde_json::Value::Object(json));
        }
        match (a, b) {
            (Some(a), Some(b)) => {
                output.line(format!("~ {key}"))?;
                for difference in self.differences(a, b) {
                    let path = match &*difference.path {
                        "" => "value",
                        path => path,
                    };
                    output.line(format!(
                        "    {path}: {} -> {}",
                        difference.left, difference.right
                    ))?;
                }
                Ok(())
            }
            _ => {
                let sign = if a.is_some() { '-' } else { '+' };
                let value = show(a).or_else(|| show(b)).unwrap_or(Decoded::Cut);
                output.line(format!("{sign} {key} = {value}"))
            }
        }
    }

    fn differences(&self, a: &[Vec<u8>], b: &[Vec<u8>]) -> Vec<Difference> {
        let mut found = Vec::new();
        for (cpu, (a, b)) in a.iter().zip(b).enumerate() {
            let path = match self.a.is_percpu() {
                true => format!("cpu {cpu}"),
                false => String::new(),
            };
            self.value.differences(a, b, &path, &mut found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn value(byte: u8) -> Values {
        Some(vec![vec![byte]])
    }

    fn judge_script(script: impl Fn(usize) -> (Values, Values)) -> Verdict {
        let looks = RefCell::new(0);
        let look = || {
            *looks.borrow_mut() += 1;
            Ok(script(*looks.borrow() - 1))
        };
        judge(look, |a, b| a == b, |_| {}).unwrap()
    }

    #[test]
    fn what_stays_different_differs() {
        let found = judge_script(|_| (value(1), value(2)));
        assert_eq!(found, Verdict::Different(value(1), value(2)));
        let found = judge_script(|_| (value(1), None));
        assert_eq!(found, Verdict::Different(value(1), None));
    }

    #[test]
    fn a_mirror_that_catches_up_is_the_same() {
        let found = judge_script(|look| (value(1), value(if look < 4 { 0 } else { 1 })));
        assert_eq!(found, Verdict::Same);
    }

    #[test]
    fn what_was_deleted_meanwhile_is_the_same() {
        let found = judge_script(|look| {
            if look < 1 {
                (value(1), None)
            } else {
                (None, None)
            }
        });
        assert_eq!(found, Verdict::Same);
    }

    #[test]
    fn what_changes_all_the_time_is_not_said_to_differ() {
        // Each value is read later than the other map's.
        let found = judge_script(|look| (value(look as u8 * 2), value(look as u8 * 2 + 101)));
        assert_eq!(found, Verdict::Unsettled);
    }

    #[test]
    fn a_hot_key_that_holds_still_for_a_moment_is_the_same() {
        let found = judge_script(|look| match look {
            6 | 7 => (value(9), value(9)),
            _ => (value(look as u8), value(look as u8 + 100)),
        });
        assert_eq!(found, Verdict::Same);
    }
}
