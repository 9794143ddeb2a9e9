# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# How runs in the guest are told apart, and what is looked at after them.

begin() {
	echo "# begin $1"
	echo "map_trace: begin $1" > /dev/kmsg
}

end() {
	echo "map_trace: end $1: $2" > /dev/kmsg
	echo "# end $1 $2"
}

kmemleak=/sys/kernel/debug/kmemleak

# What the runs left behind: leaks, and the kernel's taint
system_results() {
	local lost leaks tainted line
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
}
