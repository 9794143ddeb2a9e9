// SPDX-License-Identifier: GPL-2.0

//! Whether one map is what its plan makes of another one.

use crate::{
    commands::diff::{judge, pause, Values, Verdict},
    layout::{same, Layout},
    map::Map,
    output::Signals,
    plan::Plan,
};
use anyhow::Result;
use std::{cell::RefCell, collections::HashSet};

/// How often all keys of the old map are read to find one that only the new map seems to have.
const PASSES: u32 = 4;

/// What is wrong with an entry.
#[derive(Debug, PartialEq)]
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
#[derive(Debug, Default)]
pub struct Comparison {
    pub entries: u64,
    /// Keys, as they are shown, and what is wrong.
    pub wrong: Vec<(String, Wrong)>,
}

impl Comparison {
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

/// Both maps, and how to read them.
pub struct Pair<'a> {
    old: &'a Map,
    new: &'a Map,
    plan: &'a Plan,
    signals: &'a Signals,
    old_key: Layout,
    new_key: Layout,
    new_value: Layout,
    /// The bits of a value that mean something.
    mask: Vec<u8>,
}

impl<'a> Pair<'a> {
    pub fn new(old: &'a Map, new: &'a Map, plan: &'a Plan, signals: &'a Signals) -> Self {
        let (old_key, _, _) = old.layouts();
        let (new_key, new_value, _) = new.layouts();
        let mut mask = vec![0; new_value.size];
        new_value.mark(&mut mask);
        Self {
            old,
            new,
            plan,
            signals,
            old_key,
            new_key,
            new_value,
            mask,
        }
    }

    fn same(&self, a: &Values, b: &Values) -> bool {
        match (a, b) {
            (None, None) => true,
            // Of values for each CPU it is the first one.
            (Some(a), Some(b)) => same(&a[0], &b[0], &self.mask),
            _ => false,
        }
    }

    /// Compares all entries. Both maps can be in use; what changes is looked at again.
    pub fn compare(&self) -> Result<Comparison> {
        let mut comparison = Comparison::default();
        // Before the old one: what comes meanwhile is in that as well.
        let mut extra = HashSet::new();
        if !self.new.is_array() {
            self.new.for_each(|key, _| {
                self.signals.check()?;
                extra.insert(key.to_vec());
                Ok(())
            })?;
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
            if let Ok(new_key) = self.plan.key.apply(key) {
                let value = self.plan.value.apply(&values[0]).ok();
                let expected = value.map(|value| vec![value]);
                let is_same =
                    expected.is_some() && self.same(&expected, &self.new.lookup(&new_key)?);
                extra.remove(&new_key);
                if is_same {
                    return Ok(());
                }
            }
            candidates.push(key.to_vec());
            Ok(())
        })?;
        for key in candidates {
            self.signals.check()?;
            if let Some(wrong) = self.look_again(&key)? {
                let key = self.old_key.decode(&key).to_string();
                comparison.wrong.push((key, wrong));
            }
        }
        for key in self.really_extra(extra)? {
            let key = self.new_key.decode(&key).to_string();
            comparison.wrong.push((key, Wrong::Extra));
        }
        Ok(comparison)
    }

    fn look_again(&self, key: &[u8]) -> Result<Option<Wrong>> {
        let new_key = match self.plan.key.apply(key) {
            Ok(new_key) => new_key,
            Err(cut) => return Ok(self.old.lookup(key)?.map(|_| Wrong::Cut(cut.field))),
        };
        let cut = RefCell::new(None);
        let look = || {
            *cut.borrow_mut() = None;
            let old = match self.old.lookup(key)? {
                None => None,
                Some(values) => match self.plan.value.apply(&values[0]) {
                    Ok(value) => Some(vec![value]),
                    Err(err) => {
                        *cut.borrow_mut() = Some(err.field);
                        // No value of the map is as long.
                        Some(vec![Vec::new()])
                    }
                },
            };
            Ok((old, self.new.lookup(&new_key)?))
        };
        let verdict = judge(look, |a, b| self.same(a, b), pause)?;
        Ok(match (verdict, cut.take()) {
            (Verdict::Same, _) => None,
            (Verdict::Different(..), Some(field)) => Some(Wrong::Cut(field)),
            (Verdict::Different(Some(_), None), None) => Some(Wrong::Missing),
            (Verdict::Different(None, _), None) => Some(Wrong::Extra),
            (Verdict::Different(Some(a), Some(b)), None) => {
                let mut found = Vec::new();
                self.new_value.differences(&b[0], &a[0], "", &mut found);
                let found: Vec<_> = found
                    .iter()
                    .map(|it| match &*it.path {
                        "" => format!("{}, not {}", it.left, it.right),
                        path => format!("{path}: {}, not {}", it.left, it.right),
                    })
                    .collect();
                Some(Wrong::Different(found.join("; ")))
            }
            (Verdict::Unsettled, _) => Some(Wrong::Unsettled),
        })
    }

    /// Keys of the new map that the old one did not seem to have.
    fn really_extra(&self, mut extra: HashSet<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        for round in 0..PASSES {
            if extra.is_empty() {
                break;
            }
            // It may be deleted in the one, and not yet in the other.
            pause(round + 3);
            self.old.for_each(|key, _| {
                self.signals.check()?;
                if let Ok(new_key) = self.plan.key.apply(key) {
                    extra.remove(&new_key);
                }
                Ok(())
            })?;
            let mut left = HashSet::new();
            for key in extra {
                if self.new.lookup(&key)?.is_some() {
                    left.insert(key);
                }
            }
            extra = left;
        }
        let mut extra: Vec<_> = extra.into_iter().collect();
        extra.sort();
        Ok(extra)
    }
}
