#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kernel-build.sh patched|base release|debug: builds a kernel, and bpftool,
# libbpf and vmlinux.h for what is built against it, once for each tree,
# configuration and toolchain. Prints the build directory. An interrupted
# build goes on where it was.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TOOLS=map_trace_tools

series=${1:-patched}
config=${2:-debug}
fragments=("$MAP_TRACE_ROOT/configs/base.config" "$MAP_TRACE_ROOT/configs/$config.config")
[[ -e ${fragments[1]} ]] || die "CONFIG=$config: there is no configs/$config.config"

make_toolchain
suffix=$("$SCRIPTS/llvm-suffix.sh")
tree=$("$SCRIPTS/kernel-tree.sh" "$series")
# What compiles it, not what else the toolchain holds.
compilers=$("$SCRIPTS/enter.sh" sh -c \
	"exec 2>&1; clang$suffix --version; ld.lld$suffix --version; rustc --version
	bindgen --version; pahole --version") || true
key=$({
	echo "$compilers"
	sed -e '/^# CONFIG_/b' -e '/^#/d' -e '/^$/d' "${fragments[@]}"
} | hash_stdin)
build=$tree/build-$config-$key

kmake=(make -C "$tree" "O=$build" "-j$(nproc)" LOCALVERSION=
	"CC=ccache clang$suffix")
enter=("$SCRIPTS/enter.sh")

configure() {
	mkdir -p "$build" &&
		"${enter[@]}" "$SCRIPTS/kernel-config.sh" "$tree" "$build" "${fragments[@]}" &&
		"${enter[@]}" make -C "$tree" "O=$build" rustavailable
}

# Gives each file that a patch touches, here or in the other tree, the time it
# has there if it is the same, and the present if it is not. Never on the file
# itself, which all trees share.
match_times() {
	local other_tree=$1 file
	while IFS= read -r file; do
		[[ -f $tree/$file ]] || continue
		cp -p "$tree/$file" "$tree/$file.map_trace_new"
		if cmp -s "$other_tree/$file" "$tree/$file"; then
			touch -r "$other_tree/$file" "$tree/$file.map_trace_new"
		else
			touch "$tree/$file.map_trace_new"
		fi
		mv "$tree/$file.map_trace_new" "$tree/$file"
	done < <(sort -u "$tree/.map_trace_patched" "$other_tree/.map_trace_patched")
}

# A finished build of the same configuration from a tree that differs in a
# patch: taken as the start, with the times of the files that are the same, so
# that make compiles what differs and what hangs on it.
seed() {
	local other_tree other
	while IFS= read -r other; do
		other_tree=$(dirname "$other")
		[[ $other_tree != "$tree" ]] || continue
		cmp -s "$tree/.map_trace_source" "$other_tree/.map_trace_source" || continue
		if (
			exec {fd}>>"$other_tree.lock"
			flock --nonblock --shared "$fd" && [[ -e $other/.map_trace_complete ]] &&
				rm -rf "$build.seed" && cp -a --reflink=auto "$other" "$build.seed" &&
				rm -rf "$build.seed/.map_trace_complete" "$build.seed/$TOOLS" &&
				match_times "$other_tree"
		); then
			mv "$build.seed" "$build"
			echo "starting from $other"
			return 0
		fi
	done < <(find "$MAP_TRACE_CACHE/linux" -mindepth 3 -maxdepth 3 \
		-path "*/build-$config-$key/.map_trace_complete" -printf '%T@ %h\n' |
		sort -rn | cut -d ' ' -f 2-)
}

# What selftests and demo are linked with, from the same tree.
build_tools() {
	local tools=$build/$TOOLS options=()
	# Only disassembly needs libLLVM, and the emulated debug kernel takes a second to
	# load it, each time.
	[[ $config != debug ]] || options=(SKIP_LLVM=1)
	mkdir -p "$tools/bpftool" "$tools/libbpf" || return
	"${enter[@]}" make -C "$tree/tools/lib/bpf" "-j$(nproc)" "OUTPUT=$tools/libbpf/" \
		"CC=ccache clang$suffix" DESTDIR="$tools/prefix" prefix= libdir=/ \
		"$tools/libbpf/libbpf.a" install_headers || return
	cp "$tools/libbpf/libbpf.a" "$tools/prefix/" || return
	"${enter[@]}" make -C "$tree/tools/bpf/bpftool" "-j$(nproc)" "OUTPUT=$tools/bpftool/" \
		"CC=ccache clang$suffix" "VMLINUX_BTF=$build/vmlinux" "${options[@]}" \
		"$tools/bpftool/bpftool" || return
	"${enter[@]}" "$tools/bpftool/bpftool" btf dump file "$build/vmlinux" format c \
		> "$tools/vmlinux.h.new" || return
	mv "$tools/vmlinux.h.new" "$tools/vmlinux.h"
}

# In use: not to be deleted meanwhile.
lock "$tree.lock" shared
if [[ ! -e $build/.map_trace_complete ]]; then
	[[ ${TOOLCHAIN:-} != host ]] || "$SCRIPTS/host-tools.sh" "$tree"
	lock "$build.lock"
	if [[ ! -e $build/.map_trace_complete ]]; then
		name="$series kernel, $config"
		if [[ ! -e $build ]]; then
			seed > "$LOGS/kernel-seed.log" 2>&1 || true
			cat "$LOGS/kernel-seed.log" >&2
		fi
		ON_FAILURE="An option named above was lost: fix configs/." \
			run_logged "configuring the $name" "$LOGS/kernel-$series-$config-configure.log" configure
		steps=$MAP_TRACE_CACHE/steps-$config
		STEPS_EXPECTED=$(cat "$steps" 2>/dev/null || echo 0) \
			run_logged "building the $name" "$LOGS/kernel-$series-$config.log" \
			"${enter[@]}" "${kmake[@]}" bzImage modules vmlinux
		[[ -e $steps ]] || grep -cE '^  [A-Z]+( \[M\])? +[^ ]' \
			"$LOGS/kernel-$series-$config.log" > "$steps"
		run_logged "building bpftool and libbpf" "$LOGS/kernel-$series-$config-tools.log" build_tools
		touch "$build/.map_trace_complete"
	fi
	unlock
fi
echo "$build"
