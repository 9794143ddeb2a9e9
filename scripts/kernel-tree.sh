#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kernel-tree.sh patched|base: makes the tree that a kernel is built from, once
# for each source and series, and prints where it is. The build directories
# are its children: kbuild then sees the same relative paths in every tree,
# and ccache finds what another tree has compiled.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

KEEP_TREES=${KEEP_TREES:-4}

source=$("$SCRIPTS/kernel-source.sh")
patches=()
case ${1:-patched} in
patched)
	for patch in "$MAP_TRACE_ROOT"/patches/*.patch; do
		[[ ! -e $patch ]] || patches+=("$patch")
	done
	;;
base) ;;
*) die "usage: ${0##*/} patched|base" ;;
esac

# Only what changes the tree counts: not a patch's description.
key=$({
	basename "$source"
	for patch in "${patches[@]}"; do
		sed -n '/^diff --git/,$p' "$patch"
	done
} | hash_stdin)
trees=$MAP_TRACE_CACHE/linux
tree=$trees/$(cat "$source/version")-$key

make_tree() {
	local patch
	rm -rf "$tree.new" || return
	# Links: 90,000 files take a second and no space. git apply puts a new
	# file in the place of one that it changes.
	cp -al "$source/linux" "$tree.new" || return
	for patch in "${patches[@]}"; do
		echo "${patch##*/}"
		GIT_CEILING_DIRECTORIES=$trees git -C "$tree.new" apply "$patch" || return
	done
	# For a later tree that is alike in most.
	printf '%s\n' "$(basename "$source")" > "$tree.new/.map_trace_source"
	for patch in "${patches[@]}"; do
		sed -n -e 's,^+++ b/,,p' -e 's,^--- a/,,p' "$patch"
	done | sort -u > "$tree.new/.map_trace_patched"
	touch "$tree.new/.map_trace_complete" &&
		rm -rf "$tree" && mv "$tree.new" "$tree"
}

# Keeps the newest trees, and any that is in use.
prune() {
	local old
	while IFS= read -r old; do
		(
			exec {fd}>>"$old.lock"
			flock --nonblock --exclusive "$fd" || exit 0
			say "deleting the old kernel tree $old"
			mv "$old" "$old.old"
			rm -rf "$old.old"
		)
	done < <(find "$trees" -mindepth 2 -maxdepth 2 -name .map_trace_used -printf '%T@ %h\n' |
		sort -rn | tail -n +$((KEEP_TREES + 1)) | cut -d ' ' -f 2-)
}

mkdir -p "$trees"
if [[ ! -e $tree/.map_trace_complete ]]; then
	lock "$tree.lock"
	if [[ ! -e $tree/.map_trace_complete ]]; then
		ON_FAILURE="The series does not apply to Linux $(cat "$source/version"). \
make series-open shows where." \
			run_logged "applying ${#patches[@]} patches" "$LOGS/tree-${1:-patched}.log" make_tree
		touch "$tree/.map_trace_used"
		prune
	fi
	unlock
fi
touch "$tree/.map_trace_used"
echo "$tree"
