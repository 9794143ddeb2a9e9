#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# test-maptrace.sh release|debug: all tests of maptrace in a guest, and maptrace on BPF
# programs of Debian; with TESTS=maptrace_test or TESTS=programs one of both. TAP; the last
# line is "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
read -ra parts <<< "${TESTS:-maptrace_test programs}"
for part in "${parts[@]}"; do
	[[ $part == maptrace_test || $part == programs ]] ||
		die "TESTS=$TESTS: the tests are: maptrace_test programs"
done
use_guest_files "$config" maptrace selftests
programs=$("$SCRIPTS/packages-root.sh" programs)
log=$LOGS/test-maptrace-kernel.log
export MAP_TRACE_OUTPUT=$BUILD/selftests-$config

run() {
	local status=0
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$DEBUG_MEMORY" --timeout "${GUEST_SECONDS:-3600}" "${TEST_GUEST[@]}" -- \
		"$SCRIPTS/guest/run-maptrace.sh '$MAP_TRACE_OUTPUT' '$programs' ${parts[*]}" || status=$?
	printf '# begin host\n1..2\n'
	[[ $status -eq 0 ]] && echo "ok 1 - guest: ended by itself" ||
		echo "not ok 1 - guest: ended with status $status"
	if reports=$("$SCRIPTS/scan-log" "$log") && [[ -s $log ]]; then
		echo "ok 2 - kernel log: no report"
	else
		printf '%s\n' "$reports" | sed 's/^/# | /'
		echo "not ok 2 - kernel log: no report ($log)"
	fi
	echo "# end host 0"
}

say "booting the $config kernel (log: $log)"
run < /dev/null | "$SCRIPTS/tap-count.sh" /dev/null "${parts[@]}" host |
	tee "$LOGS/test-maptrace.tap"
