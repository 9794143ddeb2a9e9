#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-fuzz.sh release|debug|kcsan: boots that kernel and calls bpf(2) at random around tracers of maps,
# for MINUTES. SEED= begins with a round of another run, CPUS= says how many processors the
# guest has. TAP; the last line is "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=host-results.sh
source "$SCRIPTS/host-results.sh"

config=$1
minutes=${MINUTES:-5}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "MINUTES=$minutes: not a number of minutes"
cpus=${CPUS:-4}
[[ $cpus =~ ^[1-8]$ ]] || die "CPUS=$cpus: not from 1 to 8" "the kernel is built for 8"
seed=${SEED:-$RANDOM$RANDOM}
[[ $seed =~ ^[0-9]+$ ]] || die "SEED=$seed: not a number"
memory=1G
[[ $config != debug ]] || memory=$DEBUG_MEMORY
# For the whole guest: it fuzzes for MINUTES, and then looks for leaks.
GUEST_SECONDS=${GUEST_SECONDS:-$((minutes * 60 + 600))}

fuzzer=$("$SCRIPTS/fuzz.sh" build)
use_guest_files "$config"
log=$LOGS/fuzz-kernel.log
skips=$LOGS/fuzz-skips
expected_skips > "$skips"

run_fuzz() {
	local status=0
	say "booting to fuzz for $minutes min: SEED=$seed CPUS=$cpus (kernel log: $log)"
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$memory" --cpus "$cpus" --timeout "$GUEST_SECONDS" "${TEST_GUEST[@]}" -- \
		"$SCRIPTS/guest/run-fuzz.sh '$fuzzer' $((minutes * 60)) $seed" || status=$?
	host_results "$status" "$log" "$GUEST_SECONDS"
}

# In a process group of its own, which ends with this script, however that ends.
set -m
run_fuzz < /dev/null | "$SCRIPTS/tap-count.sh" "$skips" fuzz system host | tee "$LOGS/fuzz.tap" &
set +m
on_exit "kill -- -$(jobs -p) 2> /dev/null"
status=0
wait %1 || status=$?
if [[ $status -ne 0 ]]; then
	last=$(grep -ao 'SEED=[0-9]*' "$LOGS/fuzz.tap" | tail -n 1) || last=SEED=$seed
	failed=$(grep -a '^not ok' "$LOGS/fuzz.tap" | grep -ao 'SEED=[0-9]*' | head -n 1) || failed=$last
	say "Do it again: make fuzz $failed${CONFIG:+ CONFIG=$CONFIG}"
fi
exit "$status"
