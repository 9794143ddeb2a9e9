// SPDX-License-Identifier: GPL-2.0

//! Flush: all that was written before has been told when it returns.
//!
//! Each element is rechecked, whether anybody has seen it change or not: so what was written
//! through pointers, or by user space that has mapped the map, is told as well. It takes nothing
//! out of the queue, and waits for no worker.

use crate::{
    bpf::{
        deferred::Deferred,
        link::Link,
        map::Map,
        operation::Reason,
        rcu::{sleep_for_a_tick, GracePeriod},
        scratch::ValueRoom, //
    },
    link::Attachment,
    sync::{self, is_element, Buffers, MapSync, Outcome, Recheck, Whom, KEYS_PER_CPU, ROUNDS},
    tracer::Tracer,
    tracer_list::TracerList,
    worker::Parts,
};
use core::ffi::c_void;
use kernel::{
    cpu::nr_cpu_ids,
    current,
    prelude::*,
    sync::rcu,
    time::{Instant, Monotonic},
    uaccess::{UserSlice, UserSliceReader},
};

/// How often a key is looked at whose element goes away each time.
const TRIES: usize = 64;

/// How often all is rechecked where the tracer fails for what others do meanwhile.
const PASSES: usize = 3;

/// Has all that was written so far told to the tracer of a link: all that is in the map, and `keys`,
/// whether they are or not. `left` counts those that were not, as the tracer has failed; where it has
/// failed for operations of others meanwhile, those count.
///
/// It can take longer than `timeout_ms` by one run of the tracer, and by 128 keys that are read.
///
/// Context: process context, may sleep; a time that is linear in the size of the map.
///
/// Errors: [`EAGAIN`] where keys are left, [`EOPNOTSUPP`] where it is not told of states,
/// [`ENOLINK`] after a detach, [`EINTR`], [`ETIME`] after `timeout_ms` milliseconds, if that is not
/// 0, [`EFAULT`], [`EINVAL`] where one of `keys` is longer than a prefix can be, [`ENOMEM`], and those
/// of a lock of the map.
pub(crate) fn flush(
    link: &Link<Attachment>,
    keys: UserSlice,
    timeout_ms: u32,
    left: &mut u64,
) -> Result {
    let map = link.synced_map()?;
    let list = map.tracers().ok_or(ENOLINK)?;
    let sync = list.sync().ok_or(ENOLINK)?;
    let tracer = link.tracer();
    let lost = tracer.lost();
    let mut keys = keys.reader();
    let with_keys = !keys.is_empty();
    let mut buffers = Buffers::new(&map)?;
    let mut flush = Flush {
        list,
        sync,
        map: &map,
        tracer,
        begin: Instant::now(),
        timeout_ms: timeout_ms.into(),
        left: &mut *left,
    };
    let mut others = 0;

    for _ in 0..PASSES {
        let failures = tracer.not_told();

        flush.recheck_all(&mut buffers)?;
        flush.recheck_given(&mut keys, &mut buffers)?;
        // An operation may have deleted an element before it was read, and its own tracer comes
        // after that.
        flush.wait_for_operations()?;
        others = tracer.not_told() - failures;
        if others == 0 || *flush.left != 0 {
            break;
        }
    }

    // It may have been detached meanwhile.
    link.synced_map()?;
    if *left == 0 {
        *left = others;
    }
    if *left != 0 {
        return Err(EAGAIN);
    }
    if with_keys {
        tracer.heal(lost);
        sync.data().trust_tracers();
        sync.kick_in_turn();
    }
    Ok(())
}

struct Flush<'a> {
    list: &'a TracerList,
    sync: &'a Deferred<MapSync>,
    map: &'a Map,
    tracer: &'a Tracer,
    begin: Instant<Monotonic>,
    timeout_ms: i64,
    left: &'a mut u64,
}

impl Flush<'_> {
    /// Rechecks what waits, and all that is in the map.
    ///
    /// Errors: those of [`Flush::check`] and of [`Parts::read_next`], and [`ENOMEM`].
    fn recheck_all(&mut self, buffers: &mut Buffers) -> Result {
        self.wait_for_operations()?;
        self.sync.data().count_all();
        self.recheck_queued(buffers)?;
        self.recheck_elements(buffers)
    }

    /// Waits until what is under way in a section has told what it has done, or left it.
    ///
    /// Errors: those of [`Flush::check`].
    fn wait_for_operations(&self) -> Result {
        let period = GracePeriod::begin();

        while !period.is_over() {
            self.check()?;
            sleep_for_a_tick();
        }
        Ok(())
    }

    /// Errors: [`EINTR`] where there is a signal, [`ETIME`].
    fn check(&self) -> Result {
        if current!().signal_pending() {
            return Err(EINTR);
        }
        if self.timeout_ms != 0 && self.begin.elapsed().as_millis() >= self.timeout_ms {
            return Err(ETIME);
        }
        Ok(())
    }

    /// Rechecks a key.
    ///
    /// Errors: those of [`Flush::check`].
    fn recheck(&mut self, key: *mut c_void, value: &mut [u64]) -> Result {
        let recheck = Recheck {
            whom: Whom::Only(self.tracer),
            ..Recheck::of_all(self.list, self.sync.data(), self.map)
        };
        let mut room = ValueRoom::in_buffer(value);
        // Other flushes wait until the key is told, or left.
        let rcu = rcu::Guard::new();
        // Once is enough, as it reads after the flush has begun.
        let mut run = || recheck.run(key, Reason::Flush, 1, &mut room);
        let mut outcome = run();

        for _ in 1..TRIES {
            if outcome != Outcome::Unread {
                break;
            }
            outcome = run();
        }
        match outcome {
            Outcome::Settled => {}
            Outcome::Overtaken => self.leave(key),
            Outcome::Unread | Outcome::Failed => {
                *self.left += 1;
                self.leave(key);
            }
        }
        drop(rcu);
        self.check()
    }

    fn leave(&self, key: *mut c_void) {
        sync::leave(self.list, self.sync, self.map, key, ROUNDS);
    }

    /// Rechecks the keys that wait, and those that somebody is at work on, but for those that are in
    /// the map: whoever takes them out before they are read tells that.
    fn recheck_queued(&mut self, buffers: &mut Buffers) -> Result {
        let queue = self.sync.data().queue();
        let mut key = KVVec::from_elem(0u64, queue.words_of_key(), GFP_KERNEL)?;

        for cpu in 0..nr_cpu_ids() {
            for index in 0..KEYS_PER_CPU {
                if queue.peek_at(cpu, index, &mut key)
                    && !is_element(self.map, key.as_mut_ptr().cast())
                {
                    self.recheck(key.as_mut_ptr().cast(), &mut buffers.value)?;
                }
            }
        }
        Ok(())
    }

    /// Rechecks all elements.
    fn recheck_elements(&mut self, buffers: &mut Buffers) -> Result {
        let mut parts = Parts::new(self.map, &mut buffers.keys);

        while let Some(keys) = parts.read_next()? {
            for key in keys {
                self.recheck(key, &mut buffers.value)?;
            }
            self.check()?;
        }
        Ok(())
    }

    /// Rechecks keys that user space has given.
    fn recheck_given(&mut self, keys: &mut UserSliceReader, buffers: &mut Buffers) -> Result {
        let key_size = self.map.key_size() as usize;

        while !keys.is_empty() {
            keys.read_slice(&mut buffers.keys.as_bytes()[..key_size])?;
            buffers.keys.normalize_first(self.map)?;
            self.recheck(buffers.keys.first(), &mut buffers.value)?;
        }
        Ok(())
    }
}
