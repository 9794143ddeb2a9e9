// SPDX-License-Identifier: GPL-2.0

//! A sync tracer that keeps a map what the layout of another one makes of it.
//!
//! It hangs on a file descriptor of this process: when that ends, nothing is left behind, unless the
//! link is pinned.

use crate::{
    conversion::{Conversion, Step, MAX_STEPS},
    kernel::{
        explain_attach, explain_load, need_tracing, numbered_cpus, trace_link_info, Kernel,
        TraceLinkInfo, SYNC_ELEM,
    },
    map::{maps_of_program, Map},
    object::{self, embedded, listen},
    pin,
    plan::{How, Plan},
    with,
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr, thread,
    time::Duration,
};

/// As `LEVELS` of migration.h
pub const LEVELS: usize = 4;

/// `struct config` of convert.bpf.c
#[derive(Clone, Copy)]
#[repr(C)]
struct Config {
    old_key_size: u32,
    old_value_size: u32,
    new_key_size: u32,
    new_value_size: u32,
    key_offset: u32,
    key_steps: u32,
    value_steps: u32,
    same_key: u32,
    same_value: u32,
    percpu: u32,
    creates: u32,
    fills: u32,
    steps: [[Step; MAX_STEPS]; 2],
}

/// `struct cpu_state` of migration.h
#[derive(Clone, Copy)]
#[repr(C)]
struct CpuState {
    level: u64,
    updates: u64,
    deletes: u64,
    cut: u64,
    full: u64,
    failed: u64,
    error: i64,
    both: u64,
}

/// What the tracer has done, and how often it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    pub updates: u64,
    pub deletes: u64,
    /// A value or a key did not fit into a field.
    pub cut: u64,
    /// The map had no room.
    pub full: u64,
    /// Anything else, and what it was last.
    pub failed: u64,
    pub error: i64,
    /// Operations of the old programs on keys that the new ones had written.
    pub both: u64,
}

impl Counters {
    /// The sum over all CPUs, of `maptrace_cpus`.
    pub fn read(cpus: &MapHandle) -> Result<Self> {
        let values = cpus.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let mut sum = Self::default();
        for value in values.context("no counters")? {
            let Some(value) = value.get(..size_of::<CpuState>()) else {
                continue;
            };
            // SAFETY: it is as long as that, and any bytes are a `CpuState`.
            let cpu: CpuState = unsafe { ptr::read_unaligned(value.as_ptr().cast()) };
            sum.updates += cpu.updates;
            sum.deletes += cpu.deletes;
            sum.cut += cpu.cut;
            sum.full += cpu.full;
            sum.failed += cpu.failed;
            sum.both += cpu.both;
            if cpu.error != 0 {
                sum.error = cpu.error;
            }
        }
        Ok(sum)
    }
}

/// Who has written a key last, where both programs have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Winner {
    New,
    Old,
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flushed {
    /// All is told.
    Done,
    /// For so many keys the tracer could not follow.
    Left(u64),
    /// The time is over.
    Late,
    /// By a signal.
    Interrupted,
}

/// A tracer that is loaded, and follows nothing yet.
pub struct Tracer<'a> {
    object: Object,
    kernel: &'a Kernel,
}

impl<'a> Tracer<'a> {
    /// Of `old`, for `new`.
    pub fn load(old: &Map, new: &Map, plan: &Plan, kernel: &'a Kernel) -> Result<Self> {
        kernel.attach_type()?;
        need_tracing()?;
        kernel.trace_type(SYNC_ELEM).map_err(|_| {
            anyhow!("this kernel has no sync tracers, which a migration takes: its patches of map_trace are older")
        })?;
        let (mut open, template) = match &plan.how {
            How::Fields { key, value } => open_fields(old, new, key, value)?,
            How::With(with, _) => (with.open_tracer(old, new)?, Vec::new()),
        };
        object::open_map(&mut open, "maptrace_new")?.reuse_fd(new.as_fd())?;
        let mut noted = object::open_map(&mut open, "maptrace_noted")?;
        noted.set_key_size(new.key_size as u32)?;
        // Keys that are gone by then, too.
        noted.set_max_entries(new.max_entries.saturating_mul(2).min(1 << 30))?;
        object::load_only(&mut open, "convert_state");
        let mut prog = object::open_program(&mut open, "convert_state")?;
        object::make_tracer(&mut prog, kernel, "bpf_map_trace__sync_elem")?;
        let (object, said) = listen(|| open.load());
        let object = object
            .map_err(|err| {
                let err = explain_load(&err, kernel);
                match &plan.how {
                    How::Fields { .. } => err,
                    How::With(with, _) => {
                        with::explain(err, &said).context(format!("--with {}", with.name))
                    }
                }
            })
            .with_context(|| format!("{} -> {}", old.label(), new.label()))?;
        if !template.is_empty() {
            let map = object::map(&object, "template")?;
            map.update(&0_u32.to_ne_bytes(), &template, MapFlags::ANY)?;
        }
        Ok(Self { object, kernel })
    }

    /// Has `new` follow `old` from now on.
    pub fn attach(&self, old: &Map, new: &Map) -> Result<Sync<'a>> {
        let prog = object::program(&self.object, "convert_state")?;
        let trace_type = self.kernel.trace_type(SYNC_ELEM)?;
        let link = self
            .kernel
            .attach(prog.as_fd(), old.as_fd(), trace_type)
            .map_err(|err| match err.raw_os_error() {
                Some(libc::ELOOP) => anyhow!(
                    "{} leads to {} already: what is written there is written here, too",
                    new.label(),
                    old.label()
                ),
                _ => explain_attach(&err, &old.label(), "state"),
            })?;
        let handle = |name| -> Result<MapHandle> {
            Ok(MapHandle::try_from(&object::map(&self.object, name)?)?)
        };
        Ok(Sync {
            link,
            cpus: handle("maptrace_cpus")?,
            handover: handle(".data.handover")?,
            noted: handle("maptrace_noted")?,
            kernel: self.kernel,
        })
    }
}

/// What an operation on the new map is called, the program that is told of it, what that attaches
/// to, and what the kernel calls it.
pub const WRITERS: [(&str, &str, &str, &str); 2] = [
    (
        "update",
        "new_updated",
        "bpf_map_trace__update_elem",
        "UPDATE_ELEM",
    ),
    (
        "delete",
        "new_deleted",
        "bpf_map_trace__delete_elem",
        "DELETE_ELEM",
    ),
];

/// One map that follows another one.
pub struct Sync<'a> {
    link: OwnedFd,
    cpus: MapHandle,
    handover: MapHandle,
    noted: MapHandle,
    kernel: &'a Kernel,
}

impl<'a> Sync<'a> {
    /// One that was pinned. `None` if it follows nothing any more: it was detached.
    ///
    /// Errors: it is not of these maps.
    pub fn from_link(
        link: OwnedFd,
        old: &Map,
        new: &Map,
        kernel: &'a Kernel,
    ) -> Result<Option<Self>> {
        let info = trace_link_info(link.as_fd())?;
        if info.map_id == 0 {
            return Ok(None);
        }
        ensure!(
            info.map_id == old.id,
            "link {} is not one of {}",
            info.id,
            old.label()
        );
        let maps = maps_of_program(info.prog_id)?;
        ensure!(
            maps.contains(&new.id),
            "link {} does not lead to {}",
            info.id,
            new.label()
        );
        let find = |name: &str| -> Result<MapHandle> {
            for id in maps.iter().filter(|id| **id != new.id) {
                let map = MapHandle::from_map_id(*id)?;
                if map.name() == name {
                    return Ok(map);
                }
            }
            bail!("link {} has no {name}: maptrace has not made it", info.id)
        };
        Ok(Some(Self {
            cpus: find("maptrace_cpus")?,
            handover: find(".data.handover")?,
            noted: find("maptrace_noted")?,
            link,
            kernel,
        }))
    }

    /// It goes on when this process has ended.
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin::pin(self.link.as_fd(), path).with_context(|| format!("pinning {}", path.display()))
    }

    pub fn info(&self) -> Result<TraceLinkInfo> {
        trace_link_info(self.link.as_fd())
    }

    /// Whether all that was there before is told, within `timeout`.
    pub fn wait_replayed(&self, timeout: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.link.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one.
        unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) };
        let replayed = poll.revents & libc::POLLIN != 0;
        // A key was lost, which it says at once from then on.
        if !replayed && poll.revents != 0 {
            thread::sleep(timeout);
        }
        replayed
    }

    /// Has all that was written so far told, in whatever way it was written, and these keys of the
    /// old map, which has them or not.
    pub fn flush(&self, keys: &[Vec<u8>], timeout: Duration) -> Result<Flushed> {
        match self.kernel.flush(self.link.as_fd(), keys, timeout) {
            Ok(0) => Ok(Flushed::Done),
            Ok(left) => Ok(Flushed::Left(left)),
            Err(err) => match err.raw_os_error() {
                Some(libc::ETIME) => Ok(Flushed::Late),
                Some(libc::EINTR) => Ok(Flushed::Interrupted),
                // Somebody holds a lock of the map: that is over the next time.
                Some(libc::EDEADLK | libc::ETIMEDOUT) => Ok(Flushed::Left(1)),
                Some(libc::ENOLINK) => Err(anyhow!("somebody has detached the link")),
                _ => Err(err).context("the flush"),
            },
        }
    }

    pub fn counters(&self) -> Result<Counters> {
        Counters::read(&self.cpus)
    }

    /// The new program writes the new map from now on. What is in the old one is no news any more:
    /// only operations on it are, and where both have written a key, one of them wins. With `None`,
    /// all is as it was before.
    pub fn hand_over(&self, to: Option<Winner>) -> Result<()> {
        let flag = match to {
            None => 0_u32,
            Some(Winner::New) => 1,
            Some(Winner::Old) => 2,
        };
        self.handover
            .update(&0_u32.to_ne_bytes(), &flag.to_ne_bytes(), MapFlags::ANY)?;
        if to.is_none() {
            for key in self.noted.keys() {
                self.noted.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Has the keys noted that anybody else writes in the new map from now on: a link for each
    /// operation, with its name.
    pub fn note_writers(&self, new: &Map) -> Result<Vec<(&'static str, OwnedFd)>> {
        let mut open = object::open(embedded!("writers"))?;
        // `config` of writers.bpf.c
        let config = [u32::try_from(new.key_size)?, u32::from(new.is_trie())];
        let config: Vec<_> = config.into_iter().flat_map(u32::to_ne_bytes).collect();
        object::open_map(&mut open, ".rodata")?.set_initial_value(&config)?;
        object::open_map(&mut open, "maptrace_cpus")?.reuse_fd(self.cpus.as_fd())?;
        object::open_map(&mut open, "maptrace_noted")?.reuse_fd(self.noted.as_fd())?;
        for (_, program, target, _) in WRITERS {
            let mut prog = object::open_program(&mut open, program)?;
            object::make_tracer(&mut prog, self.kernel, target)?;
        }
        let object = open
            .load()
            .map_err(|err| explain_load(&err, self.kernel))
            .with_context(|| format!("who writes {}", new.label()))?;
        let attach = |(name, program, _, operation)| {
            let prog = object::program(&object, program)?;
            let trace_type = self.kernel.trace_type(operation)?;
            let link = self.kernel.attach(prog.as_fd(), new.as_fd(), trace_type);
            Ok((
                name,
                link.map_err(|err| explain_attach(&err, &new.label(), name))?,
            ))
        };
        WRITERS.into_iter().map(attach).collect()
    }

    /// When it returns, the new map does not follow the old one any more.
    pub fn detach(self) -> Result<()> {
        detach(self.link.as_fd())
    }
}

/// When it returns, the tracer of the link does not run any more. It can have been detached before.
pub fn detach(link: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: it takes a descriptor.
    match unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            err if err.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            err => Err(err).context("detaching"),
        },
    }
}

/// The tracer that does the steps of both conversions, and what its template is to be.
fn open_fields(
    old: &Map,
    new: &Map,
    key: &Conversion,
    value: &Conversion,
) -> Result<(OpenObject, Vec<u8>)> {
    let config = config(old, new, key, value)?;
    let room = (config.key_offset + config.new_key_size) as usize;
    let room = room.next_multiple_of(8).max(8);
    let mut open = object::open(embedded!("convert"))?;
    // SAFETY: it is numbers, with no padding between.
    let bytes = unsafe { object::bytes_of(&*config) };
    object::open_map(&mut open, ".rodata")?.set_initial_value(bytes)?;
    object::open_map(&mut open, "template")?.set_value_size(room as u32)?;
    let mut scratch = object::open_map(&mut open, "scratch")?;
    scratch.set_value_size(room as u32)?;
    scratch.set_max_entries((numbered_cpus()? * LEVELS) as u32)?;
    let mut template = value.template.clone();
    template.resize(config.key_offset as usize, 0);
    template.extend(&key.template);
    template.resize(room, 0);
    Ok((open, template))
}

fn config(old: &Map, new: &Map, key: &Conversion, value: &Conversion) -> Result<Box<Config>> {
    let key_offset = value.new_size.next_multiple_of(8);
    let mut config = Box::new(Config {
        old_key_size: key.old_size as u32,
        old_value_size: value.old_size as u32,
        new_key_size: key.new_size as u32,
        new_value_size: value.new_size as u32,
        key_offset: u32::try_from(key_offset).context("a value that is too large")?,
        key_steps: key.steps.len() as u32,
        value_steps: value.steps.len() as u32,
        same_key: u32::from(key.is_identity()),
        same_value: u32::from(value.is_identity()),
        // `enum percpu` of convert.bpf.c
        percpu: match (old.is_percpu(), new.is_percpu()) {
            (_, false) => 0,
            (false, true) => 1,
            (true, true) => 2,
        },
        creates: u32::from(!new.is_array()),
        fills: match old.is_percpu() && value.template.iter().any(|byte| *byte != 0) {
            true => numbered_cpus()? as u32,
            false => 0,
        },
        steps: [[Step::default(); MAX_STEPS]; 2],
    });
    let put = |steps: &mut [Step; MAX_STEPS], conversion: &Conversion| {
        for (to, step) in steps.iter_mut().zip(&conversion.steps) {
            *to = *step;
        }
    };
    let [key_steps, value_steps] = &mut config.steps;
    put(key_steps, key);
    put(value_steps, value);
    Ok(config)
}
