// SPDX-License-Identifier: GPL-2.0

//! A tracer of states that keeps a map what the layout of another one makes of it.
//!
//! It hangs on a file descriptor of this process: when that ends, nothing is left behind.

use crate::{
    conversion::{Conversion, Step, MAX_STEPS},
    kernel::{
        explain_attach, explain_load, need_tracing, possible_cpus, trace_link_info, Kernel,
        TraceLinkInfo,
    },
    map::Map,
    object::{self, embedded},
    plan::Plan,
};
use anyhow::{anyhow, Context, Result};
use libbpf_rs::{MapCore, MapFlags, Object};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr, thread,
    time::Duration,
};

/// As `LEVELS` of convert.bpf.c
const LEVELS: usize = 4;

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
    is_percpu: u32,
    steps: [[Step; MAX_STEPS]; 2],
}

/// `struct cpu_state` of convert.bpf.c
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

/// One map that follows another one.
pub struct Sync<'a> {
    // Before what it is a link of.
    link: OwnedFd,
    object: Object,
    kernel: &'a Kernel,
}

impl<'a> Sync<'a> {
    /// Has `new` follow `old` from now on.
    pub fn attach(old: &Map, new: &Map, plan: &Plan, kernel: &'a Kernel) -> Result<Self> {
        kernel.attach_type()?;
        need_tracing()?;
        let trace_type = kernel.trace_type("SYNC_ELEM").map_err(|_| {
            anyhow!("this kernel has no tracers of states, which a migration takes: its patches of map_trace are older")
        })?;
        let config = config(plan, new)?;
        let room = (config.key_offset + config.new_key_size) as usize;
        let room = room.next_multiple_of(8).max(8);

        let mut open = object::open(embedded!("convert"))?;
        // SAFETY: it is numbers, with no padding between.
        let bytes = unsafe { object::bytes_of(&*config) };
        object::open_map(&mut open, ".rodata")?.set_initial_value(bytes)?;
        object::open_map(&mut open, "new_map")?.reuse_fd(new.as_fd())?;
        object::open_map(&mut open, "template")?.set_value_size(room as u32)?;
        let mut scratch = object::open_map(&mut open, "scratch")?;
        scratch.set_value_size(room as u32)?;
        scratch.set_max_entries((possible_cpus()? * LEVELS) as u32)?;
        let mut prog = object::open_program(&mut open, "convert_state")?;
        object::make_tracer(&mut prog, kernel, "bpf_map_trace__sync_elem")?;
        let object = open.load().map_err(|err| explain_load(&err, kernel))?;

        let mut template = plan.value.template.clone();
        template.resize(config.key_offset as usize, 0);
        template.extend(&plan.key.template);
        template.resize(room, 0);
        object::map(&object, "template")?.update(&0_u32.to_ne_bytes(), &template, MapFlags::ANY)?;

        let prog = object::program(&object, "convert_state")?;
        let link = kernel
            .attach(prog.as_fd(), old.as_fd(), trace_type)
            .map_err(|err| match err.raw_os_error() {
                Some(libc::ELOOP) => anyhow!(
                    "{} leads to {} already: what is written there is written here, too",
                    new.label(),
                    old.label()
                ),
                _ => explain_attach(&err, &old.label(), "state"),
            })?;
        Ok(Self {
            link,
            object,
            kernel,
        })
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

    /// Has all that was written so far told, in whatever way it was written.
    pub fn flush(&self, timeout: Duration) -> Result<Flushed> {
        match self.kernel.flush(self.link.as_fd(), timeout) {
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
        let cpus = object::map(&self.object, "cpus")?;
        let values = cpus.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let mut sum = Counters::default();
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
            if cpu.error != 0 {
                sum.error = cpu.error;
            }
        }
        Ok(sum)
    }

    /// The new program writes the new map from now on. What is in the old one is no news any more:
    /// only operations on it are.
    pub fn hand_over(&self) -> Result<()> {
        let globals = object::map(&self.object, ".bss")?;
        globals.update(&0_u32.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(())
    }

    /// When it returns, the new map does not follow the old one any more.
    pub fn detach(self) -> Result<()> {
        // SAFETY: it takes a descriptor.
        let err = unsafe { libbpf_sys::bpf_link_detach(self.link.as_raw_fd()) };
        match err {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context("detaching"),
        }
    }
}

fn config(plan: &Plan, new: &Map) -> Result<Box<Config>> {
    let key_offset = plan.value.new_size.next_multiple_of(8);
    let mut config = Box::new(Config {
        old_key_size: plan.key.old_size as u32,
        old_value_size: plan.value.old_size as u32,
        new_key_size: plan.key.new_size as u32,
        new_value_size: plan.value.new_size as u32,
        key_offset: u32::try_from(key_offset).context("a value that is too large")?,
        key_steps: plan.key.steps.len() as u32,
        value_steps: plan.value.steps.len() as u32,
        same_key: u32::from(plan.key.is_identity()),
        same_value: u32::from(plan.value.is_identity()),
        is_percpu: u32::from(new.is_percpu()),
        steps: [[Step::default(); MAX_STEPS]; 2],
    });
    let put = |steps: &mut [Step; MAX_STEPS], conversion: &Conversion| {
        for (to, step) in steps.iter_mut().zip(&conversion.steps) {
            *to = *step;
        }
    };
    let [key, value] = &mut config.steps;
    put(key, &plan.key);
    put(value, &plan.value);
    Ok(config)
}
