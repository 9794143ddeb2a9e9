// SPDX-License-Identifier: GPL-2.0

//! BPF maps: references, properties, operations and the traced bytes.
//!
//! C header: [`include/linux/bpf.h`](srctree/include/linux/bpf.h)

use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::c_long,
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

/// An operation that can be traced.
///
/// Each is a target (`attach_btf_id`) of `BPF_TRACE_MAP` programs.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum TraceType {
    /// `bpf_map_update_elem()` and `BPF_MAP_UPDATE_ELEM`.
    UpdateElem = bindings::bpf_map_trace_type_BPF_MAP_TRACE_UPDATE_ELEM,
    /// `bpf_map_delete_elem()` and `BPF_MAP_DELETE_ELEM`.
    DeleteElem = bindings::bpf_map_trace_type_BPF_MAP_TRACE_DELETE_ELEM,
}

/// Without [`PLAIN`], which the alignment leaves room for.
#[inline(always)]
fn untagged(tracers: *mut bindings::bpf_map_tracers) -> *mut Tracers {
    const _: () = assert!(align_of::<Tracers>() > PLAIN);

    tracers.map_addr(|address| address & !PLAIN).cast()
}

impl TraceType {
    /// How many there are.
    pub(crate) const COUNT: usize = bindings::bpf_map_trace_type_MAX_BPF_MAP_TRACE_TYPE as usize;

    /// All of them.
    pub(crate) const ALL: [Self; Self::COUNT] = [Self::UpdateElem, Self::DeleteElem];
}

impl TryFrom<u32> for TraceType {
    type Error = Error;

    /// Fails with [`EINVAL`] where `value` is out of range.
    fn try_from(value: u32) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|t| *t as u32 == value)
            .ok_or(EINVAL)
    }
}

/// Names the type of a map's tracers.
///
/// The layer above implements it for [`Map`], as it is what knows that type. There can be only one
/// such implementation: whoever reads, installs or frees the tracers of a map means the same type.
pub(crate) trait HasTracers {
    /// What is behind `map->tracers`.
    type Tracers: Send + Sync;
}

/// The tracers of a map.
type Tracers = <Map as HasTracers>::Tracers;

/// What was found in `map->tracers`.
///
/// # Invariants
///
/// It is null, or a `Tracers` that can be used for `'a`, and may have [`PLAIN`].
#[derive(Clone, Copy)]
pub(crate) struct FoundTracers<'a>(*mut bindings::bpf_map_tracers, PhantomData<&'a Tracers>);

impl<'a> FoundTracers<'a> {
    /// Whether there are tracers, and nothing else to do than to run them.
    #[inline(always)]
    pub(crate) fn are_plain(self) -> bool {
        self.0.addr() & PLAIN != 0
    }

    /// The tracers, if there are some.
    #[inline(always)]
    pub(crate) fn list(self) -> Option<&'a Tracers> {
        // SAFETY: By the invariants.
        unsafe { untagged(self.0).as_ref() }
    }

    /// The tracers.
    ///
    /// # Safety
    ///
    /// They are plain.
    #[inline(always)]
    pub(crate) unsafe fn plain(self) -> &'a Tracers {
        // SAFETY: By the safety requirements and the invariants, `PLAIN` is all that is to be taken
        // away.
        unsafe { &*self.0.byte_sub(PLAIN).cast::<Tracers>() }
    }
}

/// Set in the pointer to the tracers while there is nothing else to do at an operation than to run
/// them. So who has nothing else to do tests for that and for null at once.
const PLAIN: usize = 1;

/// A `struct bpf_map`.
///
/// # Invariants
///
/// The map has a non-zero `refcnt`, or it can be reached by the program or the system call that
/// operates on it. Its `tracers` pointer is null or comes from [`Map::install_tracers`] of this very
/// module, but for [`PLAIN`]: one module is registered at a time, and none can follow it while a map
/// still has tracers, which pin it.
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
    /// Gets the map behind a file descriptor that may read it.
    ///
    /// Context: process context.
    ///
    /// Errors: [`EBADF`] where `fd` is not open, [`EINVAL`] where it is of something else,
    /// [`EPERM`] where it does not allow to read.
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

    /// The `struct bpf_map`, for the context of a program.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::bpf_map {
        self.0.get()
    }

    /// The id that user space knows.
    pub(crate) fn id(&self) -> u32 {
        // SAFETY: Set once, before the map could be found.
        unsafe { (*self.0.get()).id }
    }

    /// In bytes.
    pub(crate) fn key_size(&self) -> u32 {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).key_size }
    }

    /// In bytes.
    pub(crate) fn value_size(&self) -> u32 {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).value_size }
    }

    /// Whether programs must not read the map (`BPF_F_WRONLY_PROG`).
    pub(crate) fn is_write_only_for_programs(&self) -> bool {
        // SAFETY: Constant.
        unsafe { (*self.0.get()).map_flags & bindings::BPF_F_WRONLY_PROG != 0 }
    }

    /// Whether the map is for one program only (`excl_prog_hash`).
    pub(crate) fn is_exclusive(&self) -> bool {
        // SAFETY: Constant.
        unsafe { !(*self.0.get()).excl_prog_sha.is_null() }
    }

    /// Whether the map deletes elements to make room for others.
    pub(crate) fn evicts(&self) -> bool {
        // SAFETY: Constant.
        let map_type = unsafe { (*self.0.get()).map_type };

        matches!(
            map_type,
            bindings::bpf_map_type_BPF_MAP_TYPE_LRU_HASH
                | bindings::bpf_map_type_BPF_MAP_TYPE_LRU_PERCPU_HASH
        )
    }

    /// Whether the patched kernel tests the traced byte at this operation of this type of map.
    pub(crate) fn can_trace(&self, trace_type: TraceType) -> bool {
        // SAFETY: The map is alive, by the type invariants.
        unsafe { bindings::bpf_map_can_trace(self.0.get(), trace_type as u32) }
    }

    /// Sets the byte that is tested at every operation.
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

    /// The map's tracers, if it ever had one.
    #[inline(always)]
    pub(crate) fn tracers(&self) -> Option<&Tracers> {
        // SAFETY: The map is alive. Written once, by cmpxchg, and read like READ_ONCE(); what is
        // behind it depends on the address.
        let tracers = unsafe { ptr::addr_of!((*self.0.get()).tracers).read_volatile() };
        // SAFETY: By the type invariants, this is null or a `Tracers` that lives as long as the map.
        unsafe { untagged(tracers).as_ref() }
    }

    /// The same, before it is known what there is to do. To be asked for before the operation: whoever
    /// makes more to do waits for those that have not seen it.
    #[inline(always)]
    pub(crate) fn found_tracers(&self) -> FoundTracers<'_> {
        // SAFETY: As in `tracers()`.
        let tracers = unsafe { ptr::addr_of!((*self.0.get()).tracers).read_volatile() };

        // INVARIANT: By the type invariants.
        FoundTracers(tracers, PhantomData)
    }

    /// From now on there is more to do. The caller holds a lock against others that do this.
    pub(crate) fn set_tracers_not_plain(&self) {
        // SAFETY: The map is alive. Volatile as in WRITE_ONCE(), because it is read without a lock.
        unsafe {
            let tracers = ptr::addr_of_mut!((*self.0.get()).tracers);

            // INVARIANT: It is the same but for `PLAIN`.
            tracers.write_volatile(untagged(tracers.read_volatile()).cast());
        }
    }

    /// Gives the map its tracers, if it has none yet; else `new` is dropped.
    ///
    /// From here on the map pins the module.
    pub(crate) fn install_tracers(&self, new: KBox<Tracers>) {
        let new = KBox::into_raw(new);
        // INVARIANT: The map's pointer becomes what `KBox::into_raw()` returned.
        // SAFETY: The map is alive, and `new` is valid until the map is freed.
        let old = unsafe {
            bindings::bpf_map_trace_install(self.0.get(), new.wrapping_byte_add(PLAIN).cast())
        };
        if !old.is_null() {
            // SAFETY: `new` comes from `KBox::into_raw()` and was not used.
            drop(unsafe { KBox::from_raw(new) });
        }
    }

    /// Frees the tracers that a map had.
    ///
    /// # Safety
    ///
    /// `tracers` comes from [`Map::install_tracers`], and nobody can reach it.
    pub(super) unsafe fn free_tracers(tracers: *mut bindings::bpf_map_tracers) {
        // SAFETY: By the safety requirements, this is a `Tracers` that `KBox::into_raw()` returned.
        drop(unsafe { KBox::from_raw(untagged(tracers)) });
    }

    /// The map's own update.
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

    /// The map's own delete.
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
