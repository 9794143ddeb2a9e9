#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Boots the debug kernel, or that of CONFIG=, runs the tests there and reads the kernel's
# log. TESTS= names those to run, without it all. SYNC_MATRIX=all has one of them run all
# that it can. TAP; the last line is "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=host-results.sh
source "$SCRIPTS/host-results.sh"

config=${CONFIG:-debug}
[[ $config != release || -n ${TESTS:-} ]] ||
	die "CONFIG=$config: some of the tests need features that this kernel lacks" \
		"leave out CONFIG=, or name the tests to run: TESTS=..."
case $config in
debug) memory=$DEBUG_MEMORY ;;
*) memory=1G ;;
esac
# For the whole guest: the limit of what a run may take before it counts as hung.
GUEST_SECONDS=${GUEST_SECONDS:-3600}

use_guest_files "$config" maptrace selftests
output=$BUILD/selftests-$config
read -ra wanted <<< "${TESTS:-}"

# The names that tests.list holds, of those that are wanted.
selected() {
	local name
	while read -r name _; do
		[[ -n $name && $name != "#"* ]] || continue
		[[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ||
			" ${wanted[*]} " == *" ${name%_test} "* ]] || continue
		echo "$name"
	done < "$output/tests.list"
}

# What the guest writes to its log before a report that is provoked, and after it
PROVOKED_BEGIN="map_trace: begin provoked"
PROVOKED_END="map_trace: end provoked"
provoked=$LOGS/provoked.log

# guest_run LOG COMMAND: runs a command in a guest. Adds two results: on how the
# guest ended, and on the kernel's log at its end, without what was provoked, which
# goes to $provoked.
guest_run() {
	local log=$1 command=$2 status=0
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$memory" --timeout "$GUEST_SECONDS" "${TEST_GUEST[@]}" -- "$command" || status=$?
	if grep -q "$PROVOKED_BEGIN" "$log"; then
		sed -n "/$PROVOKED_BEGIN/,/$PROVOKED_END/p" "$log" > "$provoked"
		sed -i "/$PROVOKED_BEGIN/,/$PROVOKED_END/d" "$log"
	fi
	host_results "$status" "$log" "$GUEST_SECONDS"
}

# expect_failure NAME WHAT PATTERN...: reads TAP that has to fail a run. Each of the
# patterns is in what is reported then.
expect_failure() {
	local name=$1 what=$2 report=$LOGS/provoked-$1.tap pattern result=ok
	shift 2
	printf '# begin %s\n1..1\n' "$name"
	! "$SCRIPTS/tap-count.sh" /dev/null host > "$report" || result="not ok"
	for pattern; do
		grep -q -- "$pattern" "$report" || result="not ok"
	done
	[[ $result == ok ]] || sed 's/^/# | /' "$report"
	echo "$result 1 - $name: $what fails the run"
	echo "# end $name 0"
}

# What judges the tests is tested too.
test_judges() {
	echo "# begin scanner"
	"$SCRIPTS/scan-log-test.sh" || true
	echo "# end scanner 0"
	echo "# begin counter"
	"$SCRIPTS/tap-count-test.sh" || true
	echo "# end counter 0"
	echo "# begin results"
	"$SCRIPTS/enter.sh" "$SCRIPTS/upstream-results-test.sh" || true
	echo "# end results 0"
	say "booting to check that a guest that does not finish in time fails the run"
	test_hang
}

# The limit comes long before the guest is done, and after its first line: one that has
# to wait for this machine gets longer for that.
test_hang() {
	local seconds console=$LOGS/provoked-hang.log report=$LOGS/provoked-hang.guest
	for seconds in 5 15 60; do
		rm -f "$console"
		GUEST_SECONDS=$seconds guest_run "$console" 'sleep infinity' > "$report"
		[[ ! -s $console ]] || break
	done
	expect_failure hang "a guest that is not done in time" \
		"^not ok 1 - guest: hangs, stopped after $seconds s" '^# | \[' < "$report"
}

# test_log NAME WHAT PATTERN: what is provoked at the end of the guest's run
test_log() {
	{
		printf '# begin host\n1..1\n'
		log_result 1 "$provoked"
		echo "# end host 0"
	} | expect_failure "$1" "$2" "^# | .*$3" '^not ok 1 - kernel log'
}

for name in "${wanted[@]}"; do
	grep -qE "^${name%_test}_test " "$output/tests.list" || die "TESTS=$TESTS: no test $name" \
		"the tests are: $(cut -d ' ' -f 1 "$output/tests.list" | tr '\n' ' ')"
done
mapfile -t binaries < <(selected)
[[ ${#binaries[@]} -gt 0 ]] || die "TESTS=${TESTS:-}: no such test" \
	"the tests are: $(cut -d ' ' -f 1 "$output/tests.list" | tr '\n' ' ')"

# All of them in one guest: two of them, with two processors each, take longer where
# the machine has two.
run_all() {
	local command="SYNC_MATRIX='${SYNC_MATRIX:-}' $SCRIPTS/guest/run-tests.sh"
	local provoke='' expected=()

	command+=" '$output' ${binaries[*]}"
	[[ ${#wanted[@]} -gt 0 ]] || test_judges
	if kernel_has CONFIG_CFI; then
		echo "# begin types"
		"$SCRIPTS/cfi-types.sh" "$KERNEL_BUILD/vmlinux" \
			"$BUILD/module-$config/map_trace.ko" || true
		echo "# end types 0"
		# Where nothing is checked, the tests have the same results.
		provoke="! insmod '$output/wrong_call.ko'"
		expected=(cfi "a call to a function of another type"
			'CFI failure at .*\[wrong_call\] (target: takes_nothing')
	elif [[ ${#wanted[@]} -eq 0 ]]; then
		command+=" && modprobe lkdtm"
		provoke="echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT"
		expected=(warning "a WARN" 'WARNING: .*lkdtm')
	fi
	rm -f "$provoked"
	[[ -z $provoke ]] || command+=" && echo '$PROVOKED_BEGIN' > /dev/kmsg && $provoke &&
		echo '$PROVOKED_END' > /dev/kmsg"
	say "booting to run ${#binaries[@]} test binaries (kernel log: $LOGS/kernel.log)"
	guest_run "$LOGS/kernel.log" "$command"
	[[ -z $provoke ]] || test_log "${expected[@]}"
}

expected_skips > "$LOGS/expected-skips"

# In a process group of its own, which ends with this script, however that ends:
# a signal to the script alone would leave guests behind.
set -m
run_all < /dev/null | "$SCRIPTS/tap-count.sh" "$LOGS/expected-skips" \
	"${binaries[@]}" system host | tee "$LOGS/test.tap" &
set +m
on_exit "kill -- -$(jobs -p) 2> /dev/null"
wait %1
