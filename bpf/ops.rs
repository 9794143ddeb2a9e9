// SPDX-License-Identifier: GPL-2.0

//! `struct bpf_map_trace_ops`: how the built-in part of map tracing calls this module.
//!
//! C header: [`include/linux/bpf_map_trace.h`](srctree/include/linux/bpf_map_trace.h)

use super::{
    link::{Link, LinkCreateAttr},
    map::Map,
    operation::{Caller, Delete, Eviction, Update},
    prog::Prog,
    rcu::ReadSide,
    stack, //
};
use core::{ffi::c_void, marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_result, to_result},
    ffi::{c_int, c_long},
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, poll::PollTable, rcu::rcu_barrier},
    types::Opaque,
    uaccess::{UserPtr, UserSlice},
};

/// The functions that the module provides for map tracing.
pub(crate) trait MapTracing {
    /// The data of a link.
    type LinkData: Send + Sync;

    /// Updates an element, then runs the tracers. Returns what the map's own operation returned.
    ///
    /// Context: any, NMI included; under RCU or RCU tasks trace.
    fn update_elem(update: Update<'_>, caller: Caller<'_>) -> c_long;

    /// Deletes an element, then runs the tracers. Returns what the map's own operation returned.
    ///
    /// Context: as [`MapTracing::update_elem`].
    fn delete_elem(delete: Delete<'_>, caller: Caller<'_>) -> c_long;

    /// Updates an element if too little of the stack is left for tracers. Returns what the map's
    /// own operation returned.
    ///
    /// Context: as [`MapTracing::update_elem`].
    fn update_elem_only(update: Update<'_>) -> c_long;

    /// Deletes an element if too little of the stack is left for tracers. Returns what the map's
    /// own operation returned.
    ///
    /// Context: as [`MapTracing::update_elem`].
    fn delete_elem_only(delete: Delete<'_>) -> c_long;

    /// Runs the tracers of an update that the caller has done. If each CPU has its own value, the
    /// update was that of `cpu`.
    ///
    /// Context: in the RCU read section of the operation.
    fn updated(update: Update<'_>, cpu: u32, rcu: ReadSide<'_>);

    /// Runs the tracers of a delete that the caller has done.
    ///
    /// Context: in the RCU read section of the operation.
    fn deleted(delete: Delete<'_>, rcu: ReadSide<'_>);

    /// Queues the key of an evicted element.
    ///
    /// Context: any, NMI included, under locks of the map.
    fn evicted(eviction: Eviction<'_>);

    /// Notes that an element was marked, the first one since an epoch of marks began.
    ///
    /// Context: any, NMI included.
    fn marked(map: &Map);

    /// `BPF_LINK_CREATE`: returns the new file descriptor.
    fn create(attr: &LinkCreateAttr<'_>, prog: &Prog) -> Result<c_int>;

    /// Releases a link whose last reference went away.
    fn release(link: &Link<Self::LinkData>);

    /// `BPF_LINK_DETACH`.
    fn detach(link: &Link<Self::LinkData>) -> Result;

    /// `BPF_LINK_UPDATE`.
    fn update_prog(link: &Link<Self::LinkData>, new: ARef<Prog>, old: Option<&Prog>) -> Result;

    /// Prints the link's lines of `/proc/<pid>/fdinfo/<fd>`.
    fn show_fdinfo(link: &Link<Self::LinkData>, seq: &SeqFile);

    /// Returns the link's part of `BPF_OBJ_GET_INFO_BY_FD`.
    fn info(link: &Link<Self::LinkData>) -> LinkInfo;

    /// poll(2): returns the events that are ready.
    fn poll(link: &Link<Self::LinkData>, file: &File, table: PollTable<'_>) -> u32;

    /// `BPF_LINK_FLUSH`: counts the keys that are left.
    fn flush(
        link: &Link<Self::LinkData>,
        keys: UserSlice,
        timeout_ms: u32,
        left: &mut u64,
    ) -> Result;

    /// `BPF_PROG_QUERY`.
    fn query(map: &Map) -> Result<Attached>;

    /// Returns the size of the map's keys, in bytes; 0 after a detach.
    fn key_size(link: &Link<Self::LinkData>) -> usize;
}

/// What is attached to a map.
pub(crate) struct Attached {
    /// The ids of the programs, by operation, in the order in which they run.
    pub(crate) progs: KVec<u32>,
    /// The ids of their links.
    pub(crate) links: KVec<u32>,
    /// 1, and one more after each change.
    pub(crate) revision: u64,
}

/// `bpf_link_info.map_trace`.
pub(crate) struct LinkInfo {
    /// The traced map, or 0 after a detach.
    pub(crate) map_id: u32,
    /// The traced operation.
    pub(crate) trace_type: u32,
    /// What `bpf_get_attach_cookie()` returns.
    pub(crate) cookie: u64,
    /// How often the tracer was not run.
    pub(crate) missed: u64,
    /// How often the tracer returned 1.
    pub(crate) failed: u64,
    /// How many elements the replay has reported.
    pub(crate) replayed: u64,
    /// How many keys of the map could not be settled.
    pub(crate) pending: u64,
    /// How many keys were lost.
    pub(crate) lost: u64,
}

/// The kinds of callers, each of which has its own function.
const PLAIN: u32 = bindings::bpf_map_trace_caller_BPF_MAP_TRACE_PLAIN;
const SLEEPABLE: u32 = bindings::bpf_map_trace_caller_BPF_MAP_TRACE_SLEEPABLE;
const COPY: u32 = bindings::bpf_map_trace_caller_BPF_MAP_TRACE_COPY;

/// Returns the caller of a function for `KIND`.
///
/// # Safety
///
/// The caller is of this kind: a plain one holds RCU for as long as the result is used.
#[inline(always)]
unsafe fn caller<'a, const KIND: u32>() -> Caller<'a> {
    match KIND {
        // SAFETY: By the safety requirements.
        PLAIN => Caller::Plain(unsafe { ReadSide::assume() }),
        SLEEPABLE => Caller::Sleepable,
        _ => Caller::Copy,
    }
}

/// The registration of `T`. Dropping it unregisters `T`.
///
/// # Invariants
///
/// While registered, `ops` does not move.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: MapTracing> {
    #[pin]
    ops: Opaque<bindings::bpf_map_trace_ops>,
    _provider: PhantomData<T>,
}

// SAFETY: The table is only read once it is registered.
unsafe impl<T: MapTracing> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: MapTracing> Sync for Registration<T> {}

impl<T: MapTracing> Registration<T> {
    /// Registers `T` for `module`.
    ///
    /// Errors: [`EBUSY`] if another module provides map tracing already.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ops <- Opaque::try_ffi_init(|slot: *mut bindings::bpf_map_trace_ops| {
                let ops = bindings::bpf_map_trace_ops {
                    owner: module.as_ptr(),
                    update_elem: [
                        Some(Self::update_elem::<PLAIN>),
                        Some(Self::update_elem::<SLEEPABLE>),
                        Some(Self::update_elem::<COPY>),
                    ],
                    delete_elem: [
                        Some(Self::delete_elem::<PLAIN>),
                        Some(Self::delete_elem::<SLEEPABLE>),
                        Some(Self::delete_elem::<COPY>),
                    ],
                    updated: Some(Self::updated),
                    deleted: Some(Self::deleted),
                    evicted: Some(Self::evicted),
                    marked: Some(Self::marked),
                    link_create: Some(Self::link_create),
                    link_release: Some(Self::link_release),
                    link_dealloc: Some(Self::link_dealloc),
                    link_detach: Some(Self::link_detach),
                    link_update_prog: Some(Self::link_update_prog),
                    link_show_fdinfo: Some(Self::link_show_fdinfo),
                    link_fill_info: Some(Self::link_fill_info),
                    link_poll: Some(Self::link_poll),
                    link_flush: Some(Self::link_flush),
                    query: Some(Self::query),
                    free_tracers: Some(Self::free_tracers),
                };
                // SAFETY: `slot` is valid for a write, and what is pinned there stays until
                // `drop()` has taken it back.
                to_result(unsafe {
                    slot.write(ops);
                    bindings::bpf_map_trace_register(slot)
                })
            }),
            _provider: PhantomData,
        })
    }

    /// Does an update.
    ///
    /// # Safety
    ///
    /// The map is alive, and the rest is what its `map_update_elem()` may be called with. The
    /// caller is of this `KIND`.
    unsafe extern "C" fn update_elem<const KIND: u32>(
        map: *mut bindings::bpf_map,
        key: *mut c_void,
        value: *mut c_void,
        flags: u64,
    ) -> c_long {
        if !stack::has_room() {
            // SAFETY: By the safety requirements. With the same arguments, it is a jump.
            return unsafe { Self::update_elem_only(map, key, value, flags) };
        }
        // SAFETY: The caller has a reference to the map, and passes on what it got for the map's
        // own operation.
        let update = unsafe { Update::new(Map::from_raw(map), key, value, flags) };
        // SAFETY: The verifier, or the system call, has chosen the function for its kind.
        T::update_elem(update, unsafe { caller::<KIND>() })
    }

    /// Does an update if there is no room for tracers.
    ///
    /// # Safety
    ///
    /// As for [`Self::update_elem`], but for the kind.
    #[cold]
    #[inline(never)]
    unsafe extern "C" fn update_elem_only(
        map: *mut bindings::bpf_map,
        key: *mut c_void,
        value: *mut c_void,
        flags: u64,
    ) -> c_long {
        // SAFETY: As in `update_elem()`.
        T::update_elem_only(unsafe { Update::new(Map::from_raw(map), key, value, flags) })
    }

    /// Does a delete.
    ///
    /// # Safety
    ///
    /// The map is alive, and the key is what its `map_delete_elem()` may be called with. The caller
    /// is of this `KIND`.
    unsafe extern "C" fn delete_elem<const KIND: u32>(
        map: *mut bindings::bpf_map,
        key: *mut c_void,
    ) -> c_long {
        if !stack::has_room() {
            // SAFETY: As in `update_elem()`.
            return unsafe { Self::delete_elem_only(map, key) };
        }
        // SAFETY: As in `update_elem()`.
        let delete = unsafe { Delete::new(Map::from_raw(map), key) };
        // SAFETY: As in `update_elem()`.
        T::delete_elem(delete, unsafe { caller::<KIND>() })
    }

    /// Does a delete if there is no room for tracers.
    ///
    /// # Safety
    ///
    /// As for [`Self::delete_elem`], but for the kind.
    #[cold]
    #[inline(never)]
    unsafe extern "C" fn delete_elem_only(map: *mut bindings::bpf_map, key: *mut c_void) -> c_long {
        // SAFETY: As in `update_elem()`.
        T::delete_elem_only(unsafe { Delete::new(Map::from_raw(map), key) })
    }

    /// Traces an update.
    ///
    /// # Safety
    ///
    /// RCU is held, the map is alive, and the rest is a key and a value of it that nobody else
    /// writes to.
    unsafe extern "C" fn updated(
        map: *mut bindings::bpf_map,
        key: *mut c_void,
        value: *mut c_void,
        flags: u64,
        cpu: u32,
    ) {
        // SAFETY: The caller has a reference to the map, and has just used the rest.
        let update = unsafe { Update::new(Map::from_raw(map), key, value, flags) };
        // SAFETY: This is called in the RCU read side section of the operation.
        T::updated(update, cpu, unsafe { ReadSide::assume() });
    }

    /// Traces a delete.
    ///
    /// # Safety
    ///
    /// RCU is held, the map is alive, and the key is one of it that nobody else writes to.
    unsafe extern "C" fn deleted(map: *mut bindings::bpf_map, key: *mut c_void) {
        // SAFETY: As in `updated()`.
        let (delete, rcu) = unsafe { (Delete::new(Map::from_raw(map), key), ReadSide::assume()) };
        T::deleted(delete, rcu);
    }

    /// Queues an evicted key.
    ///
    /// # Safety
    ///
    /// The map is alive, and the key is one of it that nobody writes to during the call.
    unsafe extern "C" fn evicted(map: *mut bindings::bpf_map, key: *mut c_void) {
        // SAFETY: By the safety requirements.
        T::evicted(unsafe { Eviction::new(Map::from_raw(map), key) });
    }

    /// Notes that an element was marked.
    ///
    /// # Safety
    ///
    /// The map is alive.
    unsafe extern "C" fn marked(map: *mut bindings::bpf_map) {
        // SAFETY: By the safety requirements.
        T::marked(unsafe { Map::from_raw(map) });
    }

    /// Creates a link.
    ///
    /// # Safety
    ///
    /// Both pointers are valid; the program is one for `BPF_TRACE_MAP`, the caller user space.
    unsafe extern "C" fn link_create(
        attr: *const bindings::bpf_attr,
        prog: *mut bindings::bpf_prog,
    ) -> c_int {
        // SAFETY: Both are valid during the call, and it is for such programs only. Calls from
        // BPF programs do not get here.
        let (attr, prog) = unsafe { (LinkCreateAttr::from_raw(attr), Prog::from_raw(prog)) };
        from_result(|| T::create(&attr, prog))
    }

    /// Releases a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type.
    unsafe extern "C" fn link_release(link: *mut bindings::bpf_link) {
        // SAFETY: A link of ours, until dealloc().
        T::release(unsafe { Link::from_raw(link) });
    }

    /// Frees a link.
    ///
    /// # Safety
    ///
    /// `link` is a link of this type that nobody can reach.
    unsafe extern "C" fn link_dealloc(link: *mut bindings::bpf_link) {
        // SAFETY: A link of ours, and the last that is done with it.
        unsafe { Link::<T::LinkData>::dealloc(link) };
    }

    /// Detaches a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type.
    unsafe extern "C" fn link_detach(link: *mut bindings::bpf_link) -> c_int {
        // SAFETY: A link of ours, and the caller has a reference.
        let link = unsafe { Link::from_raw(link) };
        from_result(|| T::detach(link).map(|()| 0))
    }

    /// Changes the program of a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type; the caller has a reference to each program, and after
    /// success gives up that to `new_prog`.
    unsafe extern "C" fn link_update_prog(
        link: *mut bindings::bpf_link,
        new_prog: *mut bindings::bpf_prog,
        old_prog: *mut bindings::bpf_prog,
    ) -> c_int {
        // SAFETY: A link of ours, and the caller has references to all three.
        let (link, new, old) = unsafe {
            (
                Link::from_raw(link),
                Prog::from_raw(new_prog),
                NonNull::new(old_prog).map(|p| Prog::from_raw(p.as_ptr())),
            )
        };
        from_result(|| {
            T::update_prog(link, new.into(), old)?;
            // The caller has also given up its reference: drop it, as update_prog() took another
            // one.
            // SAFETY: After success, the caller does not use its reference any more.
            drop(unsafe { ARef::from_raw(NonNull::from(new)) });
            Ok(0)
        })
    }

    /// Shows a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type, and `seq` valid.
    unsafe extern "C" fn link_show_fdinfo(
        link: *const bindings::bpf_link,
        seq: *mut bindings::seq_file,
    ) {
        // SAFETY: A link of ours, and a file that is being shown.
        let (link, seq) = unsafe { (Link::from_raw(link), SeqFile::from_raw(seq)) };
        T::show_fdinfo(link, seq);
    }

    /// Fills in the info of a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type, and `info` valid.
    unsafe extern "C" fn link_fill_info(
        link: *const bindings::bpf_link,
        info: *mut bindings::bpf_link_info,
    ) -> c_int {
        // SAFETY: A link of ours.
        let from = T::info(unsafe { Link::from_raw(link) });
        // SAFETY: All of it is initialized, and any value of its members is valid.
        let to = unsafe { &mut (*info).__bindgen_anon_1.map_trace };

        to.map_id = from.map_id;
        to.trace_type = from.trace_type;
        to.cookie = from.cookie;
        to.missed = from.missed;
        to.failed = from.failed;
        to.replayed = from.replayed;
        to.pending = from.pending;
        to.lost = from.lost;
        0
    }

    /// Polls a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type, `file` one of it, and `table` that of a poll(2) on it.
    unsafe extern "C" fn link_poll(
        link: *mut bindings::bpf_link,
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: By the safety requirements. Nobody holds the position of such a file.
        let (link, file, table) = unsafe {
            (
                Link::from_raw(link),
                File::from_raw_file(file),
                PollTable::from_raw(table),
            )
        };
        T::poll(link, file, table)
    }

    /// Flushes a link.
    ///
    /// # Safety
    ///
    /// `link` is a live link of this type, and `left` is valid and initialized.
    unsafe extern "C" fn link_flush(
        link: *mut bindings::bpf_link,
        keys: *mut c_void,
        count: u32,
        timeout_ms: u32,
        left: *mut u64,
    ) -> c_int {
        // SAFETY: A link of ours, and the caller has a reference.
        let (link, left) = unsafe { (Link::from_raw(link), &mut *left) };

        from_result(|| {
            let len = T::key_size(link).checked_mul(count as usize).ok_or(E2BIG)?;
            let keys = UserSlice::new(UserPtr::from_ptr(keys), len);

            T::flush(link, keys, timeout_ms, left)?;
            Ok(0)
        })
    }

    /// Queries a map.
    ///
    /// # Safety
    ///
    /// `map` is alive, and `count` and `revision` are valid and initialized.
    unsafe extern "C" fn query(
        map: *mut bindings::bpf_map,
        prog_ids: *mut c_void,
        link_ids: *mut c_void,
        count: *mut u32,
        revision: *mut u64,
    ) -> c_int {
        // SAFETY: The caller has a reference to the map, and the others are its variables.
        let (map, count, revision) = unsafe { (Map::from_raw(map), &mut *count, &mut *revision) };

        from_result(|| {
            let attached = T::query(map)?;
            let room = *count as usize;

            *count = attached.progs.len() as u32;
            *revision = attached.revision;
            for (to, ids) in [(prog_ids, &attached.progs), (link_ids, &attached.links)] {
                if to.is_null() {
                    continue;
                }
                let ids = &ids[..room.min(ids.len())];
                let mut writer = UserSlice::new(UserPtr::from_ptr(to), size_of_val(ids)).writer();
                for id in ids {
                    writer.write(id)?;
                }
            }
            // Whoever takes no ids only asks how many there are.
            let takes_ids = room != 0 && !(prog_ids.is_null() && link_ids.is_null());
            if takes_ids && room < attached.progs.len() {
                return Err(ENOSPC);
            }
            Ok(0)
        })
    }

    /// Frees the tracers of a map that goes, or that lives on without the module.
    ///
    /// # Safety
    ///
    /// `tracers` comes from [`Map::install_tracers`], and nobody can reach it.
    unsafe extern "C" fn free_tracers(tracers: *mut bindings::bpf_map_tracers) {
        // SAFETY: By the safety requirements.
        unsafe { Map::free_tracers(tracers) };
    }
}

#[pinned_drop]
impl<T: MapTracing> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It was registered, or it would not exist. Links hold the module, so there is none.
        unsafe { bindings::bpf_map_trace_unregister(self.ops.get()) };
        // Arrays of the lists of maps may still wait to be freed by code of this module.
        rcu_barrier();
    }
}
