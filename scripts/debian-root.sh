# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Debian roots that mmdebstrap fills: the toolchain, and the programs that maptrace is
# tested on.

# shellcheck source=apt.sh
source "$SCRIPTS/apt.sh"

# A hook: how this machine gets at its archives, perhaps with a password in it.
# shellcheck disable=SC2016,SC2034 # mmdebstrap's shell expands it, for those who source this
FORGET_NETWORK='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"'

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

# The suite of a root; who sources this may take another one.
ROOT_SUITE=$TOOLCHAIN_SUITE

# The archives of the root, which apt on this machine may know for another suite.
find_sources() {
	find_archives || return
	archive_line Debian "$ROOT_SUITE" > "$work/sources.list" &&
		archive_line Debian "$ROOT_SUITE-updates" >> "$work/sources.list" || return
	archive_line Debian-Security "$ROOT_SUITE-security" >> "$work/sources.list" ||
		say "note: apt has no archive with Debian's security updates: the root goes without"
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
fill_root() {
	local root=$1 packages=$2
	shift 2
	as_root env LC_ALL=C unshare --mount --propagation private --pid --fork --kill-child -- \
		mmdebstrap --mode=root --variant=apt --aptopt="$work/network.conf" \
		--aptopt='APT::Install-Recommends "false"' --include="${packages// /,}" "$@" \
		"$ROOT_SUITE" "$root.new" - < "$work/sources.list"
}

# make_root ROOT WHAT LOG PACKAGES HOOK...: makes it of these packages, and says WHAT it
# makes. It is there when it is complete.
make_root() {
	local root=$1 what=$2 log=$3 packages=$4
	shift 4
	work=$(mktemp -d)
	on_exit 'rm -rf "$work"'
	ON_FAILURE=explain_no_sources run_logged "looking for the archives of Debian" \
		"$LOGS/archives.log" find_sources
	ON_FAILURE=explain_apt run_logged "making $what" "$log" \
		fill_root "$root" "$packages" "${@/#/--customize-hook=}"
	as_root touch "$root.new/.complete"
	as_root mv "$root.new" "$root"
}
