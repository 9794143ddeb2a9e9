// SPDX-License-Identifier: GPL-2.0

//! An operation on a map: how to do it, how to copy its arguments, and what its tracers get.

use super::{
    key_slots::{KeySlots, TakenKey},
    map::{Map, TraceType},
    prog::Context,
    rcu::ReadSide,
    scratch::Room,
    stack, //
};
use core::{ffi::c_void, mem::MaybeUninit, ptr};
use kernel::{bindings, ffi::c_long};

/// The context of a sync tracer.
pub(crate) type State = bindings::bpf_map_trace_ctx__sync_elem;

/// Why a tracer runs. Event tracers run only for the first two.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Reason {
    /// An operation on the key.
    Operation = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_OPERATION,
    /// The map has evicted the element.
    Eviction = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_EVICTION,
    /// Operations on the key ran at the same time, or a run has failed.
    Recheck = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_RECHECK,
    /// The element was in the map before the attach.
    Replay = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_REPLAY,
    /// A flush.
    Flush = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_FLUSH,
    /// Somebody may have written through a pointer to the value.
    Write = bindings::bpf_map_trace_reason_BPF_MAP_TRACE_REASON_WRITE,
}

/// Returns the state of a key, without the CPU: its value, or null if it is not in the map.
pub(crate) fn state_of(map: &Map, key: *mut c_void, value: *mut c_void, reason: Reason) -> State {
    use bindings::{
        bpf_map_trace_ctx__sync_elem__bindgen_ty_1 as Key,
        bpf_map_trace_ctx__sync_elem__bindgen_ty_2 as Value,
        bpf_map_trace_ctx__sync_elem__bindgen_ty_3 as MapPtr, //
    };

    State {
        __bindgen_anon_1: Key { key },
        __bindgen_anon_2: Value { value },
        __bindgen_anon_3: MapPtr { map: map.as_ptr() },
        cpu: 0,
        reason: reason as u64,
    }
}

/// The kind of caller of an operation.
#[derive(Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// Most callers: RCU is held, and nobody else writes to key and value
    /// (`BPF_MAP_TRACE_PLAIN`).
    Plain(ReadSide<'a>),
    /// Like `Plain`, but RCU may not be held (`BPF_MAP_TRACE_SLEEPABLE`).
    Sleepable,
    /// Like `Sleepable`, and key or value may be inside a map, whose elements can be reused during
    /// the operation (`BPF_MAP_TRACE_COPY`).
    Copy,
}

/// The arguments of an operation that have to be copied.
#[derive(Clone, Copy)]
pub(crate) struct Reusable {
    /// The key.
    pub(crate) key: bool,
    /// The value.
    pub(crate) value: bool,
}

/// Room for the key of a map whose keys are prefixes. Other keys can be larger.
pub(crate) struct PrefixRoom(MaybeUninit<[u64; Self::WORDS]>);

impl PrefixRoom {
    /// The length field, and the most that `trie_alloc()` allows after it, in bytes.
    const SIZE: usize = size_of::<u32>() + 256;
    const WORDS: usize = Self::SIZE.div_ceil(size_of::<u64>());

    /// Creates the room.
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Copies a key of `map`, and normalizes the copy. Returns [`None`] if keys are not prefixes.
    ///
    /// # Safety
    ///
    /// `key` is a key of `map`.
    unsafe fn copy(&mut self, map: &Map, key: *const c_void) -> Option<*mut c_void> {
        if !map.has_prefix_keys() {
            return None;
        }
        let copy = self.0.as_mut_ptr().cast::<u8>();

        // SAFETY: By the safety requirements; it is no larger than the room, which is ours.
        unsafe {
            ptr::copy_nonoverlapping(key.cast::<u8>(), copy, map.key_size() as usize);
            map.normalize_key(copy.cast());
        }
        Some(copy.cast())
    }
}

/// An operation on a map that is about to be done.
pub(crate) trait Operation: Copy {
    /// The type of the operation.
    const TYPE: TraceType = <Self::Context as Context>::TYPE;

    /// Whether it can make the map evict elements.
    const MAY_EVICT: bool = matches!(Self::TYPE, TraceType::UpdateElem);

    /// The context that its tracers get.
    type Context: Context;

    /// The same operation, with arguments that live for `'r`.
    type Copied<'r>: Operation<Context = Self::Context>
    where
        Self: 'r;

    /// Returns the map.
    fn map(&self) -> &Map;

    /// Does the operation. Returns what the map's own operation returns: 0, or a negative errno.
    fn perform(self) -> c_long;

    /// Returns which of the arguments may be inside a map: those that are not on a stack.
    ///
    /// Context: any.
    fn reusable(&self) -> Reusable;

    /// Returns the same operation on copies of the arguments for which `room` was made.
    fn copy_args<'r>(self, room: &'r mut Room<'_>) -> Self::Copied<'r>
    where
        Self: 'r;

    /// Returns the same operation with the key that sync tracers get, or [`None`] if it is the key
    /// that the map gets: see [`Map::normalize_key`].
    fn normalize<'r>(self, room: &'r mut PrefixRoom) -> Option<Self::Copied<'r>>
    where
        Self: 'r;

    /// Returns the same operation with another key.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map, and stays for as long as what this returns is used.
    unsafe fn with_key(self, key: *mut c_void) -> Self;

    /// Returns the context for event tracers, without the CPU.
    fn context(self) -> Self::Context;

    /// Returns the key.
    fn key(&self) -> *mut c_void;

    /// Returns whether it has written only the value of a CPU that the caller has chosen.
    fn is_for_one_cpu(&self) -> bool {
        false
    }

    /// Returns the state that it has left the key in, without the CPU.
    fn state(&self) -> State;
}

/// An update.
///
/// # Invariants
///
/// `key` and `value` are a key and a value of `map`, and may be used for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Update<'a> {
    map: &'a Map,
    key: *mut c_void,
    value: *mut c_void,
    flags: u64,
}

impl<'a> Update<'a> {
    /// Creates an update of `map`, with the arguments for its `map_update_elem()`.
    ///
    /// # Safety
    ///
    /// `key` and `value` are what the map's own operation may be called with, for `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(
        map: &'a Map,
        key: *mut c_void,
        value: *mut c_void,
        flags: u64,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            map,
            key,
            value,
            flags,
        }
    }
}

impl Operation for Update<'_> {
    type Context = bindings::bpf_map_trace_ctx__update_elem;
    type Copied<'r>
        = Update<'r>
    where
        Self: 'r;

    #[inline(always)]
    fn map(&self) -> &Map {
        self.map
    }

    #[inline(always)]
    fn perform(self) -> c_long {
        // SAFETY: By the type invariants.
        unsafe { self.map.update_elem(self.key, self.value, self.flags) }
    }

    fn reusable(&self) -> Reusable {
        Reusable {
            key: !stack::holds(self.key),
            value: !stack::holds(self.value),
        }
    }

    fn copy_args<'r>(self, room: &'r mut Room<'_>) -> Update<'r>
    where
        Self: 'r,
    {
        // INVARIANT: The copies are a key and a value, too.
        // SAFETY: By the type invariants; the room comes from the scratch of this map.
        let (key, value) = unsafe { (room.copy_key(self.key), room.copy_value(self.value)) };
        Update { key, value, ..self }
    }

    #[inline(always)]
    fn context(self) -> Self::Context {
        use bindings::{
            bpf_map_trace_ctx__update_elem__bindgen_ty_1 as Key,
            bpf_map_trace_ctx__update_elem__bindgen_ty_2 as Value,
            bpf_map_trace_ctx__update_elem__bindgen_ty_3 as MapPtr, //
        };

        Self::Context {
            __bindgen_anon_1: Key { key: self.key },
            __bindgen_anon_2: Value { value: self.value },
            flags: self.flags,
            __bindgen_anon_3: MapPtr {
                map: self.map.as_ptr(),
            },
            cpu: 0,
            reason: Reason::Operation as u64,
        }
    }

    fn normalize<'r>(self, room: &'r mut PrefixRoom) -> Option<Update<'r>>
    where
        Self: 'r,
    {
        // SAFETY: By the type invariants.
        let key = unsafe { room.copy(self.map, self.key)? };
        // INVARIANT: The copy is a key, too.
        Some(Update { key, ..self })
    }

    unsafe fn with_key(self, key: *mut c_void) -> Self {
        // INVARIANT: By the safety requirements.
        Self { key, ..self }
    }

    fn key(&self) -> *mut c_void {
        self.key
    }

    fn is_for_one_cpu(&self) -> bool {
        self.flags & u64::from(bindings::BPF_F_CPU) != 0
    }

    fn state(&self) -> State {
        state_of(self.map, self.key, self.value, Reason::Operation)
    }
}

/// A delete.
///
/// # Invariants
///
/// `key` is a key of `map`, and may be used for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Delete<'a> {
    map: &'a Map,
    key: *mut c_void,
}

impl<'a> Delete<'a> {
    /// Creates a delete from `map`, with the argument for its `map_delete_elem()`.
    ///
    /// # Safety
    ///
    /// `key` is what the map's own operation may be called with, for `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(map: &'a Map, key: *mut c_void) -> Self {
        // INVARIANT: By the safety requirements.
        Self { map, key }
    }
}

impl Operation for Delete<'_> {
    type Context = bindings::bpf_map_trace_ctx__delete_elem;
    type Copied<'r>
        = Delete<'r>
    where
        Self: 'r;

    #[inline(always)]
    fn map(&self) -> &Map {
        self.map
    }

    #[inline(always)]
    fn perform(self) -> c_long {
        // SAFETY: By the type invariants.
        unsafe { self.map.delete_elem(self.key) }
    }

    fn reusable(&self) -> Reusable {
        Reusable {
            key: !stack::holds(self.key),
            value: false,
        }
    }

    fn copy_args<'r>(self, room: &'r mut Room<'_>) -> Delete<'r>
    where
        Self: 'r,
    {
        // INVARIANT: The copy is a key, too.
        // SAFETY: By the type invariants; the room comes from the scratch of this map.
        let key = unsafe { room.copy_key(self.key) };
        Delete { key, ..self }
    }

    #[inline(always)]
    fn context(self) -> Self::Context {
        use bindings::{
            bpf_map_trace_ctx__delete_elem__bindgen_ty_1 as Key,
            bpf_map_trace_ctx__delete_elem__bindgen_ty_2 as MapPtr, //
        };

        Self::Context {
            __bindgen_anon_1: Key { key: self.key },
            __bindgen_anon_2: MapPtr {
                map: self.map.as_ptr(),
            },
            cpu: 0,
            reason: Reason::Operation as u64,
        }
    }

    fn normalize<'r>(self, room: &'r mut PrefixRoom) -> Option<Delete<'r>>
    where
        Self: 'r,
    {
        // SAFETY: By the type invariants.
        let key = unsafe { room.copy(self.map, self.key)? };
        // INVARIANT: The copy is a key, too.
        Some(Delete { key, ..self })
    }

    unsafe fn with_key(self, key: *mut c_void) -> Self {
        // INVARIANT: By the safety requirements.
        Self { key, ..self }
    }

    fn key(&self) -> *mut c_void {
        self.key
    }

    fn state(&self) -> State {
        state_of(self.map, self.key, ptr::null_mut(), Reason::Operation)
    }
}

/// A delete by the map itself, which is done already.
///
/// # Invariants
///
/// `key` is a key of `map`, and may be used for `'a`.
pub(crate) struct Eviction<'a>(Delete<'a>);

impl<'a> Eviction<'a> {
    /// Creates the eviction of an element of `map`.
    ///
    /// # Safety
    ///
    /// `key` is a key of the map, which nobody writes to for `'a`.
    pub(super) unsafe fn new(map: &'a Map, key: *mut c_void) -> Self {
        // INVARIANT: By the safety requirements.
        Self(Delete { map, key })
    }

    /// Creates the eviction of a key that was taken out of its slot.
    ///
    /// # Safety
    ///
    /// The key was taken out of slots that were made for `map`.
    pub(crate) unsafe fn of_taken(map: &'a Map, key: &'a TakenKey<'_>) -> Self {
        // SAFETY: By the safety requirements.
        unsafe { Self::new(map, key.as_ptr()) }
    }

    /// Returns the map.
    pub(crate) fn map(&self) -> &'a Map {
        self.0.map
    }

    /// Puts the key into a slot. Returns whether there was room.
    ///
    /// # Safety
    ///
    /// The slots were made for the map.
    pub(crate) unsafe fn leave(&self, slots: &KeySlots) -> bool {
        // SAFETY: By the safety requirements and the invariants.
        unsafe { slots.put(self.0.key) }
    }

    /// Returns the context for delete tracers, without the CPU.
    pub(crate) fn context(&self) -> <Delete<'_> as Operation>::Context {
        let mut ctx = self.0.context();

        ctx.reason = Reason::Eviction as u64;
        ctx
    }
}
