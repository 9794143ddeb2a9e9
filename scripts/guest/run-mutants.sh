#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-mutants.sh OUTPUT LIST: runs in the guest one test with each module
# of LIST, lines of "NAME BINARY TEST MODULE". Prints what they print, with
# "begin" and "end" lines between. A mutant ("none-..." is none) ends with the first
# variant of its test that fails. Stops after one that leaves a kernel behind
# in which the next one would not be fair: with a taint, or with the module in
# use.

set -uo pipefail

output=$1
list=$2

# B: page state, D: oops, L: soft lockup, M: machine check, W: warning.
tainted() {
	local tainted
	tainted=$(cat /proc/sys/kernel/tainted)
	((tainted & (1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14)))
}

# Links are freed some time after their last fd is closed.
unload() {
	local try
	for ((try = 0; try < 60; try++)); do
		[[ -e /sys/module/map_trace ]] || return 0
		rmmod map_trace 2> /dev/null || sleep 0.5
	done
	[[ ! -e /sys/module/map_trace ]]
}

# A test and all that it has started are one session.
session=$(mktemp)
trap 'rm -f "$session"' EXIT

# run_test NAME MODULE BINARY TEST
run_test() {
	local line
	MAP_TRACE_KO=$2 setsid --wait bash -c 'echo $$ > "$0"; exec "$@"' "$session" \
		timeout --kill-after=10 600 "$output/${3}_test" -t "$4" 2>&1 < /dev/null |
		while IFS= read -r line; do
			echo "$line"
			# The other variants would wait for the same in vain.
			[[ $1 == none-* || $line != "not ok "* ]] ||
				pkill -KILL --session "$(< "$session")"
		done
}

cd "$output" || exit
while read -r name binary test module; do
	state=clean
	echo "# begin $name"
	echo "map_trace: begin mutant $name" > /dev/kmsg
	unload || state=used
	[[ $state != clean ]] || insmod "$module" || state=unloadable
	[[ $state != clean ]] || run_test "$name" "$module" "$binary" "$test"
	unload || state=used
	! tainted || state=tainted
	echo "# end $name $state"
	[[ $state == clean ]] || exit 0
done < "$list"
