// SPDX-License-Identifier: GPL-2.0

//! BPF maps: references, properties, operations and the traced bytes.
//!
//! C header: [`include/linux/bpf.h`](srctree/include/linux/bpf.h)

use super::rcu::ReadSide;
use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};
use kernel::{
    alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_NOWARN},
    bindings,
    cpu::nr_cpu_ids,
    error::{from_err_ptr, to_result},
    ffi::c_long,
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

/// An operation that can be traced.
///
/// Each is a target (`attach_btf_id`) of `BPF_TRACE_MAP` programs.
#[allow(clippy::enum_variant_names, reason = "they are those of the kernel")]
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum TraceType {
    /// `bpf_map_update_elem()` and `BPF_MAP_UPDATE_ELEM`.
    UpdateElem = bindings::bpf_map_trace_type_BPF_MAP_TRACE_UPDATE_ELEM,
    /// `bpf_map_delete_elem()` and `BPF_MAP_DELETE_ELEM`.
    DeleteElem = bindings::bpf_map_trace_type_BPF_MAP_TRACE_DELETE_ELEM,
    /// Any change of a key: the tracers get the current state of the key.
    SyncElem = bindings::bpf_map_trace_type_BPF_MAP_TRACE_SYNC_ELEM,
}

/// Removes [`TAGS`], for which the alignment leaves room.
#[inline(always)]
fn untagged(tracers: *mut bindings::bpf_map_tracers) -> *mut Tracers {
    const _: () = assert!(align_of::<Tracers>() > TAGS);

    tracers.map_addr(|address| address & !TAGS).cast()
}

impl TraceType {
    /// The number of types.
    pub(crate) const COUNT: usize = bindings::bpf_map_trace_type_MAX_BPF_MAP_TRACE_TYPE as usize;

    /// All types.
    pub(crate) const ALL: [Self; Self::COUNT] =
        [Self::UpdateElem, Self::DeleteElem, Self::SyncElem];
}

impl TryFrom<u32> for TraceType {
    type Error = Error;

    /// Fails with [`EINVAL`] if `value` is out of range.
    fn try_from(value: u32) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|t| *t as u32 == value)
            .ok_or(EINVAL)
    }
}

/// Zeroes the bits after a prefix (`struct bpf_lpm_trie_key_u8`).
fn cut_behind_prefix(key: &mut [u8]) {
    if let Some((len, bytes)) = key.split_first_chunk_mut() {
        let len = u32::from_ne_bytes(*len) as usize;

        for (i, byte) in bytes.iter_mut().enumerate() {
            let bits = len.saturating_sub(8 * i).min(8);

            *byte &= !(0xffu32 >> bits) as u8;
        }
    }
}

/// A buffer for keys of a map, one after the other.
///
/// # Invariants
///
/// `bytes` has `capacity` times `key_size` bytes.
pub(crate) struct KeyBuffer {
    bytes: KVVec<u8>,
    key_size: usize,
    capacity: u32,
}

impl KeyBuffer {
    /// Allocates room for `capacity` keys of `map`.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(map: &Map, capacity: u32) -> Result<Self> {
        let key_size = map.key_size() as usize;
        let size = key_size.checked_mul(capacity as usize).ok_or(ENOMEM)?;

        // INVARIANT: That is the size.
        Ok(Self {
            bytes: KVVec::from_elem(0, size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?,
            key_size,
            capacity,
        })
    }

    /// Returns how many keys it has room for.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns the bytes of all keys.
    pub(crate) fn as_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Normalizes the first key, see [`Map::normalize_key`].
    ///
    /// Errors: [`EINVAL`] if it is longer than a prefix can be.
    pub(crate) fn normalize_first(&mut self, map: &Map) -> Result {
        if !map.has_prefix_keys() {
            return Ok(());
        }
        let key = &mut self.bytes[..self.key_size];

        if key
            .split_first_chunk()
            .is_some_and(|(len, bytes)| u32::from_ne_bytes(*len) as usize > 8 * bytes.len())
        {
            return Err(EINVAL);
        }
        cut_behind_prefix(key);
        Ok(())
    }

    /// Returns the first key.
    pub(crate) fn first(&mut self) -> *mut c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// Returns the first `count` keys.
    pub(crate) fn keys(&mut self, count: usize) -> impl Iterator<Item = *mut c_void> + '_ {
        self.bytes
            .chunks_exact_mut(self.key_size)
            .take(count)
            .map(|key| key.as_mut_ptr().cast())
    }
}

/// A CPU that can have its own value.
///
/// # Invariants
///
/// It is possible.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueCpu(u32);

impl ValueCpu {
    /// Any CPU, for maps with one value for all CPUs.
    pub(crate) const ANY: Self = Self(0);

    /// Returns all possible CPUs.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // INVARIANT: It was asked for.
        (0..nr_cpu_ids())
            .filter(|cpu| {
                // SAFETY: It is less than `nr_cpu_ids`.
                unsafe { bindings::cpu_possible(*cpu) }
            })
            .map(Self)
    }

    /// Returns its number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// Names the type of a map's tracers.
///
/// The layer above implements it for [`Map`], as only that layer knows the type. There can be only
/// one implementation, so all code that reads, installs or frees the tracers of a map uses the same
/// type.
pub(crate) trait HasTracers {
    /// The type that `map->tracers` points to.
    type Tracers: Send + Sync;
}

/// The tracers of a map.
type Tracers = <Map as HasTracers>::Tracers;

/// A tag in `map->tracers`: after an operation, its tracers have to run, and nothing else is to be
/// done.
const PLAIN: usize = 1;

/// The same tag for deletes, which evict nothing.
const PLAIN_FOR_DELETES: usize = 2;

const TAGS: usize = PLAIN | PLAIN_FOR_DELETES;

/// A value that was read from `map->tracers`.
///
/// # Invariants
///
/// It is null without tags, or a `Tracers` that can be used for `'a`, with all of [`TAGS`], none,
/// or [`PLAIN_FOR_DELETES`] alone.
#[derive(Clone, Copy)]
pub(crate) struct FoundTracers<'a>(*mut bindings::bpf_map_tracers, PhantomData<&'a Tracers>);

impl<'a> FoundTracers<'a> {
    /// Returns whether there is nothing to do after an operation but to run its tracers.
    /// `may_evict` says whether the operation can make the map evict elements.
    #[inline(always)]
    pub(crate) fn are_plain(self, may_evict: bool) -> bool {
        let tag = if may_evict { PLAIN } else { PLAIN_FOR_DELETES };

        self.0.addr() & tag != 0
    }

    /// Returns the tracers, if they are plain. (An [`Option`] would be tested twice.)
    ///
    /// # Safety
    ///
    /// [`FoundTracers::are_plain`] says so, for the same `may_evict`.
    #[inline(always)]
    pub(crate) unsafe fn plain(self, may_evict: bool) -> &'a Tracers {
        // SAFETY: By the safety requirements and the invariants, it has a tag, so it is not null,
        // and with `PLAIN` it has both.
        unsafe {
            if may_evict {
                &*self.0.byte_sub(TAGS).cast::<Tracers>()
            } else {
                &*untagged(self.0)
            }
        }
    }
}

/// A `struct bpf_map`.
///
/// # Invariants
///
/// The map has a non-zero `refcnt`, or it can be reached by the program or the system call that
/// operates on it. Its `tracers` pointer is null or comes from [`Map::install_tracers`] of this
/// very module, but for [`TAGS`]: one module is registered at a time, and takes its tracers from all maps
/// before another one can follow.
#[repr(transparent)]
pub(crate) struct Map(Opaque<bindings::bpf_map>);

// SAFETY: A map can be used from any task.
unsafe impl Send for Map {}
// SAFETY: What `&Map` gives access to is constant, atomic, or does its own locking.
unsafe impl Sync for Map {}

// SAFETY: `bpf_map_inc()` and `bpf_map_put()` count `refcnt`, which keeps the map.
//
// It is not `usercnt`: that counts what user space can still use the map by, and when it drops to
// zero, timers are cancelled and program arrays emptied. Whether a map is traced must not change
// that.
unsafe impl AlwaysRefCounted for Map {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants, the map is alive.
        unsafe { bindings::bpf_map_inc(self.0.get()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The safety requirements say that the caller has a reference to give up.
        unsafe { bindings::bpf_map_put(obj.as_ptr().cast()) };
    }
}

impl Map {
    /// Gets the map of a file descriptor that has read access.
    ///
    /// Context: process context.
    ///
    /// Errors: [`EBADF`] if `fd` is not open, [`EINVAL`] if it is not of a map, [`EPERM`] if it has
    /// no read access.
    pub(crate) fn from_fd(fd: u32) -> Result<ARef<Self>> {
        // SAFETY: No requirements.
        let map = unsafe { bindings::bpf_map_get_with_mode(fd, bindings::FMODE_CAN_READ) };
        let map = NonNull::new(from_err_ptr(map)?).ok_or(EINVAL)?;
        // SAFETY: The function has returned a map with a reference for us.
        Ok(unsafe { ARef::from_raw(map.cast()) })
    }

    /// Wraps a map.
    ///
    /// # Safety
    ///
    /// `ptr` is a map that stays alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::bpf_map) -> &'a Self {
        // SAFETY: By the safety requirements; `Map` is transparent.
        unsafe { &*ptr.cast() }
    }

    /// Returns the `struct bpf_map`, for the context of a program.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::bpf_map {
        self.0.get()
    }

    /// Returns the id of the map.
    pub(crate) fn id(&self) -> u32 {
        // SAFETY: Set once, before the map could be found.
        unsafe { (*self.0.get()).id }
    }

    /// Returns the key size, in bytes.
    pub(crate) fn key_size(&self) -> u32 {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).key_size }
    }

    /// Returns the value size, in bytes.
    pub(crate) fn value_size(&self) -> u32 {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).value_size }
    }

    /// Returns the maximum number of elements.
    pub(crate) fn max_entries(&self) -> u32 {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).max_entries }
    }

    /// Returns whether programs must not read the map (`BPF_F_WRONLY_PROG`).
    pub(crate) fn is_write_only_for_programs(&self) -> bool {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).map_flags & bindings::BPF_F_WRONLY_PROG != 0 }
    }

    /// Returns whether the map is for one program only (`excl_prog_hash`).
    pub(crate) fn is_exclusive(&self) -> bool {
        // SAFETY: Constant.
        unsafe { !(*self.0.get()).excl_prog_sha.is_null() }
    }

    /// Returns whether the map evicts elements to make room for others.
    pub(crate) fn evicts(&self) -> bool {
        // SAFETY: Constant.
        let map_type = unsafe { (*self.0.get()).map_type };

        matches!(
            map_type,
            bindings::bpf_map_type_BPF_MAP_TYPE_LRU_HASH
                | bindings::bpf_map_type_BPF_MAP_TYPE_LRU_PERCPU_HASH
        )
    }

    /// Returns whether the patched kernel tests the traced byte in this operation of this map type.
    pub(crate) fn can_trace(&self, trace_type: TraceType) -> bool {
        // SAFETY: The map is alive, by the type invariants.
        unsafe { bindings::bpf_map_can_trace(self.0.get(), trace_type as u32) }
    }

    /// Sets the byte that every operation of this type tests.
    ///
    /// It takes effect for operations that begin after
    /// [`synchronize_programs`](super::rcu::synchronize_programs).
    pub(crate) fn set_traced(&self, trace_type: TraceType, traced: bool) {
        // SAFETY: The map is alive, and the array has an element for each type. Volatile as in
        // WRITE_ONCE(), because it is read without a lock.
        unsafe {
            ptr::addr_of_mut!((*self.0.get()).traced[trace_type as usize])
                .write_volatile(traced.into())
        };
    }

    /// Returns the map's tracers, if it ever had one.
    #[inline(always)]
    pub(crate) fn tracers(&self) -> Option<&Tracers> {
        // SAFETY: The map is alive. Written by cmpxchg, and read like READ_ONCE(); what is behind it
        // depends on the address.
        let tracers = unsafe { ptr::addr_of!((*self.0.get()).tracers).read_volatile() };
        // SAFETY: By the type invariants, this is null or a `Tracers`. It is freed with the map, or
        // when the module is removed, which waits for everybody who can have read it.
        unsafe { untagged(tracers).as_ref() }
    }

    /// Like [`Map::tracers`], with the tags. Call it before the operation: whoever changes the tags
    /// waits for operations that have not seen the change.
    #[inline(always)]
    pub(crate) fn found_tracers(&self) -> FoundTracers<'_> {
        // SAFETY: As in `tracers()`.
        let tracers = unsafe { ptr::addr_of!((*self.0.get()).tracers).read_volatile() };

        // INVARIANT: By the type invariants.
        FoundTracers(tracers, PhantomData)
    }

    /// Notes that from now on there is more to do after updates. The caller holds a lock that
    /// excludes other changes of the tags.
    pub(crate) fn set_updates_not_plain(&self) {
        self.clear_tags(PLAIN);
    }

    /// Like [`Map::set_updates_not_plain`], for all operations.
    pub(crate) fn set_operations_not_plain(&self) {
        self.clear_tags(TAGS);
    }

    fn clear_tags(&self, tags: usize) {
        // SAFETY: The map is alive. Volatile as in WRITE_ONCE(), because it is read without a lock.
        unsafe {
            let tracers = ptr::addr_of_mut!((*self.0.get()).tracers);
            let old = tracers.read_volatile();

            // INVARIANT: It is the same but for `TAGS`.
            tracers.write_volatile(old.map_addr(|address| address & !tags));
        }
    }

    /// Installs the tracers of the map if it has none yet, else drops `new`.
    ///
    /// The map keeps them until it is freed, or the module is removed.
    pub(crate) fn install_tracers(&self, new: KBox<Tracers>) {
        let new = KBox::into_raw(new);
        // INVARIANT: The map's pointer becomes what `KBox::into_raw()` returned.
        // SAFETY: The map is alive, and `new` is valid until `free_tracers()`.
        let old = unsafe {
            bindings::bpf_map_trace_install(self.0.get(), new.wrapping_byte_add(TAGS).cast())
        };
        if !old.is_null() {
            // SAFETY: `new` comes from `KBox::into_raw()` and was not used.
            drop(unsafe { KBox::from_raw(new) });
        }
    }

    /// Frees the tracers of a map.
    ///
    /// # Safety
    ///
    /// `tracers` comes from [`Map::install_tracers`], and nobody can reach it.
    pub(super) unsafe fn free_tracers(tracers: *mut bindings::bpf_map_tracers) {
        // SAFETY: By the safety requirements, this is a `Tracers` that `KBox::into_raw()` returned.
        drop(unsafe { KBox::from_raw(untagged(tracers)) });
    }

    /// Returns whether keys are prefixes: the bits after the prefix do not count.
    #[inline(always)]
    pub(crate) fn has_prefix_keys(&self) -> bool {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).map_type == bindings::bpf_map_type_BPF_MAP_TYPE_LPM_TRIE }
    }

    /// Normalizes a key: of all keys that are equal to the map, the one in which the bits that do
    /// not count are zero.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map that nobody else uses.
    pub(crate) unsafe fn normalize_key(&self, key: *mut c_void) {
        if self.has_prefix_keys() {
            // SAFETY: By the safety requirements, it has so many bytes.
            cut_behind_prefix(unsafe {
                slice::from_raw_parts_mut(key.cast(), self.key_size() as usize)
            });
        }
    }

    /// Returns whether each CPU has its own value.
    pub(crate) fn has_value_for_each_cpu(&self) -> bool {
        // SAFETY: Constant.
        unsafe { (*(*self.0.get()).ops).map_lookup_percpu_elem.is_some() }
    }

    /// Returns the address of the value of a key, or null. If each CPU has its own value, it is
    /// that of `cpu`. The lookup has no side effect: the LRU list does not notice it.
    ///
    /// The memory stays valid as long as RCU is held, but others can write to it, and its element
    /// can be reused for another key.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map, which has sync tracers.
    pub(crate) unsafe fn lookup(
        &self,
        key: *mut c_void,
        cpu: ValueCpu,
        _rcu: ReadSide<'_>,
    ) -> *mut c_void {
        // SAFETY: The map is alive, and the CPU is possible. The rest is up to the caller.
        unsafe { bindings::bpf_map_trace_read_elem(self.0.get(), key, cpu.0) }
    }

    /// Returns whether a value is consistent only under the lock in it.
    pub(crate) fn has_locked_values(&self) -> bool {
        // SAFETY: Constant; an error where the type of the values is not known.
        unsafe {
            from_err_ptr((*self.0.get()).record).is_ok_and(|record| {
                !record.is_null()
                    && (*record).field_mask & bindings::btf_field_type_BPF_SPIN_LOCK != 0
            })
        }
    }

    /// Copies a value. Fields that cannot be copied are zero in the copy.
    ///
    /// Context: any, NMI included; process context if there is a lock in the value.
    ///
    /// # Safety
    ///
    /// `from` comes from [`Map::lookup`], RCU is still held, and at `to` is room for a value.
    pub(crate) unsafe fn copy_value(&self, to: *mut c_void, from: *mut c_void) {
        // SAFETY: By the safety requirements.
        unsafe {
            if self.has_locked_values() {
                bindings::bpf_map_trace_copy_locked(self.0.get(), to, from);
            } else {
                bindings::bpf_map_trace_copy_value(self.0.get(), to, from);
            }
        }
    }

    /// Fires the tracepoint for a lost key. `lost` is how many keys the tracer has lost so far.
    ///
    /// Context: any, NMI included, under locks of the map.
    pub(crate) fn tell_lost(&self, cookie: u64, lost: u64) {
        // SAFETY: The map is alive.
        unsafe { bindings::bpf_map_trace_lost(self.0.get(), cookie, lost) };
    }

    /// Copies the keys of a part of the map, from `pos` on. Returns how many there are, or [`None`]
    /// after the last part.
    ///
    /// Context: process context.
    ///
    /// Errors: [`ENOSPC`] if there is too little room, and those of a lock.
    pub(crate) fn read_keys(&self, pos: &mut u64, keys: &mut KeyBuffer) -> Result<Option<usize>> {
        // SAFETY: No marks are asked for.
        unsafe { self.read_keys_and_marks(pos, keys, ptr::null_mut()) }
    }

    /// Like [`Map::read_keys`], for marked elements, with their marks.
    ///
    /// Errors: the same.
    ///
    /// # Safety
    ///
    /// At `marks` is room for as many marks as there is for keys, or it is null: then all elements
    /// are meant.
    pub(super) unsafe fn read_keys_and_marks(
        &self,
        pos: &mut u64,
        keys: &mut KeyBuffer,
        marks: *mut u32,
    ) -> Result<Option<usize>> {
        // SAFETY: The map is alive, and there is the room that the buffer says. The rest is up to
        // the caller.
        let count = unsafe {
            bindings::bpf_map_trace_read_keys(
                self.0.get(),
                pos,
                keys.bytes.as_mut_ptr().cast(),
                marks,
                keys.capacity,
            )
        };

        match to_result(count) {
            Ok(()) => Ok(Some(count as usize)),
            Err(ENOENT) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Calls the map's own update.
    ///
    /// # Safety
    ///
    /// `key` and `value` are what the map's `map_update_elem()` may be called with here.
    #[inline(always)]
    pub(crate) unsafe fn update_elem(
        &self,
        key: *mut c_void,
        value: *mut c_void,
        flags: u64,
    ) -> c_long {
        // SAFETY: The map is alive. Maps of types that cannot be updated are not traced, so the
        // operation exists. The rest is up to the caller.
        unsafe {
            let update = (*(*self.0.get()).ops).map_update_elem.unwrap_unchecked();
            update(self.0.get(), key, value, flags)
        }
    }

    /// Calls the map's own delete.
    ///
    /// # Safety
    ///
    /// `key` is what the map's `map_delete_elem()` may be called with here.
    #[inline(always)]
    pub(crate) unsafe fn delete_elem(&self, key: *mut c_void) -> c_long {
        // SAFETY: As in `update_elem()`.
        unsafe {
            let delete = (*(*self.0.get()).ops).map_delete_elem.unwrap_unchecked();
            delete(self.0.get(), key)
        }
    }
}
