#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# upstream-build.sh release|debug [patched]: builds the kernel's own tests of BPF, once for each
# kernel, and prints the directory in which they run, and a directory with what is to be put in
# there for the unpatched kernel, or for the patched one: the programs, linked with its libbpf,
# and the test modules. All else is the same for both, from the unpatched tree. What does not
# compile is left out, as their Makefile has it.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PROGRAMS=(test_verifier test_maps test_progs)

config=$1
series=${2:-base}
root=$("$SCRIPTS/upstream-root.sh")
# Options make no difference to the tests: one build serves all kernels of a tree.
use_kernel base release
base_tree=$KERNEL_TREE
base=$KERNEL_BUILD
work=$MAP_TRACE_CACHE/upstream/tests-$(echo "$root $base" | hash_stdin)
tests=$work/linux/tools/testing/selftests/bpf

# The tests are built in their tree, which is no place for that: others share it. So this is
# one of links, and of copies where something is written.
copy_tree() {
	local entry
	rm -rf "$work"
	mkdir -p "$work/new" || return
	for entry in "$base_tree"/* "$base_tree"/.[a-z]*; do
		case ${entry##*/} in
		build-* | .map_trace_* | tools) ;;
		*) cp -al "$entry" "$work/new/" || return ;;
		esac
	done
	cp -a "$base_tree/tools" "$work/new/" && mv "$work/new" "$work/linux"
}

build() {
	MAP_TRACE_BUILD_ROOT=$root "$SCRIPTS/enter.sh" make -C "$tests" "-j$(nproc)" \
		"LLVM=-$UPSTREAM_LLVM_VERSION" "CLANG=clang-$UPSTREAM_LLVM_VERSION" \
		BPF_STRICT_BUILD=0 SKIP_DOCS=1 TEST_KMODS= "VMLINUX_BTF=$base/vmlinux" \
		"GENDIR=$base/include/generated" "$@" "${PROGRAMS[@]}"
}

# Links with the patched libbpf. Tests that know how many names a kernel has are compiled with the
# patched header. The programs are removed: they may be newer than what they are linked with. So
# is what make knows of tests that were compiled with the header of a series before, as its tree
# may be gone.
relink() {
	local test
	rm -f "${PROGRAMS[@]/#/$tests/}" || return
	for test in $(cd "$tests/prog_tests" && grep -l __MAX_BPF_ -- *.c); do
		rm -f "$tests/${test%.c}.test.o" || return
	done
	grep -lF "$MAP_TRACE_CACHE/linux/" "$tests"/*.test.d | xargs -r rm -f -- || return
	build "BPFOBJ=$KERNEL_TOOLS/libbpf/libbpf.a" "APIDIR=$KERNEL_TREE/tools/include/uapi"
}

lock "$work.lock"
if [[ ! -e $work/.complete ]]; then
	need_space 4 "the kernel's own tests"
	[[ -e $tests ]] || copy_tree
	run_logged "building the kernel's own tests" "$LOGS/upstream-build.log" build
	mkdir -p "$work/programs"
	cp "${PROGRAMS[@]/#/$tests/}" "$work/programs/"
	touch "$work/.complete"
fi

use_kernel "$series" "$config"
programs=$work/$series-$config-$(echo "$KERNEL_BUILD" | hash_stdin)
if [[ ! -e $programs/.complete ]]; then
	mkdir -p "$programs"
	# By the compiler that has built the kernel
	MODULE_SOURCE=$tests/test_kmods "$SCRIPTS/module.sh" "$KERNEL_BUILD" \
		"$programs/upstream-modules"
	cp "$programs/upstream-modules"/*.ko "$programs/"
	if [[ $series == base ]]; then
		cp "${PROGRAMS[@]/#/$work/programs/}" "$programs/"
	else
		run_logged "linking the kernel's own tests with the patched libbpf" \
			"$LOGS/upstream-relink.log" relink
		cp "${PROGRAMS[@]/#/$tests/}" "$programs/"
	fi
	# What is put there is mounted on a file.
	for file in "$programs"/*; do
		[[ ! -f $file || -e $tests/${file##*/} ]] || : > "$tests/${file##*/}"
	done
	touch "$programs/.complete"
fi
unlock
echo "$tests"
echo "$programs"
