#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# module-for.sh release|debug KDIR [PREFIX]: builds the module against KDIR, or
# where that is empty against the kernel of this configuration; with a PREFIX
# installs it there.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
kdir=$2
prefix=${3:-}

if [[ -n $kdir ]]; then
	[[ -d $kdir ]] || die "KDIR=$kdir: no such directory"
	kdir=$(realpath "$kdir")
	plain_path KDIR "$kdir"
	output=$BUILD/module-$(hash_stdin <<< "$kdir")
else
	use_kernel patched "$config"
	kdir=$KERNEL_BUILD
	output=$BUILD/module-$config
fi
"$SCRIPTS/module.sh" "$kdir" "$output"
if [[ -z $prefix ]]; then
	echo "module: $output/map_trace.ko"
else
	[[ -d $prefix && -w $prefix ]] || die "$prefix: cannot write there" \
		"run this as root, or give another directory: INSTALL_MOD_PATH=..."
	plain_path INSTALL_MOD_PATH "$(realpath "$prefix")"
	"$SCRIPTS/modules-install.sh" "$kdir" "$output" "$prefix" >&2
fi
