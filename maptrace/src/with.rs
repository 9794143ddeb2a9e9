// SPDX-License-Identifier: GPL-2.0

//! A conversion of the user's own: an object that is linked to a tracer of maptrace.
//!
//! What it makes of an entry is known only by running it. [`DryRun`] does so, with a map of its own in
//! place of the new one.

use crate::{
    conversion::type_name,
    kernel::{explain_load, numbered_cpus, Kernel},
    layout::Layout,
    map::Map,
    migration::{Counters, LEVELS},
    object::{self, embedded, listen},
    output::errno_name,
    plan::Side,
};
use anyhow::{anyhow, bail, ensure, Context, Result};
use btf_rs::{Btf, BtfType, Type};
use libbpf_rs::{
    AsRawLibbpf, Linker, MapCore, MapFlags, MapHandle, Object, OpenObject, ProgramInput,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The most that one old entry may become.
const MAX_ENTRIES: u32 = 256;

/// What the header makes of `MAPTRACE_CONVERT()`: the function, and what calls it.
const FUNCTION: &str = "maptrace_convert";
const CALLER: &str = "maptrace_call";

/// `config` of with.bpf.c
#[derive(Clone, Copy)]
#[repr(C)]
struct Config {
    key_size: u32,
    value_size: u32,
    value_offset: u32,
    is_dry: u32,
}

pub struct With {
    /// As the command line has it.
    pub name: String,
    /// The user's object.
    pub bytes: Vec<u8>,
    /// It, and what maptrace has.
    linked: File,
    btf: Btf,
    key_type: u32,
    value_type: u32,
}

impl With {
    pub fn read(path: &str) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("--with {path}"))?;
        Self::new(path, bytes)
    }

    pub fn new(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::link(name, bytes).with_context(|| format!("--with {name}"))
    }

    fn link(name: &str, bytes: Vec<u8>) -> Result<Self> {
        check_elf(&bytes)?;
        let mut given = memory_file()?;
        given.write_all(&bytes)?;
        let (btf, said) = listen(|| object::btf_of_file(&path_of(&given)));
        let btf = btf.map_err(|err| anyhow!("{err:#}:{said}"))?;
        let btf = btf.context("it has no BTF: compile it with -g")?;
        let (key_type, value_type) = find_types(&btf)?;
        let linked = memory_file()?;
        let (result, said) = listen(|| -> libbpf_rs::Result<()> {
            let mut linker = Linker::new(path_of(&linked))?;
            linker.add_buf(embedded!("with"))?;
            linker.add_buf(&bytes)?;
            linker.link()
        });
        result.map_err(|_| anyhow!("it cannot be linked to the tracer of maptrace:{said}"))?;
        let (open, said) = listen(|| open(&linked));
        open.map_err(|_| anyhow!("libbpf does not open it:{said}"))?;
        Ok(Self {
            name: name.to_owned(),
            bytes,
            linked,
            btf,
            key_type,
            value_type,
        })
    }

    /// Why it cannot convert these, and what is to be known all the same.
    pub fn compare(&self, old: &Side) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        for (what, id, is) in [
            ("keys", self.key_type, &old.key),
            ("values", self.value_type, &old.value),
        ] {
            match Layout::from_btf(&self.btf, id, is.size) {
                Err(err) => problems.push(format!("{}: {what}: {err:#}", self.name)),
                Ok(layout) if layout != *is => notes.push(format!(
                    "{} has the {what} of {} as a {} whose members are not the same: see that they \
                     mean the same",
                    self.name,
                    old.label,
                    type_name(&layout)
                )),
                Ok(_) => {}
            }
        }
        (problems, notes)
    }

    /// The tracer, which is not loaded yet. The new map is still to be put in.
    pub fn open_tracer(&self, old: &Map, new: &Map) -> Result<OpenObject> {
        self.open(old, new, numbered_cpus()? * LEVELS, false)
    }

    /// The maps of the object are there twice, for the tracer and for the comparison. What is pinned
    /// would be one map for both, and could be one that is in use.
    fn check_pins(&self, open: &mut OpenObject) -> Result<()> {
        for map in open.maps_mut() {
            // SAFETY: the map is one of the object.
            let path = unsafe { libbpf_sys::bpf_map__pin_path(map.as_libbpf_object().as_ptr()) };
            ensure!(
                path.is_null(),
                "--with {}: its map {} is to be pinned: a conversion has maps of its own only",
                self.name,
                map.name().to_string_lossy()
            );
        }
        Ok(())
    }

    fn open(&self, old: &Map, new: &Map, slots: usize, is_dry: bool) -> Result<OpenObject> {
        let config = Config {
            key_size: old.key_size as u32,
            value_size: old.value_size as u32,
            value_offset: old.key_size.next_multiple_of(8) as u32,
            is_dry: is_dry.into(),
        };
        let mut open = open(&self.linked)?;
        // SAFETY: it is numbers, with no padding between.
        let bytes = unsafe { object::bytes_of(&config) };
        object::open_map(&mut open, ".rodata.with")?.set_initial_value(bytes)?;
        self.check_pins(&mut open)?;
        let old_size = config.value_offset as usize + old.value_size;
        for (name, size) in [
            ("maptrace_old", old_size),
            ("maptrace_built", new.value_size),
        ] {
            let mut map = object::open_map(&mut open, name)?;
            map.set_value_size(size.next_multiple_of(8).max(8) as u32)?;
            map.set_max_entries(slots as u32)?;
        }
        Ok(open)
    }
}

/// Says why the kernel does not load it, with what the verifier has said last, or else libbpf.
pub fn explain(err: anyhow::Error, said: &str) -> anyhow::Error {
    match last_lines(said) {
        lines if lines.is_empty() => match said.trim_end().lines().last() {
            Some(line) => err.context(line.to_owned()),
            None => err,
        },
        lines => anyhow!("the verifier refuses it:\n{lines}"),
    }
}

/// From the last line of source on, which it was looking at.
fn last_lines(said: &str) -> String {
    const MOST: usize = 30;
    let log: Vec<_> = said
        .lines()
        .skip_while(|line| !line.contains("BEGIN PROG LOAD LOG"))
        .skip(1)
        .take_while(|line| !line.starts_with("processed ") && !line.contains("END PROG LOAD LOG"))
        .collect();
    let source = log.iter().rposition(|line| line.starts_with("; "));
    let from = source.unwrap_or(0).max(log.len().saturating_sub(MOST));
    log[from..].join("\n")
}

/// What is in memory alone, and goes with this process.
fn memory_file() -> Result<File> {
    // SAFETY: the name is a string.
    let fd = unsafe { libc::memfd_create(c"maptrace".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(fd >= 0, "memory: {}", io::Error::last_os_error());
    // SAFETY: nobody else has this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn open(linked: &File) -> Result<OpenObject> {
    Ok(libbpf_rs::ObjectBuilder::default()
        .name("maptrace")?
        .open_file(path_of(linked))?)
}

/// What libbpf would say in a way that helps nobody.
fn check_elf(bytes: &[u8]) -> Result<()> {
    const EM_BPF: u16 = 247;
    let header = bytes.get(..20).filter(|it| it.starts_with(b"\x7fELF"));
    let header = header.context("it is no object file: clang -target bpf -c makes one")?;
    let (order, native) = match header[5] {
        1 => ("little", cfg!(target_endian = "little")),
        2 => ("big", cfg!(target_endian = "big")),
        _ => ("no", false),
    };
    let number = |at: usize| match order {
        "big" => u16::from_be_bytes([header[at], header[at + 1]]),
        _ => u16::from_le_bytes([header[at], header[at + 1]]),
    };
    ensure!(
        header[4] == 2 && number(18) == EM_BPF,
        "it is an object file for another processor: clang -target bpf makes one of BPF"
    );
    ensure!(
        native,
        "it is for {order}-endian machines, and this is none: clang -target bpf takes the right one"
    );
    ensure!(number(16) == 1, "it is linked already, and no object file");
    Ok(())
}

/// The types that the user's function takes.
fn find_types(btf: &Btf) -> Result<(u32, u32)> {
    const ADVICE: &str = "MAPTRACE_CONVERT() of maptrace_convert.h makes it";
    let functions = |name: &str| {
        let found = btf.resolve_types_by_name(name).unwrap_or_default();
        found.into_iter().find_map(|ty| match ty {
            Type::Func(function) if !function.is_extern() => Some(function),
            _ => None,
        })
    };
    let function =
        functions(FUNCTION).with_context(|| format!("it has no {FUNCTION}(): {ADVICE}"))?;
    ensure!(
        functions(CALLER).is_some(),
        "it has no {CALLER}(), which calls {FUNCTION}(): {ADVICE}"
    );
    let Type::FuncProto(prototype) = btf.resolve_chained_type(&function)? else {
        bail!("{FUNCTION}() is no function: {ADVICE}");
    };
    let returns_int = matches!(
        btf.resolve_type_by_id(prototype.return_type_id()),
        Ok(Type::Int(int)) if int.size() == 4
    );
    let pointees: Vec<_> = prototype
        .parameters
        .iter()
        .filter_map(|it| match btf.resolve_chained_type(it) {
            Ok(Type::Ptr(pointer)) => pointer.get_type_id(),
            _ => None,
        })
        .collect();
    match (&*pointees, prototype.parameters.len()) {
        ([key, value], 2) if returns_int => Ok((*key, *value)),
        _ => bail!("{FUNCTION}() does not take a key and a value, and return an int: {ADVICE}"),
    }
}

/// What one entry of the old map becomes.
#[derive(Debug, Default, PartialEq)]
pub struct Becomes {
    /// Keys and values of the new one.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why these are not all of it.
    pub unfit: Option<String>,
}

/// The conversion, for one entry at a time, into a map that is nobody's.
pub struct DryRun {
    object: Object,
    old: MapHandle,
    new: MapHandle,
    cpus: MapHandle,
    value_offset: usize,
}

impl DryRun {
    pub fn load(with: &With, old: &Map, new: &Map, kernel: &Kernel) -> Result<Self> {
        let mut open = with.open(old, new, 1, true)?;
        let mut map = object::open_map(&mut open, "maptrace_new")?;
        map.set_key_size(new.key_size as u32)?;
        map.set_value_size(new.value_size as u32)?;
        map.set_max_entries(MAX_ENTRIES)?;
        // It holds few of them at a time, and values can be large.
        map.set_map_flags(libbpf_sys::BPF_F_NO_PREALLOC)?;
        let mut noted = object::open_map(&mut open, "maptrace_noted")?;
        noted.set_key_size(new.key_size as u32)?;
        object::load_only(&mut open, "maptrace_dry_run");
        let (object, said) = listen(|| open.load());
        let object = object
            .map_err(|err| explain(explain_load(&err, kernel), &said))
            .with_context(|| format!("--with {}", with.name))?;
        let handle =
            |name| -> Result<MapHandle> { Ok(MapHandle::try_from(&object::map(&object, name)?)?) };
        Ok(Self {
            old: handle("maptrace_old")?,
            new: handle("maptrace_new")?,
            cpus: handle("maptrace_cpus")?,
            value_offset: old.key_size.next_multiple_of(8),
            object,
        })
    }

    pub fn run(&self, key: &[u8], value: &[u8]) -> Result<Becomes> {
        let mut slot = vec![0; self.old.value_size() as usize];
        slot[..key.len()].copy_from_slice(key);
        slot[self.value_offset..][..value.len()].copy_from_slice(value);
        self.old
            .update(&0_u32.to_ne_bytes(), &slot, MapFlags::ANY)?;
        let program = object::program(&self.object, "maptrace_dry_run")?;
        let output = program.test_run(ProgramInput::default())?;
        let mut becomes = Becomes::default();
        for key in self.new.keys().collect::<Vec<_>>() {
            if let Some(value) = self.new.lookup(&key, MapFlags::ANY)? {
                becomes.entries.push((key.clone(), value));
            }
            self.new.delete(&key)?;
        }
        becomes.unfit = match output.return_value {
            0 => None,
            1 => Some("the conversion has returned 1".to_owned()),
            _ if becomes.entries.len() >= MAX_ENTRIES as usize => {
                Some(format!("it becomes more than {MAX_ENTRIES} entries"))
            }
            _ => {
                let error = Counters::read(&self.cpus)?.error;
                let name = errno_name(-error as i32);
                Some(format!("what it becomes cannot be written ({name})"))
            }
        };
        Ok(becomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verifier_said_last_is_kept() {
        let said = "libbpf: prog 'x': BPF program load failed: -EACCES\n\
                    libbpf: prog 'x': -- BEGIN PROG LOAD LOG --\n\
                    ; one(); @ a.c:1\n0: (85) call 1\n; return *p; @ a.c:2\n\
                    1: (61) r0 = *(u32 *)(r1 +0)\nR1 invalid mem access 'scalar'\n\
                    processed 2 insns\n-- END PROG LOAD LOG --\nlibbpf: failed\n";
        assert_eq!(
            last_lines(said),
            "; return *p; @ a.c:2\n1: (61) r0 = *(u32 *)(r1 +0)\nR1 invalid mem access 'scalar'"
        );
        assert_eq!(last_lines("libbpf: something else"), "");
    }
}
