// SPDX-License-Identifier: GPL-2.0

//! Whether one map is what its plan makes of another one.

use super::set::Maps;
use crate::{
    commands::diff::{pause, Values},
    conversion::Cut,
    kernel::Kernel,
    layout::{same, Layout},
    map::Map,
    output::Signals,
    plan::{How, Plan},
    with::DryRun,
};
use anyhow::{bail, Result};
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// How often what seems to be wrong is looked at again.
const PASSES: u32 = 6;
/// How often in turn it has to be as it was: a small counter in use can be what it was, in both maps.
const AS_IT_WAS: u32 = 3;

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Wrong {
    /// It does not fit into a field of the new map.
    Cut(String),
    /// The user's conversion does not take it, and why.
    NotConverted(String),
    /// The new map lacks it.
    Missing,
    /// What it is in the new map is not what it should be.
    Different(String),
    /// The old map does not have it.
    Extra,
    /// It changes all the time.
    Unsettled,
}

/// How two maps compare.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    pub entries: u64,
    /// Values that differ, and that nobody has looked at again.
    pub behind: u64,
    /// Keys, as they are shown, and what is wrong.
    pub wrong: Vec<(String, Wrong)>,
}

impl Comparison {
    fn add(&mut self, key: String, wrong: Wrong) {
        self.wrong.push((key, wrong));
    }

    pub fn count(&self, is_it: impl Fn(&Wrong) -> bool) -> u64 {
        self.wrong.iter().filter(|(_, wrong)| is_it(wrong)).count() as u64
    }

    /// Entries that could not be moved.
    pub fn unfit(&self) -> u64 {
        self.count(|wrong| {
            matches!(
                wrong,
                Wrong::Cut(_) | Wrong::NotConverted(_) | Wrong::Missing
            )
        })
    }

    /// Entries that should not be what they are.
    pub fn differ(&self) -> u64 {
        self.count(|wrong| matches!(wrong, Wrong::Different(_) | Wrong::Extra))
    }

    pub fn unsettled(&self) -> u64 {
        self.count(|wrong| matches!(wrong, Wrong::Unsettled))
    }
}

/// What an entry of the old map is to be in the new one.
struct Entry {
    key: Vec<u8>,
    /// `None` where that is not known.
    values: Option<Vec<Vec<u8>>>,
}

/// What is there of a key, in both maps.
struct Look {
    found: Found,
    old: Values,
    /// What is to be in the new map, and what is.
    entries: Vec<Entry>,
    new: Vec<Values>,
    /// One of them is missing.
    lacks: bool,
}

impl Look {
    fn has(&self, key: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }
}

#[derive(Debug, PartialEq)]
enum Found {
    Same,
    Unfit(Wrong),
    Missing,
    Different,
    Extra,
}

impl Found {
    /// How bad it is.
    fn rank(&self) -> u32 {
        match self {
            Found::Same => 0,
            Found::Unfit(_) => 1,
            Found::Missing => 2,
            Found::Different | Found::Extra => 3,
        }
    }
}

fn is_zero(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == 0)
}

/// Both maps, and how to read them.
pub struct Pair<'a> {
    old: Rc<Map>,
    new: Rc<Map>,
    plan: Rc<Plan>,
    /// Of the user's conversion
    dry_run: Option<DryRun>,
    signals: &'a Signals,
    old_key: Layout,
    new_key: Layout,
    new_value: Layout,
    /// The bits of a value that mean something.
    mask: Vec<u8>,
}

impl<'a> Pair<'a> {
    /// Errors: the kernel does not take the user's conversion.
    pub fn new(
        maps: &Maps,
        plan: &Rc<Plan>,
        kernel: &Kernel,
        signals: &'a Signals,
    ) -> Result<Self> {
        let Maps { old, new } = maps.clone();
        let dry_run = match &plan.how {
            How::Fields { .. } => None,
            How::With(with, _) => Some(DryRun::load(with, &old, &new, kernel)?),
        };
        let (old_key, _, _) = old.layouts();
        let (new_key, new_value, _) = new.layouts();
        let mut mask = vec![0; new_value.size];
        new_value.mark(&mut mask);
        Ok(Self {
            old,
            new,
            plan: Rc::clone(plan),
            dry_run,
            signals,
            old_key,
            new_key,
            new_value,
            mask,
        })
    }

    /// Whether values are what is expected. Where only the new map has one for each CPU, it is about
    /// the first one, and what is put there has no others.
    fn same(&self, expected: &[Vec<u8>], values: &Values) -> bool {
        let same = |(a, b): (&Vec<u8>, &Vec<u8>)| same(a, b, &self.mask);
        values.as_ref().is_some_and(|values| {
            expected.iter().zip(values).all(same)
                && (self.new.is_array() || values.iter().skip(expected.len()).all(|it| is_zero(it)))
        })
    }

    /// What an old entry is to be in the new map, and why that is not all of it.
    fn becomes(&self, key: &[u8], old: &[Vec<u8>]) -> Result<(Vec<Entry>, Option<Wrong>)> {
        let (key_plan, value_plan) = match (&self.plan.how, &self.dry_run) {
            (How::Fields { key, value }, _) => (key, value),
            (How::With(..), Some(dry_run)) => {
                let becomes = dry_run.run(key, old.first().map_or(&[], Vec::as_slice))?;
                let unfit = becomes.unfit.map(Wrong::NotConverted);
                let entries = becomes.entries.into_iter().map(|(key, value)| Entry {
                    key,
                    values: Some(vec![value]),
                });
                return Ok((entries.collect(), unfit));
            }
            (How::With(..), None) => bail!("no conversion"),
        };
        let key = match key_plan.apply(key) {
            Ok(key) => key,
            Err(cut) => return Ok((Vec::new(), Some(Wrong::Cut(cut.field)))),
        };
        let values = old.iter().map(|value| value_plan.apply(value)).collect();
        let (values, unfit) = match values {
            Ok(values) => (Some(values), None),
            Err(Cut { field }) => (None, Some(Wrong::Cut(field))),
        };
        Ok((vec![Entry { key, values }], unfit))
    }

    /// What is known of an entry of the new map whose old one has gone: of the user's conversion,
    /// nothing. Whatever that has left is found as what the old map does not have.
    fn becomes_of_none(&self, key: &[u8]) -> Vec<Entry> {
        match &self.plan.how {
            How::Fields { key: plan, .. } => {
                let key = plan.apply(key).into_iter();
                key.map(|key| Entry { key, values: None }).collect()
            }
            How::With(..) => Vec::new(),
        }
    }

    /// Compares all entries. Both maps can be in use: what is wrong is looked at again after `flush`,
    /// which has all told that was written before. It is wrong if it stays as it was, and it is not
    /// settled if it goes on to change.
    ///
    /// With `values_later`, only what is missing and what does not fit is looked at again: values
    /// that differ can be written through pointers, and are compared when nobody writes them.
    pub fn compare(
        &self,
        values_later: bool,
        mut flush: impl FnMut() -> Result<()>,
    ) -> Result<Comparison> {
        let mut comparison = Comparison::default();
        // Before the old one: what comes meanwhile is in that as well.
        let mut extra = HashSet::new();
        if !self.new.is_array() {
            extra.extend(self.new.keys(|| self.signals.check())?);
        }
        let mut candidates = Vec::new();
        let mut seen = HashSet::new();
        self.old.for_each(|key, values| {
            self.signals.check()?;
            // A key can come twice, where the kernel has to begin again.
            if !seen.insert(key.to_vec()) {
                return Ok(());
            }
            comparison.entries += 1;
            let look = self.look(key, Some(values))?;
            for entry in &look.entries {
                extra.remove(&entry.key);
            }
            match look.found {
                Found::Same => {}
                Found::Different if values_later && !look.lacks => comparison.behind += 1,
                _ => candidates.push((key.to_vec(), look, 0)),
            }
            Ok(())
        })?;
        for _ in 0..PASSES {
            if candidates.is_empty() {
                break;
            }
            flush()?;
            let mut left = Vec::new();
            for (key, before, times) in candidates {
                self.signals.check()?;
                let look = self.look(&key, self.old.lookup(&key)?)?;
                // It has changed: what it does not become any more has to go.
                let gone = before.entries.into_iter().map(|entry| entry.key);
                extra.extend(gone.filter(|key| !look.has(key)));
                if look.found == Found::Same {
                    continue;
                }
                let times = match look.old == before.old && look.new == before.new {
                    true => times + 1,
                    false => 0,
                };
                if times == AS_IT_WAS {
                    let wrong = self.wrong(&look);
                    comparison.add(self.old_key.decode(&key).to_string(), wrong);
                } else {
                    left.push((key, look, times));
                }
            }
            candidates = left;
        }
        for (key, ..) in candidates {
            comparison.add(self.old_key.decode(&key).to_string(), Wrong::Unsettled);
        }
        for (key, wrong) in self.really_extra(extra, flush)? {
            comparison.add(self.new_key.decode(&key).to_string(), wrong);
        }
        Ok(comparison)
    }

    /// What is there of a key whose values in the old map are these.
    fn look(&self, key: &[u8], old: Values) -> Result<Look> {
        let (entries, unfit) = match &old {
            Some(values) => self.becomes(key, values)?,
            None => (self.becomes_of_none(key), None),
        };
        let mut found = unfit.map_or(Found::Same, Found::Unfit);
        let mut lacks = false;
        let mut new = Vec::new();
        for entry in &entries {
            let values = self.new.lookup(&entry.key)?;
            let this = match (&old, &entry.values) {
                (None, _) if values.is_some() => Found::Extra,
                (None, _) | (Some(_), None) => Found::Same,
                (Some(_), Some(expected)) if self.same(expected, &values) => Found::Same,
                _ if values.is_none() => Found::Missing,
                _ => Found::Different,
            };
            lacks |= this == Found::Missing;
            // The worst of them: what does not fit can be meant.
            if this.rank() > found.rank() {
                found = this;
            }
            new.push(values);
        }
        Ok(Look {
            found,
            old,
            entries,
            new,
            lacks,
        })
    }

    fn wrong(&self, look: &Look) -> Wrong {
        match &look.found {
            Found::Unfit(wrong) => wrong.clone(),
            Found::Missing => Wrong::Missing,
            Found::Different => {
                let pairs = look.entries.iter().zip(&look.new);
                let found: Vec<_> = pairs
                    .flat_map(|(entry, values)| self.differences(entry, values))
                    .collect();
                Wrong::Different(found.join("; "))
            }
            Found::Same | Found::Extra => Wrong::Extra,
        }
    }

    /// What an entry of the new map is, and should not be.
    fn differences(&self, entry: &Entry, values: &Values) -> Vec<String> {
        let (Some(expected), Some(values)) = (&entry.values, values) else {
            return Vec::new();
        };
        // Where one entry can become several, it matters which.
        let name = match &self.plan.how {
            How::Fields { .. } => String::new(),
            How::With(..) => format!("in {}, ", self.new_key.decode(&entry.key)),
        };
        let mut found = Vec::new();
        let expected_values = expected.len();
        for (cpu, (is, expected)) in values.iter().zip(expected).enumerate() {
            let path = match expected_values {
                1 => String::new(),
                _ => format!("cpu {cpu}"),
            };
            self.new_value.differences(is, expected, &path, &mut found);
        }
        if !self.new.is_array() {
            let zero = vec![0; self.new.value_size];
            for (cpu, is) in values.iter().enumerate().skip(expected_values) {
                let path = format!("cpu {cpu}");
                self.new_value.differences(is, &zero, &path, &mut found);
            }
        }
        let found = found.iter().map(|it| match &*it.path {
            "" => format!("{name}{}, not {}", it.left, it.right),
            path => format!("{name}{path}: {}, not {}", it.left, it.right),
        });
        found.collect()
    }

    /// Keys of the new map that no entry of the old one becomes.
    pub fn extra(&self, flush: impl FnMut() -> Result<()>) -> Result<Vec<Vec<u8>>> {
        let keys = self.new.keys(|| self.signals.check())?;
        let found = self.really_extra(keys.into_iter().collect(), flush)?;
        let is_extra = |(key, wrong)| (wrong == Wrong::Extra).then_some(key);
        Ok(found.into_iter().filter_map(is_extra).collect())
    }

    /// Keys of the new map that the old one did not seem to have. What follows the old one changes, and
    /// comes and goes; what does not stays as it is. The user's conversion can go on to change what it
    /// has left, and that is not settled.
    fn really_extra(
        &self,
        keys: HashSet<Vec<u8>>,
        mut flush: impl FnMut() -> Result<()>,
    ) -> Result<Vec<(Vec<u8>, Wrong)>> {
        let is_users = matches!(self.plan.how, How::With(..));
        let mut extra = HashMap::new();
        for key in keys {
            let values = self.new.lookup(&key)?;
            extra.insert(key, (values, Wrong::Extra));
        }
        for round in 0..PASSES {
            if extra.is_empty() {
                break;
            }
            // It may be deleted in the one, and not yet in the other.
            pause(round + 3);
            flush()?;
            self.old.for_each(|key, values| {
                self.signals.check()?;
                for entry in self.becomes(key, &values)?.0 {
                    extra.remove(&entry.key);
                }
                Ok(())
            })?;
            let mut left = HashMap::new();
            for (key, (before, _)) in extra {
                let values = self.new.lookup(&key)?;
                if values.is_some() && values == before {
                    left.insert(key, (values, Wrong::Extra));
                } else if values.is_some() && is_users {
                    left.insert(key, (values, Wrong::Unsettled));
                }
            }
            extra = left;
        }
        let mut extra: Vec<_> = extra
            .into_iter()
            .map(|(key, (_, wrong))| (key, wrong))
            .collect();
        extra.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(extra)
    }
}
