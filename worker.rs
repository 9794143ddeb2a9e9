// SPDX-License-Identifier: GPL-2.0

//! The worker of a map: does what operations have left.

use crate::{
    bpf::{deferred::Work, map::Map, rcu::ReadSide},
    delete_queue::{self, DeleteQueue, KEYS_PER_CPU},
};
use kernel::{cpu::nr_cpu_ids, sync::rcu};

impl Work for DeleteQueue {
    fn run(&self, map: &Map) {
        let Some(list) = map.tracers() else {
            return;
        };

        for cpu in 0..nr_cpu_ids() {
            // Whoever queues more than there were has kicked again.
            for _ in 0..KEYS_PER_CPU {
                let Some(key) = self.take(cpu) else {
                    break;
                };
                let rcu = rcu::Guard::new();

                delete_queue::trace(list, map, key, cpu, ReadSide::from(&rcu));
            }
        }
    }
}
