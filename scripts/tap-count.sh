#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# tap-count.sh EXPECTED-SKIPS BINARY...: passes on the output of
# guest/run-tests.sh and adds what that does not say: results that a plan
# promised and that never came, binaries that died or never ran, skips that
# nobody expects, and those that do not come. EXPECTED-SKIPS has lines of
# "BINARY TEST", or "BINARY BINARY" for one that skips all of its tests at once,
# or "BINARY *" for one that skips some. The last line is "N passed, N failed, N
# skipped".

set -euo pipefail

expected_skips=$1
shift

passed=0 failed=0 skipped=0
binary='' plan='' results=0 bad=0
declare -A ran=() skips=()

fail() {
	failed=$((failed + 1))
	printf 'not ok - %s\n' "$1"
}

skip() {
	local name=$1 reason=${2# }
	skips["$binary $name"]=1 skips["$binary *"]=1
	if grep -qxF -e "$binary $name" -e "$binary *" "$expected_skips"; then
		skipped=$((skipped + 1))
	else
		fail "$binary: $name is skipped ($reason), and not in ${expected_skips##*/}"
	fi
}

finish() {
	local status=$1
	if [[ -z $plan ]]; then
		fail "$binary: no plan (status $status)"
	elif [[ $results -lt $plan ]]; then
		fail "$binary: $results of $plan results (status $status)"
	elif [[ $results -gt $plan ]]; then
		fail "$binary: $results results, planned $plan"
	elif [[ $status -eq 124 || $status -eq 137 ]]; then
		fail "$binary: out of time"
	elif [[ $status -ne 0 && $status -ne 4 && $bad -eq 0 ]]; then
		fail "$binary: status $status"
	fi
	ran[$binary]=1
	binary=''
}

while IFS= read -r line; do
	printf '%s\n' "$line"
	line=${line%$'\r'}
	case $line in
	"# begin "*)
		[[ -z $binary ]] || finish unknown
		binary=${line#\# begin } plan='' results=0 bad=0
		;;
	"# end "*)
		[[ -z $binary ]] || finish "${line##* }"
		;;
	"1..0 # SKIP"*)
		plan=0
		skip "$binary" "${line#*SKIP }"
		;;
	1..[0-9]*)
		plan=${line#1..}
		plan=${plan%% *}
		;;
	"not ok "*)
		results=$((results + 1)) bad=1 failed=$((failed + 1))
		;;
	"ok "*)
		results=$((results + 1))
		if [[ $line == *"# SKIP"* ]]; then
			name=${line#ok }
			name=${name#[0-9]* }
			name=${name#- }
			skip "${name%% \# SKIP*}" "${line#*\# SKIP}"
		else
			passed=$((passed + 1))
		fi
		;;
	esac
done
[[ -z $binary ]] || finish unknown
for name in "$@"; do
	[[ -n ${ran[$name]:-} ]] || fail "$name: never ran to its end"
done
while read -r binary name; do
	[[ -z ${ran[$binary]:-} || -n ${skips["$binary $name"]:-} ]] ||
		fail "$binary: $name is in ${expected_skips##*/}, and not skipped"
done < <(grep -v -e '^#' -e '^$' "$expected_skips")
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
