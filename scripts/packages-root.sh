#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# packages-root.sh programs|go: makes a Debian root, once for each list of packages, and
# prints where it is: with BPF programs that nobody here wrote, which only make
# test-maptrace needs, or with Go, which only examples/go needs.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=debian-root.sh
source "$SCRIPTS/debian-root.sh"

what=$1
case $what in
programs) packages=("${PROGRAMS_PACKAGES[@]}") ;;
go) packages=("${GO_PACKAGES[@]}") ;;
*) die "${0##*/}: $what?" ;;
esac
key=$(printf '%s\n' "$TOOLCHAIN_SUITE" "${packages[@]}" | hash_stdin)
root=$MAP_TRACE_CACHE/$what/$key

lock "$root.lock"
if [[ ! -e $root/.complete ]]; then
	install_missing
	as_root rm -rf --one-file-system "$root.new" "$root"
	need_space 2 "a root with ${packages[*]}"
	make_root "$root" "a root with ${packages[*]}" "$LOGS/$what-root.log" "${packages[*]}" \
		"$FORGET_NETWORK"
fi
echo "$root"
