#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-demo.sh release|debug: runs the demo in the guest; its output and its
# exit status are this script's.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
# The demo takes seconds; a guest that is not done by then hangs.
DEMO_SECONDS=${DEMO_SECONDS:-600}

use_guest_files "$config" demo
say "booting the $config kernel (log: $LOGS/demo-kernel.log)"
status=0
MAP_TRACE_OUTPUT=$BUILD/demo-$config "$SCRIPTS/vm.sh" \
	--image "$KERNEL_BUILD/arch/x86/boot/bzImage" --log "$LOGS/demo-kernel.log" \
	--timeout "$DEMO_SECONDS" --cache-files -- "cd '$BUILD/demo-$config' && ./demo" || status=$?
case $status in
124 | 137 | 255)
	say "the guest $([[ $status -eq 255 ]] && echo died || echo "took more than $DEMO_SECONDS s")." \
		"The end of its console:"
	tail -n 40 "$LOGS/demo-kernel.log" | sed 's/^/  | /' >&2
	;;
esac
if ! reports=$("$SCRIPTS/scan-log" "$LOGS/demo-kernel.log"); then
	say "the kernel reports:" "$reports"
	[[ $status -ne 0 ]] || status=1
fi
exit "$status"
