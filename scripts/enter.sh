#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# enter.sh COMMAND...: runs a command inside the toolchain. The toolchain is
# read-only there; the clone, the cache and MAP_TRACE_BIND (a list of paths
# with colons between) appear at their own paths. Mounts and processes live in
# namespaces that end with the command. MAP_TRACE_BUILD_ROOT is another root to take.
#
# TOOLCHAIN=host runs the command with the tools of this machine.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

suffix=$("$SCRIPTS/llvm-suffix.sh")
llvm_bin=/usr/lib/llvm-${suffix#-}/bin
environment=(
	CCACHE_DIR="$MAP_TRACE_CACHE/ccache" CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=8G
	CLANG="clang$suffix" LLVM="${suffix:-1}"
	KBUILD_BUILD_USER=map_trace KBUILD_BUILD_HOST=map_trace
	KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP="@1700000000"
	LC_ALL=C.UTF-8
)

if [[ ${TOOLCHAIN:-} == host && -z ${MAP_TRACE_BUILD_ROOT:-} ]]; then
	"$SCRIPTS/host-tools.sh"
	[[ ! -e ${llvm_bin%/bin}/lib ]] || environment+=(LIBCLANG_PATH="${llvm_bin%/bin}/lib")
	exec env "PATH=$PATH:/usr/sbin:/sbin" "${environment[@]}" "$@"
fi

root=${MAP_TRACE_BUILD_ROOT:-$("$SCRIPTS/toolchain.sh")}

arguments=(
	--tmpfs / --ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc --ro-bind "$root/var" /var
	--symlink usr/bin /bin --symlink usr/sbin /sbin
	--symlink usr/lib /lib --symlink usr/lib64 /lib64
	--dir /opt --dir /srv --dir /mnt --dir /root --dir /home --dir /run
	--tmpfs /tmp --dev-bind /dev /dev --proc /proc --ro-bind /sys /sys
)

IFS=: read -ra paths <<< "$MAP_TRACE_CACHE:$MAP_TRACE_ROOT${MAP_TRACE_BIND:+:$MAP_TRACE_BIND}"

# Prints the directories of the toolchain in which a path needs a mount point.
closed() {
	local path
	for path in "${paths[@]}"; do
		case $path in
		/usr/* | /etc/* | /var/*)
			while [[ ! -e $root$path ]]; do
				path=${path%/*}
				[[ ! -d $root$path ]] || echo "$path"
			done
			;;
		esac
	done | sort -u
}

# A directory of the same entries, in which bwrap can make one.
shopt -s nullglob
while IFS= read -r directory; do
	arguments+=(--tmpfs "$directory")
	for entry in "$root$directory"/*; do
		if [[ -L $entry ]]; then
			arguments+=(--symlink "$(readlink "$entry")" "${entry#"$root"}")
		else
			arguments+=(--ro-bind "$entry" "${entry#"$root"}")
		fi
	done
done < <(closed)
[[ ! -e /etc/resolv.conf ]] || arguments+=(--ro-bind "$(realpath /etc/resolv.conf)" /etc/resolv.conf)
for path in "${paths[@]}"; do
	arguments+=(--bind "$path" "$path")
done
# A guest whose root this is. Its init is a shell script of a hundred commands: under
# emulation, half of the time of a boot is their start, unless they are one program
# that is linked to nothing.
if [[ -n ${MAP_TRACE_GUEST_RC:-} ]]; then
	init=/usr/lib/python3/dist-packages/virtme/guest/virtme-init
	# busybox knows groups by their number only.
	init_text=$(sed 's|^export PATH=|&/busybox:|; s|gid=tty|gid=5|' "$root$init")
	[[ $init_text == *=/busybox:* && $init_text == *gid=5* ]] ||
		die "the toolchain's virtme-ng has another $init than is known here" \
			"see what enter.sh changes in it"
	exec {init_fd}<<< "$init_text"
	arguments+=(
		--ro-bind "$MAP_TRACE_GUEST_RC" /etc/bash.bashrc
		--ro-bind "$SCRIPTS/guest/udevadm" /usr/bin/udevadm
		--ro-bind "$root/usr/bin/true" /usr/bin/systemd-tmpfiles
		--perms 0755 --ro-bind-data "$init_fd" "$init"
	)
	for command in base64 chmod chown cp grep hostname install ip ln mkdir mount rm \
		sed setsid touch uname; do
		arguments+=(--symlink ../usr/bin/busybox "/busybox/$command")
	done
fi
directory=$PWD
case $directory/ in
"$MAP_TRACE_CACHE"/* | "$MAP_TRACE_ROOT"/*) ;;
*) directory=$MAP_TRACE_ROOT ;;
esac

arguments+=(
	--unshare-pid --unshare-ipc --unshare-uts --hostname map-trace
	--die-with-parent --chdir "$directory" --clearenv
	--setenv PATH "/usr/local/bin:/usr/bin:/usr/sbin:$llvm_bin"
	--setenv HOME /tmp --setenv USER map_trace --setenv TERM "${TERM:-dumb}" --setenv LIBCLANG_PATH "${llvm_bin%/bin}/lib"
)
for name in http_proxy https_proxy no_proxy; do
	[[ -z ${!name:-} ]] || arguments+=(--setenv "$name" "${!name}")
done
for assignment in "${environment[@]}"; do
	arguments+=(--setenv "${assignment%%=*}" "${assignment#*=}")
done
# What a caller hands on to its command.
for name in ${MAP_TRACE_ENV:-}; do
	arguments+=(--setenv "$name" "${!name}")
done

exec bwrap "${arguments[@]}" "$@"
