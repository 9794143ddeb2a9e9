// SPDX-License-Identifier: GPL-2.0

//! What it takes to move the elements of one map to another one, and what stands against it.

use crate::{
    conversion::{type_name, Conversion, Fate, Part, Row, Wishes},
    kernel::possible_cpus,
    layout::{Kind, Layout},
    map::{has_value_for_each_cpu, Map, BPF_MAP_TYPE_RHASH},
    object,
    with::With,
};
use anyhow::{bail, ensure, Context, Result};
use libbpf_rs::{
    libbpf_sys::{
        self, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH,
        BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH,
    },
    AsRawLibbpf,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    fs,
    os::fd::AsRawFd,
    path::Path,
    rc::Rc,
};

/// `struct htab_elem` and `struct bucket` of the kernel
const HASH_ELEMENT: u64 = 48;
const HASH_BUCKET: u64 = 16;

/// `struct lpm_trie_node`, of which there can be another one for each entry, to lead to it
const TRIE_NODE: u64 = 24;

/// What can be moved, and can be the new one.
const MOVED: [(u32, &str); 8] = [
    (BPF_MAP_TYPE_HASH, "hash"),
    (BPF_MAP_TYPE_LRU_HASH, "lru_hash"),
    (BPF_MAP_TYPE_PERCPU_HASH, "percpu_hash"),
    (BPF_MAP_TYPE_LRU_PERCPU_HASH, "lru_percpu_hash"),
    (BPF_MAP_TYPE_RHASH, "rhash"),
    (BPF_MAP_TYPE_LPM_TRIE, "lpm_trie"),
    (BPF_MAP_TYPE_ARRAY, "array"),
    (BPF_MAP_TYPE_PERCPU_ARRAY, "percpu_array"),
];

/// What has to be known of a map, whether it exists or is to be made of an object.
#[derive(Debug)]
pub struct Side {
    pub label: String,
    pub map_type: u32,
    pub type_name: String,
    pub key: Layout,
    pub value: Layout,
    pub max_entries: u32,
    pub flags: u32,
    pub frozen: bool,
    /// What the kernel says that it takes now; 0 where it does not exist.
    memory: u64,
    /// Why its types are not known.
    pub problem: Option<String>,
}

impl Side {
    /// A map that exists.
    pub fn of_map(map: &Map) -> Self {
        let (key, value, problem) = map.layouts();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd.as_raw_fd()));
        let info = info.unwrap_or_default();
        let field = |name: &str| -> u64 {
            info.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .strip_prefix(':')?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0)
        };
        Self {
            label: map.label(),
            map_type: map.map_type,
            type_name: map.type_name.clone(),
            key,
            value,
            max_entries: map.max_entries,
            flags: map.flags,
            frozen: field("frozen") != 0,
            memory: field("memlock"),
            problem,
        }
    }

    /// `FILE:MAP`, a map of an object that is not loaded. `None` if there is no such file.
    pub fn of_object(text: &str) -> Result<Option<Self>> {
        let Some((path, name)) = text.rsplit_once(':') else {
            return Ok(None);
        };
        if !Path::new(path).is_file() {
            return Ok(None);
        }
        let bytes = fs::read(path).with_context(|| path.to_owned())?;
        let open = object::open(&bytes).with_context(|| path.to_owned())?;
        let c_name = CString::new(name)?;
        let object = open.as_libbpf_object().as_ptr();
        // SAFETY: the object is open until the end of this function, and so are its maps and its
        // BTF; names are strings.
        unsafe {
            let map = libbpf_sys::bpf_object__find_map_by_name(object, c_name.as_ptr());
            ensure!(!map.is_null(), "{path}: there is no map {name:?} in it");
            let map_type = libbpf_sys::bpf_map__type(map);
            let type_name = libbpf_sys::libbpf_bpf_map_type_str(map_type);
            let btf = object::btf(&open).with_context(|| path.to_owned())?;
            let mut problem = None;
            let mut layout = |what: &str, id: u32, size: u32| match (&btf, id) {
                (Some(btf), 1..) => {
                    let layout = Layout::from_btf(btf, id, size as usize);
                    layout.unwrap_or_else(|err| {
                        problem.get_or_insert(format!("{text}: the type of its {what}: {err:#}"));
                        Layout::bytes(size as usize)
                    })
                }
                _ => Layout::bytes(size as usize),
            };
            let key = layout(
                "keys",
                libbpf_sys::bpf_map__btf_key_type_id(map),
                libbpf_sys::bpf_map__key_size(map),
            );
            let value = layout(
                "values",
                libbpf_sys::bpf_map__btf_value_type_id(map),
                libbpf_sys::bpf_map__value_size(map),
            );
            Ok(Some(Self {
                label: text.to_owned(),
                map_type,
                type_name: match type_name.is_null() {
                    true => format!("type {map_type}"),
                    false => CStr::from_ptr(type_name).to_string_lossy().into_owned(),
                },
                key,
                value,
                max_entries: libbpf_sys::bpf_map__max_entries(map),
                flags: libbpf_sys::bpf_map__map_flags(map),
                frozen: false,
                memory: 0,
                problem,
            }))
        }
    }

    fn is_array(&self) -> bool {
        matches!(
            self.map_type,
            BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_PERCPU_ARRAY
        )
    }

    fn is_percpu(&self) -> bool {
        has_value_for_each_cpu(self.map_type)
    }

    /// Why both programs cannot write a new map at once.
    pub fn not_in_use(&self) -> Option<String> {
        (self.is_percpu() && !self.is_array()).then(|| {
            format!(
                "{}: the value of another CPU could be written to a key that the new program has \
                 deleted: use --stop",
                self.label
            )
        })
    }

    /// How many values there are of a key: as many as this machine has CPUs.
    pub fn values_of_a_key(&self) -> usize {
        match self.is_percpu() {
            true => possible_cpus().unwrap_or(1),
            false => 1,
        }
    }

    fn is_trie(&self) -> bool {
        self.map_type == BPF_MAP_TYPE_LPM_TRIE
    }

    /// About what it takes when it is full.
    pub fn memory_when_full(&self) -> u64 {
        let entries = u64::from(self.max_entries);
        let values = self.values_of_a_key() as u64;
        let value = (self.value.size as u64).next_multiple_of(8) * values;
        if self.is_array() {
            return self.memory.max(entries * value);
        }
        let key = (self.key.size as u64).next_multiple_of(8);
        if self.is_trie() {
            return self.memory.max(entries * 2 * (TRIE_NODE + key + value));
        }
        let element = HASH_ELEMENT + key + value;
        let full = entries * element + entries.next_power_of_two() * HASH_BUCKET;
        match self.flags & BPF_F_NO_PREALLOC {
            // It has all of it already.
            0 => self.memory.max(full),
            _ => full,
        }
    }
}

/// What makes an element of the new map of one of the old map.
pub enum How {
    /// Fields go where their names are.
    Fields { key: Conversion, value: Conversion },
    /// The user's own conversion, and what it says of keys and of values.
    With(Rc<With>, [Row; 2]),
}

/// How the elements of one map become those of another one.
pub struct Plan {
    pub how: How,
    /// What is to be said of each wish if nothing has come of it, and whether something has.
    wishes: Vec<(String, bool)>,
    /// Why it cannot be done: each a line.
    pub problems: Vec<String>,
    /// What is to be known all the same.
    pub notes: Vec<String>,
}

/// What wishes are wrong though no pair of maps is by itself.
pub fn wrong_wishes(plans: &[&Plan], wishes: &Wishes, names: &[String]) -> Vec<String> {
    let mut useful = BTreeMap::new();
    let said = plans.iter().flat_map(|plan| &plan.wishes);
    for (what, is_useful) in said {
        *useful.entry(what).or_insert(false) |= is_useful;
    }
    let mut wrong: Vec<_> = useful
        .into_iter()
        .filter(|(_, is_useful)| !is_useful)
        .map(|(what, _)| what.clone())
        .collect();
    let unknown: BTreeSet<_> = wishes
        .maps()
        .filter(|map| !names.iter().any(|name| name == map))
        .collect();
    wrong.extend(
        unknown
            .iter()
            .map(|map| format!("{map}: no old map is called so")),
    );
    wrong
}

impl Plan {
    pub fn new(old: &Side, new: &Side, wishes: &Wishes, with: Option<&Rc<With>>) -> Self {
        let key = Conversion::new(Part::Key, &old.key, &new.key, wishes);
        let value = Conversion::new(Part::Value, &old.value, &new.value, wishes);
        let said = key.wishes.iter().chain(&value.wishes);
        let mut problems = map_problems(old, new);
        if old.is_trie() && new.is_trie() && !key.is_identity() {
            problems.push(format!(
                "{}: its keys are not laid out as those of {}: a prefix would mean other bits",
                new.label, old.label
            ));
        }
        let mut notes: Vec<_> = [old, new]
            .into_iter()
            .filter_map(|side| side.problem.clone())
            .collect();
        let (how, wishes) = match with {
            None => {
                problems.extend(key.refusals());
                problems.extend(value.refusals());
                let wishes = said.cloned().collect();
                (How::Fields { key, value }, wishes)
            }
            Some(with) => {
                problems.extend(with_problems(old, new));
                let (wrong, more) = with.compare(old);
                problems.extend(wrong);
                notes.extend(more);
                // It asks nobody what becomes of a field.
                let wishes = said.map(|(what, _)| (what.clone(), false)).collect();
                (
                    How::With(Rc::clone(with), with_rows(old, new, with)),
                    wishes,
                )
            }
        };
        Self {
            how,
            wishes,
            problems,
            notes,
        }
        .with_notes(old, new)
    }

    /// The way back, from `new` to `old`, which this is the way from.
    ///
    /// Errors: it cannot be derived, and why.
    pub fn back(&self, old: &Side, new: &Side) -> Result<Self> {
        let how = match &self.how {
            How::Fields { key, value } => How::Fields {
                key: key.inverse()?,
                value: value.inverse()?,
            },
            How::With(with, _) => bail!(
                "the way back of {} is not known: it takes a migration of its own, --with another \
                 conversion",
                with.name
            ),
        };
        let plan = Self {
            how,
            wishes: Vec::new(),
            problems: map_problems(new, old),
            notes: Vec::new(),
        }
        .with_notes(new, old);
        ensure!(plan.problems.is_empty(), "{}", plan.problems.join("; "));
        Ok(plan)
    }

    fn with_notes(self, old: &Side, new: &Side) -> Self {
        let mut notes = self.notes;
        if new.max_entries < old.max_entries {
            notes.push(format!(
                "{} has room for {} entries, {} for {}: what does not fit is not migrated",
                old.label, old.max_entries, new.label, new.max_entries
            ));
        }
        if matches!(
            new.map_type,
            BPF_MAP_TYPE_LRU_HASH | BPF_MAP_TYPE_LRU_PERCPU_HASH
        ) {
            notes.push(format!(
                "{} is an {}: when it gets full it makes room by itself, and lacks entries",
                new.label, new.type_name
            ));
        }
        if new.map_type == BPF_MAP_TYPE_RHASH {
            notes.push(format!(
                "{} is an rhash, which cannot be written in an NMI: no program may write {} in one",
                new.label, old.label
            ));
        }
        if new.is_percpu() && !new.is_array() {
            notes.push(format!(
                "{}: while keys are deleted, a value can end up with another key, until a flush: see \
                 the page of maptrace migrate",
                new.label
            ));
        }
        let is_swept = match old.is_percpu() {
            true => Some("has a value for each CPU"),
            false if old.map_type == BPF_MAP_TYPE_RHASH => Some("is an rhash"),
            false if old.is_trie() => Some("is an lpm_trie"),
            false => None,
        };
        if let Some(why) = is_swept {
            notes.push(format!(
                "{} {why}: what is written through pointers is moved by a flush alone, as --stop and \
                 --wait do it",
                old.label
            ));
        }
        if new.is_percpu() && !old.is_percpu() {
            notes.push(format!(
                "{} has a value for each CPU: what is migrated is that of CPU 0",
                new.label
            ));
        }
        Self { notes, ..self }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let (key, value) = match &self.how {
            How::Fields { key, value } => (&*key.rows, &*value.rows),
            How::With(_, rows) => rows.split_at(1),
        };
        key.iter().chain(value)
    }

    /// Whether what would be lost is known.
    pub fn knows_what_is_lost(&self) -> bool {
        matches!(self.how, How::Fields { .. })
    }
}

/// All that is known of what `--with` does.
fn with_rows(old: &Side, new: &Side, with: &With) -> [Row; 2] {
    let row = |name: &str, old: &Layout, new: &Layout| Row {
        old: Some((name.to_owned(), type_name(old))),
        new: Some((name.to_owned(), type_name(new))),
        fate: Fate::Converted(with.name.clone()),
    };
    [
        row("key", &old.key, &new.key),
        row("value", &old.value, &new.value),
    ]
}

/// What stands against `--with`, beside what stands against any migration.
fn with_problems(old: &Side, new: &Side) -> Vec<String> {
    let mut problems = Vec::new();
    for side in [old, new].into_iter().filter(|side| side.is_percpu()) {
        problems.push(format!(
            "{}: it has a value for each CPU, and --with takes one value of a key",
            side.label
        ));
    }
    if new.is_trie() {
        problems.push(format!(
            "{}: --with cannot make prefixes: different keys can be the same one",
            new.label
        ));
    }
    if new.is_array() {
        problems.push(format!(
            "{}: the elements of an array are always there: which of them --with has written \
             cannot be compared",
            new.label
        ));
    }
    problems
}

/// A lock under which nobody has tried to copy a value.
fn has_resilient_lock(layout: &Layout) -> bool {
    match &layout.kind {
        Kind::Special(name) => name == "bpf_res_spin_lock",
        Kind::Struct(members) => members
            .iter()
            .any(|member| has_resilient_lock(&member.layout)),
        Kind::Array { element, .. } => has_resilient_lock(element),
        _ => false,
    }
}

/// What stands against it whatever the layouts are.
fn map_problems(old: &Side, new: &Side) -> Vec<String> {
    let mut problems = Vec::new();
    let mut refuse = |side: &Side, why: &str| problems.push(format!("{}: {why}", side.label));
    for (side, what) in [(old, "followed"), (new, "the new one")] {
        if MOVED.iter().all(|(map_type, _)| *map_type != side.map_type) {
            let names: Vec<_> = MOVED.iter().map(|(_, name)| *name).collect();
            let why = format!(
                "a map of type {} cannot be {what}: these can: {}",
                side.type_name,
                names.join(", ")
            );
            refuse(side, &why);
        }
    }
    if old.is_percpu() && !new.is_percpu() {
        let why = "it has a value for each CPU: only a map that has, too, can take these";
        refuse(old, why);
    }
    if new.is_trie() && !old.is_trie() {
        let why = "two keys of the old map can be the same prefix: only a trie can become one";
        refuse(new, why);
    }
    if new.is_array() && !old.is_array() {
        refuse(
            new,
            "the elements of an array cannot be deleted, and those of the old map can",
        );
    }
    if new.is_array() && old.is_array() && new.max_entries < old.max_entries {
        let why = format!(
            "{} elements, and the old map has {}",
            new.max_entries, old.max_entries
        );
        refuse(new, &why);
    }
    if new.is_percpu() && new.value.has_special() {
        refuse(
            new,
            "its values have fields of the kernel's own, which the tracer cannot leave alone in the \
             value of a CPU",
        );
    }
    if has_resilient_lock(&old.value) {
        refuse(
            old,
            "its values have a bpf_res_spin_lock, and cannot be followed",
        );
    }
    if new.flags & BPF_F_RDONLY_PROG != 0 {
        refuse(new, "programs may not write it (BPF_F_RDONLY_PROG)");
    }
    if new.frozen {
        refuse(
            new,
            "it is frozen: nobody may write it from user space any more",
        );
    }
    problems
}
