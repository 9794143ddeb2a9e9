// SPDX-License-Identifier: GPL-2.0

//! The loop check: no tracer leads to itself.
//!
//! A tracer that writes a map is an edge from its source to that map. The verifier records what a
//! tracer writes: updates and deletes of maps that are known at load, callbacks included, also
//! those of timers and work queues. Reads do not count. Maps that are not known at load are left to
//! the recursion guard at run time, see [`Tracer::run`].
//!
//! Check and change happen under one lock, [`WRITERS`](crate::tracer_list::WRITERS). The graph
//! therefore never has a cycle, and never a chain of more than [`MAX_CHAIN`] tracers.

use crate::{
    bpf::map::{Map, TraceType},
    tracer::{Tracer, MAX_NESTING},
    tracer_list::Writer,
};
use core::{mem, ptr};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

/// How many tracers one operation can cause to run, each one through the one before.
pub(crate) const MAX_CHAIN: usize = MAX_NESTING;

/// The key of an edge in the index: the map that is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The id of the map that is written. The tracer holds the map, so the id is not reused.
    written: u32,
    /// Only distinguishes tracers.
    tracer: usize,
}

impl Key {
    fn new(written: &Map, tracer: &Tracer) -> Self {
        Self {
            written: written.id(),
            tracer: ptr::from_ref(tracer) as usize,
        }
    }
}

/// All edges, by the map that is written. The lists of the maps have the other direction.
pub(crate) struct WriteIndex {
    /// The sources of the edges. [`None`] before the first edge.
    edges: Option<RBTree<Key, ARef<Map>>>,
}

impl WriteIndex {
    /// Creates an index without edges.
    pub(crate) const fn new() -> Self {
        Self { edges: None }
    }

    /// Returns the maps whose tracers write `map`, without the tracer `except`.
    fn writers_of(&self, map: &Map, except: &Tracer) -> impl Iterator<Item = &'_ Map> {
        let written = map.id();
        let except = Key::new(map, except);
        let mut tracer = 0;

        core::iter::from_fn(move || loop {
            let cursor = self
                .edges
                .as_ref()?
                .cursor_lower_bound(&Key { written, tracer })?;
            let key = *cursor.current().0;

            if key.written != written {
                return None;
            }
            tracer = key.tracer + 1;
            if key != except {
                return self.edges.as_ref()?.get(&key).map(|traced| &**traced);
            }
        })
    }
}

/// The maps that a walk visits next. With many links, the list can be longer than `kmalloc()`
/// allows, which would warn.
type Maps<'a> = KVVec<&'a Map>;

/// New edges of a tracer, to be checked and recorded in place of its old ones.
pub(crate) struct Edges {
    tracer: Arc<Tracer>,
    traced: ARef<Map>,
    written: KVec<ARef<Map>>,
    nodes: KVec<RBTreeNode<Key, ARef<Map>>>,
}

impl Edges {
    /// Creates edges from `traced` to `written`, for a tracer that need not be attached yet.
    ///
    /// Context: process context, may sleep.
    ///
    /// Errors: [`ENOMEM`].
    pub(crate) fn new(
        tracer: &Arc<Tracer>,
        traced: &ARef<Map>,
        written: KVec<ARef<Map>>,
    ) -> Result<Self> {
        let mut nodes = KVec::with_capacity(written.len(), GFP_KERNEL)?;

        for map in &written {
            let node = RBTreeNode::new(Key::new(map, tracer), traced.clone(), GFP_KERNEL_ACCOUNT)?;
            nodes.push(node, GFP_KERNEL)?;
        }
        Ok(Self {
            tracer: tracer.clone(),
            traced: traced.clone(),
            written,
            nodes,
        })
    }

    /// Checks that no tracer would cause itself to run, and that no chain would have more than
    /// [`MAX_CHAIN`] tracers.
    ///
    /// Takes time linear in the edges that it reaches, times [`MAX_CHAIN`] at most, plus a search
    /// in the index for each map.
    ///
    /// Errors: [`ELOOP`], [`ENOMEM`].
    pub(crate) fn check(&self, writer: &Writer) -> Result {
        let before = longest_chain(
            as_refs(core::slice::from_ref(&self.traced))?,
            |map, next| {
                for traced in writer.writers_of(map, &self.tracer) {
                    next.push(traced, GFP_KERNEL_ACCOUNT)?;
                }
                Ok(!next.is_empty())
            },
        )?;
        let after = longest_chain(as_refs(&self.written)?, |map, next| {
            if ptr::eq(map, &*self.traced) {
                return Err(ELOOP);
            }
            self.follow(map, next, writer)
        })?;

        if before + 1 + after > MAX_CHAIN {
            return Err(ELOOP);
        }
        Ok(())
    }

    /// Adds the maps that the tracers of `map` write to `next`. Returns whether `map` has tracers.
    fn follow<'a>(&self, map: &'a Map, next: &mut Maps<'a>, writer: &'a Writer) -> Result<bool> {
        let Some(list) = map.tracers() else {
            return Ok(false);
        };
        let mut traced = false;

        for tracer in TraceType::ALL
            .into_iter()
            .flat_map(|trace_type| list.peek(trace_type, writer).iter())
            .filter(|tracer| tracer.is_live() && !ptr::eq(*tracer, &*self.tracer))
        {
            traced = true;
            for written in tracer.written(writer) {
                next.push(written, GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(traced)
    }

    /// Replaces the edges of the tracer by these.
    pub(crate) fn record(mut self, writer: &mut Writer) {
        forget(&self.tracer, writer);
        if !self.nodes.is_empty() {
            let edges = writer.edges.get_or_insert_with(RBTree::new);

            while let Some(node) = self.nodes.pop() {
                edges.insert(node);
            }
        }
        self.tracer.set_written(self.written, writer);
    }
}

/// Removes the edges of a tracer.
pub(crate) fn forget(tracer: &Tracer, writer: &mut Writer) {
    let written = tracer.set_written(KVec::new(), writer);

    if let Some(edges) = &mut writer.edges {
        for map in &written {
            edges.remove(&Key::new(map, tracer));
        }
    }
}

fn as_refs(maps: &[ARef<Map>]) -> Result<Maps<'_>> {
    let mut refs = Maps::with_capacity(maps.len(), GFP_KERNEL_ACCOUNT)?;

    for map in maps {
        refs.push(&**map, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(refs)
}

/// Returns the number of tracers in the longest chain that begins, or ends, at one of the maps of
/// `level`.
///
/// `follow` adds the maps at the other ends of a map's edges, and returns whether there is a tracer
/// between. Each map is followed once for each distance from the start. There are at most
/// [`MAX_CHAIN`] distances.
///
/// Errors: [`ELOOP`] if the chain has no room for one more tracer, and those of `follow`.
fn longest_chain<'a>(
    mut level: Maps<'a>,
    mut follow: impl FnMut(&'a Map, &mut Maps<'a>) -> Result<bool>,
) -> Result<usize> {
    /// Numbers the levels of all walks. Protected by the lock of the writers.
    static LEVELS: Atomic<u64> = Atomic::new(0);

    for chain in 0..MAX_CHAIN {
        let this_level = LEVELS.fetch_add(1, Relaxed) + 1;
        let mut next = Maps::new();
        let mut longer = false;

        for map in mem::take(&mut level) {
            // A map without a list ends a chain, so it does not matter whether it was visited
            // before.
            if map.tracers().is_none_or(|list| list.visit(this_level)) {
                longer |= follow(map, &mut next)?;
            }
        }
        if !longer {
            return Ok(chain);
        }
        level = next;
    }
    Err(ELOOP)
}
