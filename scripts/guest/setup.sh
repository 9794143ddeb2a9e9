# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced in the guest by every command and by the shell of make vm.

# The commands that start quickest, for what follows here
PATH=/busybox:/usr/local/bin:/usr/bin:/usr/sbin
# modprobe and the kernel's own request_module() find the module.
if [[ -n ${MAP_TRACE_MODULES:-} && ! -e /run/map_trace-setup ]]; then
	mount -t tmpfs modules /usr/lib/modules
	ln -s "$MAP_TRACE_MODULES" "/usr/lib/modules/$(uname -r)"
fi
grep -q ' /sys/fs/bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf
grep -q ' /tmp ' /proc/mounts || mount -t tmpfs tmp /tmp
: > /run/map_trace-setup

export PATH=${MAP_TRACE_PATH:+$MAP_TRACE_PATH:}/usr/local/bin:/usr/bin:/usr/sbin
export HOME=/root LC_ALL=C.UTF-8
