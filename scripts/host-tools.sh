#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Says which tools TOOLCHAIN=host lacks on this machine. With a kernel tree as
# argument, asks its scripts/min-tool-version.sh which versions are too old.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tree=${1:-}
suffix=$("$SCRIPTS/llvm-suffix.sh")
bad=()

for tool in "clang$suffix" "ld.lld$suffix" "llvm-ar$suffix" "llvm-objcopy$suffix" \
	"llvm-strip$suffix" ar bc bindgen bison ccache clippy-driver cpio curl depmod flex \
	flock gcc git insmod make mount pahole patch perl pkg-config python3 \
	qemu-system-x86_64 rsync rustc rustfmt shellcheck vng xz zstd; do
	command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
		bad+=("$tool: missing")
done
for header in bpf/libbpf.h gelf.h libelf.h zlib.h openssl/ssl.h sys/capability.h; do
	echo "#include <$header>" | cc -E - >/dev/null 2>&1 || bad+=("$header: missing")
done
if command -v rustc >/dev/null; then
	core=$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs
	[[ -e $core ]] || bad+=("rust-src: missing ($core)")
fi

# too_old TOOL KIND VERSION
too_old() {
	local least
	least=$("$tree/scripts/min-tool-version.sh" "$2")
	[[ $(printf '%s\n' "$least" "$3" | sort -V | head -n 1) == "$least" ]] ||
		bad+=("$1: version $3 is too old, this kernel needs $least")
}

first_version() {
	"$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1
}

if [[ -n $tree && ${#bad[@]} -eq 0 ]]; then
	too_old "clang$suffix" llvm "$(first_version "clang$suffix" --version)"
	too_old "ld.lld$suffix" llvm "$(first_version "ld.lld$suffix" --version)"
	too_old rustc rustc "$(first_version rustc --version)"
	too_old bindgen bindgen "$(first_version bindgen --version workaround-for-0.69.0)"
fi

if [[ ${#bad[@]} -gt 0 ]]; then
	die "TOOLCHAIN=host, and this machine lacks:" "${bad[@]}" \
		"install these, or leave out TOOLCHAIN=host to let the build make its own toolchain"
fi
