// SPDX-License-Identifier: GPL-2.0

//! Whether one map is what its plan makes of another one.

use super::set::Maps;
use crate::{
    commands::diff::{pause, Values},
    conversion::Cut,
    layout::{same, Layout},
    map::Map,
    output::Signals,
    plan::Plan,
};
use anyhow::Result;
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
        self.count(|wrong| matches!(wrong, Wrong::Cut(_) | Wrong::Missing))
    }

    /// Entries that should not be what they are.
    pub fn differ(&self) -> u64 {
        self.count(|wrong| matches!(wrong, Wrong::Different(_) | Wrong::Extra))
    }

    pub fn unsettled(&self) -> u64 {
        self.count(|wrong| matches!(wrong, Wrong::Unsettled))
    }
}

/// What is there of a key, in both maps.
struct Look {
    found: Found,
    new_key: Option<Vec<u8>>,
    old: Values,
    new: Values,
}

#[derive(Debug, PartialEq)]
enum Found {
    Same,
    Cut(String),
    Missing,
    Different,
    Extra,
}

/// Both maps, and how to read them.
pub struct Pair<'a> {
    old: Rc<Map>,
    new: Rc<Map>,
    plan: Rc<Plan>,
    signals: &'a Signals,
    old_key: Layout,
    new_key: Layout,
    new_value: Layout,
    /// The bits of a value that mean something.
    mask: Vec<u8>,
}

impl<'a> Pair<'a> {
    pub fn new(maps: &Maps, plan: &Rc<Plan>, signals: &'a Signals) -> Self {
        let Maps { old, new } = maps.clone();
        let (old_key, _, _) = old.layouts();
        let (new_key, new_value, _) = new.layouts();
        let mut mask = vec![0; new_value.size];
        new_value.mark(&mut mask);
        Self {
            old,
            new,
            plan: Rc::clone(plan),
            signals,
            old_key,
            new_key,
            new_value,
            mask,
        }
    }

    /// Whether values are what is expected. Where only the new map has one for each CPU, it is about
    /// the first one.
    fn same(&self, expected: &[Vec<u8>], values: &Values) -> bool {
        let same = |(a, b): (&Vec<u8>, &Vec<u8>)| same(a, b, &self.mask);
        values
            .as_ref()
            .is_some_and(|values| expected.iter().zip(values).all(same))
    }

    /// What the values of an old entry are in the new map.
    fn expected(&self, old: &[Vec<u8>]) -> std::result::Result<Vec<Vec<u8>>, Cut> {
        old.iter()
            .map(|value| self.plan.value.apply(value))
            .collect()
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
            if let Some(new_key) = &look.new_key {
                extra.remove(new_key);
            }
            match look.found {
                Found::Same => {}
                Found::Different if values_later => comparison.behind += 1,
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
        for key in self.really_extra(extra, flush)? {
            comparison.add(self.new_key.decode(&key).to_string(), Wrong::Extra);
        }
        Ok(comparison)
    }

    /// What is there of a key whose values in the old map are these.
    fn look(&self, key: &[u8], old: Values) -> Result<Look> {
        let new_key = match self.plan.key.apply(key) {
            Ok(new_key) => new_key,
            Err(cut) => {
                return Ok(Look {
                    found: match old {
                        Some(_) => Found::Cut(cut.field),
                        None => Found::Same,
                    },
                    new_key: None,
                    old,
                    new: None,
                })
            }
        };
        let new = self.new.lookup(&new_key)?;
        let found = match (&old, &new) {
            (None, None) => Found::Same,
            (None, Some(_)) => Found::Extra,
            (Some(old), new) => match self.expected(old) {
                Err(cut) => Found::Cut(cut.field),
                Ok(expected) if self.same(&expected, new) => Found::Same,
                Ok(_) if new.is_none() => Found::Missing,
                Ok(_) => Found::Different,
            },
        };
        Ok(Look {
            found,
            new_key: Some(new_key),
            old,
            new,
        })
    }

    fn wrong(&self, look: &Look) -> Wrong {
        match (&look.found, &look.old, &look.new) {
            (Found::Cut(field), ..) => Wrong::Cut(field.clone()),
            (Found::Missing, ..) => Wrong::Missing,
            (Found::Different, Some(old), Some(new)) => {
                let mut found = Vec::new();
                let expected = self.expected(old).unwrap_or_default();
                for (cpu, (is, expected)) in new.iter().zip(&expected).enumerate() {
                    let path = match old.len() {
                        1 => String::new(),
                        _ => format!("cpu {cpu}"),
                    };
                    self.new_value.differences(is, expected, &path, &mut found);
                }
                let found: Vec<_> = found
                    .iter()
                    .map(|it| match &*it.path {
                        "" => format!("{}, not {}", it.left, it.right),
                        path => format!("{path}: {}, not {}", it.left, it.right),
                    })
                    .collect();
                Wrong::Different(found.join("; "))
            }
            _ => Wrong::Extra,
        }
    }

    /// Keys of the new map that the old one did not seem to have. What follows the old one changes, and
    /// comes and goes; what does not stays as it is.
    fn really_extra(
        &self,
        keys: HashSet<Vec<u8>>,
        mut flush: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut extra = HashMap::new();
        for key in keys {
            let values = self.new.lookup(&key)?;
            extra.insert(key, values);
        }
        for round in 0..PASSES {
            if extra.is_empty() {
                break;
            }
            // It may be deleted in the one, and not yet in the other.
            pause(round + 3);
            flush()?;
            self.old.for_each(|key, _| {
                self.signals.check()?;
                if let Ok(new_key) = self.plan.key.apply(key) {
                    extra.remove(&new_key);
                }
                Ok(())
            })?;
            let mut left = HashMap::new();
            for (key, before) in extra {
                let values = self.new.lookup(&key)?;
                if values.is_some() && values == before {
                    left.insert(key, values);
                }
            }
            extra = left;
        }
        let mut extra: Vec<_> = extra.into_keys().collect();
        extra.sort();
        Ok(extra)
    }
}
