// SPDX-License-Identifier: GPL-2.0

//! bpf(2), with nothing between it and who wants to call it wrongly.

use anyhow::{bail, Context, Result};
use btf_rs::{Btf, Type};
use std::{
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

pub const MAP_CREATE: u32 = 0;
pub const MAP_LOOKUP_ELEM: u32 = 1;
pub const MAP_UPDATE_ELEM: u32 = 2;
pub const MAP_DELETE_ELEM: u32 = 3;
pub const PROG_LOAD: u32 = 5;
pub const OBJ_PIN: u32 = 6;
pub const OBJ_GET: u32 = 7;
pub const PROG_TEST_RUN: u32 = 10;
pub const OBJ_GET_INFO_BY_FD: u32 = 15;
pub const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
pub const MAP_LOOKUP_AND_DELETE_BATCH: u32 = 25;
pub const MAP_UPDATE_BATCH: u32 = 26;
pub const MAP_DELETE_BATCH: u32 = 27;
pub const LINK_CREATE: u32 = 28;
pub const LINK_UPDATE: u32 = 29;
pub const LINK_DETACH: u32 = 34;

pub const HASH: u32 = 1;
pub const ARRAY: u32 = 2;
pub const PERCPU_HASH: u32 = 5;
pub const LRU_HASH: u32 = 9;

pub const F_NO_PREALLOC: u32 = 1;
pub const F_REPLACE: u32 = 4;
pub const F_BEFORE: u32 = 8;
pub const F_AFTER: u32 = 16;

pub const PROG_RAW_TRACEPOINT: u32 = 17;
pub const PROG_TRACING: u32 = 26;
pub const PROG_SYSCALL: u32 = 31;
pub const F_SLEEPABLE: u32 = 16;

pub const NOEXIST: u64 = 1;
pub const EXIST: u64 = 2;

/// An error of a system call.
pub type Errno = i32;

/// How many calls there were.
pub static CALLS: AtomicU64 = AtomicU64::new(0);

/// What bpf(2) is given: numbers, and addresses as numbers, which may be wrong.
///
/// # Safety
///
/// All bits of it can be read, and what it says where the kernel writes to is memory of the right
/// size, or none at all.
pub unsafe trait Attr {}

macro_rules! attr {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default)]
        #[repr(C)]
        pub struct $name {
            $(pub $field: $type,)*
        }
        // SAFETY: Plain numbers without holes. The callers see to the addresses.
        unsafe impl Attr for $name {}
    };
}

attr!(MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32
});
attr!(Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64
});
attr!(Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
});
attr!(ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u64; 2],
    ifindex: u32,
    attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    pad: u32,
});
attr!(TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
});
attr!(ObjPin {
    path: u64,
    fd: u32,
    flags: u32
});
attr!(InfoByFd {
    fd: u32,
    len: u32,
    info: u64
});
attr!(LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    pad: u32,
});
attr!(LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32
});
attr!(LinkDetach { link_fd: u32 });
attr!(LinkFlush {
    link_fd: u32,
    flags: u32,
    keys: u64,
    count: u32,
    timeout_ms: u32,
    left: u64,
});
attr!(
    /// `struct bpf_map_trace_link_info`, and some bytes that the kernel does not know.
    TraceInfo {
        map_fd: u32,
        trace_type: u32,
        cookie: u64,
        relative: u32,
        reserved: u32,
        expected_revision: u64,
        tail: u64,
    }
);
attr!(LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    map_id: u32,
    trace_type: u32,
    cookie: u64,
    missed: u64,
    failed: u64,
    replayed: u64,
    pending: u64,
    lost: u64,
});

/// Calls bpf(2).
pub fn bpf<T: Attr>(command: u32, attr: &mut T) -> Result<i32, Errno> {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: By the safety requirements of `Attr`.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_ulong::from(command),
            &raw mut *attr,
            size_of::<T>(),
        )
    };
    if ret < 0 {
        return Err(errno());
    }
    Ok(ret as i32)
}

/// The same, where it returns a file descriptor.
pub fn bpf_fd<T: Attr>(command: u32, attr: &mut T) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, attr)?;
    // SAFETY: It is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The error of the last system call.
pub fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The number that the kernel knows a file by.
pub fn number(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// The address of something, as a number.
pub fn address<T: ?Sized>(of: &T) -> u64 {
    (&raw const *of).cast::<u8>() as u64
}

/// The same, where the kernel writes there.
pub fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    (&raw mut *of).cast::<u8>() as u64
}

/// What can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    Update,
    Delete,
    Sync,
}

pub const ALL_TRACED: [Traced; 3] = [Traced::Update, Traced::Delete, Traced::Sync];

/// The numbers that the running kernel has for what it calls by name.
pub struct Kernel {
    pub attach_type: u32,
    pub flush: u32,
    targets: [u32; 3],
    /// How many values a map has that has one for each CPU.
    pub cpus: usize,
}

impl Kernel {
    pub fn new() -> Result<Self> {
        let btf = Btf::from_file("/sys/kernel/btf/vmlinux").context("the kernel's BTF")?;
        let mut targets = [0; 3];
        let names = ["update_elem", "delete_elem", "sync_elem"];

        for (target, name) in targets.iter_mut().zip(names) {
            *target = function_id(&btf, &format!("bpf_map_trace__{name}"))?;
        }
        Ok(Self {
            attach_type: enum_value(&btf, "bpf_attach_type", "BPF_TRACE_MAP")?,
            flush: enum_value(&btf, "bpf_cmd", "BPF_LINK_FLUSH")?,
            targets,
            cpus: possible_cpus()?,
        })
    }

    /// The function that stands for what is traced.
    pub fn target(&self, traced: Traced) -> u32 {
        self.targets[traced as usize]
    }
}

fn function_id(btf: &Btf, name: &str) -> Result<u32> {
    for id in btf.resolve_ids_by_name(name)? {
        if matches!(btf.resolve_type_by_id(id)?, Type::Func(_)) {
            return Ok(id);
        }
    }
    bail!("this kernel has no function {name}")
}

fn enum_value(btf: &Btf, name: &str, member: &str) -> Result<u32> {
    for found in btf.resolve_types_by_name(name)? {
        let Type::Enum(found) = found else {
            continue;
        };
        for candidate in &found.members {
            if btf.resolve_name(candidate)? == member {
                return Ok(candidate.val());
            }
        }
    }
    bail!("this kernel has no {member}")
}

/// As in /sys/devices/system/cpu/possible, a range from 0.
fn possible_cpus() -> Result<usize> {
    let range = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = range.trim().rsplit('-').next().unwrap_or("0");

    Ok(last.parse::<usize>().context("the possible CPUs")? + 1)
}
