#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs checkpatch on the series, applies it patch by patch and compiles, at each
# commit, what that commit can break. A patch that does not apply, to a kernel that
# KSRC names, is applied as far as it goes, with the files and lines where it does
# not; from there on nothing is compiled. Where it touches the kernel: every C file of the kernel that
# any patch of the series touches, and rust/ from the first patch on that touches
# that. Where it touches tools/: libbpf and bpftool, with their own checks. Last, the
# module is compiled at its place in the tree. Prints two TAP lines for each patch, and
# one for the module. A result is kept: the same series on the same kernel is not
# compiled again.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

source=$("$SCRIPTS/kernel-source.sh")
patches=("$MAP_TRACE_ROOT"/patches/*.patch)
tree=$MAP_TRACE_CACHE/series/$(basename "$source")
suffix=$("$SCRIPTS/llvm-suffix.sh")
fragments=("$MAP_TRACE_ROOT/configs/base.config" "$MAP_TRACE_ROOT/configs/release.config")

lock "$tree.lock"
fail=0

touched() {
	sed -n 's,^+++ b/,,p' "${patches[@]}" | sort -u
}

# Without Rust, and without what is only slow: this is about C.
configure() {
	local build=$1 rust=$2
	mkdir -p "$build" || return
	cat "${fragments[@]}" | grep -v '^CONFIG_LTO' > "$build.config"
	if [[ $rust == n ]]; then
		sed -i -e '/^CONFIG_RUST/d' -e '/^CONFIG_DEBUG_INFO/d' "$build.config"
		echo "CONFIG_DEBUG_INFO_NONE=y" >> "$build.config"
	fi
	"$SCRIPTS/enter.sh" "$SCRIPTS/kernel-config.sh" "$tree" "$build" "$build.config"
}

kmake() {
	local build=$1
	shift
	"$SCRIPTS/enter.sh" make -C "$tree" "O=$build" "-j$(nproc)" LOCALVERSION= \
		"CC=ccache clang$suffix" KCFLAGS=-Werror "$@"
}

compile_kernel() {
	local objects=() file
	while IFS= read -r file; do
		case $file in
		rust/* | tools/*) ;;
		*.c) [[ ! -e $tree/$file ]] || objects+=("${file%.c}.o") ;;
		esac
	done < <(touched)
	configure "$tree/build-c" n || return
	[[ ${#objects[@]} -eq 0 ]] || kmake "$tree/build-c" "${objects[@]}" || return
	if [[ $rust == y ]]; then
		configure "$tree/build-rust" y &&
			kmake "$tree/build-rust" prepare
	fi
}

# Without the skeletons of bpftool, which need the BTF of some kernel.
compile_tools() {
	local build=$tree/build-tools target
	mkdir -p "$build/libbpf" "$build/bpftool" || return
	# One after the other: each has a make of its own build the same objects.
	for target in all check; do
		"$SCRIPTS/enter.sh" make -C "$tree/tools/lib/bpf" "-j$(nproc)" \
			"OUTPUT=$build/libbpf/" "CC=ccache clang$suffix" "$target" || return
	done
	"$SCRIPTS/enter.sh" make -C "$tree/tools/bpf/bpftool" "-j$(nproc)" \
		"OUTPUT=$build/bpftool/" "CC=ccache clang$suffix" VMLINUX_BTF= \
		"$build/bpftool/bpftool" &&
		"$SCRIPTS/enter.sh" python3 \
			"$tree/tools/testing/selftests/bpf/test_bpftool_synctypes.py"
}

# compile PATCH: what it touches
compile() {
	local files
	files=$(sed -n -e 's,^+++ b/,,p' -e 's,^--- a/,,p' "$1")
	if grep -q '^tools/' <<< "$files"; then
		compile_tools || return
	fi
	if grep -qvE '^(tools|Documentation)/|^MAINTAINERS$' <<< "$files"; then
		compile_kernel || return
	fi
}

# The macros that define the stubs of an operation are made of functions, not of expressions.
checkpatch() {
	(cd "$source/linux" && "$SCRIPTS/enter.sh" \
		perl "$source/linux/scripts/checkpatch.pl" --strict --show-types --no-summary \
		--ignore COMPLEX_MACRO,MACRO_ARG_REUSE "$1")
}

apply() {
	GIT_CEILING_DIRECTORIES=$(dirname "$tree") git -C "$tree" apply "$@"
}

# What does not fit is left out.
apply_rest() {
	{ apply --reject --verbose "$1" 2>&1 || true; } |
		sed -nE 's/^(error: )?(patch failed|Rejected hunk|.*: (No such|already exists))/# \2/p'
	find "$tree" -path "$tree/build-*" -prune -o -name '*.rej' -exec rm {} +
}

# A tree like the others, and the build directories of the last time. A file
# that the last series touched is put back, as new.
start() {
	local file
	if [[ ! -e $tree/Makefile ]]; then
		rm -rf "$tree" "$tree.new"
		cp -al "$source/linux" "$tree.new"
		mv "$tree.new" "$tree"
	fi
	[[ -e $tree/.map_trace_patched ]] || : > "$tree/.map_trace_patched"
	while IFS= read -r file; do
		rm -f "$tree/$file"
		[[ ! -e $source/linux/$file ]] || cp "$source/linux/$file" "$tree/$file"
	done < "$tree/.map_trace_patched"
	rm -rf "$tree/kernel/bpf/map_trace"
	{
		touched
		"$SCRIPTS/module-in-tree.sh" files
	} | sort -u > "$tree/.map_trace_patched"
}

# With the objects of the kernel's crate, which the last patch to rust/ has built.
compile_module() {
	"$SCRIPTS/module-in-tree.sh" put "$tree" || return
	configure "$tree/build-rust" y || return
	echo "CONFIG_BPF_MAP_TRACE=m" >> "$tree/build-rust/.config"
	kmake "$tree/build-rust" olddefconfig || return
	grep -qx "CONFIG_BPF_MAP_TRACE=m" "$tree/build-rust/.config" || return
	kmake "$tree/build-rust" prepare && kmake "$tree/build-rust" kernel/bpf/map_trace/map_trace.o
}

# report "ok"|"not ok" TEXT
report() {
	number=$((number + 1))
	echo "$1 $number - $2"
	[[ $1 == ok ]] || fail=1
}

start
rust=n
chain=$(cat "$source/version" "${fragments[@]}" "${BASH_SOURCE[0]}" <(touched) | hash_stdin)
number=0 is_whole=y
echo "1..$((2 * ${#patches[@]} + 1))"
for patch in "${patches[@]}"; do
	name=${patch##*/}
	log=$LOGS/series-${name%.patch}.log
	if checkpatch "$patch" > "$log" 2>&1; then
		report ok "checkpatch: $name"
	else
		sed 's/^/# /' "$log"
		report "not ok" "checkpatch: $name"
	fi
	if ! apply "$patch" 2> "$log"; then
		apply_rest "$patch"
		report "not ok" "series: $name applies"
		is_whole=n
		continue
	fi
	if [[ $is_whole == n ]]; then
		report ok "series: $name applies # SKIP not compiled, as an earlier patch does not apply"
		continue
	fi
	! grep -q '^+++ b/rust/' "$patch" || rust=y
	chain=$({
		echo "$chain"
		sed -n '/^diff --git/,$p' "$patch"
	} | hash_stdin)
	result=$MAP_TRACE_CACHE/series/ok-$chain
	if [[ -e $result ]]; then
		report ok "series: $name applies and compiles (the same as before)"
	elif run_logged "compiling at $name" "$log" compile "$patch"; then
		touch "$result"
		report ok "series: $name applies and compiles"
	else
		tail -n 20 "$log" | sed 's/^/# /'
		report "not ok" "series: $name applies and compiles"
	fi
done

log=$LOGS/series-module.log
chain=$({
	echo "$chain"
	cat "$SCRIPTS/module-in-tree.sh" "$MAP_TRACE_ROOT"/patches/module/* \
		"$MAP_TRACE_ROOT"/*.rs "$MAP_TRACE_ROOT"/bpf/*.rs
} | hash_stdin)
result=$MAP_TRACE_CACHE/series/ok-$chain
if [[ $is_whole == n ]]; then
	report ok "series: the module compiles in the tree # SKIP not compiled, as a patch does not apply"
elif [[ -e $result ]]; then
	report ok "series: the module compiles in the tree (the same as before)"
elif run_logged "compiling the module in the tree" "$log" compile_module; then
	touch "$result"
	report ok "series: the module compiles in the tree"
else
	tail -n 20 "$log" | sed 's/^/# /'
	report "not ok" "series: the module compiles in the tree"
fi
exit "$fail"
