#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# module.sh KDIR OUTPUT [MAKE-ARGUMENT]...: builds map_trace.ko out of tree
# against a prepared kernel, with the compiler that this kernel was built with.
# Where MODULE_SOURCE names another directory, what that has instead.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kdir=$1
output=$2
shift 2
source=$MAP_TRACE_ROOT what=map_trace.ko
[[ -z ${MODULE_SOURCE:-} ]] || source=$MODULE_SOURCE what="$(basename "$MODULE_SOURCE")"

[[ -e $kdir/.config || -e $kdir/include/config/auto.conf ]] ||
	die "KDIR=$kdir: not a configured kernel" \
		"give the build directory of a kernel that has patches/ applied and is built"
kdir=$(realpath "$kdir")
grep -qs '^CONFIG_RUST=y' "$kdir/include/config/auto.conf" ||
	die "KDIR=$kdir: this kernel is built without CONFIG_RUST, or not built yet"

suffix=$("$SCRIPTS/llvm-suffix.sh")
compiler=()
if grep -q '^CONFIG_CC_IS_CLANG=y' "$kdir/include/config/auto.conf"; then
	compiler=("LLVM=${suffix:-1}" "CC=ccache clang$suffix")
fi
bind=$kdir
# A kernel that was built with O= has its source elsewhere.
[[ ! -e $kdir/source ]] || bind=$bind:$(realpath "$kdir/source")

make_toolchain
mkdir -p "$output"
lock "$output.lock"
ON_FAILURE="Fix what the compiler reports above, and run the same command again." \
	MAP_TRACE_BIND=$bind run_logged "building $what" "$LOGS/$(basename "$output").log" \
	"$SCRIPTS/enter.sh" env -u LLVM make -C "$kdir" "M=$source" "MO=$output" \
	"-j$(nproc)" "${compiler[@]}" "$@" modules
