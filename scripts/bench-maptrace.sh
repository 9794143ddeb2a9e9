#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Prints what maptrace watch costs the programs of a map, in two guests: an update on a CPU
# that does nothing else, and what CPUs get done that are all busy. CPUS says how many,
# without it 4.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
use_guest_files "$config" maptrace
image=$KERNEL_BUILD/arch/x86/boot/bzImage

# measure NAME COMMAND CPUS: as in run-bench.sh, a nanosecond of the guest is an instruction,
# of whichever CPU.
measure() {
	local log=$LOGS/bench-maptrace-$1-kernel.log
	ACCEL=tcg "$SCRIPTS/vm.sh" --image "$image" --timeout "${BENCH_SECONDS:-900}" --cache-files \
		--log "$log" --cpus "$3" --qemu "-icount shift=0,sleep=off" -- "modprobe map_trace && $2"
	"$SCRIPTS/scan-log" "$log" >&2 || die "the kernel reports what is above ($log)"
}

say "counting the instructions of an update in a guest"
measure alone 'maptrace_test cost' 1
cpus=${CPUS:-4}
say "counting the updates of $cpus busy CPUs in a guest"
measure busy "maptrace_test cost $cpus" "$cpus"
