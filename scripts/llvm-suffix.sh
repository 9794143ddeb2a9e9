#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Prints what follows "clang" in the names of the LLVM tools: "-19", or nothing
# where TOOLCHAIN=host finds only unversioned ones.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ ${TOOLCHAIN:-} == host ]] && ! command -v "clang-$LLVM_VERSION" >/dev/null &&
	command -v clang >/dev/null; then
	echo
else
	echo "-$LLVM_VERSION"
fi
