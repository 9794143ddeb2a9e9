// SPDX-License-Identifier: GPL-2.0

//! Maps and links as both modes make them.

use crate::{
    bpf::{
        address, address_mut, bpf, bpf_fd, number, Batch, Elem, Errno, InfoByFd, Kernel,
        LinkCreate, LinkDetach, LinkFlush, LinkInfo, LinkUpdate, MapCreate, ObjPin, TraceInfo,
        Traced, ARRAY, F_AFTER, F_BEFORE, F_NO_PREALLOC, HASH, LINK_CREATE, LINK_DETACH,
        LINK_UPDATE, LRU_HASH, MAP_CREATE, MAP_DELETE_ELEM, MAP_LOOKUP_AND_DELETE_ELEM,
        MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, OBJ_GET, OBJ_GET_INFO_BY_FD, OBJ_PIN, PERCPU_HASH,
    },
    programs,
};
use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, OwnedFd},
};

/// There are so many keys, of 4 bytes. Values have 8.
pub const NR_KEYS: u32 = 64;

/// More values than any map has of a key
pub const MAX_CPUS: usize = 64;

/// The kinds of maps that are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hash,
    HashNoPrealloc,
    Array,
    PercpuHash,
    /// It has room for all keys.
    LruHash,
    /// It has not, and gives up some.
    SmallLruHash,
}

pub const ALL_KINDS: [Kind; 6] = [
    Kind::Hash,
    Kind::HashNoPrealloc,
    Kind::Array,
    Kind::PercpuHash,
    Kind::LruHash,
    Kind::SmallLruHash,
];

impl Kind {
    pub fn create(self) -> Result<OwnedFd, Errno> {
        let (map_type, flags, max_entries) = match self {
            Self::Hash => (HASH, 0, NR_KEYS),
            Self::HashNoPrealloc => (HASH, F_NO_PREALLOC, NR_KEYS),
            Self::Array => (ARRAY, 0, NR_KEYS),
            Self::PercpuHash => (PERCPU_HASH, 0, NR_KEYS),
            // More than what the CPUs take for themselves.
            Self::LruHash => (LRU_HASH, 0, 4096),
            Self::SmallLruHash => (LRU_HASH, 0, NR_KEYS / 4),
        };
        create_map(map_type, flags, max_entries)
    }

    /// Whether it can have delete tracers.
    pub fn deletes(self) -> bool {
        self != Self::Array
    }

    /// Whether a mirror can be compared with it, and not with each of its values.
    pub fn has_one_value(self) -> bool {
        self != Self::PercpuHash
    }

    /// Whether nothing goes that nobody has deleted.
    pub fn keeps_all(self) -> bool {
        self != Self::SmallLruHash
    }
}

pub fn create_map(map_type: u32, flags: u32, max_entries: u32) -> Result<OwnedFd, Errno> {
    let mut attr = MapCreate {
        map_type,
        key_size: 4,
        value_size: 8,
        max_entries,
        flags,
    };
    bpf_fd(MAP_CREATE, &mut attr)
}

/// A mirror, and the program that keeps it.
pub struct Mirror {
    pub map: OwnedFd,
    pub prog: OwnedFd,
}

impl Mirror {
    pub fn new(kernel: &Kernel) -> Result<Self, Errno> {
        // A key that is in no array, too
        let map = create_map(HASH, 0, 2 * NR_KEYS)?;
        let prog = programs::load_tracer(kernel, Traced::Sync, &programs::mirroring(&map))?;

        Ok(Self { map, prog })
    }
}

/// Room for a value of each CPU.
pub type Values = [u64; MAX_CPUS];

fn elem(map: &OwnedFd, key: &u32, value: u64, flags: u64) -> Elem {
    Elem {
        map_fd: number(map),
        pad: 0,
        key: address(key),
        value,
        flags,
    }
}

pub fn update(map: &OwnedFd, key: u32, value: u64, flags: u64) -> Result<(), Errno> {
    let values: Values = [value; MAX_CPUS];

    bpf(
        MAP_UPDATE_ELEM,
        &mut elem(map, &key, address(&values), flags),
    )
    .map(drop)
}

pub fn delete(map: &OwnedFd, key: u32) -> Result<(), Errno> {
    bpf(MAP_DELETE_ELEM, &mut elem(map, &key, 0, 0)).map(drop)
}

pub fn lookup(map: &OwnedFd, key: u32) -> Result<u64, Errno> {
    let mut values: Values = [0; MAX_CPUS];

    bpf(
        MAP_LOOKUP_ELEM,
        &mut elem(map, &key, address_mut(&mut values), 0),
    )?;
    Ok(values[0])
}

pub fn lookup_and_delete(map: &OwnedFd, key: u32) -> Result<u64, Errno> {
    let mut values: Values = [0; MAX_CPUS];
    let mut attr = elem(map, &key, address_mut(&mut values), 0);

    bpf(MAP_LOOKUP_AND_DELETE_ELEM, &mut attr)?;
    Ok(values[0])
}

/// A batch of some keys. Returns how many were done, and with what it has ended.
pub fn batch(
    command: u32,
    map: &OwnedFd,
    keys: &[u32],
    value: u64,
    cpus: usize,
) -> (u32, Option<Errno>) {
    let values = vec![value; keys.len() * cpus];
    let mut attr = Batch {
        keys: address(keys),
        values: address(&values[..]),
        count: keys.len() as u32,
        map_fd: number(map),
        ..Batch::default()
    };
    let err = bpf(command, &mut attr).err();

    (attr.count, err)
}

/// Takes elements out of a map, so many at most. Returns their keys.
pub fn take_batch(map: &OwnedFd, most: u32, cpus: usize) -> (Vec<u32>, Option<Errno>) {
    let mut keys = vec![0u32; most as usize];
    let mut values = vec![0u64; most as usize * cpus];
    let mut position = 0u64;
    let mut attr = Batch {
        out_batch: address_mut(&mut position),
        keys: address_mut(&mut keys[..]),
        values: address_mut(&mut values[..]),
        count: most,
        map_fd: number(map),
        ..Batch::default()
    };
    let err = bpf(crate::bpf::MAP_LOOKUP_AND_DELETE_BATCH, &mut attr).err();
    // What is left in `count` is no number of elements then.
    let done = match err {
        None | Some(libc::ENOENT) => attr.count.min(most),
        Some(_) => 0,
    };

    keys.truncate(done as usize);
    (keys, err)
}

/// What a map has, key by key.
pub fn read(map: &OwnedFd) -> BTreeMap<u32, u64> {
    (0..NR_KEYS)
        .filter_map(|key| lookup(map, key).ok().map(|value| (key, value)))
        .collect()
}

/// The arguments of an attach; `info` outlives them.
pub fn attach_attr(kernel: &Kernel, prog: &OwnedFd, info: &TraceInfo) -> LinkCreate {
    LinkCreate {
        prog_fd: number(prog),
        attach_type: kernel.attach_type,
        info: address(info),
        info_len: 32,
        ..LinkCreate::default()
    }
}

pub fn attach(
    kernel: &Kernel,
    prog: &OwnedFd,
    map: &OwnedFd,
    traced: Traced,
    cookie: u64,
) -> Result<OwnedFd, Errno> {
    let info = TraceInfo {
        map_fd: number(map),
        trace_type: traced as u32,
        cookie,
        ..TraceInfo::default()
    };
    let mut attr = attach_attr(kernel, prog, &info);

    // Before all others, or behind them: none of them runs the less for it.
    attr.flags = [0, F_BEFORE, F_AFTER][(cookie % 3) as usize];
    bpf_fd(LINK_CREATE, &mut attr)
}

pub fn detach(link: &OwnedFd) -> Result<(), Errno> {
    let mut attr = LinkDetach {
        link_fd: number(link),
    };
    bpf(LINK_DETACH, &mut attr).map(drop)
}

pub fn update_prog(
    link: &OwnedFd,
    new: &OwnedFd,
    flags: u32,
    old: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let mut attr = LinkUpdate {
        link_fd: number(link),
        new_prog_fd: number(new),
        flags,
        old_prog_fd: old.map_or(0, number),
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

pub fn flush(kernel: &Kernel, link: &OwnedFd, keys: &[u32], timeout_ms: u32) -> Result<(), Errno> {
    let mut attr = LinkFlush {
        link_fd: number(link),
        keys: if keys.is_empty() { 0 } else { address(keys) },
        count: keys.len() as u32,
        timeout_ms,
        ..LinkFlush::default()
    };
    bpf(kernel.flush, &mut attr).map(drop)
}

pub fn link_info(link: &OwnedFd) -> Result<LinkInfo, Errno> {
    let mut info = LinkInfo::default();
    let mut attr = InfoByFd {
        fd: number(link),
        len: size_of::<LinkInfo>() as u32,
        info: address_mut(&mut info),
    };

    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// What poll(2) says of a link, at once.
pub fn poll(link: &OwnedFd) -> i16 {
    let mut pollfd = libc::pollfd {
        fd: link.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };

    // SAFETY: `pollfd` is one of them.
    unsafe { libc::poll(&mut pollfd, 1, 0) };
    pollfd.revents
}

/// Pins a link, takes it from there under another number, and removes the pin.
pub fn pin_and_get(link: &OwnedFd, name: u32) -> Result<OwnedFd, Errno> {
    let path = format!("/sys/fs/bpf/map_trace_fuzz_{name}\0");
    let mut pin = ObjPin {
        path: address(path.as_bytes()),
        fd: number(link),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut pin)?;

    let mut get = ObjPin {
        path: address(path.as_bytes()),
        ..ObjPin::default()
    };
    let got = bpf_fd(OBJ_GET, &mut get);

    // SAFETY: It ends with a NUL.
    unsafe { libc::unlink(path.as_ptr().cast()) };
    got
}
