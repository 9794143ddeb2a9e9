#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# programs-root.sh: makes a Debian root with BPF programs that nobody here wrote, once for
# each list of packages, and prints where it is. Only make test-maptrace needs it.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=debian-root.sh
source "$SCRIPTS/debian-root.sh"

key=$(printf '%s\n' "$TOOLCHAIN_SUITE" "${PROGRAMS_PACKAGES[@]}" | hash_stdin)
root=$MAP_TRACE_CACHE/programs/$key

lock "$root.lock"
if [[ ! -e $root/.complete ]]; then
	install_missing
	as_root rm -rf --one-file-system "$root.new" "$root"
	need_space 2 "the programs"
	make_root "$root" "a root with ${PROGRAMS_PACKAGES[*]}" "$LOGS/programs-root.log" \
		"${PROGRAMS_PACKAGES[*]}" "$FORGET_NETWORK"
fi
echo "$root"
