#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the toolchain, a Debian root that mmdebstrap fills, once for each list
# of packages, and prints where it is.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=debian-root.sh
source "$SCRIPTS/debian-root.sh"

hooks=(
	"$FORGET_NETWORK"
	# What the init of virtme-ng calls or mounts over, without all of systemd.
	'ln -s ../bin/busybox "$1/usr/sbin/poweroff"'
	'mkdir -p "$1/etc/lvm"'
)
key=$(printf '%s\n' "$TOOLCHAIN_SUITE" "${TOOLCHAIN_PACKAGES[@]}" "${hooks[@]}" \
	"$OLDEST_HEADERS_SUITE $OLDEST_HEADERS" "$(< "$SCRIPTS/oldest-headers.sh")" | hash_stdin)
root=$MAP_TRACE_CACHE/toolchain/$key

# An old root is no use to anyone once its package list has gone, but another
# clone may still have that list: distclean removes them all.
if [[ ! -e $root/.complete ]] || ! command -v bwrap >/dev/null; then
	lock "$root.lock"
	install_missing
	if [[ ! -e $root/.complete ]]; then
		as_root rm -rf --one-file-system "$root.new" "$root"
		need_space 5 "the toolchain"
		[[ $(free_space "$MAP_TRACE_CACHE") -ge 20000 ]] ||
			say "note: all targets together take 20 GB, and $MAP_TRACE_CACHE has less"
		make_root "$root" "the toolchain (Debian $TOOLCHAIN_SUITE, about 2 minutes)" \
			"$LOGS/toolchain.log" "${TOOLCHAIN_PACKAGES[*]}" "$SCRIPTS/oldest-headers.sh" "${hooks[@]}"
	fi
	unlock
fi
bwrap --ro-bind / / --dev /dev --proc /proc --unshare-pid true ||
	die "bwrap cannot enter the toolchain here: this machine gives it no namespaces" \
		"run this as root, or allow user namespaces, for example with" \
		"    sysctl -w user.max_user_namespaces=10000" \
		"    sysctl -w kernel.unprivileged_userns_clone=1" \
		"    sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" \
		"(not every kernel has all of them), or use the tools of this machine: TOOLCHAIN=host"
echo "$root"
