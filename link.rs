// SPDX-License-Identifier: GPL-2.0

//! Links: attach a tracer to a map, change its program, and detach it.

use crate::{
    bpf::{
        link::{
            Link, LinkCreateAttr, Place, POLL_DEFAULT, POLL_ERROR, POLL_HUNG_UP, POLL_READABLE,
        },
        map::{Map, TraceType},
        ops::{Attached, LinkInfo},
        prog::Prog,
        rcu::{synchronize_programs, ReadSide},
    },
    delete_queue::DeleteQueue,
    loop_check::{self, Edges},
    sync::MapSync,
    tracer::Tracer,
    tracer_list::{revision, TracerList, Writer, MAX_TRACERS, WRITERS},
    verifier_patch::check_attach,
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    ffi::c_int,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        aref::ARef,
        poll::{PollCondVar, PollTable},
        rcu::{self, synchronize_rcu},
        Arc,
        GlobalLockedBy, //
    },
};

/// The data of a link, after its `struct bpf_link`.
pub(crate) struct Attachment {
    trace_type: TraceType,
    tracer: Arc<Tracer>,
    /// The traced map. [`None`] before the attach and after the detach.
    map: GlobalLockedBy<Option<ARef<Map>>, WRITERS>,
    /// What poll(2) waits for on the link of a sync tracer. It stays as long as the link has a
    /// file, because a waiter may outlive the map.
    news: GlobalLockedBy<Option<Arc<PollCondVar>>, WRITERS>,
}

/// `struct bpf_map_trace_link_info`.
struct TraceInfo {
    map_fd: u32,
    trace_type: u32,
    cookie: u64,
    /// What `relative_fd` and `relative_id` share.
    relative: u32,
    expected_revision: u64,
}

impl TraceInfo {
    /// The length of the members that every caller has to pass: those of the RFC.
    const MIN_LEN: usize = 8;
    /// The length of all members.
    const LEN: usize = 32;

    /// Copies it from user space.
    ///
    /// Errors: [`EINVAL`] if it is too short, or its padding is not zero, [`E2BIG`] if it has
    /// unknown members that are not zero, or is larger than a page, [`EFAULT`].
    fn read(attr: &LinkCreateAttr<'_>) -> Result<Self> {
        let mut reader = attr.map_trace_info().reader();
        let len = reader.len();

        if len < Self::MIN_LEN {
            return Err(EINVAL);
        }
        if len > PAGE_SIZE {
            return Err(E2BIG);
        }

        let mut bytes = KVec::with_capacity(len.max(Self::LEN), GFP_KERNEL)?;
        bytes.resize(len, 0, GFP_KERNEL)?;
        reader.read_slice(&mut bytes)?;
        bytes.resize(len.max(Self::LEN), 0, GFP_KERNEL)?;

        let (known, unknown) = bytes.split_at(Self::LEN);
        if unknown.iter().any(|byte| *byte != 0) {
            return Err(E2BIG);
        }

        let u32_at = |at: usize| -> u32 {
            let mut raw = [0; 4];
            raw.copy_from_slice(&known[at..at + 4]);
            u32::from_ne_bytes(raw)
        };
        let u64_at = |at: usize| -> u64 {
            let mut raw = [0; 8];
            raw.copy_from_slice(&known[at..at + 8]);
            u64::from_ne_bytes(raw)
        };
        if u32_at(20) != 0 {
            return Err(EINVAL);
        }

        Ok(Self {
            map_fd: u32_at(0),
            trace_type: u32_at(4),
            cookie: u64_at(8),
            relative: u32_at(16),
            expected_revision: u64_at(24),
        })
    }
}

/// Attaches a tracer, and returns the file descriptor of the link.
///
/// When it returns, every later operation runs the tracer, and every earlier operation is over.
///
/// Context: process context, may sleep, for as long as the longest sleepable program.
///
/// Errors: those of [`TraceInfo::read`], [`Place::new`], [`Map::from_fd`], [`check_attach`],
/// [`Edges::check`], [`TracerList::with_tracer`], [`ESTALE`] if the revision is not the expected
/// one, and [`EINVAL`] if a target is set.
pub(crate) fn create(attr: &LinkCreateAttr<'_>, prog: &Prog) -> Result<c_int> {
    if attr.target_fd() != 0 {
        return Err(EINVAL);
    }
    let info = TraceInfo::read(attr)?;
    let place = Place::new(attr.flags(), info.relative)?;
    let trace_type = TraceType::try_from(info.trace_type)?;
    let map = Map::from_fd(info.map_fd)?;

    check_attach(prog, &map, trace_type)?;

    let tracer = Arc::new(Tracer::new(prog.into(), info.cookie), GFP_KERNEL_ACCOUNT)?;
    let edges = Edges::new(&tracer, &map, prog.written_maps()?)?;
    // Allocate everything first: nothing is visible before the last step that can fail.
    let new_list = match map.tracers() {
        Some(_) => None,
        None => Some(TracerList::new(&map)?),
    };
    let new_queue = match trace_type {
        TraceType::DeleteElem if map.evicts() && !has_delete_queue(&map) => {
            Some(DeleteQueue::new(&map)?)
        }
        _ => None,
    };
    let mut new_sync = match trace_type {
        TraceType::SyncElem if map.tracers().is_none_or(|list| list.sync().is_none()) => {
            Some(MapSync::new(&map)?)
        }
        _ => None,
    };
    let link = Link::prime(
        prog,
        Attachment {
            trace_type,
            tracer: tracer.clone(),
            map: GlobalLockedBy::new(None),
            news: GlobalLockedBy::new(None),
        },
    )?;
    tracer.set_link_id(link.id());

    {
        let mut writer = WRITERS.lock();

        if info.expected_revision != 0 && info.expected_revision != revision(map.tracers(), &writer)
        {
            return Err(ESTALE);
        }
        edges.check(&writer)?;
        let tracers = TracerList::with_tracer(map.tracers(), trace_type, tracer, place, &writer)?;
        if let Some(new) = new_list {
            map.install_tracers(new);
        }
        if let Some(list) = map.tracers() {
            if let Some(new) = new_queue {
                list.install_delete_queue(new);
                map.set_updates_not_plain();
            }
            // If another attach was faster, `new_sync` is dropped outside of the lock: that takes a
            // grace period.
            if list.sync().is_none() {
                if let Some(new) = new_sync.take() {
                    list.install_sync(new);
                    map.set_operations_not_plain();
                }
            }
            list.publish(&map, trace_type, tracers, &mut writer);
            if trace_type == TraceType::SyncElem {
                *link.news.as_mut(&mut writer) = list.sync().map(|sync| sync.data().news().clone());
            }
        }
        edges.record(&mut writer);
        *link.map.as_mut(&mut writer) = Some(map.clone());
    }
    synchronize_programs();
    link.replay();
    Ok(link.settle())
}

/// Returns what is attached to a map.
///
/// Context: process context, may sleep.
///
/// Errors: [`ENOMEM`].
pub(crate) fn query(map: &Map) -> Result<Attached> {
    let room = TraceType::COUNT * MAX_TRACERS;
    let mut progs = KVec::with_capacity(room, GFP_KERNEL)?;
    let mut links = KVec::with_capacity(room, GFP_KERNEL)?;
    let writer = WRITERS.lock();

    if let Some(list) = map.tracers() {
        let guard = rcu::read_lock();

        list.for_each(&writer, |tracer| {
            // There is room for all of them.
            let _ = progs.push_within_capacity(tracer.prog_id(ReadSide::from(&guard)));
            let _ = links.push_within_capacity(tracer.link_id());
        });
    }
    Ok(Attached {
        progs,
        links,
        revision: revision(map.tracers(), &writer),
    })
}

/// Returns whether the map has a queue of deletes.
fn has_delete_queue(map: &Map) -> bool {
    map.tracers()
        .is_some_and(|list| list.delete_queue().is_some())
}

impl Attachment {
    /// Starts the replay of a sync tracer.
    fn replay(&self) {
        if self.trace_type != TraceType::SyncElem {
            return;
        }
        self.tracer.want_replay();
        if let Some(map) = self.map.as_ref(&WRITERS.lock()) {
            if let Some(sync) = map.tracers().and_then(TracerList::sync) {
                sync.data().trust_tracers();
                sync.kick();
            }
        }
    }

    /// Returns the tracer.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Returns the map of a sync tracer.
    ///
    /// Errors: [`EOPNOTSUPP`] for an event tracer, [`ENOLINK`] after a detach.
    pub(crate) fn synced_map(&self) -> Result<ARef<Map>> {
        if self.trace_type != TraceType::SyncElem {
            return Err(EOPNOTSUPP);
        }
        self.map.as_ref(&WRITERS.lock()).clone().ok_or(ENOLINK)
    }

    /// Returns the events for poll(2): readable once the replay is complete, an error once a key
    /// was lost, hung up after a detach. Event tracers have nothing to wait for.
    pub(crate) fn poll(&self, file: &File, table: PollTable<'_>) -> u32 {
        if self.trace_type != TraceType::SyncElem {
            return POLL_DEFAULT;
        }
        let mut ready = 0;

        if let Some(news) = self.news() {
            table.register_wait(file, &news);
        }
        // A detach after this wakes the waiter.
        if self.synced_map().is_err() {
            return POLL_HUNG_UP;
        }
        if self.tracer.is_replayed() {
            ready |= POLL_READABLE;
        }
        if self.tracer.has_lost() {
            ready |= POLL_ERROR;
        }
        ready
    }

    fn news(&self) -> Option<Arc<PollCondVar>> {
        self.news.as_ref(&WRITERS.lock()).clone()
    }

    /// Stops the tracer, and removes it from the map.
    ///
    /// Operations that are under way may still run it.
    ///
    /// Errors: [`ENOLINK`] if it was removed before.
    fn remove(&self, writer: &mut Writer) -> Result {
        let map = self.map.as_mut(writer).take().ok_or(ENOLINK)?;

        self.tracer.stop();
        loop_check::forget(&self.tracer, writer);
        if let Some(list) = map.tracers() {
            list.remove_stopped(&map, self.trace_type, writer);
        }
        Ok(())
    }

    /// Detaches the tracer. When it returns, the tracer no longer runs.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOLINK`] if it was detached before.
    pub(crate) fn detach(&self) -> Result {
        self.remove(&mut WRITERS.lock())?;
        if let Some(news) = self.news() {
            news.notify_all();
        }
        // Tracers run in an RCU read-side critical section, also for sleepable programs.
        synchronize_rcu();
        Ok(())
    }

    /// Detaches the tracer when its link goes away.
    ///
    /// Context: process context, may sleep.
    pub(crate) fn release(&self) {
        let mut writer = WRITERS.lock();

        // After BPF_LINK_DETACH there is nothing left to do.
        let _ = self.remove(&mut writer);
        // Dropped here, as the last reference waits for a grace period.
        let news = self.news.as_mut(&mut writer).take();

        drop(writer);
        drop(news);
    }

    /// Returns `bpf_link_info.map_trace`.
    pub(crate) fn info(&self) -> LinkInfo {
        let writer = WRITERS.lock();

        LinkInfo {
            map_id: self.map.as_ref(&writer).as_ref().map_or(0, |map| map.id()),
            trace_type: self.trace_type as u32,
            cookie: self.tracer.cookie(),
            missed: self.tracer.missed(),
            failed: self.tracer.failed(),
            replayed: self.tracer.replayed(),
            pending: self
                .map
                .as_ref(&writer)
                .as_ref()
                .filter(|_| self.trace_type == TraceType::SyncElem)
                .and_then(|map| map.tracers())
                .and_then(TracerList::sync)
                .map_or(0, |sync| sync.data().pending()),
            lost: self.tracer.lost(),
        }
    }

    /// Prints the lines of `/proc/<pid>/fdinfo/<fd>`.
    pub(crate) fn show_fdinfo(&self, seq: &SeqFile) {
        let info = self.info();

        seq_print!(
            seq,
            "map_id:\t{}\ntrace_type:\t{}\ncookie:\t{}\nmissed:\t{}\nfailed:\t{}\n",
            info.map_id,
            info.trace_type,
            info.cookie,
            info.missed,
            info.failed
        );
        if self.trace_type == TraceType::SyncElem {
            seq_print!(
                seq,
                "replayed:\t{}\npending:\t{}\nlost:\t{}\n",
                info.replayed,
                info.pending,
                info.lost
            );
        }
    }
}

/// Changes the program of a link. Each operation runs the old program or the new one.
///
/// When it returns, the old program no longer runs.
///
/// Context: process context, may sleep.
///
/// Errors: [`ENOLINK`] after a detach, [`EPERM`] if the program is not `old`, and those of
/// [`check_attach`] and [`Edges::check`].
pub(crate) fn update_prog(link: &Link<Attachment>, new: ARef<Prog>, old: Option<&Prog>) -> Result {
    let replaced = {
        let mut writer = WRITERS.lock();
        let map = link.map.as_ref(&writer).clone().ok_or(ENOLINK)?;

        if old.is_some_and(|old| !link.tracer.runs(old)) {
            return Err(EPERM);
        }
        check_attach(&new, &map, link.trace_type)?;
        let edges = Edges::new(&link.tracer, &map, new.written_maps()?)?;
        edges.check(&writer)?;

        if let Some(list) = map.tracers() {
            list.count_change(&mut writer);
        }
        edges.record(&mut writer);
        (link.tracer.set_prog(new.clone()), link.set_prog(new))
    };
    // When its last reference is dropped, a program loses at once what it needs to handle its own
    // faults and exceptions. Only its code stays for a grace period.
    synchronize_rcu();
    drop(replaced);
    // The old program may have written something else to the mirror than the new one would.
    link.replay();
    Ok(())
}
