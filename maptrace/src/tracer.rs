// SPDX-License-Identifier: GPL-2.0

//! Tracers of maps, and what they report.
//!
//! All that is attached is attached through file descriptors of this process: when that ends,
//! however it ends, nothing is left behind.

use crate::{
    kernel::{explain_attach, explain_load, need_tracing, trace_link_info, Kernel},
    map::Map,
    object::{self, embedded},
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use libbpf_rs::{Link, MapCore, MapFlags, Object, RingBuffer, RingBufferBuilder};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
    rc::Rc,
    time::Duration,
};

/// As `MAX_KEY_FILTER` of tracer.bpf.c
const MAX_KEY_FILTER: usize = 512;

/// The most frames that `bpf_get_stack()` takes
const MAX_STACK_FRAMES: usize = 127;

/// Frames that lead to who made a change
const ORIGIN_FRAMES: usize = 24;

/// Records that are taken out of the ring buffer at once
const RECORDS_AT_ONCE: usize = 4096;

/// The kernel has no larger ring buffers
const MAX_RING: usize = 1 << 30;

/// What was done to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Update,
    Delete,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }

    fn kernel_name(self) -> &'static str {
        match self {
            Operation::Update => "UPDATE_ELEM",
            Operation::Delete => "DELETE_ELEM",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Operation::Update => "watch_update",
            Operation::Delete => "watch_delete",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Operation::Update => "bpf_map_trace__update_elem",
            Operation::Delete => "bpf_map_trace__delete_elem",
        }
    }
}

/// A key, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    pub want: Vec<u8>,
    pub mask: Vec<u8>,
}

/// What is to be reported.
#[derive(Clone, Debug)]
pub struct Options {
    pub operations: Vec<Operation>,
    /// Of this process only.
    pub pid: Option<u32>,
    pub key: Option<KeyFilter>,
    pub stack: Stack,
    /// How much of a value is copied.
    pub value_limit: usize,
    /// Operations that failed, as well.
    pub failed: bool,
    /// Bytes of the ring buffer.
    pub buffer: usize,
}

/// How much of the kernel stack is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    None,
    /// As much as it takes to find out who made the change.
    Origin,
    Whole,
}

impl Stack {
    fn frames(self) -> usize {
        match self {
            Stack::None => 0,
            Stack::Origin => ORIGIN_FRAMES,
            Stack::Whole => MAX_STACK_FRAMES,
        }
    }
}

/// A change, or an operation that failed to be one.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Of the clock of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Which of the maps that are traced.
    pub map: usize,
    pub operation: Operation,
    pub flags: u64,
    pub pid: u32,
    pub tid: u32,
    /// Whose value it is, or where it happened.
    pub cpu: u32,
    pub comm: String,
    /// Why the tracer ran, as [`Kernel::reason_name`] knows it.
    pub reason: u32,
    /// An errno; 0 where it succeeded.
    pub error: i32,
    pub key: Vec<u8>,
    /// Of an update. Less than the map's value where it was cut.
    pub value: Vec<u8>,
    pub stack: Vec<u64>,
}

impl Event {
    /// Whether somebody made it: an eviction is nobody's.
    pub fn has_maker(&self) -> bool {
        self.reason == 0
    }
}

/// `struct event` of tracer.bpf.c
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    time_ns: u64,
    flags: u64,
    map: u32,
    operation: u32,
    pid: u32,
    tid: u32,
    cpu: u32,
    error: i32,
    stack_bytes: i32,
    reason: u32,
    comm: [u8; 16],
}

/// `struct config` of tracer.bpf.c
#[derive(Clone, Copy)]
#[repr(C)]
struct Config {
    map_index: u32,
    map_id: u32,
    key_size: u32,
    value_size: u32,
    stack_size: u32,
    filter_pid: u32,
    filter_bytes: u32,
    has_reason: u32,
    filter_mask: [u8; MAX_KEY_FILTER],
    filter_want: [u8; MAX_KEY_FILTER],
}

/// What a map's records are made of.
#[derive(Clone, Copy, Debug)]
struct Shape {
    key: usize,
    value: usize,
}

fn parse(record: &[u8], shapes: &[Shape]) -> Option<Event> {
    let header = record.get(..size_of::<Header>())?;
    // SAFETY: it is as long as that, and any bytes are a `Header`.
    let header: Header = unsafe { ptr::read_unaligned(header.as_ptr().cast()) };
    let shape = shapes.get(header.map as usize)?;
    let operation = match header.operation {
        0 => Operation::Update,
        1 => Operation::Delete,
        _ => return None,
    };
    let mut at = size_of::<Header>();
    let mut take = |size: usize| {
        let bytes = record.get(at..at + size)?;
        at += size.next_multiple_of(8);
        Some(bytes)
    };
    let key = take(shape.key)?.to_vec();
    let value = match operation {
        Operation::Update => take(shape.value)?.to_vec(),
        Operation::Delete => Vec::new(),
    };
    let stack = take(header.stack_bytes.max(0) as usize)?
        .chunks_exact(8)
        .map(|address| u64::from_ne_bytes(address.try_into().unwrap()))
        .collect();
    let comm: Vec<u8> = header
        .comm
        .into_iter()
        .take_while(|byte| *byte != 0)
        .collect();
    Some(Event {
        time_ns: header.time_ns,
        map: header.map as usize,
        operation,
        flags: header.flags,
        pid: header.pid,
        tid: header.tid,
        cpu: header.cpu,
        comm: String::from_utf8_lossy(&comm).into_owned(),
        reason: header.reason,
        error: -header.error,
        key,
        value,
        stack,
    })
}

/// One map's tracers.
struct Attached {
    // Before what they are links of.
    links: Vec<(Operation, OwnedFd)>,
    failed: Vec<Link>,
    object: Object,
}

/// Tracers of some maps, with one ring buffer, which keeps the order of their changes.
pub struct Tracer {
    ring: RingBuffer<'static>,
    queue: Rc<RefCell<VecDeque<Event>>>,
    maps: Vec<Attached>,
    /// Whether a map is: one of a set that cannot be is left out.
    pub traced: Vec<bool>,
    /// What cannot be reported, for people.
    pub notes: Vec<String>,
}

impl Tracer {
    /// Attaches to `maps`. When it returns, every later change is reported.
    pub fn attach(maps: &[Map], kernel: &Kernel, options: &Options) -> Result<Self> {
        kernel.attach_type()?;
        need_tracing()?;
        let mut notes = Vec::new();
        let mut attached: Vec<Attached> = Vec::new();
        let mut shapes = Vec::new();
        let mut traced = Vec::new();
        let mut problems = Vec::new();
        let largest = maps.iter().map(|map| record_size(map, options)).max();
        let ring_size = ring_size(largest.context("no map")?, options.buffer)?;
        for (index, map) in maps.iter().enumerate() {
            shapes.push(Shape {
                key: map.key_size,
                value: map.value_size.min(options.value_limit),
            });
            let first = attached.first().map(|first| &first.object);
            let result = attach_one(index, map, kernel, options, ring_size, first, &mut notes);
            traced.push(result.is_ok());
            match result {
                Ok(one) => attached.push(one),
                Err(err) if map.is_of_set => problems.push(err),
                Err(err) => return Err(err),
            }
        }
        if attached.is_empty() {
            bail!(problems.swap_remove(0));
        }
        notes.extend(
            problems
                .iter()
                .map(|problem| format!("left out: {problem:#}")),
        );
        let queue = Rc::new(RefCell::new(VecDeque::new()));
        let filled = Rc::clone(&queue);
        let mut builder = RingBufferBuilder::new();
        let events = object::map(&attached[0].object, "events")?;
        builder.add(&events, move |record| {
            if let Some(event) = parse(record, &shapes) {
                filled.borrow_mut().push_back(event);
            }
            0
        })?;
        let ring = builder.build()?;
        Ok(Self {
            ring,
            queue,
            maps: attached,
            traced,
            notes,
        })
    }

    /// Readable when there is something to take.
    pub fn poll_fd(&self) -> i32 {
        self.ring.epoll_fd()
    }

    /// Takes what there is, some of it at least.
    pub fn take(&mut self) -> Result<VecDeque<Event>> {
        let taken = self.ring.consume_raw_n(RECORDS_AT_ONCE);
        ensure!(
            taken >= 0 || taken == -libc::EINTR,
            "the ring buffer: {}",
            io::Error::from_raw_os_error(-taken)
        );
        Ok(self.queue.take())
    }

    /// Changes that the ring buffer had no room for, so far.
    pub fn lost(&self) -> Result<u64> {
        let mut lost = 0;
        for attached in &self.maps {
            let counters = object::map(&attached.object, ".bss")?;
            let value = counters.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
            let value = value.and_then(|value| value.try_into().ok());
            lost += u64::from_ne_bytes(value.context("no counter")?);
        }
        Ok(lost)
    }

    /// Changes after which the kernel has not run a tracer, so far: see `missed` of a link.
    pub fn missed(&self) -> Result<u64> {
        let mut missed = 0;
        for (_, link) in self.maps.iter().flat_map(|map| &map.links) {
            missed += trace_link_info(link.as_fd())?.missed;
        }
        Ok(missed)
    }

    /// The ids of the programs that report.
    pub fn program_ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        for (_, link) in self.maps.iter().flat_map(|map| &map.links) {
            ids.extend(trace_link_info(link.as_fd()).map(|info| info.prog_id));
        }
        for map in &self.maps {
            for link in &map.failed {
                ids.extend(trace_link_info(link.as_fd()).map(|info| info.prog_id));
            }
        }
        ids
    }

    /// Detaches, and waits until nothing more is reported: what is left can be taken.
    pub fn detach(&mut self) -> Result<()> {
        for (_, link) in self.maps.iter().flat_map(|map| &map.links) {
            // SAFETY: it takes a descriptor.
            let err = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
            ensure!(err == 0, "detaching: {}", io::Error::last_os_error());
        }
        for map in &mut self.maps {
            map.failed.clear();
        }
        Ok(())
    }

    /// Whether there is something, within `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.poll_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one.
        unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) > 0 }
    }
}

fn record_size(map: &Map, options: &Options) -> usize {
    size_of::<Header>()
        + map.key_size.next_multiple_of(8)
        + map.value_size.min(options.value_limit).next_multiple_of(8)
        + options.stack.frames() * 8
}

/// Room for some records at least.
fn ring_size(record: usize, wanted: usize) -> Result<usize> {
    let size = wanted.max(record * 16).max(4096).next_power_of_two();
    ensure!(
        size <= MAX_RING,
        "a ring buffer of {size} bytes is more than the kernel has: \
         take a smaller one (--buffer), or less of each value (--max-value)"
    );
    Ok(size)
}

fn attach_one(
    index: usize,
    map: &Map,
    kernel: &Kernel,
    options: &Options,
    ring_size: usize,
    first: Option<&Object>,
    notes: &mut Vec<String>,
) -> Result<Attached> {
    let mut open = object::open(embedded!("tracer"))?;
    let mut events = object::open_map(&mut open, "events")?;
    match first {
        Some(first) => events.reuse_fd(object::map(first, "events")?.as_fd())?,
        None => events.set_max_entries(ring_size as u32)?,
    }
    let config = config(index, map, kernel, options)?;
    // SAFETY: it is numbers, with no padding between.
    let bytes = unsafe { object::bytes_of(&config) };
    object::open_map(&mut open, ".rodata")?.set_initial_value(bytes)?;

    let mut loaded = Vec::new();
    for operation in [Operation::Update, Operation::Delete] {
        let wanted = options.operations.contains(&operation)
            && !(operation == Operation::Delete && map.is_array());
        let mut prog = object::open_program(&mut open, operation.program())?;
        prog.set_autoload(wanted);
        if wanted {
            object::make_tracer(&mut prog, kernel, operation.target())?;
            loaded.push(operation);
        }
    }
    let targets = match options.failed {
        true => failed_targets(map, &options.operations),
        false => [None; 3],
    };
    if options.failed && targets == [None; 3] {
        notes.push(format!(
            "{}: operations that fail are not shown for maps of type {}",
            map.label(),
            map.type_name
        ));
    }
    let mut loaded_failed = Vec::new();
    for (name, target) in FAILED_PROGRAMS.into_iter().zip(targets) {
        let found = target.filter(|target| kernel.has_function(target));
        if let (Some(target), None) = (target, found) {
            notes.push(format!(
                "{}: this kernel has no {target} to attach to: what fails there is not shown",
                map.label()
            ));
        }
        let mut prog = object::open_program(&mut open, name)?;
        prog.set_autoload(found.is_some());
        if let Some(target) = found {
            prog.set_attach_target(0, Some(target.to_owned()))?;
            loaded_failed.push(name);
        }
    }
    if loaded.is_empty() && loaded_failed.is_empty() {
        bail!(
            "{}: its deletes cannot be traced: an array has none",
            describe(map)
        );
    }

    let object = open.load().map_err(|err| explain_load(&err, kernel))?;

    let mut links = Vec::new();
    for operation in loaded {
        let prog = object::program(&object, operation.program())?;
        let trace_type = kernel.trace_type(operation.kernel_name())?;
        let link = kernel
            .attach(prog.as_fd(), map.as_fd(), trace_type)
            .map_err(|err| explain_attach(&err, &describe(map), operation.name()))?;
        links.push((operation, link));
    }
    let mut failed = Vec::new();
    for name in loaded_failed {
        let link = object::program(&object, name)?.attach();
        failed.push(
            link.map_err(|err| anyhow!("{}: what fails cannot be shown here: {err}", map.label()))?,
        );
    }
    Ok(Attached {
        links,
        failed,
        object,
    })
}

fn config(index: usize, map: &Map, kernel: &Kernel, options: &Options) -> Result<Config> {
    let mut config = Config {
        map_index: index as u32,
        map_id: map.id,
        key_size: map.key_size as u32,
        value_size: map.value_size.min(options.value_limit) as u32,
        stack_size: (options.stack.frames() * 8) as u32,
        filter_pid: options.pid.unwrap_or(0),
        filter_bytes: 0,
        has_reason: u32::from(kernel.tells_reasons()),
        filter_mask: [0; MAX_KEY_FILTER],
        filter_want: [0; MAX_KEY_FILTER],
    };
    if let Some(filter) = &options.key {
        let bytes = filter
            .mask
            .iter()
            .rposition(|mask| *mask != 0)
            .map_or(0, |last| last + 1);
        ensure!(
            bytes <= MAX_KEY_FILTER,
            "a filter can look at the first {MAX_KEY_FILTER} bytes of a key, and this is about {bytes}"
        );
        config.filter_bytes = bytes as u32;
        for (i, (want, mask)) in filter.want.iter().zip(&filter.mask).take(bytes).enumerate() {
            config.filter_want[i] = want & mask;
            config.filter_mask[i] = *mask;
        }
    }
    Ok(config)
}

fn describe(map: &Map) -> String {
    format!("{} ({})", map.label(), map.type_name)
}

/// Programs for what fails, one for each function that a map can fail in.
const FAILED_PROGRAMS: [&str; 3] = [
    "watch_failed_update",
    "watch_failed_percpu_update",
    "watch_failed_delete",
];

/// The functions of a type of maps that these attach to: their results tell what failed.
fn failed_targets(map: &Map, operations: &[Operation]) -> [Option<&'static str>; 3] {
    let [update, percpu_update, delete] = match &*map.type_name {
        "hash" => [
            Some("htab_map_update_elem"),
            None,
            Some("htab_map_delete_elem"),
        ],
        "lru_hash" => [
            Some("htab_lru_map_update_elem"),
            None,
            Some("htab_lru_map_delete_elem"),
        ],
        "percpu_hash" => [
            Some("htab_percpu_map_update_elem"),
            Some("bpf_percpu_hash_update"),
            Some("htab_map_delete_elem"),
        ],
        "lru_percpu_hash" => [
            Some("htab_lru_percpu_map_update_elem"),
            Some("bpf_percpu_hash_update"),
            Some("htab_lru_map_delete_elem"),
        ],
        "rhash" => [
            Some("rhtab_map_update_elem"),
            None,
            Some("rhtab_map_delete_elem"),
        ],
        "lpm_trie" => [Some("trie_update_elem"), None, Some("trie_delete_elem")],
        "array" => [
            Some("array_map_update_elem"),
            None,
            Some("array_map_delete_elem"),
        ],
        "percpu_array" => [
            Some("array_map_update_elem"),
            Some("bpf_percpu_array_update"),
            Some("array_map_delete_elem"),
        ],
        _ => [None; 3],
    };
    let when = |operation, target: Option<&'static str>| {
        target.filter(|_| operations.contains(&operation))
    };
    [
        when(Operation::Update, update),
        when(Operation::Update, percpu_update),
        when(Operation::Delete, delete),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(operation: u32, key: &[u8], value: &[u8], stack: &[u64]) -> Vec<u8> {
        let header = Header {
            time_ns: 1,
            flags: 2,
            map: 0,
            operation,
            pid: 3,
            tid: 4,
            cpu: 5,
            error: -7,
            stack_bytes: (stack.len() * 8) as i32,
            reason: 1,
            comm: *b"test\0garbage\0\0\0\0",
        };
        // SAFETY: a `Header` has no padding.
        let mut bytes = unsafe {
            std::slice::from_raw_parts((&raw const header).cast::<u8>(), size_of::<Header>())
        }
        .to_vec();
        for part in [key, value] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes.extend(stack.iter().flat_map(|address| address.to_ne_bytes()));
        bytes
    }

    #[test]
    fn records_are_taken_apart() {
        let shapes = [Shape { key: 3, value: 9 }];
        let bytes = record(0, &[1, 2, 3], &[9; 9], &[0x10, 0x20]);
        let event = parse(&bytes, &shapes).unwrap();
        assert_eq!(event.key, [1, 2, 3]);
        assert_eq!(event.value, [9; 9]);
        assert_eq!(event.stack, [0x10, 0x20]);
        assert_eq!((event.pid, event.tid, event.cpu, event.error), (3, 4, 5, 7));
        assert_eq!((&*event.comm, event.reason), ("test", 1));

        let bytes = record(1, &[1, 2, 3], &[], &[]);
        let event = parse(&bytes, &shapes).unwrap();
        assert_eq!(event.operation, Operation::Delete);
        assert!(event.value.is_empty());
    }

    #[test]
    fn what_is_too_short_is_no_event() {
        let shapes = [Shape { key: 3, value: 9 }];
        let bytes = record(0, &[1, 2, 3], &[9; 9], &[0x10]);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len], &shapes), None, "{len}");
        }
    }

    #[test]
    fn ring_buffers_have_room_for_some_records() {
        assert_eq!(ring_size(100, 1 << 20).unwrap(), 1 << 20);
        assert_eq!(ring_size(1 << 20, 1 << 20).unwrap(), 1 << 24);
        assert!(ring_size(1 << 28, 1 << 20).is_err());
    }
}
