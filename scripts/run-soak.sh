#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-soak.sh release|debug: boots that kernel and writes to maps from everywhere at once,
# for MINUTES, then compares them with their mirrors. SEED= takes the random numbers of
# another run, CPUS= says how many processors the guest has. TAP; the last line is
# "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=host-results.sh
source "$SCRIPTS/host-results.sh"

config=$1
minutes=${MINUTES:-5}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "MINUTES=$minutes: not a number of minutes"
cpus=${CPUS:-4}
[[ $cpus =~ ^[2-8]$ ]] || die "CPUS=$cpus: not from 2 to 8" \
	"a race needs at least 2, and the kernel is built for 8"
seed=${SEED:-$RANDOM$RANDOM}
[[ $seed =~ ^[0-9]+$ ]] || die "SEED=$seed: not a number"
memory=1G
[[ $config != debug ]] || memory=$DEBUG_MEMORY
# For the whole guest: it writes for MINUTES, and then waits for what is left.
GUEST_SECONDS=${GUEST_SECONDS:-$((minutes * 120 + 1200))}

use_guest_files "$config" soak
output=$BUILD/soak-$config
log=$LOGS/soak-kernel.log
skips=$LOGS/soak-skips
expected_skips > "$skips"

run_soak() {
	local status=0
	say "booting to write for $minutes min: SEED=$seed CPUS=$cpus (kernel log: $log)"
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$memory" --cpus "$cpus" --timeout "$GUEST_SECONDS" "${TEST_GUEST[@]}" -- \
		"$SCRIPTS/guest/run-soak.sh '$output' $((minutes * 60)) $seed" || status=$?
	host_results "$status" "$log" "$GUEST_SECONDS"
}

# In a process group of its own, which ends with this script, however that ends.
set -m
run_soak < /dev/null | "$SCRIPTS/tap-count.sh" "$skips" soak system host | tee "$LOGS/soak.tap" &
set +m
on_exit "kill -- -$(jobs -p) 2> /dev/null"
wait %1
