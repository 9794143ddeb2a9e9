#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-tests.sh OUTPUT [NAME]...: runs in the guest the test binaries that
# OUTPUT/tests.list names, or those of them that are named, then looks at what
# they left behind. Prints TAP; "begin" and "end" lines tell the host which
# binary it belongs to.

set -uo pipefail

output=$1
shift
wanted=" $* "

begin() {
	echo "# begin $1"
	echo "map_trace: begin $1" > /dev/kmsg
}

end() {
	echo "map_trace: end $1: $2" > /dev/kmsg
	echo "# end $1 $2"
}

kmemleak=/sys/kernel/debug/kmemleak

while read -r name seconds; do
	[[ -n $name && $name != "#"* ]] || continue
	[[ $wanted == "  " || $wanted == *" $name "* || $wanted == *" ${name%_test} "* ]] || continue
	begin "$name"
	status=0
	(cd "$output" && exec timeout --kill-after=10 "$seconds" "./$name" 2>&1) || status=$?
	end "$name" $status
done < "$output/tests.list"

begin system
echo "TAP version 13"
echo "1..2"
if [[ ! -e $kmemleak ]]; then
	echo "ok 1 - kmemleak # SKIP this kernel is built without it"
else
	# An object counts as lost in the second scan that finds no pointer to it, and
	# not before it is 5 s old.
	SECONDS=0
	echo scan > $kmemleak || lost=1
	while ((SECONDS <= 5)); do sleep .2; done
	echo scan > $kmemleak || lost=1
	leaks=$(cat $kmemleak) || lost=1
	if [[ -n ${lost:-} ]]; then
		echo "not ok 1 - kmemleak: it has turned itself off"
	elif [[ -z $leaks ]]; then
		echo "ok 1 - kmemleak: nothing leaked"
	else
		while IFS= read -r line; do echo "# $line"; done <<< "$leaks"
		echo "not ok 1 - kmemleak: nothing leaked"
	fi
fi
# B: page state, D: oops, L: soft lockup, M: machine check, W: warning. The
# module itself gives O, and E where modules are signed.
tainted=$(cat /proc/sys/kernel/tainted)
if ((tainted & (1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14))); then
	echo "not ok 2 - taint: $tainted, no warning and no oops"
else
	echo "ok 2 - taint: $tainted, no warning and no oops"
fi
end system 0
