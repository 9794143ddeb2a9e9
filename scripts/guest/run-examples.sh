#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-examples.sh DIRECTORY LANGUAGE...: runs in the guest DIRECTORY/follow-LANGUAGE on the map
# of DIRECTORY/runs.bpf.o, while processes start, run and end. What it prints at the end has to be what
# the map holds. Prints TAP as guest/run-tests.sh does.

set -uo pipefail
# So that Ctrl-C is not ignored by what runs in the background.
set -m

source "$(dirname "${BASH_SOURCE[0]}")/results.sh"

directory=$1
shift
programs=/sys/fs/bpf/runs_programs
maps=/sys/fs/bpf/runs_maps
work=$(mktemp -d)

# wait_for COMMAND...: up to a minute
wait_for() {
	local end=$((SECONDS + 60))
	until "$@" > /dev/null 2>&1; do
		((SECONDS < end)) || return
		sleep 0.2
	done
}

# What the map holds, as it is printed by what follows it.
held() {
	local pid times ns
	bpftool -j map dump pinned "$maps/runs" |
		sed 's/"formatted"/\n&/g' |
		sed -nE 's/^"formatted":\{"key":([0-9]+),"value":\{"times":([0-9]+),"last_ns":([0-9]+).*/\1 \2 \3/p' |
		while read -r pid times ns; do
			echo "$pid ran $times times, the last time at $((ns / 1000000000)) s"
		done | sort
}

holds() {
	held | grep -q "^$1 "
}

links() {
	bpftool link show | grep -c ': map_trace '
}

no_links() {
	[[ $(links) -eq 0 ]]
}

one_link() {
	[[ $(links) -eq 1 ]]
}

no_programs() {
	! bpftool prog show name switched | grep -q .
}

# follow LANGUAGE [COMMAND...]: has it follow the map while processes come, run and go, with COMMAND
# before they do. Leaves in $work what it has printed and said, and what the map held at first and at
# last. The status is that of what followed.
follow() {
	local language=$1 follower status=0
	shift
	rm -f "$work"/*
	bpftool prog loadall "$directory/runs.bpf.o" "$programs" autoattach pinmaps "$maps" \
		> "$work/said" 2>&1
	sleep 1000 &
	goes=$!
	bash -c 'while sleep 0.1; do :; done' &
	stays=$!
	wait_for holds $stays
	"$directory/follow-$language" "$maps/runs" > "$work/printed" 2>> "$work/said" &
	follower=$!
	wait_for grep -q '^following$' "$work/printed"
	held > "$work/first"
	# That of a language before may be on its way out.
	wait_for one_link
	links > "$work/links"
	"$@"
	kill $goes
	sleep 1000 &
	comes=$!
	wait_for holds $comes
	# Then nobody writes: the map stays as it is.
	rm -r "$programs"
	wait_for no_programs
	held > "$work/last"
	kill -INT $follower
	wait $follower || status=$?
	kill $stays $comes
	wait
	rm -r "$maps"
	return $status
}

prints_what_the_map_holds() {
	[[ -s $work/last && $(head -n 1 "$work/printed") == following ]] &&
		diff "$work/last" <(tail -n +2 "$work/printed" | sort)
}

# In each way that the map is written: else it could have been read once.
map_has_changed() {
	grep -q "^$goes " "$work/first" && ! grep -q "^$goes " "$work/last" &&
		! grep -q "^$comes " "$work/first" && grep -q "^$comes " "$work/last" &&
		[[ $(grep "^$stays " "$work/first") != $(grep "^$stays " "$work/last") ]]
}

# One while it followed, none after it
link_is_gone() {
	echo "links: $(< "$work/links") while it followed, $(links) now"
	[[ $(< "$work/links") -eq 1 ]] && wait_for no_links
}

# says_that_it_is_detached STATUS: and has followed the map before
says_that_it_is_detached() {
	[[ $1 -ne 0 && $(< "$work/printed") == following ]] && grep -qi 'flush' "$work/said"
}

detach() {
	bpftool link detach id "$(bpftool link show | sed -n 's/^\([0-9]*\): map_trace .*/\1/p')"
}

# result NUMBER WHAT COMMAND...
result() {
	local number=$1 what=$2
	shift 2
	if "$@" > "$work/result" 2>&1; then
		echo "ok $number - $what"
	else
		sed 's/^/# /' "$work/result" "$work/said"
		echo "not ok $number - $what"
	fi
}

fails() {
	! "$@"
}

for language; do
	begin "$language"
	echo "TAP version 13"
	echo "1..6"
	status=0
	follow "$language" true || status=$?
	sed 's/^/# /' "$work/said"
	result 1 "$language: ends with Ctrl-C" test $status -eq 0
	result 2 "$language: prints what the map holds" prints_what_the_map_holds
	result 3 "$language: in which keys have come, gone and changed" map_has_changed
	result 4 "$language: leaves no link" link_is_gone
	status=0
	follow "$language" detach || status=$?
	result 5 "$language: control: says that it is detached" says_that_it_is_detached $status
	result 6 "$language: control: does not print what the map holds then" \
		fails prints_what_the_map_holds
	end "$language" 0
done
rm -rf "$work"

system_results
