#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# series.sh open: unpacks the kernel to linux/ in the clone, a git tree with a
# commit for each patch of patches/.
# series.sh save: writes the commits since the kernel's release back to
# patches/.
# series.sh send: writes to build/send/ what can be sent to a list: a cover letter, these
# commits, and one more that adds the module.

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
send)
	[[ -e $tree/.git ]] || die "there is no linux/" "make series-open makes it"
	send=$BUILD/send
	module=$(mktemp -d "$BUILD/module-in-tree.XXXXXX")
	on_exit 'rm -rf "$module"; git -C "$tree" worktree prune'
	rm -rf "$send"
	# Only the files that the module adds to
	in_tree worktree add --quiet --detach --no-checkout "$module" HEAD
	git -C "$module" sparse-checkout set kernel/bpf
	git -C "$module" checkout --quiet
	"$SCRIPTS/module-in-tree.sh" put "$module"
	git -C "$module" add --sparse -A
	git -C "$module" "${unsigned[@]}" -c user.name=map_trace -c user.email=map_trace@localhost \
		commit --quiet --author="$(in_tree log -1 --format='%an <%ae>')" \
		-m "$(cat "$patches/module/message")

Signed-off-by: $(in_tree log -1 --format='%an <%ae>')"
	git -C "$module" format-patch --quiet --no-signature --base="$base_tag" --cover-letter \
		--cover-from-description=none --output-directory "$send" "$base_tag.."
	sed -i -e "s/\*\*\* SUBJECT HERE \*\*\*/$(head -n 1 "$patches/cover-letter")/" \
		-e "/\*\*\* BLURB HERE \*\*\*/{r "<(tail -n +3 "$patches/cover-letter") -e 'd}' \
		"$send/0000-cover-letter.patch"
	say "build/send/: a cover letter and $(find "$send" -name '*.patch' ! -name '0000-*' | wc -l) patches." \
		"Read them, then: git send-email build/send/*.patch"
	;;
*)
	die "usage: ${0##*/} open|save|send"
	;;
esac
