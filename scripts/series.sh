#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# series.sh open: unpacks the kernel to linux/ in the clone, a git tree with a
# commit for each patch of patches/.
# series.sh save: writes the commits since the kernel's release back to
# patches/.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tree=$MAP_TRACE_ROOT/linux
patches=$MAP_TRACE_ROOT/patches
# Not "start": run_logged has a local one, which import would see.
base_tag=map_trace-base

# The user's key is for the user's own commits.
unsigned=(-c commit.gpgSign=false -c tag.gpgSign=false)

in_tree() {
	git -C "$tree" "$@"
}

import() {
	local source=$1
	cp -a --reflink=auto "$source/linux" "$tree.new"
	git -C "$tree.new" init -q -b map_trace
	git -C "$tree.new" add -A -f .
	GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
		git -C "$tree.new" "${unsigned[@]}" -c user.name=map_trace -c user.email=map_trace@localhost \
		-c gc.auto=0 commit -q -m "Linux $(cat "$source/version")"
	git -C "$tree.new" "${unsigned[@]}" tag "$base_tag"
	mv "$tree.new" "$tree"
}

case ${1:-} in
open)
	if [[ -e $tree ]]; then
		die "$tree is there already" \
			"save it with make series-save, or remove it, then open the series again"
	fi
	source=$("$SCRIPTS/kernel-source.sh")
	rm -rf "$tree.new"
	run_logged "making a git tree of Linux $(cat "$source/version")" "$LOGS/series.log" \
		import "$source"
	series=("$patches"/*.patch)
	if [[ -e ${series[0]} ]]; then
		if ! in_tree "${unsigned[@]}" -c user.name="$(git config user.name || echo map_trace)" \
			-c user.email="$(git config user.email || echo map_trace@localhost)" \
			am --quiet --committer-date-is-author-date "${series[@]}"; then
			die "a patch does not apply" \
				"in linux/: resolve it, git am --continue; then make series-save"
		fi
	fi
	say "linux/ holds ${base_tag#*-} and these commits:"
	in_tree --no-pager log --oneline --reverse "$base_tag.." >&2
	say "Change them there (git commit, git rebase -i $base_tag), then: make series-save"
	;;
save)
	[[ -e $tree/.git ]] || die "there is no linux/" "make series-open makes it"
	[[ ! -e $tree/.git/rebase-apply && ! -e $tree/.git/rebase-merge ]] ||
		die "linux/ is in the middle of a rebase or of git am" "finish that first"
	in_tree diff --quiet HEAD -- ||
		die "linux/ has changes that are not committed" "commit or drop them first"
	new=$(mktemp -d "$BUILD/series.XXXXXX")
	on_exit 'rm -rf "$new"'
	# Nothing of the time, the tree or the version of git: the same commits
	# always give the same files.
	in_tree -c diff.noprefix=false -c diff.mnemonicPrefix=false format-patch --quiet \
		--zero-commit --no-signature --no-numbered --no-base --full-index \
		--diff-algorithm=myers --output-directory "$new" "$base_tag.."
	mkdir -p "$patches"
	rm -f "$patches"/*.patch
	find "$new" -name '*.patch' -exec mv {} "$patches/" \;
	say "patches/: $(find "$patches" -name '*.patch' | wc -l) patches"
	;;
*)
	die "usage: ${0##*/} open|save"
	;;
esac
