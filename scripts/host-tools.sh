#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Says which tools TOOLCHAIN=host lacks on this machine. With a kernel tree as
# argument, asks that which versions are too old.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tree=${1:-}
suffix=$("$SCRIPTS/llvm-suffix.sh")
bad=()

for tool in "clang$suffix" "clang++$suffix" "ld.lld$suffix" "llvm-ar$suffix" "llvm-objcopy$suffix" \
	"llvm-strip$suffix" ar bc bindgen bison cargo ccache clippy-driver cpio curl depmod flex \
	flock g++ gcc git insmod make mount pahole patch perl poweroff python3 \
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

# too_old TOOL VERSION LEAST
too_old() {
	[[ $(printf '%s\n' "$3" "$2" | sort -V | head -n 1) == "$3" ]] ||
		bad+=("$1: version ${2:-unknown} is too old, $3 is needed")
}

first_version() {
	"$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1
}

# The least version that the kernel checks, and the one that it only documents.
least() {
	"$tree/scripts/min-tool-version.sh" "$1"
}

documented() {
	sed -nE "s/^$1 +([0-9.]+) .*/\1/p" "$tree/Documentation/process/changes.rst"
}

if [[ -n $tree && ${#bad[@]} -eq 0 ]]; then
	too_old "clang$suffix" "$(first_version "clang$suffix" --version)" "$(least llvm)"
	too_old "ld.lld$suffix" "$(first_version "ld.lld$suffix" --version)" "$(least llvm)"
	too_old rustc "$(first_version rustc --version)" "$(least rustc)"
	too_old bindgen "$(first_version bindgen --version workaround-for-0.69.0)" "$(least bindgen)"
	too_old make "$(first_version make --version)" "$(documented 'GNU make')"
	too_old pahole "$(first_version pahole --version)" "$(documented pahole)"
	too_old qemu-system-x86_64 "$(first_version qemu-system-x86_64 --version)" "$QEMU_LEAST"
	too_old vng "$(first_version vng --version)" "$VNG_LEAST"
fi

if [[ ${#bad[@]} -gt 0 ]]; then
	die "TOOLCHAIN=host, and this machine lacks:" "${bad[@]}" \
		"install these, or leave out TOOLCHAIN=host to let the build make its own toolchain"
fi
