#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# test-examples.sh release|debug: builds what examples/ has in the languages of EXAMPLES=, without
# it in all, and runs it in a guest. TAP; the last line is "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=host-results.sh
source "$SCRIPTS/host-results.sh"

config=$1
GUEST_SECONDS=${GUEST_SECONDS:-3600}
read -ra languages <<< "${EXAMPLES:-rust go aya}"

examples=$(LINT=1 "$SCRIPTS/examples.sh" "${languages[@]}")
use_guest_files "$config"
expected_skips > "$LOGS/expected-skips"

run() {
	local log=$LOGS/examples-kernel.log status=0
	say "booting to run the examples: ${languages[*]} (kernel log: $log)"
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$DEBUG_MEMORY" --timeout "$GUEST_SECONDS" "${TEST_GUEST[@]}" -- \
		"$SCRIPTS/guest/run-examples.sh '$examples' ${languages[*]}" || status=$?
	host_results "$status" "$log" "$GUEST_SECONDS"
}

run < /dev/null | "$SCRIPTS/tap-count.sh" "$LOGS/expected-skips" "${languages[@]}" system host |
	tee "$LOGS/test-examples.tap"
