// SPDX-License-Identifier: GPL-2.0

//! One pair of a set, and the link by which the one map follows the other.

use super::{
    compare::{Comparison, Pair},
    report::Done,
    set::Maps,
};
use crate::{
    conversion::Conversion,
    kernel::Kernel,
    migration::{Flushed, Sync, Tracer, Winner, WRITERS},
    output::{errno_name, note, Signals},
    pin,
    plan::{How, Plan},
};
use anyhow::{bail, ensure, Context, Result};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

/// How long nobody looks whether there is reason to end.
pub const LOOK: Duration = Duration::from_millis(100);

pub struct Member<'a> {
    pub maps: Maps,
    plan: Rc<Plan>,
    /// The plan of the other direction, where that is wanted.
    other: Option<Rc<Plan>>,
    pair: Pair<'a>,
    kernel: &'a Kernel,
    signals: &'a Signals,
    sync: Option<Sync<'a>>,
    /// Those of the tracers that note who else writes the new map.
    writers: Vec<OwnedFd>,
    /// How many of the keys that were lost were told again.
    healed: u64,
    pub comparison: Option<Comparison>,
}

/// Where the link is pinned that notes an operation on the new map, beside the other one.
pub fn writer_path(path: &Path, name: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!("-{name}"));
    beside.into()
}

impl<'a> Member<'a> {
    pub fn new(
        maps: Maps,
        plan: Rc<Plan>,
        other: Option<Rc<Plan>>,
        kernel: &'a Kernel,
        signals: &'a Signals,
    ) -> Result<Self> {
        Ok(Self {
            pair: Pair::new(&maps, &plan, kernel, signals)?,
            maps,
            plan,
            other,
            kernel,
            signals,
            sync: None,
            writers: Vec::new(),
            healed: 0,
            comparison: None,
        })
    }

    /// The other direction: the new map leads to the old one. Nothing follows yet.
    ///
    /// Errors: there is no plan of it.
    pub fn turned(&self) -> Result<Self> {
        let plan = self.other.clone().context("no way back")?;
        Self::new(
            self.maps.turned(),
            plan,
            Some(Rc::clone(&self.plan)),
            self.kernel,
            self.signals,
        )
    }

    pub fn load(&self) -> Result<Tracer<'a>> {
        let Maps { old, new } = &self.maps;
        Tracer::load(old, new, &self.plan, self.kernel)
    }

    /// Has the new map follow from now on. Where `path` says so, the link is pinned.
    pub fn attach(&mut self, path: Option<&Path>) -> Result<()> {
        let sync = self.load()?.attach(&self.maps.old, &self.maps.new)?;
        if let Some(path) = path {
            sync.pin(path)?;
        }
        self.sync = Some(sync);
        Ok(())
    }

    /// Takes up the link that is pinned at `path`. False: none is, or it follows nothing any more.
    pub fn take_up(&mut self, path: &Path) -> Result<bool> {
        let opened = pin::open(path, pin::Kind::Link);
        let Some(link) = opened.with_context(|| path.display().to_string())? else {
            return Ok(false);
        };
        let Maps { old, new } = &self.maps;
        self.sync = Sync::from_link(link, old, new, self.kernel)?;
        if self.sync.is_none() {
            pin::remove(path)?;
        }
        Ok(self.sync.is_some())
    }

    /// Into what an entry may not fit.
    pub fn unfit(&self) -> &'static str {
        match self.plan.how {
            How::Fields { .. } => "a field",
            How::With(..) => "the conversion",
        }
    }

    pub fn follows(&self) -> bool {
        self.sync.is_some()
    }

    fn sync(&self) -> Result<&Sync<'a>> {
        self.sync.as_ref().context("nothing is attached")
    }

    /// How many elements that were there the new map was told, and whether these are all.
    pub fn replayed(&self) -> Result<(u64, bool)> {
        let sync = self.sync()?;
        let done = sync.wait_replayed(LOOK);
        let info = sync.info()?;
        ensure!(info.map_id != 0, "somebody has detached the link");
        Ok((info.replayed, done))
    }

    /// Has all that was written so far moved, and these keys of the old map, which has them or not.
    /// False: some of it could not be.
    pub fn flush(&self, keys: &[Vec<u8>], timeout: Duration) -> Result<bool> {
        let sync = self.sync()?;
        let end = Instant::now() + timeout;
        loop {
            let before = sync.counters()?;
            let left = end.saturating_duration_since(Instant::now());
            let flushed = sync.flush(keys, left)?;
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
                    timeout.as_secs_f64(),
                    match after.failed - before.failed {
                        0 => String::new(),
                        failed => format!(
                            ": {failed} times {} could not be written ({})",
                            self.maps.new.label(),
                            errno_name(-after.error as i32)
                        ),
                    }
                ),
            }
        }
    }

    /// Takes out of the new map what the old one does not have. A key that comes back meanwhile stays.
    pub fn prune(&mut self, timeout: Duration) -> Result<()> {
        if self.maps.new.is_array() {
            return Ok(());
        }
        let lost = self.sync()?.info()?.lost;
        let told = match &self.plan.how {
            How::Fields { key, .. } => self.prune_keys(key)?,
            How::With(..) => {
                self.prune_by_comparing(timeout)?;
                Vec::new()
            }
        };
        if self.flush(&told, timeout)? {
            self.healed = lost;
        }
        Ok(())
    }

    /// The keys that the kernel is to tell, under the order of all else.
    fn prune_keys(&self, plan: &Conversion) -> Result<Vec<Vec<u8>>> {
        let Maps { old, new } = &self.maps;
        let back = plan.inverse().context("pruning")?;
        let mut told = Vec::new();
        for new_key in new.keys(|| self.signals.check())? {
            let old_key = back.apply(&new_key).ok().filter(|old_key| {
                plan.apply(old_key).as_ref() == Ok(&new_key) && old.can_have(old_key)
            });
            match old_key {
                Some(old_key) => told.push(old_key),
                // No key of the old map becomes it: nobody puts it there.
                None => self.take_out(&new_key)?,
            }
        }
        Ok(told)
    }

    /// Nobody knows of which old key a new one was made. What comes back between the look and the
    /// deletion is put there again by the flush after it.
    fn prune_by_comparing(&self, timeout: Duration) -> Result<()> {
        let flush = || self.flush(&[], timeout).map(drop);
        let extra = self.pair.extra(flush)?;
        extra.iter().try_for_each(|key| self.take_out(key))
    }

    fn take_out(&self, key: &[u8]) -> Result<()> {
        let new = &self.maps.new;
        let deleted = new.delete(key);
        deleted.with_context(|| format!("{}: taking out a key", new.label()))?;
        Ok(())
    }

    /// Flushes, and compares. With `values_later`, see [`Pair::compare`].
    pub fn settle(&mut self, values_later: bool, timeout: Duration) -> Result<&Comparison> {
        let all_told = self.flush(&[], timeout)?;
        // Keys that were deleted in the old map, and may be left in the new one.
        if self.sync()?.info()?.lost > self.healed {
            self.prune(timeout)?;
        }
        let flush = || self.flush(&[], timeout).map(drop);
        let comparison = self.pair.compare(values_later, flush)?;
        let lost = self.done()?.lost;
        if !all_told && comparison.wrong.is_empty() {
            note("some of it did not fit at a time, and is gone by now");
        }
        if lost > 0 {
            note(format!(
                "{lost} keys were lost on the way: what was deleted may be left in {}",
                self.maps.new.label()
            ));
        }
        Ok(self.comparison.insert(comparison))
    }

    /// The new programs write the new map from now on, see [`Sync::hand_over`]. Where `path` says so,
    /// the links that note what they write are pinned beside.
    pub fn hand_over(&mut self, winner: Winner, path: Option<&Path>) -> Result<()> {
        // They can be there, if whoever began was killed.
        self.forget_writers(path)?;
        let sync = self.sync()?;
        let writers = sync.note_writers(&self.maps.new)?;
        if let Some(path) = path {
            for (name, link) in &writers {
                let path = writer_path(path, name);
                pin::pin(link.as_fd(), &path).with_context(|| path.display().to_string())?;
            }
        }
        sync.hand_over(Some(winner))?;
        self.writers = writers.into_iter().map(|(_, link)| link).collect();
        Ok(())
    }

    /// It was not: the new map is what the old one is again.
    pub fn take_back(&mut self, path: Option<&Path>) -> Result<()> {
        self.forget_writers(path)?;
        self.sync()?.hand_over(None)
    }

    fn forget_writers(&mut self, path: Option<&Path>) -> Result<()> {
        self.writers.clear();
        for (name, ..) in WRITERS {
            if let Some(path) = path.map(|path| writer_path(path, name)) {
                pin::remove(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    pub fn done(&self) -> Result<Done> {
        let sync = self.sync()?;
        Ok(Done::new(&sync.info()?, self.healed, sync.counters()?))
    }

    /// When it returns, the new map does not follow any more, and nothing is pinned at `path`.
    pub fn detach(&mut self, path: Option<&Path>) -> Result<()> {
        self.forget_writers(path)?;
        if let Some(sync) = self.sync.take() {
            sync.detach()?;
        }
        match path {
            Some(path) => pin::remove(path).with_context(|| format!("removing {}", path.display())),
            None => Ok(()),
        }
    }
}
