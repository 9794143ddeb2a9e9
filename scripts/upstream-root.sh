#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# upstream-root.sh: makes a Debian root in which the kernel's own tests of BPF are built and
# run, once for each list of packages, and prints where it is. Only make test-upstream needs it.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=debian-root.sh
source "$SCRIPTS/debian-root.sh"

ROOT_SUITE=$UPSTREAM_SUITE
key=$(printf '%s\n' "$ROOT_SUITE" "${UPSTREAM_PACKAGES[@]}" | hash_stdin)
root=$MAP_TRACE_CACHE/upstream/root-$key

lock "$root.lock"
if [[ ! -e $root/.complete ]]; then
	install_missing
	as_root rm -rf --one-file-system "$root.new" "$root"
	need_space 3 "the root of the kernel's own tests"
	make_root "$root" "a root for the kernel's own tests (Debian $ROOT_SUITE)" \
		"$LOGS/upstream-root.log" "${UPSTREAM_PACKAGES[*]}" "$FORGET_NETWORK"
fi
echo "$root"
