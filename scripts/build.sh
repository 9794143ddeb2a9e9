#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# build.sh release|debug: builds the kernel and the module, and says where.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

files=$("$SCRIPTS/guest-files.sh" "$1")
eval "$files"
echo "kernel: $KERNEL_BUILD/arch/x86/boot/bzImage"
echo "module: $BUILD/module-$1/map_trace.ko"
