#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-vm.sh release|debug: a shell in the guest, or the command that is in
# MAP_TRACE_CMD, with its output and its exit status. CPUS says how many it has.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
use_guest_files "$config" maptrace selftests
export MAP_TRACE_OUTPUT=$BUILD/selftests-$config
memory=1G
[[ $config != debug ]] || memory=$DEBUG_MEMORY
arguments=(--image "$KERNEL_BUILD/arch/x86/boot/bzImage" --memory "$memory"
	--log "$LOGS/vm-kernel.log")
[[ -z ${CPUS:-} ]] || arguments+=(--cpus "$CPUS")
if [[ -n ${MAP_TRACE_CMD:-} ]]; then
	arguments+=(-- "$MAP_TRACE_CMD")
else
	say "modprobe map_trace loads the module; \$MAP_TRACE_OUTPUT holds the tests"
fi
"$SCRIPTS/vm.sh" "${arguments[@]}"
