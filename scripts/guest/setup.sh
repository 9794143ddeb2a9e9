# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced in the guest by every command and by the shell of make vm.

export PATH=${MAP_TRACE_PATH:+$MAP_TRACE_PATH:}/usr/local/bin:/usr/bin:/usr/sbin
export HOME=/root LC_ALL=C.UTF-8

# modprobe and the kernel's own request_module() find the module.
if [[ -n ${MAP_TRACE_MODULES:-} && ! -e /run/map_trace-setup ]]; then
	mount -t tmpfs modules /usr/lib/modules
	ln -s "$MAP_TRACE_MODULES" "/usr/lib/modules/$(uname -r)"
fi
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
mountpoint -q /tmp || mount -t tmpfs tmp /tmp
: > /run/map_trace-setup
