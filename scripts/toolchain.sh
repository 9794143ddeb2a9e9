#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the toolchain, a Debian root that mmdebstrap fills, once for each list
# of packages, and prints where it is.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=apt.sh
source "$SCRIPTS/apt.sh"

hooks=(
	# How this machine gets at its archives, perhaps with a password in it.
	'rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"'
	# What the init of virtme-ng calls or mounts over, without all of systemd.
	'ln -s ../bin/busybox "$1/usr/sbin/poweroff"'
	'mkdir -p "$1/etc/lvm"'
)
key=$(printf '%s\n' "$TOOLCHAIN_SUITE" "${TOOLCHAIN_PACKAGES[@]}" "${hooks[@]}" \
	"$OLDEST_HEADERS_SUITE $OLDEST_HEADERS" "$(< "$SCRIPTS/oldest-headers.sh")" | hash_stdin)
root=$MAP_TRACE_CACHE/toolchain/$key

# The tools that make and enter the root.
install_missing() {
	local missing=()
	command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
	command -v bwrap >/dev/null || missing+=(bubblewrap)
	[[ -e $DEBIAN_KEYRING ]] || missing+=(debian-archive-keyring)
	[[ ${#missing[@]} -gt 0 ]] || return 0
	command -v apt-get >/dev/null ||
		die "${missing[*]}: not installed, and there is no apt-get to install it" \
			"install ${missing[*]}, or use the tools of this machine: TOOLCHAIN=host"
	ON_FAILURE=explain_apt \
		run_logged "installing ${missing[*]}" "$LOGS/apt.log" apt_install "${missing[@]}"
}

# The archives of the root, which apt on this machine may know for another suite.
find_sources() {
	find_archives || return
	archive_line Debian "$TOOLCHAIN_SUITE" > "$work/sources.list" &&
		archive_line Debian "$TOOLCHAIN_SUITE-updates" >> "$work/sources.list" || return
	archive_line Debian-Security "$TOOLCHAIN_SUITE-security" >> "$work/sources.list" ||
		say "note: apt has no archive with Debian's security updates: the toolchain goes without"
	cat "$work/sources.list"
	network_options > "$work/network.conf"
}

explain_no_sources() {
	if grep -q '^E: ' "$1"; then
		explain_apt "$1"
	else
		echo "Apt on this machine has no archive of Debian. Give the address of one, and of its" \
			"security updates: MIRROR='http://.../debian http://.../debian-security', or use" \
			"the tools of this machine: TOOLCHAIN=host."
	fi
}

# In a mount and a PID namespace of its own, so that an interrupted run leaves
# neither a mount nor a process.
make_root() {
	local include
	include=$(IFS=,; echo "${TOOLCHAIN_PACKAGES[*]}")
	as_root env LC_ALL=C unshare --mount --propagation private --pid --fork --kill-child -- \
		mmdebstrap --mode=root --variant=apt --aptopt="$work/network.conf" \
		--aptopt='APT::Install-Recommends "false"' --include="$include" \
		--customize-hook="$SCRIPTS/oldest-headers.sh" "${hooks[@]/#/--customize-hook=}" \
		"$TOOLCHAIN_SUITE" "$root.new" - < "$work/sources.list"
}

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
		work=$(mktemp -d)
		on_exit 'rm -rf "$work"'
		ON_FAILURE=explain_no_sources run_logged "looking for the archives of Debian" \
			"$LOGS/archives.log" find_sources
		ON_FAILURE=explain_apt run_logged "making the toolchain (Debian $TOOLCHAIN_SUITE, about 2 minutes)" \
			"$LOGS/toolchain.log" make_root
		as_root touch "$root.new/.complete"
		as_root mv "$root.new" "$root"
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
