#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest-files.sh release|debug [maptrace|selftests|demo|bench|soak]...: builds what a guest
# needs, the kernel first, and prints shell assignments that say where it is. The
# selftests test maptrace where that comes before them.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
shift
use_kernel patched "$config"

module=$BUILD/module-$config
"$SCRIPTS/module.sh" "$KERNEL_BUILD" "$module"

modules=$BUILD/modules-$config
release=$(cat "$KERNEL_BUILD/include/config/kernel.release")
installed=$modules/lib/modules/$release
lock "$modules.lock"
if [[ ! $installed/updates/map_trace.ko -nt $module/map_trace.ko ||
	$(cat "$modules/kernel" 2>/dev/null) != "$KERNEL_BUILD" ]]; then
	rm -rf "$modules"
	run_logged "installing modules for the guest" "$LOGS/modules-$config.log" \
		"$SCRIPTS/modules-install.sh" "$KERNEL_BUILD" "$module" "$modules" all
	echo "$KERNEL_BUILD" > "$modules/kernel"
fi
unlock

maptrace=''
for part in "$@"; do
	if [[ $part == maptrace ]]; then
		maptrace=$("$SCRIPTS/maptrace.sh" build)/bin
		continue
	fi
	lock "$BUILD/$part-$config.lock"
	# Objects of another kernel's headers are not worth telling from others.
	if [[ $(cat "$BUILD/$part-$config/kernel" 2>/dev/null) != "$KERNEL_BUILD" ]]; then
		rm -rf "${BUILD:?}/$part-$config"
		mkdir -p "$BUILD/$part-$config"
		echo "$KERNEL_BUILD" > "$BUILD/$part-$config/kernel"
	fi
	ON_FAILURE="Fix what the compiler reports above, and run the same command again." \
		run_logged "building $part" "$LOGS/$part-$config.log" \
		"$SCRIPTS/enter.sh" env -u LLVM make -C "$MAP_TRACE_ROOT/$part" "-j$(nproc)" \
		"KDIR=$KERNEL_BUILD" "KSRC_TREE=$KERNEL_TREE" "OUTPUT=$BUILD/$part-$config" \
		"BPFTOOL=$KERNEL_TOOLS/bpftool/bpftool" "LIBBPF=$KERNEL_TOOLS/prefix" \
		"VMLINUX_H=$KERNEL_TOOLS/vmlinux.h" "MAPTRACE=$maptrace" \
		"CLANG=clang$("$SCRIPTS/llvm-suffix.sh")"
	unlock
	[[ -d $MAP_TRACE_ROOT/$part/test_modules ]] || continue
	MODULE_SOURCE=$MAP_TRACE_ROOT/$part/test_modules \
		"$SCRIPTS/module.sh" "$KERNEL_BUILD" "$BUILD/$part-modules-$config"
	cp -u "$BUILD/$part-modules-$config"/*.ko "$BUILD/$part-$config"
done

cat <<-END
	KERNEL_BUILD='$KERNEL_BUILD'
	export MAP_TRACE_KO='$installed/updates/map_trace.ko'
	export MAP_TRACE_MODULES='$installed'
	export MAP_TRACE_PATH='$KERNEL_TOOLS/bpftool${maptrace:+:$maptrace}'
END
