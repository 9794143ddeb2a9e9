#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-maptrace.sh OUTPUT ROOT [maptrace_test|programs]...: runs in the guest all tests
# of maptrace, then watches and moves maps of the BPF programs in ROOT, a Debian root, while
# they are busy; or one of both. Prints TAP with "begin" and "end" lines, as guest/run-tests.sh.

set -uo pipefail

output=$1
root=$2
shift 2
wanted=" ${*:-maptrace_test programs} "
work=$(mktemp -d)

if [[ $wanted == *" maptrace_test "* ]]; then
	echo "# begin maptrace_test"
	status=0
	(cd "$output" && exec ./maptrace_test all 2>&1) || status=$?
	echo "# end maptrace_test $status"
fi
[[ $wanted == *" programs "* ]] || exit 0

mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmp "$root/tmp"
mount -t tmpfs run "$root/run"
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing

inside() {
	chroot "$root" "$@"
}

# start COMMAND...: a program of the root, in the background, that ends with stop
start() {
	# Not by a function: the process would be a shell, and not what is to be stopped.
	chroot "$root" "$@" > "$work/program" 2>&1 &
	program=$!
}

stop() {
	kill "$program" 2> /dev/null
	wait "$program" 2> /dev/null
}

# wait_for PROCESS COMMAND...: up to a minute, as long as the process lives
wait_for() {
	local process=$1 end=$((SECONDS + 60))
	shift
	while ((SECONDS < end)) && kill -0 "$process" 2> /dev/null; do
		! "$@" > /dev/null 2>&1 || return 0
		sleep 0.5
	done
	return 1
}

has_map() {
	bpftool map show name "$1" | grep -q .
}

# watched MAP COUNT LOAD...: watches that many changes of a map while LOAD runs again and
# again
watched() {
	local map=$1 count=$2 watch
	shift 2
	maptrace watch "$map" --json --count "$count" --duration 120 > "$work/changes" 2> "$work/said" &
	watch=$!
	wait_for "$watch" grep -q watching "$work/said"
	while kill -0 "$watch" 2> /dev/null; do
		"$@" > /dev/null 2>&1
	done
	wait "$watch"
}

# expect NUMBER WHAT COUNT CHECK: whether the changes are as a Python expression has it, of
# c, the list of them
expect() {
	if python3 -c '
import json, sys
c = [json.loads(line) for line in open(sys.argv[1])]
said = open(sys.argv[2]).read()
assert len(c) == int(sys.argv[3]), f"{len(c)} changes"
assert " 0 lost, 0 missed" in said, said
assert eval(f"({sys.argv[4]})"), sys.argv[4]
' "$work/changes" "$work/said" "$3" "$4" > "$work/result" 2>&1; then
		head -n 3 "$work/changes" | cut -c 1-400 | sed 's/^/# /'
		echo "ok $1 - $2"
	else
		tail -n 20 "$work/result" "$work/said" "$work/program" | sed 's/^/# /'
		head -n 3 "$work/changes" | cut -c 1-400 | sed 's/^/# /'
		echo "not ok $1 - $2"
	fi
}

# migrated MAP LOAD...: moves a map in use to one with twice the room while LOAD runs again
# and again, until it is to stop; the report is in $work/report
migrated() {
	local map=$1 new=/sys/fs/bpf/migrated shape
	shift
	rm -f "$new" "$work/stop" "$work/stopped" "$work/report"
	shape=$(bpftool --json map show name "$map" | python3 -c '
import json, sys
m = json.load(sys.stdin)
m = m[0] if type(m) is list else m
print("key", m["bytes_key"], "value", m["bytes_value"], "entries", 2 * m["max_entries"])')
	# shellcheck disable=SC2086 # these are words
	bpftool map create "$new" type hash $shape flags 1 name migrated > "$work/said" 2>&1 || return
	(
		until [[ -e $work/stop ]]; do
			"$@" > /dev/null 2>&1
		done
		touch "$work/stopped"
	) &
	maptrace migrate "$map" "$new" --bytes key --bytes value --json \
		--stop "touch $work/stop; while [ ! -e $work/stopped ]; do sleep 0.1; done" \
		--start true > "$work/report" 2> "$work/said"
	echo "status $?" >> "$work/said"
	touch "$work/stop"
	wait $!
	rm -f "$new"
}

# expect_migrated NUMBER WHAT: whether all of it was moved
expect_migrated() {
	if python3 -c '
import json, sys
said = open(sys.argv[2]).read()
assert said.endswith("status 0\n"), said
r = json.load(open(sys.argv[1]))
assert r["wrong"] == [] and r["lost"] == 0 and r["failed"] == 0 and r["conversions"] > 0, r
' "$work/report" "$work/said" > "$work/result" 2>&1; then
		sed 's/^/# /' "$work/report"
		echo "ok $1 - $2"
	else
		tail -n 20 "$work/result" "$work/said" "$work/report" "$work/program" | sed 's/^/# /'
		echo "not ok $1 - $2"
	fi
}

ops='{"update", "delete"} == {x["op"] for x in c}'

echo "# begin programs"
echo "1..7"

start execsnoop-libbpf
wait_for "$program" has_map execs
watched execs 40 /usr/bin/true
expect 1 "execsnoop of libbpf-tools: its map of processes" 40 \
	"$ops"' and all(type(x["key"]) is int and "prog" in x["origin"] for x in c)
	and all(x["value"]["comm"] is not None for x in c if x["op"] == "update")'
migrated execs /usr/bin/true
expect_migrated 2 "execsnoop of libbpf-tools: its map is moved"
stop

start opensnoop-libbpf
wait_for "$program" has_map start
watched start 100 cat /dev/null
expect 3 "opensnoop of libbpf-tools: its map of open files" 100 \
	"$ops"' and all("tracepoint__sys" in x["origin"]["prog"]["name"] for x in c)
	and any(x["value"]["fname"] for x in c if x["op"] == "update")'
migrated start cat /dev/null
expect_migrated 4 "opensnoop of libbpf-tools: its map is moved"
stop

start bpftrace -e 'tracepoint:syscalls:sys_enter_openat { @began[tid] = nsecs; }
	tracepoint:syscalls:sys_exit_openat /@began[tid]/ { delete(@began, tid); }'
wait_for "$program" has_map AT_began
watched AT_began 100 cat /dev/null
expect 5 "bpftrace: a map of its program" 100 \
	"$ops"' and all("prog" in x["origin"] for x in c)'
migrated AT_began cat /dev/null
expect_migrated 6 "bpftrace: a map of its program is moved"
stop

ip link add dummy1 type dummy && ip link set dummy1 up
start xdp-filter load dummy1 -m skb -f ipv4
wait "$program"
filtered=/sys/fs/bpf/xdp-filter/filter_ipv4
octet=0
filter_address() {
	octet=$((octet % 250 + 1))
	inside xdp-filter ip "10.0.0.$octet"
	inside xdp-filter ip -r "10.0.0.$octet"
}
watched "$filtered" 12 filter_address
expect 7 "xdp-filter of xdp-tools: its map of addresses" 12 \
	'all(x["origin"]["syscall"] == "bpf" and x["comm"] == "xdp-filter" for x in c)'
inside xdp-filter unload dummy1 > /dev/null 2>&1

echo "# end programs 0"
rm -rf "$work"
