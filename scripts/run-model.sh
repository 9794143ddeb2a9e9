#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-model.sh [long]: model/check, inside the toolchain, with the kernel's memory model
# where there is a herd7 that could use it.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

memory_model=
if "$SCRIPTS/enter.sh" sh -c 'command -v herd7' > /dev/null; then
	memory_model=$("$SCRIPTS/kernel-source.sh")/linux/tools/memory-model
fi
exec "$SCRIPTS/enter.sh" env "MEMORY_MB=${MEMORY_MB:-4000}" \
	"$MAP_TRACE_ROOT/model/check" "${1:-short}" "$memory_model"
