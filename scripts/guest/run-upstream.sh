#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-upstream.sh ROOT TESTS PROGRAMS TRACERS TIMES LIST: runs in the guest those of the
# kernel's own tests of BPF that LIST names, in ROOT, a Debian root: in TESTS, with what PROGRAMS
# has in place of the same there, and tests of test_progs TIMES times. Where TRACERS is not empty,
# every map that they create is traced. Prints what they print, with "begin" and "end" lines, as
# guest/run-tests.sh.

set -uo pipefail

root=$1 tests=$2 programs=$3 tracers=$4 times=$5 list=$6

source "$(dirname "${BASH_SOURCE[0]}")/results.sh"

mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for directory in tmp run mnt opt; do
	mount -t tmpfs "$directory" "$root/$directory"
done
mkdir "$root/opt/tests" "$root/opt/tracers"
mount --bind "$tests" "$root/opt/tests"
for file in "$programs"/*; do
	[[ ! -f $file ]] || mount --bind "$file" "$root/opt/tests/${file##*/}"
done
for file in debug/debugfs tracing/tracefs; do
	mountpoint -q "/sys/kernel/${file%/*}" || mount -t "${file#*/}" none "/sys/kernel/${file%/*}"
done
ip link set lo up

preload=''
if [[ -n $tracers ]]; then
	mount --bind "$tracers" "$root/opt/tracers"
	"$tracers/tracers" pin || exit
	preload=/opt/tracers/trace_maps.so
fi

# run PROGRAM [ARGUMENT]...: each line as soon as it is there, for a guest may die
run() {
	local status=0
	begin "$1"
	# shellcheck disable=SC2016 # the shell inside expands it
	chroot "$root" env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/usr/sbin \
		${preload:+LD_PRELOAD=$preload} stdbuf --output=L \
		sh -c 'ulimit -n 65536; cd /opt/tests && exec ./"$@"' sh "$@" 2>&1 || status=$?
	end "$1" $status
}

wants() {
	grep -qx "$1" "$list"
}

! wants test_verifier || run test_verifier
! wants test_maps || run test_maps
sed -n 's/^test_progs //p' "$list" > "$root/tmp/list"
if [[ -s $root/tmp/list ]]; then
	for ((i = 0; i < times; i++)); do
		# The watchdog is for machines that are not emulated.
		run test_progs --watchdog-timeout 600 --allow @/tmp/list
	done
fi

if [[ -n $tracers ]]; then
	begin tracers
	"$tracers/tracers" show
	end tracers $?
fi
