#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The checks that need no guest: formatting, lints, the patch series. One TAP
# line each; the last line is "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$MAP_TRACE_ROOT" || exit
passed=0 failed=0 skipped=0
work=$(mktemp -d "$MAP_TRACE_CACHE/check.XXXXXX")
on_exit 'rm -rf "$work"'

# check NAME COMMAND...: its output is shown if it fails.
check() {
	local name=$1
	shift
	if "$@" > "$work/output" 2>&1; then
		passed=$((passed + 1))
		echo "ok - $name"
	else
		failed=$((failed + 1))
		sed 's/^/# /' "$work/output"
		echo "not ok - $name"
	fi
}

# The files of the project that match, tracked or about to be.
files() {
	git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r file; do
		[[ ! -f $file ]] || printf '%s\n' "$file"
	done
}

make_toolchain
source=$("$SCRIPTS/kernel-source.sh")
patches=(patches/*.patch)
[[ -e ${patches[0]} ]] || patches=()

# count_results FILE: shows TAP, and has its number of results in "results".
count_results() {
	results=0
	while IFS= read -r line; do
		echo "$line"
		case $line in
		"ok "*) passed=$((passed + 1)) results=$((results + 1)) ;;
		"not ok "*) failed=$((failed + 1)) results=$((results + 1)) ;;
		"1..0 # SKIP "*) skipped=$((skipped + 1)) ;;
		esac
	done < "$1"
}

# --- the set-up
status=0
"$SCRIPTS/setup-test.sh" > "$work/setup.tap" || status=$?
count_results "$work/setup.tap"
if [[ $status -ne 0 ]]; then
	echo "not ok - set-up: its tests end with status $status, after $results"
	failed=$((failed + 1))
fi

# --- shell
mapfile -t shell < <(files | while IFS= read -r file; do
	case $file in
	*.sh) echo "$file" ;;
	*) ! head -n 1 "$file" | grep -qaE '^#!.*\b(ba)?sh\b' || echo "$file" ;;
	esac
done)
for file in "${shell[@]}"; do
	check "shellcheck: $file" "$SCRIPTS/enter.sh" shellcheck -x "$file"
done

# --- Rust
mapfile -t rust < <(files '*.rs')
for file in "${rust[@]}"; do
	check "rustfmt: $file" "$SCRIPTS/enter.sh" rustfmt --check --edition 2021 \
		--config-path "$source/linux/.rustfmt.toml" --config skip_children=true "$file"
done

# bpf/ is the layer below: it names nothing of the rest of the crate.
imports_nothing_from_above() {
	local status=0
	grep -rnP '\bcrate::(?!bpf::)|\bsuper::super::' bpf bpf.rs || status=$?
	# Nothing was found, and nothing else went wrong.
	[[ $status -eq 1 ]]
}

check "layers: bpf/ imports nothing from above" imports_nothing_from_above

# --- the series
if [[ ${#patches[@]} -gt 0 ]]; then
	status=0
	"$SCRIPTS/check-series.sh" > "$work/series.tap" || status=$?
	count_results "$work/series.tap"
	# It ended before it had tried them all, and not for what a patch does.
	if [[ $results -lt $((2 * ${#patches[@]} + 1)) ]] && ! grep -q '^not ok ' "$work/series.tap"; then
		echo "not ok - series: $results of $((2 * ${#patches[@]} + 1)) results (status $status)"
		failed=$((failed + 1))
	fi
fi

# --- what breaks the code on purpose still fits it
if [[ ${#patches[@]} -gt 0 ]]; then
	check "mutants: each applies" "$SCRIPTS/test-mutants.sh" apply
fi

# --- clippy, with the lints of the kernel
clippy() {
	local kernel
	kernel=$("$SCRIPTS/kernel-build.sh" patched debug) || return
	# Nothing to build is nothing to warn of.
	rm -rf "$BUILD/clippy"
	V=0 "$SCRIPTS/module.sh" "$kernel" "$BUILD/clippy" CLIPPY=1 KRUSTFLAGS=-Dwarnings
}

if [[ ${#rust[@]} -gt 0 && ${#patches[@]} -gt 0 ]]; then
	"$SCRIPTS/kernel-build.sh" patched debug > /dev/null || true
	check "clippy: map_trace.ko without a warning" clippy
fi

# --- maptrace: its lints, and its tests that need no guest
check "clippy: maptrace without a warning" "$SCRIPTS/maptrace.sh" clippy
check "maptrace: cargo test" "$SCRIPTS/maptrace.sh" test

check "clippy: the fuzzer without a warning" "$SCRIPTS/fuzz.sh" clippy

# --- headers, as each kind of user space has them
# compiles_headers WHAT DIRECTORY...
compiles_headers() {
	local what=$1 compiler language suffix
	shift
	suffix=$("$SCRIPTS/llvm-suffix.sh")
	for compiler in gcc g++ "clang$suffix" "clang++$suffix"; do
		language=c
		[[ $compiler != *++* ]] || language=c++
		check "headers: $what, $compiler" "$SCRIPTS/enter.sh" \
			"$SCRIPTS/compile-headers.sh" "$compiler" "$language" "$@"
	done
}

if [[ ${#patches[@]} -gt 0 ]]; then
	tree=$("$SCRIPTS/kernel-tree.sh" patched)
	check "headers: libbpf's are installed" "$SCRIPTS/enter.sh" make -s -C "$tree/tools/lib/bpf" \
		"OUTPUT=$work/" "DESTDIR=$work/prefix" prefix= install_headers
	compiles_headers "libbpf and linux/bpf.h of patches/" \
		"$work/prefix/include" "$tree/tools/include/uapi"
	compiles_headers "libbpf of patches/, linux/bpf.h of the system" "$work/prefix/include"
	compiles_headers "libbpf and linux/bpf.h of the system"
	if [[ ${TOOLCHAIN:-} == host ]]; then
		echo "ok - headers: those of $OLDEST_HEADERS_SUITE # SKIP TOOLCHAIN=host has the system's only"
		skipped=$((skipped + 1))
	else
		oldest=("$OLDEST_HEADERS/usr/include" "$OLDEST_HEADERS/usr/include/x86_64-linux-gnu")
		compiles_headers "libbpf of patches/, linux/bpf.h of $OLDEST_HEADERS_SUITE" \
			"$work/prefix/include" "${oldest[@]}"
		compiles_headers "libbpf and linux/bpf.h of $OLDEST_HEADERS_SUITE" "${oldest[@]}"
	fi
fi

echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
