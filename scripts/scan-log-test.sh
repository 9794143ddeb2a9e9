#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# scan-log finds one report of each kind, and nothing in a log without. TAP.

set -euo pipefail
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
number=0

# expect clean|found NAME: scans standard input.
expect() {
	local verdict=clean
	cat > "$log"
	"$directory/scan-log" "$log" > /dev/null || verdict=found
	number=$((number + 1))
	[[ $verdict == "$1" ]] || printf 'not '
	printf 'ok %d - scanner: %s\n' "$number" "$2"
}

found() {
	expect found "$1" < <(printf '[    1.000000] Linux version 7.3.4\n[   12.345678] %s\n' "$2")
}

echo "TAP version 13"
expect clean "an ordinary log is clean" <<-'END'
	[    0.000000] Linux version 7.3.4 (map_trace@map_trace) #1 SMP PREEMPT_DYNAMIC
	[    0.012000] rcu: Preemptible hierarchical RCU implementation.
	[    0.012000] rcu: 	RCU lockdep checking is enabled.
	[    0.030000] Running RCU Tasks wait API self tests
	[    0.100000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)
	[    1.300000] map_trace: loading out-of-tree module taints kernel.
	[    2.500000] debug: unmapping init memory
END
expect clean "an injected failure is no report" <<-'END'
	[   40.000000] FAULT_INJECTION: forcing a failure.
	               name failslab, interval 1, probability 100, space 0, times 1
	[   40.000001] Call Trace:
	[   40.000002]  should_fail_ex+0x1a5/0x1c0
END
expect clean "a data race elsewhere is not ours" <<-'END'
	[   50.000000] ==================================================================
	[   50.000001] BUG: KCSAN: data-race in tick_nohz_idle_stop_tick / tick_nohz_next_event
	[   50.000002] read to 0xffffffff8381cc80 of 4 bytes by interrupt on cpu 1:
	[   50.000003]  tick_nohz_next_event+0x125/0x1c0
END
found WARN 'WARNING: drivers/misc/lkdtm/bugs.c:112 at lkdtm_WARNING+0x1c/0x20, CPU#1: bash/98'
found 'WARN of older kernels' 'WARNING: CPU: 1 PID: 98 at kernel/bpf/core.c:1 f+0x1c/0x20'
found 'BUG()' 'kernel BUG at mm/slub.c:5555!'
found 'kmemleak that gives up' 'kmemleak: Kernel memory leak detector disabled'
found 'out of memory' 'Out of memory: Killed process 99 (matrix_test) total-vm:5000kB'
found 'no pages' 'matrix_test: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)'
found Oops 'Oops: Oops: 0002 [#1] SMP KASAN NOPTI'
found CFI 'CFI failure at wrong_call_init+0x1f/0x30 [wrong_call] (target: takes_nothing+0x0/0x10 [wrong_call]; expected type: 0x1b0f9a3c)'
found 'NULL pointer' 'BUG: kernel NULL pointer dereference, address: 0000000000000008'
found 'general protection fault' 'general protection fault, probably for non-canonical address'
found panic 'Kernel panic - not syncing: Attempted to kill init!'
found KASAN 'BUG: KASAN: slab-use-after-free in bpf_map_trace_free+0x44/0x90'
found 'data race' 'BUG: KCSAN: data-race in array_map_trace_mark / array_map_trace_read_keys'
found 'data race with nobody' 'BUG: KCSAN: data-race in map_trace_arm+0x14/0x40'
found 'lock cycle' 'WARNING: possible circular locking dependency detected'
found 'recursive lock' 'WARNING: possible recursive locking detected'
found 'lock state' 'WARNING: inconsistent lock state'
found 'wait context' '[ BUG: Invalid wait context ]'
found 'unlock balance' 'WARNING: bad unlock balance detected!'
found 'lock kept' 'WARNING: lock held when returning to user space!'
found 'lockdep off' 'turning off the locking correctness validator.'
found 'suspicious RCU' 'WARNING: suspicious RCU usage'
found 'RCU stall' 'rcu: INFO: rcu_preempt self-detected stall on CPU'
found 'RCU stall elsewhere' 'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:'
found 'RCU expedited stall' 'rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { }'
found 'RCU tasks stall' 'INFO: rcu_tasks_trace detected stalls on tasks:'
found kmemleak 'kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)'
found 'kmemleak object' 'unreferenced object 0xffff888104a5c000 (size 64):'
found refcount 'refcount_t: underflow; use-after-free.'
found 'debug objects' 'ODEBUG: activate active (active state 1) object: 0000000012345678'
found UBSAN 'UBSAN: array-index-out-of-bounds in kernel/bpf/verifier.c:1:2'
found 'hung task' 'INFO: task modprobe:123 blocked for more than 122 seconds.'
found 'soft lockup' 'watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [update_test:77]'
found 'workqueue lockup' 'BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0'
found 'scheduling while atomic' 'BUG: scheduling while atomic: insmod/66/0x00000002'
found 'sleep in atomic' 'BUG: sleeping function called from invalid context at mm/slab.h:1'
found 'list corruption' 'list_del corruption. prev->next should be ffff8881, but was dead0000'
found 'page state' 'BUG: Bad page state in process bash  pfn:0a1b2'
found 'Rust panic' 'rust_kernel: panicked at /work/link.rs:10:5:'
echo "1..$number"
