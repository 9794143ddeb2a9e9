#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# modules-install.sh KDIR OUTPUT PREFIX [all]: installs the module that
# module.sh built below PREFIX, with "all" those of the kernel too.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kdir=$(realpath "$1")
output=$2
prefix=$3
mkdir -p "$prefix/lib/modules"
prefix=$(realpath "$prefix")
bind=$kdir:$(realpath "$prefix/lib/modules")
# The root of this machine cannot be that of the toolchain too.
[[ $prefix == / ]] || bind+=:$prefix

install() {
	MAP_TRACE_BIND=$bind "$SCRIPTS/enter.sh" make -C "$kdir" "$@" \
		"INSTALL_MOD_PATH=$prefix" INSTALL_MOD_STRIP=1 modules_install
}

[[ ${4:-} != all ]] || install
install "M=$MAP_TRACE_ROOT" "MO=$output"
