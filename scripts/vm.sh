#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# vm.sh --image BZIMAGE [OPTION]... [-- COMMAND]: boots a kernel with virtme-ng
# on the toolchain's root, and runs a shell command there, or a shell. Passes
# on output and exit status; 124 is a guest that took too long, 255 one that
# ended without an answer.
#	--log FILE		kernel log
#	--timeout SECONDS	limit for the whole guest
#	--memory SIZE		default 1G
#	--cpus N		default 2
#	--append ARGUMENTS	for the kernel's command line
#	--qemu OPTIONS		for qemu
#	--cache-files		keep what was read of this machine's files, which nobody
#				changes meanwhile: it boots in half the time

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

image='' log='' timeout='' memory=1G cpus=2 append=() qemu=() command=''
while [[ $# -gt 0 ]]; do
	case $1 in
	--image) image=$2 ;;
	--log) log=$2 ;;
	--timeout) timeout=$2 ;;
	--memory) memory=$2 ;;
	--cpus) cpus=$2 ;;
	--append) append+=("$2") ;;
	--qemu) qemu+=("$2") ;;
	--cache-files)
		# The last one counts.
		append+=("rootflags=version=9p2000.L,trans=virtio,access=any,cache=loose")
		shift
		continue
		;;
	--)
		shift
		command=$*
		break
		;;
	*) die "${0##*/}: $1?" ;;
	esac
	shift 2
done
[[ -e $image ]] || die "no kernel at ${image:-(no --image)}"

accel=$("$SCRIPTS/accel.sh" "$image")

mkdir -p "$BUILD/vm"
run=$(mktemp -d "$BUILD/vm/run.XXXXXX")
# The toolchain sees the clone and the cache: the log is moved out of there.
# shellcheck disable=SC2034 # in the command for the end
on_exit '[[ -z $log ]] || cp "$run/kernel.log" "$log"; rm -rf "$run"'
: > "$run/kernel.log"

# 9p under both: virtiofs corrupts the guest's memory under TCG. The kernel log
# has a serial line of its own, a file on this side, which loses nothing in a
# crash. It is an early console that stays, since virtme-ng claims the one real
# serial console that a kernel can have.
arguments=(
	vng --run "$image" --force-9p --disable-microvm --user root
	--memory "$memory" --cpus "$cpus" --cwd "$MAP_TRACE_ROOT"
	--qemu-opts="-serial file:$run/kernel.log"
	--append "earlycon=uart8250,io,0x2f8,115200n8" --append keep_bootcon
	--append ignore_loglevel
	# Under emulation the watchdog of the clock trips over the host's load.
	--append "clocksource=tsc" --append "tsc=reliable"
)
[[ $accel == kvm ]] || arguments+=(--disable-kvm)
for argument in "${append[@]}"; do
	arguments+=(--append "$argument")
done
for argument in "${qemu[@]}"; do
	arguments+=("--qemu-opts=$argument")
done

if [[ -n $command ]]; then
	printf '%s\n' "source $SCRIPTS/guest/setup.sh" "$command" > "$run/command"
	arguments+=(--exec "bash $run/command")
else
	printf '%s\n' "source $SCRIPTS/guest/setup.sh" > "$run/command"
fi
export MAP_TRACE_GUEST_RC=$run/command
for name in MAP_TRACE_KO MAP_TRACE_MODULES MAP_TRACE_PATH MAP_TRACE_OUTPUT; do
	[[ -z ${!name:-} ]] || sed -i "1i export $name=$(printf '%q' "${!name}")" "$run/command"
done
[[ -z $timeout ]] || arguments=(timeout --foreground --kill-after=5 "$timeout" "${arguments[@]}")

status=0
if [[ -n $command ]]; then
	# Through pipes, since qemu truncates what it opens; and no input.
	{
		"$SCRIPTS/enter.sh" "${arguments[@]}" < /dev/null 2> >(cat >&2) | cat
	} || status=${PIPESTATUS[0]}
else
	# Nothing of this machine's is bound over there.
	[[ ${TOOLCHAIN:-} != host ]] || say "type this first in the guest: source $run/command"
	"$SCRIPTS/enter.sh" "${arguments[@]}" || status=$?
fi
exit "$status"
