#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Boots the debug kernel, runs the tests there and reads the kernel's log.
# TESTS= names those to run, without it all. TAP; the last line is
# "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=${CONFIG:-debug}
[[ $config == debug || -n ${TESTS:-} ]] ||
	die "CONFIG=$config: some of the tests need what only the debug kernel has" \
		"leave out CONFIG=, or name those to run: TESTS=..."
case $config in
debug) memory=3G ;;
*) memory=1G ;;
esac
# For the whole guest: the limit of what a run may take before it counts as hung.
GUEST_SECONDS=${GUEST_SECONDS:-3600}

use_guest_files "$config" selftests
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

# guest_run LOG COMMAND: runs a command in a guest. Adds two results: on how the
# guest ended, and on the kernel's log at its end.
guest_run() {
	local log=$1 command=$2 status=0 reports
	"$SCRIPTS/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$log" \
		--memory "$memory" --timeout "$GUEST_SECONDS" --cache-files -- "$command" || status=$?
	# What follows belongs to no binary: a plan of its own.
	printf '# begin host\n1..2\n'
	if [[ $status -eq 0 ]]; then
		echo "ok 1 - guest: ended by itself"
	else
		echo "# status $status; the end of the console ($log):"
		tail -n 60 "$log" | sed 's/^/# | /'
		if [[ $status -eq 124 || $status -eq 137 ]]; then
			echo "not ok 1 - guest: hangs, stopped after $GUEST_SECONDS s"
		else
			echo "not ok 1 - guest: died (status $status)"
		fi
	fi
	if reports=$("$SCRIPTS/scan-log" "$log") && [[ -s $log ]]; then
		echo "ok 2 - kernel log: no report"
	else
		[[ -s $log ]] || reports="the log is empty"
		printf '%s\n' "$reports" | sed 's/^/# | /'
		echo "not ok 2 - kernel log: no report ($log)"
	fi
	echo "# end host 0"
}

# provoke NAME WHAT COMMAND PATTERN...: a run like the others, of what has to fail
# it. Each of the patterns is in what it reports.
provoke() {
	local name=$1 what=$2 command=$3 report=$LOGS/provoked-$1.tap pattern result=ok
	shift 3
	say "booting to see that $what fails the run"
	printf '# begin %s\n1..1\n' "$name"
	! guest_run "$LOGS/provoked-$name.log" "$command" |
		"$SCRIPTS/tap-count.sh" /dev/null host > "$report" || result="not ok"
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
	provoke warning "a WARN" \
		'modprobe lkdtm && echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT; true' \
		'^ok 1 - guest: ended by itself' '^# | .*WARNING: .*lkdtm' '^not ok 2 - kernel log'
	GUEST_SECONDS=20 provoke hang "a guest that hangs" 'sleep infinity' \
		'^not ok 1 - guest: hangs, stopped after 20 s' '^# | \['
}

for name in "${wanted[@]}"; do
	grep -qE "^${name%_test}_test " "$output/tests.list" || die "TESTS=$TESTS: no test $name" \
		"there are: $(cut -d ' ' -f 1 "$output/tests.list" | tr '\n' ' ')"
done
mapfile -t binaries < <(selected)
[[ ${#binaries[@]} -gt 0 ]] || die "TESTS=${TESTS:-}: no such test" \
	"there are: $(cut -d ' ' -f 1 "$output/tests.list" | tr '\n' ' ')"

# An emulated guest keeps one processor busy, most of the time: two of them, each
# with every other binary, take half as long.
guests=1
[[ ${#binaries[@]} -lt 4 || $(nproc) -lt 2 ]] || guests=2
read -r _ available _ < <(grep '^MemAvailable:' /proc/meminfo)
if [[ $guests -eq 2 && $available -lt $((2 * ${memory%G} * 1048576 + 500000)) ]]; then
	say "running one guest: there is no memory for two ($memory each)"
	guests=1
fi

# share NUMBER LOG: runs that share of the binaries in a guest.
share() {
	local names=() i
	for ((i = $1; i < ${#binaries[@]}; i += guests)); do
		names+=("${binaries[i]}")
	done
	guest_run "$2" "$SCRIPTS/guest/run-tests.sh '$output' ${names[*]}"
}

both_shares() {
	say "another guest runs every other binary (kernel log: $LOGS/kernel-2.log)"
	share 1 "$LOGS/kernel-2.log" > "$LOGS/guest-2.tap" 2>&1 &
	share 0 "$LOGS/kernel.log"
	wait
	cat "$LOGS/guest-2.tap"
}

run_all() {
	[[ ${#wanted[@]} -gt 0 ]] || test_judges
	say "booting to run ${#binaries[@]} test binaries (kernel log: $LOGS/kernel.log)"
	if [[ $guests -eq 2 ]]; then
		both_shares
	else
		share 0 "$LOGS/kernel.log"
	fi
}

# In a process group of its own, which ends with this script, however that ends:
# a signal to the script alone would leave guests behind.
set -m
run_all < /dev/null | "$SCRIPTS/tap-count.sh" "$MAP_TRACE_ROOT/selftests/expected-skips" \
	"${binaries[@]}" system host | tee "$LOGS/test.tap" &
set +m
on_exit "kill -- -$(jobs -p) 2> /dev/null"
wait %1
