#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# compile-headers.sh COMPILER LANGUAGE DIRECTORY...: compiles each header for user space
# by itself, those of libbpf and that of the section handler, with these directories
# before the system's. LANGUAGE is c or c++. In the toolchain.

set -euo pipefail

compiler=$1 language=$2
shift 2
selftests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../selftests" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Compilers pass over those that are not there.
for directory in "$@"; do
	ls -d "$directory" > /dev/null
done

case $language in
c) standard=gnu99 ;;
c++) standard=c++11 ;;
*) exit 2 ;;
esac
flags=(-Wall -Wextra -Werror -Wno-missing-field-initializers -D_GNU_SOURCE -I"$selftests")
flags+=("${@/#/-isystem}")

compile() {
	"$compiler" -x "$language" "-std=$standard" "${flags[@]}" "$@"
}

# Those of libbpf, where this compiler finds them
libbpf=$(echo '#include <bpf/libbpf.h>' | compile -M - | grep -oE '[^ ]+/bpf/libbpf\.h')
headers=(map_trace_libbpf.h)
for header in "${libbpf%/*}"/*.h; do
	case ${header##*/} in
	# For the loaders that bpftool generates. It takes a linux/bpf.h as new as itself,
	# whether or not libbpf is patched.
	skel_internal.h) ;;
	# For BPF programs
	bpf_core_read.h | bpf_endian.h | bpf_helper_defs.h | bpf_helpers.h | bpf_tracing.h | usdt.bpf.h) ;;
	*) headers+=("bpf/${header##*/}") ;;
	esac
done
for header in "${headers[@]}"; do
	echo "$header"
	echo "#include <$header>" | compile -fsyntax-only -
done

# The handler is a file in C, and what it has can be called.
"$compiler" -x c -std=gnu11 "${flags[@]}" -c "$selftests/map_trace_libbpf.c" -o "$work/handler.o"
{
	echo '#include "map_trace_libbpf.h"'
	echo 'typedef void function(void);'
	echo 'function *functions[] = {'
	grep -oE '\bmap_trace_[a-z_]+\(' "$selftests/map_trace_libbpf.h" | sort -u |
		sed 's/\(.*\)(/\t(function *)\1,/'
	echo '};'
	echo 'int main(void) { return functions[0] == functions[1]; }'
} > "$work/main"
compile -Wno-cast-function-type -c "$work/main" -o "$work/main.o"
"$compiler" "$work/main.o" "$work/handler.o" -lbpf -o "$work/main.out"
