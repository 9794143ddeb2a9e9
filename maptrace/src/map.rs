// SPDX-License-Identifier: GPL-2.0

//! Maps: which one is meant, what it is, and what is in it.

use crate::{
    kernel::{object_info, possible_cpus, Kernel},
    keys,
    layout::{Decoded, Layout},
    pin,
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use btf_rs::Btf;
use libbpf_rs::libbpf_sys::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS,
    BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH,
    BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH,
};
use std::{
    collections::HashSet,
    ffi::c_void,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr,
    str::FromStr,
};

/// Write the value of one CPU, whose number is in the upper half of the flags.
const BPF_F_CPU: u64 = 8;

/// Newer than the library.
pub const BPF_MAP_TYPE_RHASH: u32 = 35;

/// The kernel's own, which no library knows.
const ENOTSUPP: i32 = 524;

/// How the command line names maps.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    Id(u32),
    Name(String),
    Pinned(PathBuf),
    /// All maps of a program.
    Program(u32),
}

impl FromStr for Selector {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| {
            text.parse()
                .map_err(|_| anyhow!("{text:?} is no id: a number is"))
        };
        match text.split_once(':') {
            Some(("id", id)) => return Ok(Selector::Id(number(id)?)),
            Some(("name", name)) => return Ok(Selector::Name(name.to_owned())),
            Some(("pinned", path)) => return Ok(Selector::Pinned(path.into())),
            Some(("prog", id)) => return Ok(Selector::Program(number(id)?)),
            _ => {}
        }
        ensure!(!text.is_empty(), "an empty name");
        Ok(if text.bytes().all(|byte| byte.is_ascii_digit()) {
            Selector::Id(number(text)?)
        } else if text.contains('/') {
            Selector::Pinned(text.into())
        } else {
            Selector::Name(text.to_owned())
        })
    }
}

impl Selector {
    fn is_set(&self) -> bool {
        match self {
            Selector::Id(_) | Selector::Name(_) => false,
            Selector::Pinned(path) => path.is_dir(),
            Selector::Program(_) => true,
        }
    }
}

/// What the words of a command line mean: `prog ID` is two of them.
pub fn parse_selectors(words: &[String]) -> Result<Vec<Selector>> {
    let mut selectors = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match &**word {
            "prog" => {
                let id = words
                    .next()
                    .context("prog: of which program? an id has to follow")?;
                selectors.push(format!("prog:{id}").parse()?);
            }
            _ => selectors.push(word.parse()?),
        }
    }
    Ok(selectors)
}

/// Whether a map of this type has a value of each key for each CPU.
pub fn has_value_for_each_cpu(map_type: u32) -> bool {
    matches!(
        map_type,
        BPF_MAP_TYPE_PERCPU_HASH | BPF_MAP_TYPE_LRU_PERCPU_HASH | BPF_MAP_TYPE_PERCPU_ARRAY
    )
}

/// What `bpf_map_info` says, and a descriptor.
#[derive(Debug)]
pub struct Map {
    pub fd: OwnedFd,
    pub id: u32,
    pub name: String,
    pub map_type: u32,
    /// As the kernel calls it.
    pub type_name: String,
    pub key_size: usize,
    pub value_size: usize,
    pub max_entries: u32,
    pub flags: u32,
    btf_id: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    /// By how it was found.
    pub pinned: Option<PathBuf>,
    /// Whether a directory or a program was asked for, and it is one of theirs.
    pub is_of_set: bool,
    /// How many values there are of a key.
    pub cpus: usize,
}

impl Map {
    /// The map of a descriptor.
    pub fn from_fd(fd: OwnedFd, kernel: &Kernel) -> Result<Self> {
        let info: libbpf_sys::bpf_map_info =
            object_info(fd.as_fd()).context("asking a map about itself")?;
        let name: Vec<u8> = info
            .name
            .iter()
            .map(|c| *c as u8)
            .take_while(|c| *c != 0)
            .collect();
        Ok(Self {
            fd,
            id: info.id,
            name: String::from_utf8_lossy(&name).into_owned(),
            map_type: info.type_,
            type_name: kernel.map_type_name(info.type_),
            key_size: info.key_size as usize,
            value_size: info.value_size as usize,
            max_entries: info.max_entries,
            flags: info.map_flags,
            btf_id: info.btf_id,
            btf_key_type_id: info.btf_key_type_id,
            btf_value_type_id: info.btf_value_type_id,
            pinned: None,
            is_of_set: false,
            cpus: match has_value_for_each_cpu(info.type_) {
                true => possible_cpus()?,
                false => 1,
            },
        })
    }

    /// The map of an id; `None` if there is none, or none any more.
    pub fn from_id(id: u32, kernel: &Kernel) -> Result<Option<Self>> {
        // SAFETY: it takes a number.
        let fd = unsafe { libbpf_sys::bpf_map_get_fd_by_id(id) };
        if fd < 0 {
            let err = io::Error::last_os_error();
            return match err.raw_os_error() {
                Some(libc::ENOENT) => Ok(None),
                Some(libc::EPERM) => {
                    bail!("maps are opened by their id with CAP_SYS_ADMIN: run it as root")
                }
                _ => Err(err).with_context(|| format!("opening map {id}")),
            };
        }
        // SAFETY: nobody else has this descriptor.
        Self::from_fd(unsafe { OwnedFd::from_raw_fd(fd) }, kernel).map(Some)
    }

    fn from_path(path: &Path, kernel: &Kernel) -> Result<Self> {
        // Programs and links are pinned, too.
        let fd = pin::open(path, pin::Kind::Map)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let mut map = Self::from_fd(fd, kernel)?;
        map.pinned = Some(path.to_owned());
        Ok(map)
    }

    /// `ID NAME`, for messages.
    pub fn label(&self) -> String {
        match &*self.name {
            "" => format!("map {}", self.id),
            name => format!("map {} {name}", self.id),
        }
    }

    pub fn is_percpu(&self) -> bool {
        has_value_for_each_cpu(self.map_type)
    }

    /// Whether its keys are prefixes.
    pub fn is_trie(&self) -> bool {
        self.map_type == BPF_MAP_TYPE_LPM_TRIE
    }

    pub fn is_lru(&self) -> bool {
        matches!(
            self.map_type,
            BPF_MAP_TYPE_LRU_HASH | BPF_MAP_TYPE_LRU_PERCPU_HASH
        )
    }

    pub fn is_array(&self) -> bool {
        matches!(
            self.map_type,
            BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_PERCPU_ARRAY
        )
    }

    pub fn holds_maps(&self) -> bool {
        matches!(
            self.map_type,
            BPF_MAP_TYPE_ARRAY_OF_MAPS | BPF_MAP_TYPE_HASH_OF_MAPS
        )
    }

    /// Whether it could have this key, as it would be read.
    pub fn can_have(&self, key: &[u8]) -> bool {
        if self.is_trie() {
            return keys::is_prefix(key);
        }
        let index = <[u8; 4]>::try_from(key).map(u32::from_ne_bytes);
        !self.is_array() || index.is_ok_and(|index| index < self.max_entries)
    }

    /// Bytes that the kernel reads and writes for a value.
    fn buffer_size(&self) -> usize {
        match self.is_percpu() {
            true => self.value_size.next_multiple_of(8) * self.cpus,
            false => self.value_size,
        }
    }

    /// A value of each CPU, from what the kernel has written.
    fn split(&self, buffer: &[u8]) -> Vec<Vec<u8>> {
        match self.is_percpu() {
            true => buffer
                .chunks_exact(self.value_size.next_multiple_of(8).max(1))
                .map(|value| value[..self.value_size].to_vec())
                .collect(),
            false => vec![buffer.to_vec()],
        }
    }

    /// The values of a key: one, or one for each CPU. `None` if it is not there.
    ///
    /// A trie is asked for this prefix, and not for the longest one that matches.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        if !self.is_trie() {
            return self.lookup_match(key);
        }
        loop {
            let first = self.ask_next_key(None)?;
            let next = self.ask_next_key(Some(key))?;
            let values = self.lookup_match(key)?;
            // While it is deleted, or put there, what matches can be a shorter one.
            if self.ask_next_key(Some(key))? == next && self.ask_next_key(None)? == first {
                // What comes after a prefix that is not there is the first one.
                return Ok(values.filter(|_| next != first));
            }
        }
    }

    fn lookup_match(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        let mut buffer = vec![0; self.buffer_size()];
        // SAFETY: both are as long as the map's key and value.
        let err = unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                buffer.as_mut_ptr().cast(),
            )
        };
        if err != 0 {
            let err = io::Error::last_os_error();
            return match err.raw_os_error() {
                Some(libc::ENOENT) => Ok(None),
                _ => Err(err).with_context(|| format!("{}: reading a value", self.label())),
            };
        }
        Ok(Some(self.split(&buffer)))
    }

    /// Writes the values of a key.
    pub fn update(&self, key: &[u8], values: &[Vec<u8>]) -> io::Result<()> {
        let mut buffer = vec![0; self.buffer_size()];
        let stride = match self.is_percpu() {
            true => self.value_size.next_multiple_of(8).max(1),
            false => self.value_size.max(1),
        };
        for (to, value) in buffer.chunks_mut(stride).zip(values) {
            to[..value.len()].copy_from_slice(value);
        }
        self.update_raw(key, &buffer, 0)
    }

    /// Writes the value of one CPU.
    pub fn update_cpu(&self, key: &[u8], value: &[u8], cpu: u32) -> io::Result<()> {
        self.update_raw(key, value, BPF_F_CPU | (u64::from(cpu) << 32))
    }

    fn update_raw(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        // SAFETY: the key is the map's, and the value as long as these flags have it.
        let err = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_ptr().cast(),
                flags,
            )
        };
        if err != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// False if it was not there.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        // SAFETY: the key is the map's.
        let err =
            unsafe { libbpf_sys::bpf_map_delete_elem(self.fd.as_raw_fd(), key.as_ptr().cast()) };
        if err != 0 {
            let err = io::Error::last_os_error();
            return match err.raw_os_error() {
                Some(libc::ENOENT) => Ok(false),
                _ => Err(err),
            };
        }
        Ok(true)
    }

    /// The key after `key`, and after none the first one. The kernel says the first one as well if it
    /// does not have `key`.
    ///
    /// In a trie it can skip keys if `key` is updated meanwhile: it has to say the same twice.
    fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut next = self.ask_next_key(key)?;
        while self.is_trie() && key.is_some() {
            let again = self.ask_next_key(key)?;
            if again == next {
                break;
            }
            next = again;
        }
        Ok(next)
    }

    fn ask_next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_size];
        // SAFETY: both are as long as the map's key.
        let err = unsafe {
            libbpf_sys::bpf_map_get_next_key(
                self.fd.as_raw_fd(),
                key.map_or(ptr::null(), |key| key.as_ptr().cast()),
                next.as_mut_ptr().cast(),
            )
        };
        if err != 0 {
            let err = io::Error::last_os_error();
            return match err.raw_os_error() {
                Some(libc::ENOENT) => Ok(None),
                _ => Err(err).with_context(|| format!("{}: reading its keys", self.label())),
            };
        }
        if self.is_trie() {
            keys::clear_behind_prefix(&mut next);
        }
        Ok(Some(next))
    }

    /// The keys of all elements, as [`Map::for_each`] finds them.
    pub fn keys(&self, mut check: impl FnMut() -> Result<()>) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.for_each(|key, _| {
            keys.push(key.to_vec());
            check()
        })?;
        Ok(keys)
    }

    /// Calls `found` for each element. What is there all the while is found, once; what comes or
    /// goes meanwhile may be found or not.
    pub fn for_each(&self, mut found: impl FnMut(&[u8], Vec<Vec<u8>>) -> Result<()>) -> Result<()> {
        match self.map_type {
            // A batch, or a walk from key to key, misses what is moved to another table meanwhile.
            BPF_MAP_TYPE_RHASH => {
                let mut seen = HashSet::new();
                let mut left = self.most_steps();
                keys::walk(self, |key| {
                    left = self.step(left)?;
                    // What is moved can be found twice.
                    if seen.insert(key.to_vec()) {
                        if let Some(values) = self.lookup(key)? {
                            found(key, values)?;
                        }
                    }
                    Ok(())
                })
            }
            // A batch can have the value of a shorter prefix.
            BPF_MAP_TYPE_LPM_TRIE => self.for_each_key(&mut found),
            _ => match self.for_each_batch(&mut found)? {
                true => Ok(()),
                false => self.for_each_key(&mut found),
            },
        }
    }

    /// By batches, which take a hash map's buckets as a whole. False where it has none.
    fn for_each_batch(
        &self,
        found: &mut impl FnMut(&[u8], Vec<Vec<u8>>) -> Result<()>,
    ) -> Result<bool> {
        let value_size = self.buffer_size();
        let mut room =
            (self.max_entries as usize).min((1 << 20) / (self.key_size + value_size).max(1));
        room = room.clamp(1, 4096);
        // A position is a key, or the number of a bucket.
        let mut position: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0; self.key_size.max(8)];
            let mut keys = vec![0; room * self.key_size];
            let mut values = vec![0; room * value_size];
            let mut count = room as u32;
            // SAFETY: the buffers have room for `count` keys and values, and for a position.
            let err = unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.fd.as_raw_fd(),
                    position
                        .as_mut()
                        .map_or(ptr::null_mut(), |at| at.as_mut_ptr().cast()),
                    next.as_mut_ptr().cast::<c_void>(),
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    &mut count,
                    ptr::null(),
                )
            };
            let errno = match err {
                0 => 0,
                _ => io::Error::last_os_error()
                    .raw_os_error()
                    .unwrap_or_default(),
            };
            match errno {
                0 | libc::ENOENT => {}
                // A bucket that is larger than the buffer.
                libc::ENOSPC if room < self.max_entries as usize => {
                    room = (room * 2).min(self.max_entries as usize);
                    continue;
                }
                libc::EINTR | libc::EAGAIN => continue,
                libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP if position.is_none() => {
                    return Ok(false)
                }
                _ => {
                    return Err(io::Error::from_raw_os_error(errno))
                        .with_context(|| format!("{}: reading its elements", self.label()))
                }
            }
            for i in 0..(count as usize).min(room) {
                let value = &values[i * value_size..(i + 1) * value_size];
                found(
                    &keys[i * self.key_size..(i + 1) * self.key_size],
                    self.split(value),
                )?;
            }
            if errno == libc::ENOENT {
                return Ok(true);
            }
            position = Some(next);
        }
    }

    /// Key by key. Where one that was read goes away, the kernel begins again: what was found
    /// before is left out.
    fn for_each_key(
        &self,
        found: &mut impl FnMut(&[u8], Vec<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        let mut seen = HashSet::new();
        let mut left = self.most_steps();
        let mut key = self.next_key(None)?;
        while let Some(this) = key {
            let next = self.next_key(Some(&this))?;
            if seen.insert(this.clone()) {
                if let Some(values) = self.lookup(&this)? {
                    found(&this, values)?;
                }
            }
            left = self.step(left)?;
            key = next;
        }
        Ok(())
    }

    /// How many keys a walk may meet, which can begin again for as long as others delete.
    fn most_steps(&self) -> u64 {
        64 * (u64::from(self.max_entries) + 64)
    }

    fn step(&self, left: u64) -> Result<u64> {
        let left = left - 1;
        ensure!(
            left > 0,
            "{}: its keys change too quickly to be read",
            self.label()
        );
        Ok(left)
    }

    /// How keys and values are to be read, and why not by their types where that is so.
    pub fn layouts(&self) -> (Layout, Layout, Option<String>) {
        let mut problem = None;
        let mut note = |what: &str, err: anyhow::Error| {
            problem.get_or_insert(format!("{}: {what} in hex: {err:#}", self.label()));
        };
        let btf = match self.btf_id {
            0 => None,
            id => load_btf(id)
                .map_err(|err| note("keys and values", err))
                .ok(),
        };
        let mut layout = |what: &str, id: u32, size: usize| {
            let layout = match (&btf, id) {
                (Some(btf), 1..) => Layout::from_btf(btf, id, size),
                _ => return None,
            };
            layout.map_err(|err| note(what, err)).ok()
        };
        let key = layout("keys", self.btf_key_type_id, self.key_size);
        let value = layout("values", self.btf_value_type_id, self.value_size);
        let is_array = self.is_array() || self.map_type == BPF_MAP_TYPE_ARRAY_OF_MAPS;
        let key = key.unwrap_or_else(|| match is_array && self.key_size == 4 {
            true => Layout::u32(),
            false => Layout::bytes(self.key_size),
        });
        (
            key,
            value.unwrap_or_else(|| Layout::bytes(self.value_size)),
            problem,
        )
    }

    /// The ids of the maps that are in a map of maps.
    pub fn inner_ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        // The keys of an array of maps that hold nothing are passed over.
        let mut key = self.next_key(None).ok().flatten();
        while let Some(this) = key {
            if let Ok(Some(values)) = self.lookup(&this) {
                if let Ok(id) = <[u8; 4]>::try_from(&*values[0]) {
                    ids.push(u32::from_ne_bytes(id));
                }
            }
            key = self.next_key(Some(&this)).ok().flatten();
        }
        ids
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The BTF that maps and programs refer to by `id`.
fn load_btf(id: u32) -> Result<Btf> {
    // SAFETY: it takes a number.
    let fd = unsafe { libbpf_sys::bpf_btf_get_fd_by_id(id) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("opening its BTF");
    }
    // SAFETY: nobody else has this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = object_info::<libbpf_sys::bpf_btf_info>(fd.as_fd())?.btf_size;
    let mut bytes = vec![0_u8; size as usize];
    let mut info = libbpf_sys::bpf_btf_info {
        btf: bytes.as_mut_ptr() as u64,
        btf_size: size,
        ..Default::default()
    };
    let mut len = size_of::<libbpf_sys::bpf_btf_info>() as u32;
    // SAFETY: `info` is as long as `len` says, and `bytes` as it says itself.
    let err = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            (&raw mut info).cast::<c_void>(),
            &mut len,
        )
    };
    ensure!(err == 0, "reading its BTF: {}", io::Error::last_os_error());
    Ok(Btf::from_bytes(&bytes)?)
}

/// All maps that this process can see.
pub fn all(kernel: &Kernel) -> Result<Vec<Map>> {
    crate::kernel::need_admin()?;
    let mut maps = Vec::new();
    let mut id = 0;
    // SAFETY: `id` is valid for the call.
    while unsafe { libbpf_sys::bpf_map_get_next_id(id, &mut id) } == 0 {
        maps.extend(Map::from_id(id, kernel)?);
    }
    Ok(maps)
}

/// The ids of the maps that a program uses.
pub fn maps_of_program(id: u32) -> Result<Vec<u32>> {
    let program = crate::origin::program_maps()?
        .into_iter()
        .find(|(prog, _)| *prog == id);
    Ok(program
        .with_context(|| format!("there is no program {id}"))?
        .1)
}

/// The maps that `selectors` mean, each once.
pub fn select(selectors: &[Selector], kernel: &Kernel) -> Result<Vec<Map>> {
    let mut maps: Vec<Map> = Vec::new();
    for selector in selectors {
        for mut map in select_one(selector, kernel)? {
            map.is_of_set = selector.is_set();
            if !maps.iter().any(|other| other.id == map.id) {
                maps.push(map);
            }
        }
    }
    Ok(maps)
}

/// The map that `selector` means, which has to be one.
pub fn select_single(selector: &Selector, kernel: &Kernel) -> Result<Map> {
    let mut maps = select_one(selector, kernel)?;
    ensure!(
        maps.len() == 1,
        "{selector}: this is about one map, and these are {}: {}",
        maps.len(),
        maps.iter().map(Map::label).collect::<Vec<_>>().join(", ")
    );
    Ok(maps.remove(0))
}

fn select_one(selector: &Selector, kernel: &Kernel) -> Result<Vec<Map>> {
    match selector {
        Selector::Id(id) => {
            let map = Map::from_id(*id, kernel)?;
            Ok(vec![map.with_context(|| format!("there is no map {id}"))?])
        }
        Selector::Name(name) => {
            let mut maps = all(kernel)?;
            // The kernel keeps 15 characters.
            let kept = name.get(..15).unwrap_or(name);
            maps.retain(|map| map.name == *name || map.name == kept);
            ensure!(!maps.is_empty(), "there is no map {name:?}");
            ensure!(
                maps.len() == 1,
                "there is more than one map {name:?}, say which by its id: {}",
                maps.iter()
                    .map(|map| map.id.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            Ok(maps)
        }
        Selector::Pinned(path) if path.is_dir() => {
            let mut paths: Vec<_> = fs::read_dir(path)
                .with_context(|| path.display().to_string())?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.is_file())
                .collect();
            paths.sort();
            let maps: Vec<_> = paths
                .iter()
                .filter_map(|path| Map::from_path(path, kernel).ok())
                .collect();
            ensure!(
                !maps.is_empty(),
                "{}: no maps are pinned here",
                path.display()
            );
            Ok(maps)
        }
        Selector::Pinned(path) => {
            let map = Map::from_path(path, kernel).with_context(|| path.display().to_string())?;
            Ok(vec![map])
        }
        Selector::Program(id) => {
            let mut maps = Vec::new();
            for id in maps_of_program(*id)? {
                maps.extend(Map::from_id(id, kernel)?);
            }
            ensure!(!maps.is_empty(), "program {id} has no maps");
            Ok(maps)
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Selector::Id(id) => write!(f, "{id}"),
            Selector::Name(name) => f.write_str(name),
            Selector::Pinned(path) => write!(f, "{}", path.display()),
            Selector::Program(id) => write!(f, "prog {id}"),
        }
    }
}

/// The values of a key, as they are shown: one, or an array of one for each CPU.
pub fn decode_values(layout: &Layout, values: &[Vec<u8>], percpu: bool) -> Decoded {
    match percpu {
        true => Decoded::Array(values.iter().map(|value| layout.decode(value)).collect()),
        false => layout.decode(&values[0]),
    }
}
