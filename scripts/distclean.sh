#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Removes the cache, unless another run is using a part of it, and build/.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

while IFS= read -r file; do
	exec {fd}>>"$file"
	flock --nonblock --exclusive "$fd" || die "$file is held by another run" \
		"wait until it ends, then run the same command again"
done < <(find "$MAP_TRACE_CACHE" -maxdepth 3 -name '*.lock')
rm -rf "$BUILD"
say "removing $MAP_TRACE_CACHE"
rm -rf --one-file-system "$MAP_TRACE_CACHE" 2>/dev/null ||
	sudo rm -rf --one-file-system "$MAP_TRACE_CACHE"
