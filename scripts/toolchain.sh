#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the toolchain, a Debian root that mmdebstrap fills, once for each list
# of packages, and prints where it is.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

hooks=(
	# The archive of the kernel's package, from where the rest came.
	"sed -n 's/ $TOOLCHAIN_SUITE main/ $KERNEL_PACKAGE_SUITE main/p' "'"$1/etc/apt/sources.list"'" \
		> "'"$1/etc/apt/sources.list.d/backports.list"'
	# What the init of virtme-ng calls or mounts over, without all of systemd.
	'ln -s ../bin/busybox "$1/usr/sbin/poweroff"'
	'mkdir -p "$1/etc/lvm"'
)
key=$(printf '%s\n' "$TOOLCHAIN_SUITE" "${TOOLCHAIN_PACKAGES[@]}" "${hooks[@]}" \
	"$OLDEST_HEADERS_SUITE $OLDEST_HEADERS" "$(< "$SCRIPTS/oldest-headers.sh")" | hash_stdin)
root=$MAP_TRACE_CACHE/toolchain/$key

# What mmdebstrap would take by itself, but in the format that the hook reads:
# without it, the choice between that and .sources is mmdebstrap's.
archives=(
	"deb http://deb.debian.org/debian $TOOLCHAIN_SUITE main"
	"deb http://deb.debian.org/debian $TOOLCHAIN_SUITE-updates main"
	"deb http://security.debian.org/debian-security $TOOLCHAIN_SUITE-security main"
)

as_root() {
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "making the toolchain needs root or sudo" \
			"run this once as root, or use the tools of this machine: TOOLCHAIN=host"
	fi
}

# The tools that make and enter the root.
install_missing() {
	local missing=()
	command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
	command -v bwrap >/dev/null || missing+=(bubblewrap)
	[[ ${#missing[@]} -gt 0 ]] || return 0
	command -v apt-get >/dev/null ||
		die "${missing[*]}: not installed, and there is no apt-get to install it" \
			"install ${missing[*]}, or use the tools of this machine: TOOLCHAIN=host"
	ON_FAILURE="Install ${missing[*]} by hand, then run the same command again." \
		run_logged "installing ${missing[*]}" "$LOGS/apt.log" as_root sh -c '
			export DEBIAN_FRONTEND=noninteractive
			install="apt-get install --yes --no-install-recommends"
			$install "$@" || { apt-get update && $install "$@"; }' sh "${missing[@]}"
}

# In a mount and a PID namespace of its own, so that an interrupted run leaves
# neither a mount nor a process.
make_root() {
	local include
	include=$(IFS=,; echo "${TOOLCHAIN_PACKAGES[*]}")
	as_root unshare --mount --propagation private --pid --fork --kill-child -- \
		mmdebstrap --mode=root --variant=apt \
		--aptopt='APT::Install-Recommends "false"' --include="$include" \
		"${hooks[@]/#/--customize-hook=}" --customize-hook="$SCRIPTS/oldest-headers.sh" \
		"$TOOLCHAIN_SUITE" "$root.new" "${archives[@]}" < /dev/null
}

if [[ ! -e $root/.complete ]]; then
	lock "$root.lock"
	if [[ ! -e $root/.complete ]]; then
		install_missing
		as_root rm -rf --one-file-system "$root.new" "$root"
		run_logged "making the toolchain (Debian $TOOLCHAIN_SUITE, about 2 minutes)" \
			"$LOGS/toolchain.log" make_root
		as_root touch "$root.new/.complete"
		as_root mv "$root.new" "$root"
	fi
	unlock
fi
# An old root is no use to anyone once its package list has gone, but another
# clone may still have that list: distclean removes them all.
command -v bwrap >/dev/null || install_missing
bwrap --ro-bind / / --dev /dev --proc /proc --unshare-pid true ||
	die "bwrap cannot enter the toolchain here: this machine gives it no namespaces" \
		"run this as root, or allow user namespaces, for example with" \
		"    sysctl -w user.max_user_namespaces=10000" \
		"    sysctl -w kernel.unprivileged_userns_clone=1" \
		"    sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" \
		"(not every kernel has all of them), or use the tools of this machine: TOOLCHAIN=host"
echo "$root"
