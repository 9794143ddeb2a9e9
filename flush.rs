// SPDX-License-Identifier: GPL-2.0

//! Flush: when it returns, everything that was written before it was called has been reported.
//!
//! A flush rechecks every element, whether anybody has seen it change or not. It thus also reports
//! writes through pointers, and writes of user space that has mapped the map. It takes nothing out
//! of the queue, and does not wait for the worker.

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

/// How often the flush tries a key whose element goes away each time.
const TRIES: usize = 64;

/// How many passes a flush makes if the tracer fails in operations of others meanwhile.
const PASSES: usize = 3;

/// Reports everything that was written so far to the tracer of a link: all elements of the map, and
/// `keys`, whether they are in the map or not. `left` is the number of keys for which the tracer
/// has failed. If there are none, it is the number of failures in operations of others meanwhile.
///
/// It can exceed `timeout_ms` by one run of the tracer, and by the time to read 128 keys.
///
/// Context: process context, may sleep; a time that is linear in the size of the map.
///
/// Errors: [`EAGAIN`] if keys are left, [`EOPNOTSUPP`] if it is not a sync tracer, [`ENOLINK`]
/// after a detach, [`EINTR`], [`ETIME`] after `timeout_ms` milliseconds, if that is not 0,
/// [`EFAULT`], [`EINVAL`] if one of `keys` is longer than a prefix can be, [`ENOMEM`], and those of
/// a lock of the map.
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
        // An operation may have deleted an element before the flush read it. The tracer of that
        // operation runs later.
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
    /// Rechecks the queued keys, and all elements of the map.
    ///
    /// Errors: those of [`Flush::check`] and of [`Parts::read_next`], and [`ENOMEM`].
    fn recheck_all(&mut self, buffers: &mut Buffers) -> Result {
        self.wait_for_operations()?;
        self.sync.data().count_all();
        self.recheck_queued(buffers)?;
        self.recheck_elements(buffers)
    }

    /// Waits until the operations that are under way have reported their keys, or left them to the
    /// worker.
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

    /// Errors: [`EINTR`] if a signal is pending, [`ETIME`].
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
        // Other flushes wait until the key is reported, or left to the worker.
        let rcu = rcu::Guard::new();
        // One round is enough, as it reads the value after the flush has begun.
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

    /// Rechecks the keys in the queue, including those that somebody is working on, but without
    /// those that are in the map: if somebody deletes such a key before its element is read, the
    /// delete reports it.
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

    /// Rechecks the keys that user space has passed.
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
