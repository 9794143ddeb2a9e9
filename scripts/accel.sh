#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# accel.sh IMAGE: prints kvm where a guest really boots under it, else tcg.
# That /dev/kvm opens says little: there are machines where guests then hang.
# The answer is kept until the machine boots again. ACCEL= overrides.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${ACCEL:-} in
kvm | tcg)
	echo "$ACCEL"
	exit
	;;
"") ;;
*) die "ACCEL=$ACCEL: neither kvm nor tcg" ;;
esac

PROBE_SECONDS=30

answer=$MAP_TRACE_CACHE/accel/$(cat /proc/sys/kernel/random/boot_id)
lock "$answer.lock"
if [[ ! -e $answer ]]; then
	found=tcg
	if [[ -r /dev/kvm && -w /dev/kvm ]]; then
		say "trying KVM (up to $PROBE_SECONDS s)"
		output=$(ACCEL=kvm "$SCRIPTS/vm.sh" --image "$1" --timeout "$PROBE_SECONDS" \
			-- 'echo the guest is up' 2>/dev/null < /dev/null || true)
		[[ $output != *"the guest is up"* ]] || found=kvm
	fi
	[[ $found == kvm ]] || say "no guest boots under KVM here: emulating (TCG), which is slower"
	echo "$found" > "$answer.new"
	mv "$answer.new" "$answer"
fi
cat "$answer"
