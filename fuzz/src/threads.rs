// SPDX-License-Identifier: GPL-2.0

//! Many threads at once, on the same maps and links. In the end no run is missing of an event tracer
//! that was attached all the time, and each mirror equals its map.

use crate::{
    bpf::{
        bpf_fd, errno, Errno, Kernel, Traced, ALL_TRACED, ARRAY, HASH, MAP_DELETE_BATCH,
        MAP_UPDATE_BATCH, PROG_LOAD,
    },
    objects::{self, create_map, Kind, Mirror, ALL_KINDS, NR_KEYS},
    programs::{self, OP_ADD, OP_DELETE, OP_STORE, OP_UPDATE},
};
use anyhow::{anyhow, ensure, Result};
use rand::{seq::IndexedRandom, Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    os::fd::OwnedFd,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        Arc, Mutex,
    },
    time::{Duration, Instant},
};

/// Places for links that come and go
const NR_SLOTS: usize = 16;
/// Cookies of links that nobody counts for
const UNCOUNTED: u64 = 100;

struct Map {
    kind: Kind,
    fd: OwnedFd,
    writers: [OwnedFd; 2],
    /// Those that have succeeded, times the values that each has written
    updates: AtomicU64,
    deletes: AtomicU64,
    /// Of links that stay: of updates, and of deletes where it has some
    counters: Vec<(Traced, OwnedFd)>,
    mirror: Mirror,
    mirrored: OwnedFd,
}

struct World<'a> {
    kernel: &'a Kernel,
    counts: OwnedFd,
    progs: [[OwnedFd; 2]; 2],
    maps: Vec<Map>,
    /// Mirrors of links that come and go
    scratch: Vec<Mirror>,
    slots: Vec<Mutex<Option<Arc<OwnedFd>>>>,
    /// What went wrong, first
    wrong: Mutex<Option<String>>,
}

fn named<T>(what: &str, result: Result<T, Errno>) -> Result<T> {
    result.map_err(|err| anyhow!("{what}: errno {err}"))
}

/// The cookie of the link that counts what is done to a map.
fn cookie(map: usize, traced: Traced) -> u64 {
    (2 * map + traced as usize) as u64
}

impl<'a> World<'a> {
    fn new(kernel: &'a Kernel) -> Result<Self> {
        let counts = named("the counters", create_map(ARRAY, 0, 1024))?;
        let insns = programs::counting(&counts);
        let load = |traced| named("load", programs::load_tracer(kernel, traced, &insns));
        let progs = [
            [load(Traced::Update)?, load(Traced::Update)?],
            [load(Traced::Delete)?, load(Traced::Delete)?],
        ];
        let mut maps = Vec::new();

        for (index, kind) in ALL_KINDS.into_iter().enumerate() {
            let fd = named("a map", kind.create())?;
            let writers = [
                named("a writer", programs::load_writer(&fd, true))?,
                named("a writer", programs::load_writer(&fd, false))?,
            ];
            let mut counters = Vec::new();

            for traced in [Traced::Update, Traced::Delete] {
                if traced == Traced::Update || kind.deletes() {
                    let prog = &progs[traced as usize][0];
                    let cookie = cookie(index, traced);
                    let link = objects::attach(kernel, prog, &fd, traced, cookie);
                    counters.push((traced, named("attach", link)?));
                }
            }
            let mirror = named("a mirror", Mirror::new(kernel))?;
            let link = objects::attach(kernel, &mirror.prog, &fd, Traced::Sync, UNCOUNTED);

            maps.push(Map {
                kind,
                writers,
                updates: AtomicU64::new(0),
                deletes: AtomicU64::new(0),
                counters,
                mirror,
                mirrored: named("attach", link)?,
                fd,
            });
        }
        let scratch = (0..3)
            .map(|_| named("a mirror", Mirror::new(kernel)))
            .collect::<Result<_>>()?;

        Ok(Self {
            kernel,
            counts,
            progs,
            maps,
            scratch,
            slots: (0..NR_SLOTS).map(|_| Mutex::new(None)).collect(),
            wrong: Mutex::new(None),
        })
    }

    fn has_gone_wrong(&self, what: String) {
        self.wrong
            .lock()
            .expect("nobody panics with it")
            .get_or_insert(what);
    }

    /// What there is at a place for links.
    fn link(&self, slot: usize) -> Option<Arc<OwnedFd>> {
        self.slots[slot]
            .lock()
            .expect("nobody panics with it")
            .clone()
    }

    /// Puts a link there. The last one who has the old one closes it.
    fn put_link(&self, slot: usize, link: Option<OwnedFd>) {
        let old = std::mem::replace(
            &mut *self.slots[slot].lock().expect("nobody panics with it"),
            link.map(Arc::new),
        );
        drop(old);
    }

    /// A call may fail with one of these only.
    fn allow<T>(&self, what: &str, result: Result<T, Errno>, allowed: &[Errno]) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(err) => {
                if !allowed.contains(&err) {
                    self.has_gone_wrong(format!("{what}: errno {err}"));
                }
                None
            }
        }
    }

    fn step(&self, rng: &mut ChaCha8Rng) {
        let map = self.maps.choose(rng).expect("there are maps");
        let key = rng.random_range(0..NR_KEYS);

        match rng.random_range(0..100) {
            0..30 => self.write_by_bpf(map, key, rng),
            30..60 => self.write_by_program(map, key, rng),
            60..66 => self.write_batch(map, rng),
            66..75 => self.attach(map, rng),
            75..80 => self.update_link(rng),
            80..84 => self.detach(rng),
            84..88 => self.put_link(rng.random_range(0..NR_SLOTS), None),
            88..93 => self.flush(map, rng),
            93..96 => self.look(rng),
            96..97 => self.fork(rng),
            _ => self.load(rng),
        }
    }

    fn write_by_bpf(&self, map: &Map, key: u32, rng: &mut ChaCha8Rng) {
        let runs = match map.kind {
            Kind::PercpuHash => self.kernel.cpus as u64,
            _ => 1,
        };
        // A lock that is busy for too long, and no free element at the moment
        let busy = [
            libc::EBUSY,
            libc::E2BIG,
            libc::ENOMEM,
            libc::EDEADLK,
            libc::ETIMEDOUT,
        ];

        if rng.random_ratio(2, 3) {
            let result = objects::update(&map.fd, key, rng.random(), 0);
            if self.allow("update", result, &busy).is_some() {
                map.updates.fetch_add(runs, Relaxed);
            }
        } else if map.kind.deletes() {
            let result = match rng.random() {
                true => objects::delete(&map.fd, key),
                false => objects::lookup_and_delete(&map.fd, key).map(drop),
            };
            let mut allowed = busy.to_vec();
            allowed.push(libc::ENOENT);
            if self.allow("delete", result, &allowed).is_some() {
                map.deletes.fetch_add(1, Relaxed);
            }
        }
    }

    fn write_by_program(&self, map: &Map, key: u32, rng: &mut ChaCha8Rng) {
        let sleepable: bool = rng.random();
        let op = *[OP_UPDATE, OP_UPDATE, OP_DELETE, OP_STORE, OP_ADD]
            .choose(rng)
            .expect("there are operations");
        let writer = &map.writers[usize::from(!sleepable)];

        if programs::run_writer(writer, op, key, rng.random()).is_ok() {
            match op {
                OP_UPDATE => map.updates.fetch_add(1, Relaxed),
                OP_DELETE => map.deletes.fetch_add(1, Relaxed),
                _ => 0,
            };
        }
    }

    fn write_batch(&self, map: &Map, rng: &mut ChaCha8Rng) {
        let count = rng.random_range(1..20);
        let keys: Vec<_> = (0..count).map(|_| rng.random_range(0..NR_KEYS)).collect();
        let cpus = match map.kind {
            Kind::PercpuHash => self.kernel.cpus,
            _ => 1,
        };

        match rng.random_range(0..3) {
            0 => {
                let (done, _) =
                    objects::batch(MAP_UPDATE_BATCH, &map.fd, &keys, rng.random(), cpus);
                map.updates
                    .fetch_add(u64::from(done) * cpus as u64, Relaxed);
            }
            1 if map.kind.deletes() => {
                let (done, _) = objects::batch(MAP_DELETE_BATCH, &map.fd, &keys, 0, 1);
                map.deletes.fetch_add(done.into(), Relaxed);
            }
            2 if map.kind.deletes() => {
                let (taken, _) = objects::take_batch(&map.fd, count.max(16), cpus);
                map.deletes.fetch_add(taken.len() as u64, Relaxed);
            }
            _ => {}
        }
    }

    fn attach(&self, map: &Map, rng: &mut ChaCha8Rng) {
        let traced = *ALL_TRACED.choose(rng).expect("there are some");
        let prog = match traced {
            Traced::Sync => &self.scratch.choose(rng).expect("there are some").prog,
            _ => &self.progs[traced as usize][rng.random_range(0..2)],
        };
        let result = objects::attach(self.kernel, prog, &map.fd, traced, UNCOUNTED);
        let allowed: &[_] = match traced {
            Traced::Delete if !map.kind.deletes() => &[libc::EOPNOTSUPP],
            _ => &[],
        };

        if let Some(link) = self.allow("attach", result, allowed) {
            self.put_link(rng.random_range(0..NR_SLOTS), Some(link));
        }
    }

    fn update_link(&self, rng: &mut ChaCha8Rng) {
        if let Some(link) = self.link(rng.random_range(0..NR_SLOTS)) {
            let prog = match rng.random_range(0..3) {
                0 => &self.progs[0][1],
                1 => &self.progs[1][1],
                _ => &self.scratch.choose(rng).expect("there are some").prog,
            };
            let result = objects::update_prog(&link, prog, 0, None);
            self.allow("update of a link", result, &[libc::EINVAL, libc::ENOLINK]);
        }
    }

    fn detach(&self, rng: &mut ChaCha8Rng) {
        if let Some(link) = self.link(rng.random_range(0..NR_SLOTS)) {
            self.allow("detach", objects::detach(&link), &[libc::ENOLINK]);
        }
    }

    fn flush(&self, map: &Map, rng: &mut ChaCha8Rng) {
        let all: Vec<_> = (0..NR_KEYS).collect();
        let keys = if rng.random() { &all[..] } else { &[] };
        let timeout = *[0, 1, 100].choose(rng).expect("there are some");
        let link = self.link(rng.random_range(0..NR_SLOTS));
        let link = link.as_deref().unwrap_or(&map.mirrored);
        let result = objects::flush(self.kernel, link, keys, timeout);
        // Tracers fail where a lock of the mirror is busy.
        let allowed = [
            libc::EAGAIN,
            libc::ETIME,
            libc::ENOLINK,
            libc::EOPNOTSUPP,
            libc::EDEADLK,
            libc::ETIMEDOUT,
        ];

        self.allow("flush", result, &allowed);
    }

    fn look(&self, rng: &mut ChaCha8Rng) {
        let slot = rng.random_range(0..NR_SLOTS);

        if let Some(link) = self.link(slot) {
            self.allow("info", objects::link_info(&link), &[]);
            objects::poll(&link);
            let name = rng.random();
            if let Some(link) = self.allow("pin", objects::pin_and_get(&link, name), &[]) {
                self.put_link(slot, Some(link));
            }
        }
    }

    /// A child attaches, and flushes until it is killed.
    fn fork(&self, rng: &mut ChaCha8Rng) {
        let map = self.maps.choose(rng).expect("there are maps");
        let pause = Duration::from_millis(rng.random_range(0..20));
        let mirror = self.scratch.choose(rng).expect("there are some");
        // SAFETY: The child makes system calls, and allocates nothing.
        let pid = unsafe { libc::fork() };

        if pid < 0 {
            self.has_gone_wrong(format!("fork: errno {}", errno()));
            return;
        }
        if pid == 0 {
            let link = objects::attach(self.kernel, &mirror.prog, &map.fd, Traced::Sync, UNCOUNTED);
            while let Ok(link) = &link {
                if objects::flush(self.kernel, link, &[], 0) == Err(libc::EBADF) {
                    break;
                }
            }
            // SAFETY: It ends.
            unsafe { libc::_exit(0) };
        }
        std::thread::sleep(pause);
        // SAFETY: It is the child's, and nobody else waits for it.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }

    /// Loads a tracer that nobody keeps, now and then one that is not quite right.
    fn load(&self, rng: &mut ChaCha8Rng) {
        let traced = *ALL_TRACED.choose(rng).expect("there are some");
        let Some(mirror) = self.allow("a map", create_map(HASH, 0, NR_KEYS), &[]) else {
            return;
        };
        let mut insns = programs::mirroring(&mirror);

        if rng.random() {
            let index = rng.random_range(0..insns.len());
            insns[index] ^= 1 << rng.random_range(0..64);
        }
        let mut attr = programs::tracer_attr(self.kernel, traced, &insns);
        drop(bpf_fd(PROG_LOAD, &mut attr));
    }

    fn compare(&self) -> Result<()> {
        if let Some(wrong) = self.wrong.lock().expect("nobody panics with it").take() {
            return Err(anyhow!(wrong));
        }
        for (index, map) in self.maps.iter().enumerate() {
            for (traced, link) in &map.counters {
                let done = match traced {
                    Traced::Update => map.updates.load(Relaxed),
                    _ => map.deletes.load(Relaxed),
                };
                // What the map gives up is a delete, and nobody knows how much that was.
                if *traced == Traced::Delete && !map.kind.keeps_all() {
                    continue;
                }
                let key = cookie(index, *traced) as u32;
                let runs = named("a counter", objects::lookup(&self.counts, key))?;
                let missed = named("info", objects::link_info(link))?.missed;

                ensure!(
                    runs + missed == done,
                    "{:?}, {traced:?}: {runs} runs and {missed} missed of {done}",
                    map.kind
                );
            }
            self.compare_mirror(map)?;
        }
        Ok(())
    }

    fn compare_mirror(&self, map: &Map) -> Result<()> {
        let all: Vec<_> = (0..NR_KEYS).collect();
        let end = Instant::now() + Duration::from_secs(60);

        while let Err(err) = objects::flush(self.kernel, &map.mirrored, &all, 0) {
            ensure!(
                err == libc::EAGAIN && Instant::now() < end,
                "the last flush: errno {err}"
            );
        }
        if map.kind.has_one_value() {
            let source = objects::read(&map.fd);
            let mirrored = objects::read(&map.mirror.map);
            ensure!(
                source == mirrored,
                "{:?} has {source:?}, its mirror {mirrored:?}",
                map.kind
            );
        }
        Ok(())
    }
}

/// Has `threads` of them write, attach and so on for a while, and compares. Returns how many steps
/// they have done.
pub fn run(kernel: &Kernel, seed: u64, threads: u64, time: Duration) -> Result<u64> {
    let world = World::new(kernel)?;
    let end = Instant::now() + time;
    let steps = AtomicU64::new(0);

    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (world, steps) = (&world, &steps);

            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(thread);
                while Instant::now() < end {
                    world.step(&mut rng);
                    steps.fetch_add(1, Relaxed);
                }
            });
        }
    });
    for slot in 0..NR_SLOTS {
        world.put_link(slot, None);
    }
    world.compare()?;
    Ok(steps.into_inner())
}
