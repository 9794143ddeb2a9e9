#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# module-in-tree.sh put TREE: puts the module to its place in a kernel tree that has the series.
# module-in-tree.sh files: prints the files of the tree that it makes or changes.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

place=kernel/bpf/map_trace

module_files() {
	(cd "$MAP_TRACE_ROOT" && printf '%s\n' ./*.rs bpf/*.rs | sed 's,^\./,,')
}

case ${1:-} in
put)
	tree=$2
	mkdir -p "$tree/$place/bpf"
	while IFS= read -r file; do
		cp "$MAP_TRACE_ROOT/$file" "$tree/$place/$file"
	done < <(module_files)
	cp "$MAP_TRACE_ROOT"/patches/module/{Kconfig,Makefile} "$tree/$place/"
	sed -i "/^obj-\$(CONFIG_BPF_PRELOAD)/a obj-\$(CONFIG_BPF_MAP_TRACE) += ${place##*/}/" \
		"$tree/kernel/bpf/Makefile"
	sed -i "/^source \"kernel\/bpf\/preload\/Kconfig\"/a source \"$place/Kconfig\"" \
		"$tree/kernel/bpf/Kconfig"
	sed -i "/^F:\tkernel\/bpf\/map_trace.c/a F:\t$place/" "$tree/MAINTAINERS"
	# Another tree can have other lines there.
	if ! grep -q "BPF_MAP_TRACE" "$tree/kernel/bpf/Makefile" ||
		! grep -q "$place" "$tree/kernel/bpf/Kconfig"; then
		die "$tree: kernel/bpf has no place for the module"
	fi
	;;
files)
	module_files | sed "s,^,$place/,"
	printf '%s\n' "$place/Kconfig" "$place/Makefile" kernel/bpf/Kconfig kernel/bpf/Makefile \
		MAINTAINERS
	;;
*)
	die "usage: ${0##*/} put TREE | files"
	;;
esac
