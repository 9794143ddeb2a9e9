// SPDX-License-Identifier: GPL-2.0

//! One thread, and a model that predicts each call: its result, how often each event tracer has run,
//! and what a mirror holds after a flush.

use crate::{
    bpf::{
        address, bpf_fd, errno, number, Errno, Kernel, TraceInfo, Traced, ALL_TRACED, ARRAY, EXIST,
        F_AFTER, F_BEFORE, F_REPLACE, LINK_CREATE, MAP_DELETE_BATCH, MAP_UPDATE_BATCH, NOEXIST,
        PROG_LOAD,
    },
    objects::{self, attach_attr, create_map, Kind, Mirror, ALL_KINDS, NR_KEYS},
    programs::{self, OP_ADD, OP_DELETE, OP_STORE, OP_UPDATE},
};
use anyhow::{anyhow, ensure, Context, Result};
use rand::{seq::IndexedRandom, Rng};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, os::fd::OwnedFd};

const MAX_MAPS: usize = 5;
const MAX_LINKS: usize = 12;

struct Map {
    kind: Kind,
    fd: OwnedFd,
    /// A sleepable one, and another.
    writers: [OwnedFd; 2],
    /// What it has; of a map with a value for each CPU the keys alone, of one that gives up keys
    /// nothing.
    content: BTreeMap<u32, u64>,
}

struct Link {
    fd: OwnedFd,
    /// The id of its map.
    map: usize,
    traced: Traced,
    cookie: u64,
    /// So often it has run.
    runs: u64,
    attached: bool,
    mirror: Option<Mirror>,
}

/// What was done, for who has to find out why it went wrong.
type Log = Vec<String>;

pub struct World<'a> {
    kernel: &'a Kernel,
    rng: ChaCha8Rng,
    counts: OwnedFd,
    /// Two programs of updates and two of deletes.
    counters: [[OwnedFd; 2]; 2],
    maps: BTreeMap<usize, Map>,
    links: Vec<Link>,
    next_map: usize,
    next_cookie: u64,
    log: Log,
}

/// A call with this has to fail.
fn refused<T>(what: &str, result: Result<T, Errno>, wanted: &[Errno]) -> Result<()> {
    match result {
        Ok(_) => Err(anyhow!("{what} succeeds")),
        Err(err) => {
            ensure!(wanted.contains(&err), "{what}: errno {err}, not {wanted:?}");
            Ok(())
        }
    }
}

fn named<T>(what: &str, result: Result<T, Errno>) -> Result<T> {
    result.map_err(|err| anyhow!("{what}: errno {err}"))
}

impl<'a> World<'a> {
    pub fn new(kernel: &'a Kernel, rng: ChaCha8Rng) -> Result<Self> {
        let counts = named("the counters", create_map(ARRAY, 0, 1 << 14))?;
        let insns = programs::counting(&counts);
        let load = |traced| named("load", programs::load_tracer(kernel, traced, &insns));
        let counters = [
            [load(Traced::Update)?, load(Traced::Update)?],
            [load(Traced::Delete)?, load(Traced::Delete)?],
        ];

        Ok(Self {
            kernel,
            rng,
            counts,
            counters,
            maps: BTreeMap::new(),
            links: Vec::new(),
            next_map: 0,
            next_cookie: 0,
            log: Vec::new(),
        })
    }

    /// Does so many steps, and compares with the model after each.
    pub fn run(&mut self, steps: u32) -> Result<()> {
        for step in 0..steps {
            let result = self.step().and_then(|()| self.compare());

            result.with_context(|| {
                let begin = self.log.len().saturating_sub(20);
                format!("step {step}, after:\n{}", self.log[begin..].join("\n"))
            })?;
        }
        self.finish().context("at the end")
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    fn step(&mut self) -> Result<()> {
        if self.maps.is_empty() {
            return self.create_map();
        }
        match self.rng.random_range(0..100) {
            0..2 => self.create_map(),
            2..3 => self.drop_map(),
            3..30 => self.write_by_bpf(),
            30..50 => self.write_by_program(),
            50..58 => self.write_batch(),
            58..68 => self.attach(),
            68..72 => self.attach_wrongly(),
            72..77 => self.update_link(),
            77..80 => self.detach(),
            80..83 => self.close_link(),
            83..90 => self.flush(),
            90..93 => self.look(),
            93..95 => self.pin(),
            95..97 => self.fork(),
            _ => self.load_wrongly(),
        }
    }

    fn random_key(&mut self) -> u32 {
        // One that is not in an array now and then.
        if self.rng.random_ratio(1, 50) {
            NR_KEYS + 1
        } else {
            self.rng.random_range(0..NR_KEYS)
        }
    }

    fn random_map(&mut self) -> usize {
        let ids: Vec<_> = self.maps.keys().copied().collect();

        *ids.choose(&mut self.rng).expect("there is a map")
    }

    fn random_link(&mut self) -> Option<usize> {
        (!self.links.is_empty()).then(|| self.rng.random_range(0..self.links.len()))
    }

    fn create_map(&mut self) -> Result<()> {
        if self.maps.len() >= MAX_MAPS {
            return Ok(());
        }
        let kind = *ALL_KINDS.choose(&mut self.rng).expect("there are kinds");
        let fd = named("a map", kind.create())?;
        let writers = [
            named("a writer", programs::load_writer(&fd, true))?,
            named("a writer", programs::load_writer(&fd, false))?,
        ];
        let content = match kind {
            Kind::Array => (0..NR_KEYS).map(|key| (key, 0)).collect(),
            _ => BTreeMap::new(),
        };
        let id = self.next_map;

        self.next_map += 1;
        self.note(format!("map {id}: {kind:?}"));
        let map = Map {
            kind,
            fd,
            writers,
            content,
        };
        self.maps.insert(id, map);
        Ok(())
    }

    /// Its links hold it.
    fn drop_map(&mut self) -> Result<()> {
        let id = self.random_map();

        self.note(format!("close map {id}"));
        self.maps.remove(&id);
        Ok(())
    }

    /// Counts runs of the tracers of a map.
    fn count(&mut self, map: usize, traced: Traced, runs: u64) {
        for link in &mut self.links {
            if link.map == map && link.traced == traced && link.attached {
                link.runs += runs;
            }
        }
    }

    /// An update of a key was done, or not.
    fn updated(&mut self, id: usize, key: u32, value: u64, runs: u64) {
        self.count(id, Traced::Update, runs);
        if let Some(map) = self.maps.get_mut(&id) {
            map.content.insert(key, value);
        }
    }

    fn deleted(&mut self, id: usize, key: u32) {
        self.count(id, Traced::Delete, 1);
        if let Some(map) = self.maps.get_mut(&id) {
            map.content.remove(&key);
        }
    }

    /// How often a tracer runs for an update by bpf(2).
    fn runs_of_update(&self, kind: Kind) -> u64 {
        match kind {
            Kind::PercpuHash => self.kernel.cpus as u64,
            _ => 1,
        }
    }

    /// With what an update has to end; nothing where that cannot be known.
    fn update_ends_with(map: &Map, key: u32, flags: u64) -> Option<Result<(), Errno>> {
        if !map.kind.keeps_all() {
            return None;
        }
        if map.kind == Kind::Array {
            return Some(match (key < NR_KEYS, flags) {
                (_, 3..) => Err(libc::EINVAL),
                (false, _) => Err(libc::E2BIG),
                (true, NOEXIST) => Err(libc::EEXIST),
                _ => Ok(()),
            });
        }
        let there = map.content.contains_key(&key);
        let full = map.content.len() >= NR_KEYS as usize && map.kind != Kind::LruHash;

        Some(match flags {
            3.. => Err(libc::EINVAL),
            NOEXIST if there => Err(libc::EEXIST),
            EXIST if !there => Err(libc::ENOENT),
            _ if !there && full => Err(libc::E2BIG),
            _ => Ok(()),
        })
    }

    fn expect(result: Result<(), Errno>, wanted: Option<Result<(), Errno>>) -> Result<()> {
        ensure!(
            wanted.is_none_or(|wanted| wanted == result),
            "it ends with {result:?}, not with {wanted:?}"
        );
        Ok(())
    }

    fn write_by_bpf(&mut self) -> Result<()> {
        let id = self.random_map();
        let key = self.random_key();
        let value = self.rng.random();
        let kind = self.maps[&id].kind;

        match self.rng.random_range(0..10) {
            0..6 => {
                let flags = *[0, 0, 0, NOEXIST, EXIST, 1 << 20]
                    .choose(&mut self.rng)
                    .expect("there are flags");
                let wanted = Self::update_ends_with(&self.maps[&id], key, flags);
                let result = objects::update(&self.maps[&id].fd, key, value, flags);

                self.note(format!("map {id}: update {key} flags {flags}: {result:?}"));
                if result.is_ok() {
                    let runs = self.runs_of_update(kind);
                    self.updated(id, key, value, runs);
                }
                Self::expect(result, wanted)
            }
            6..9 => {
                let there = self.maps[&id].content.contains_key(&key);
                let result = objects::delete(&self.maps[&id].fd, key);

                self.note(format!("map {id}: delete {key}: {result:?}"));
                if result.is_ok() {
                    self.deleted(id, key);
                }
                let wanted = match kind {
                    Kind::Array => Some(Err(libc::EINVAL)),
                    _ if there => Some(Ok(())),
                    _ => Some(Err(libc::ENOENT)),
                };
                Self::expect(result, wanted.filter(|_| kind.keeps_all()))
            }
            _ => {
                let result = objects::lookup_and_delete(&self.maps[&id].fd, key).map(drop);
                let there = self.maps[&id].content.contains_key(&key);

                self.note(format!("map {id}: lookup and delete {key}: {result:?}"));
                if result.is_ok() {
                    self.deleted(id, key);
                }
                let wanted = match there {
                    true => Ok(()),
                    false => Err(libc::ENOENT),
                };
                Self::expect(
                    result,
                    Some(wanted).filter(|_| kind.keeps_all() && kind.deletes()),
                )
            }
        }
    }

    fn write_by_program(&mut self) -> Result<()> {
        let id = self.random_map();
        let key = self.random_key();
        let value = self.rng.random();
        let sleepable: bool = self.rng.random();
        let op = *[OP_UPDATE, OP_UPDATE, OP_DELETE, OP_STORE, OP_ADD]
            .choose(&mut self.rng)
            .expect("there are operations");
        let map = &self.maps[&id];
        let (kind, writer) = (map.kind, &map.writers[usize::from(!sleepable)]);
        let update = Self::update_ends_with(map, key, 0);
        let old = map.content.get(&key).copied();
        let result = programs::run_writer(writer, op, key, value);
        let wanted = match op {
            OP_UPDATE => update,
            OP_DELETE if kind == Kind::Array => Some(Err(libc::EINVAL)),
            _ => Some(old.map(drop).ok_or(libc::ENOENT)),
        };

        self.note(format!(
            "map {id}: program, operation {op} of {key}: {result:?}"
        ));
        if result.is_ok() {
            match op {
                OP_UPDATE => self.updated(id, key, value, 1),
                OP_DELETE => self.deleted(id, key),
                _ => {
                    // In place: no event tracer sees it.
                    let old = if op == OP_ADD { old.unwrap_or(0) } else { 0 };
                    let map = self.maps.get_mut(&id).expect("it is there");
                    map.content.insert(key, old.wrapping_add(value));
                }
            }
        }
        Self::expect(result, wanted.filter(|_| kind.keeps_all()))
    }

    fn write_batch(&mut self) -> Result<()> {
        let id = self.random_map();
        let kind = self.maps[&id].kind;
        let value = self.rng.random();
        let count = self.rng.random_range(1..20);
        let keys: Vec<_> = (0..count)
            .map(|_| self.rng.random_range(0..NR_KEYS))
            .collect();
        // Room for a value is a multiple of 8 bytes for each of them.
        let cpus = if kind == Kind::PercpuHash {
            self.kernel.cpus
        } else {
            1
        };

        match self.rng.random_range(0..3) {
            0 => {
                let fd = &self.maps[&id].fd;
                let (done, err) = objects::batch(MAP_UPDATE_BATCH, fd, &keys, value, cpus);

                self.note(format!("map {id}: update of {count}: {done}, {err:?}"));
                ensure!(
                    err.is_none() == (done == count),
                    "{done} of {count}: {err:?}"
                );
                let runs = self.runs_of_update(kind);
                for key in &keys[..done as usize] {
                    self.updated(id, *key, value, runs);
                }
            }
            1 => {
                let fd = &self.maps[&id].fd;
                let (done, err) = objects::batch(MAP_DELETE_BATCH, fd, &keys, 0, 1);

                self.note(format!("map {id}: delete of {count}: {done}, {err:?}"));
                // An array has no such batch.
                if kind.deletes() {
                    for key in &keys[..done as usize] {
                        self.deleted(id, *key);
                    }
                }
            }
            _ => {
                let fd = &self.maps[&id].fd;
                let (taken, err) = objects::take_batch(fd, count.max(16), cpus);

                self.note(format!("map {id}: taken: {taken:?}, {err:?}"));
                if kind.deletes() {
                    for key in taken {
                        self.deleted(id, key);
                    }
                }
            }
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<()> {
        if self.links.len() >= MAX_LINKS {
            return Ok(());
        }
        let id = self.random_map();
        let traced = *ALL_TRACED.choose(&mut self.rng).expect("there are some");
        let cookie = self.next_cookie;
        let kind = self.maps[&id].kind;
        let mirror = match traced {
            Traced::Sync => Some(named("a mirror", Mirror::new(self.kernel))?),
            _ => None,
        };
        let prog = match &mirror {
            Some(mirror) => &mirror.prog,
            None => &self.counters[traced as usize][self.rng.random_range(0..2)],
        };
        let result = objects::attach(self.kernel, prog, &self.maps[&id].fd, traced, cookie);

        self.note(format!("map {id}: attach {traced:?}: {}", result.is_ok()));
        if traced == Traced::Delete && !kind.deletes() {
            return refused(
                "an attach to the deletes of an array",
                result,
                &[libc::EOPNOTSUPP],
            );
        }
        let link = Link {
            fd: named("attach", result)?,
            map: id,
            traced,
            cookie,
            runs: 0,
            attached: true,
            mirror,
        };
        self.next_cookie += 1;
        self.links.push(link);
        Ok(())
    }

    /// With something that is not as it should be.
    fn attach_wrongly(&mut self) -> Result<()> {
        let id = self.random_map();
        let kernel = self.kernel;
        let mut info = TraceInfo {
            map_fd: number(&self.maps[&id].fd),
            trace_type: Traced::Update as u32,
            ..TraceInfo::default()
        };
        let prog = &self.counters[0][0];
        let wrong = self.rng.random_range(0..11);
        let mut attr = attach_attr(kernel, prog, &info);
        let wanted = match wrong {
            0 => {
                info.trace_type = self.rng.random_range(1..10);
                libc::EINVAL
            }
            1 => {
                info.map_fd = number(prog);
                libc::EINVAL
            }
            2 => {
                info.map_fd = 1 << 20;
                libc::EBADF
            }
            3 => {
                // None that says where it goes. Without what it goes beside, these are wrong, too.
                let bits = (0..32).filter(|bit| !matches!(1 << bit, F_BEFORE | F_AFTER));
                let bits: Vec<u32> = bits.collect();
                attr.flags = 1_u32 << bits[self.rng.random_range(0..bits.len())];
                libc::EINVAL
            }
            4 => {
                attr.target_fd = self.rng.random_range(1..100);
                libc::EINVAL
            }
            5 => {
                attr.info_len = self.rng.random_range(0..8);
                libc::EINVAL
            }
            6 => {
                info.tail = 1;
                attr.info_len = size_of::<TraceInfo>() as u32;
                libc::E2BIG
            }
            7 => {
                info.reserved = 1;
                libc::EINVAL
            }
            8 => {
                info.expected_revision = u64::MAX;
                libc::ESTALE
            }
            9 => {
                info.relative = self.rng.random_range(1..100);
                libc::EINVAL
            }
            _ => {
                attr.info = 4096;
                libc::EFAULT
            }
        };
        if attr.info != 4096 {
            attr.info = address(&info);
        }
        let result = bpf_fd(LINK_CREATE, &mut attr);

        self.note(format!("map {id}: attach, wrong in point {wrong}"));
        refused("such an attach", result, &[wanted])
    }

    fn update_link(&mut self) -> Result<()> {
        let Some(index) = self.random_link() else {
            return Ok(());
        };
        let flags = *[0, 0, F_REPLACE, 1]
            .choose(&mut self.rng)
            .expect("there are flags");
        let link = &self.links[index];
        let prog = match &link.mirror {
            Some(mirror) => &mirror.prog,
            None => &self.counters[link.traced as usize][self.rng.random_range(0..2)],
        };
        let other = &self.counters[usize::from(link.traced == Traced::Update)][0];
        let (result, wanted) = if self.rng.random_ratio(1, 5) {
            // Of another kind
            (
                objects::update_prog(&link.fd, other, 0, None),
                Err(libc::EINVAL),
            )
        } else if flags == F_REPLACE {
            // It is not the old one.
            let result = objects::update_prog(&link.fd, prog, flags, Some(other));
            (result, Err(libc::EPERM))
        } else {
            let result = objects::update_prog(&link.fd, prog, flags, None);
            (
                result,
                if flags == 0 {
                    Ok(())
                } else {
                    Err(libc::EINVAL)
                },
            )
        };
        // What is wrong beside that comes first, or not.
        let detached = !link.attached && result == Err(libc::ENOLINK);

        self.note(format!("link {index}: update, flags {flags}: {result:?}"));
        Self::expect(result, Some(wanted).filter(|_| !detached))
    }

    fn detach(&mut self) -> Result<()> {
        let Some(index) = self.random_link() else {
            return Ok(());
        };
        let link = &mut self.links[index];
        let result = objects::detach(&link.fd);
        let wanted = if link.attached {
            Ok(())
        } else {
            Err(libc::ENOLINK)
        };

        link.attached = false;
        self.note(format!("link {index}: detach: {result:?}"));
        Self::expect(result, Some(wanted))
    }

    fn close_link(&mut self) -> Result<()> {
        if let Some(index) = self.random_link() {
            self.note(format!(
                "link {index}: close, and the last one has its number"
            ));
            self.links.swap_remove(index);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(index) = self.random_link() else {
            return Ok(());
        };
        let all: Vec<_> = (0..NR_KEYS).collect();
        let keys = if self.rng.random() { &all[..] } else { &[] };
        let link = &self.links[index];
        let result = objects::flush(self.kernel, &link.fd, keys, 0);
        let wanted = match (link.traced, link.attached) {
            (Traced::Sync, true) => Ok(()),
            (Traced::Sync, false) => Err(libc::ENOLINK),
            _ => Err(libc::EOPNOTSUPP),
        };

        self.note(format!(
            "link {index}: flush of {} keys: {result:?}",
            keys.len()
        ));
        Self::expect(result, Some(wanted))?;
        if result.is_ok() {
            self.compare_mirror(&self.links[index])?;
        }
        Ok(())
    }

    /// What a mirror has is what its map has, and what the model says.
    fn compare_mirror(&self, link: &Link) -> Result<()> {
        let (Some(mirror), Some(map)) = (&link.mirror, self.maps.get(&link.map)) else {
            return Ok(());
        };
        if !map.kind.has_one_value() {
            return Ok(());
        }
        let source = objects::read(&map.fd);
        let mirrored = objects::read(&mirror.map);

        ensure!(
            source == mirrored,
            "map {} ({:?}) has {source:?}, its mirror {mirrored:?}",
            link.map,
            map.kind
        );
        if map.kind.keeps_all() {
            let content: BTreeMap<_, _> = map
                .content
                .iter()
                .filter(|(key, _)| **key < NR_KEYS)
                .map(|(key, value)| (*key, *value))
                .collect();
            ensure!(
                source == content,
                "map {} has {source:?}, not {content:?}",
                link.map
            );
        }
        Ok(())
    }

    /// Reads what a link says.
    fn look(&mut self) -> Result<()> {
        let Some(index) = self.random_link() else {
            return Ok(());
        };
        let link = &self.links[index];
        let info = named("info", objects::link_info(&link.fd))?;
        let file = format!("/proc/self/fdinfo/{}", number(&link.fd));
        let fdinfo = std::fs::read_to_string(file)?;
        let hung_up = objects::poll(&link.fd) & libc::POLLHUP != 0;

        ensure!(
            info.trace_type == link.traced as u32,
            "trace_type {}",
            info.trace_type
        );
        ensure!(info.cookie == link.cookie, "cookie {}", info.cookie);
        ensure!(
            (info.map_id != 0) == link.attached,
            "map_id {}",
            info.map_id
        );
        ensure!(
            info.missed == 0 && info.lost == 0,
            "missed {}, lost {}",
            info.missed,
            info.lost
        );
        ensure!(
            fdinfo.contains(&format!("cookie:\t{}\n", link.cookie)),
            "fdinfo: {fdinfo}"
        );
        ensure!(
            hung_up == (!link.attached && link.traced == Traced::Sync),
            "hung up: {hung_up}"
        );
        Ok(())
    }

    fn pin(&mut self) -> Result<()> {
        let Some(index) = self.random_link() else {
            return Ok(());
        };
        let fd = named("pin", objects::pin_and_get(&self.links[index].fd, 0))?;

        // The link goes on under its other number.
        self.links[index].fd = fd;
        self.note(format!("link {index}: pinned and opened"));
        Ok(())
    }

    /// A child has all descriptors for a while, and is killed or ends.
    fn fork(&mut self) -> Result<()> {
        let killed: bool = self.rng.random();

        self.note(format!("fork, killed: {killed}"));
        // SAFETY: The child calls nothing but these.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "fork: errno {}", errno());
        if pid == 0 {
            // SAFETY: As above.
            unsafe {
                if killed {
                    libc::pause();
                }
                libc::_exit(0)
            }
        }
        // SAFETY: It is the child's, and nobody else waits for it.
        unsafe {
            if killed {
                libc::kill(pid, libc::SIGKILL);
            }
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        Ok(())
    }

    /// A load in which something is random: whatever comes of it, nobody is hurt.
    fn load_wrongly(&mut self) -> Result<()> {
        let mirror = named("a map", create_map(crate::bpf::HASH, 0, NR_KEYS))?;
        let mut insns = match self.rng.random() {
            true => programs::counting(&self.counts),
            false => programs::mirroring(&mirror),
        };
        let traced = *ALL_TRACED.choose(&mut self.rng).expect("there are some");

        if self.rng.random() {
            let index = self.rng.random_range(0..insns.len());
            insns[index] ^= 1 << self.rng.random_range(0..64);
        }
        let mut attr = programs::tracer_attr(self.kernel, traced, &insns);
        match self.rng.random_range(0..5) {
            0 => attr.attach_type = self.rng.random_range(0..80),
            1 => attr.attach_btf_id = self.rng.random_range(0..100_000),
            2 => attr.prog_type = self.rng.random_range(0..40),
            3 => attr.prog_flags = 1 << self.rng.random_range(0..10),
            _ => {}
        }
        let loaded = bpf_fd(PROG_LOAD, &mut attr);

        self.note(format!(
            "load of a random program: {:?}",
            loaded.as_ref().err()
        ));
        if let Ok(prog) = loaded {
            // It may be one that can be attached, for a moment.
            let id = self.random_map();
            drop(objects::attach(
                self.kernel,
                &prog,
                &self.maps[&id].fd,
                traced,
                0x3fff,
            ));
        }
        Ok(())
    }

    /// Checks that each event tracer has run as often as the model says.
    fn compare(&self) -> Result<()> {
        for (index, link) in self.links.iter().enumerate() {
            let kind = self.maps.get(&link.map).map(|map| map.kind);

            // What such a map gives up is a delete, and nobody knows when.
            if link.traced == Traced::Sync
                || link.traced == Traced::Delete && kind.is_none_or(|kind| !kind.keeps_all())
            {
                continue;
            }
            let runs = named(
                "a counter",
                objects::lookup(&self.counts, link.cookie as u32),
            )?;
            ensure!(
                runs == link.runs,
                "link {index} of map {}, {:?}, has run {runs} times, not {}",
                link.map,
                link.traced,
                link.runs
            );
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        for link in &self.links {
            if link.traced == Traced::Sync && link.attached {
                named(
                    "the last flush",
                    objects::flush(self.kernel, &link.fd, &[], 0),
                )?;
                self.compare_mirror(link)?;
            }
        }
        Ok(())
    }
}
