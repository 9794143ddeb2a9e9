# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the scripts share: where things are, progress, locks.

set -euo pipefail

# For whoever started the script, where its output goes to a log for a while too.
exec {SAY_FD}>&2

say() {
	printf '%s\n' "$*" >&"$SAY_FD"
}

die() {
	printf 'error: %s\n' "$1" >&"$SAY_FD"
	shift
	[[ $# -eq 0 ]] || printf '       %s\n' "$@" >&"$SAY_FD"
	exit 1
}

# plain_path NAME PATH: kbuild stops at a space or a colon in a path, and make,
# QEMU and the shells on the way at other characters.
plain_path() {
	[[ $2 =~ ^[[:alnum:]/._+@~-]*$ ]] || die "$1 $2: the build does not work in this path" \
		"use a path of letters, digits and / . _ + @ ~ - only"
}

MAP_TRACE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
MAP_TRACE_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/map_trace
plain_path "the clone" "$MAP_TRACE_ROOT"
plain_path "the cache" "$MAP_TRACE_CACHE"
mkdir -p "$MAP_TRACE_CACHE"
MAP_TRACE_CACHE=$(cd "$MAP_TRACE_CACHE" && pwd -P)
# shellcheck disable=SC2034 # for the scripts that source this
BUILD=$MAP_TRACE_ROOT/build
LOGS=$BUILD/logs
mkdir -p "$LOGS"
# shellcheck disable=SC2034
SCRIPTS=$MAP_TRACE_ROOT/scripts
export MAP_TRACE_ROOT MAP_TRACE_CACHE
# shellcheck source-path=SCRIPTDIR source=versions.sh
source "$MAP_TRACE_ROOT/scripts/versions.sh"

# For vm.sh, by everything that boots to test: nobody writes to this machine's files
# meanwhile, and grace periods are expedited, since an attach under load is little else
# than waiting for them.
# shellcheck disable=SC2034
TEST_GUEST=(--cache-files --append rcupdate.rcu_expedited=1)

# What a guest with the debug kernel gets, whose shadow takes an eighth
# shellcheck disable=SC2034
DEBUG_MEMORY=2G

# make_toolchain: where its failure would be taken for that of what runs in it.
make_toolchain() {
	"$SCRIPTS/enter.sh" true
}

# The make that may have started us has its own job server and flags, which
# are no business of the builds below.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS

# The first 12 digits of the hash of standard input.
hash_stdin() {
	sha256sum | cut -c 1-12
}

elapsed() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# Commands for the end of this script, however it ends.
EXIT_COMMANDS=()
run_exit_commands() {
	local command
	for command in "${EXIT_COMMANDS[@]}"; do
		eval "$command" || true
	done
}
trap run_exit_commands EXIT

on_exit() {
	EXIT_COMMANDS+=("$1")
}

# Prints a line every 30 s while the command in the foreground runs, which is
# where that has to be for Ctrl-C to reach it. Has no child of its own, and
# ends by itself soon after its parent, so that it outlives nothing and holds
# no lock for long.
heartbeat() {
	local what=$1 log=$2 expected=$3 start=$SECONDS next=30 never count line
	trap - EXIT
	exec {never}<> <(:)
	while kill -0 $$ 2>/dev/null; do
		read -rt 1 -u "$never" || true
		[[ $((SECONDS - start)) -ge $next ]] || continue
		next=$((next + 30))
		count=$(grep -cE '^  [A-Z]+( \[M\])? +[^ ]' "$log" 2>/dev/null) || count=0
		line="  ... $what: $(elapsed $((SECONDS - start)))"
		[[ $count -eq 0 ]] || line+=", $count steps"
		[[ $count -eq 0 || $expected -eq 0 ]] || line+=" of about $expected"
		say "$line"
	done
}

# free_space DIRECTORY: in MB
free_space() {
	df --output=avail --block-size=1M "$1" | tail -n 1 | tr -d ' '
}

# need_space GB WHAT: before it is begun, and not when half of it is there.
need_space() {
	local free
	free=$(free_space "$MAP_TRACE_CACHE")
	[[ $free -ge $(($1 * 1024)) ]] || die "the disk is too full: $2 takes about $1 GB," \
		"and $free MB are free in $MAP_TRACE_CACHE" \
		"make room there, or take another cache: XDG_CACHE_HOME=DIRECTORY"
}

# explain_full_disk LOG: fails if that was not what ended it.
explain_full_disk() {
	local directory
	if ! grep -qaE 'No space left on device|Disk quota exceeded|have enough free space' "$1" &&
		[[ $(free_space "$MAP_TRACE_CACHE") -gt 0 && $(free_space "$LOGS") -gt 0 ]]; then
		return 1
	fi
	say "The disk is full. Free space, in MB:"
	for directory in "$MAP_TRACE_CACHE" "$MAP_TRACE_ROOT" /var /tmp; do
		say "  $(free_space "$directory") in $directory"
	done
	say "Make room, then run the same command again: what is finished is kept."
}

# run_logged WHAT LOG COMMAND...: runs a long command with its output in a
# log file; says where that is, how far it got, and how it ended.
# STEPS_EXPECTED is the number of steps of an earlier run, where one is known.
# ON_FAILURE is what helps then: a text, or a function that prints it for a log.
run_logged() {
	local what=$1 log=$2 start=$SECONDS status=0 beat
	shift 2
	say "$what (log: $log)"
	if [[ ${V:-0} == 1 ]]; then
		"$@" > >(tee "$log" >&2) 2>&1 || status=$?
	else
		: > "$log"
		heartbeat "$what" "$log" "${STEPS_EXPECTED:-0}" &
		beat=$!
		on_exit "kill $beat 2>/dev/null"
		"$@" > "$log" 2>&1 || status=$?
		kill "$beat" 2>/dev/null || true
		wait "$beat" 2>/dev/null || true
	fi
	if [[ $status -ne 0 ]]; then
		say "$what failed with status $status after $(elapsed $((SECONDS - start))). The end of $log:"
		tail -n 40 "$log" | sed 's/^/  | /' >&2
		if ! explain_full_disk "$log"; then
			if [[ $(type -t "${ON_FAILURE:-}") == function ]]; then
				say "$("$ON_FAILURE" "$log")"
			else
				say "${ON_FAILURE:-What is finished is kept. Run the same command again to continue.}"
			fi
		fi
		return "$status"
	fi
	say "$what: done in $(elapsed $((SECONDS - start)))"
}

# lock FILE [shared]: waits for a lock, which is held until unlock, or until
# this process and its children are gone. The descriptor is left in LOCKED_FD.
lock() {
	local file=$1 mode=--exclusive
	[[ ${2:-} != shared ]] || mode=--shared
	while true; do
		mkdir -p "$(dirname "$file")"
		exec {LOCKED_FD}>>"$file"
		if ! flock --nonblock "$mode" "$LOCKED_FD"; then
			say "waiting for another run that holds $file"
			flock "$mode" "$LOCKED_FD"
		fi
		# What is locked by now may be a file that distclean has removed.
		[[ ! $file -ef /proc/self/fd/$LOCKED_FD ]] || break
		exec {LOCKED_FD}>&-
	done
}

unlock() {
	exec {LOCKED_FD}>&-
}

# keep_kernel: keeps the tree of KERNEL_BUILD from being deleted while this
# process lives. Fails if another run has deleted it just before.
keep_kernel() {
	local kept=${LOCKED_FD:-} status=0
	lock "$(dirname "$KERNEL_BUILD").lock" shared
	if [[ ! -e $KERNEL_BUILD/.map_trace_complete ]]; then
		unlock
		status=1
	fi
	LOCKED_FD=$kept
	return "$status"
}

# use_kernel patched|base release|debug: builds it if need be, and keeps it.
# shellcheck disable=SC2034
use_kernel() {
	while true; do
		KERNEL_BUILD=$("$SCRIPTS/kernel-build.sh" "$1" "$2") || return
		! keep_kernel || break
	done
	KERNEL_TREE=$(dirname "$KERNEL_BUILD")
	KERNEL_TOOLS=$KERNEL_BUILD/map_trace_tools
}

# use_guest_files release|debug [maptrace|selftests|demo|bench|soak]...: has the assignments of
# guest-files.sh, and keeps the kernel.
use_guest_files() {
	local files
	while true; do
		files=$("$SCRIPTS/guest-files.sh" "$@") || return
		eval "$files"
		! keep_kernel || break
	done
}
