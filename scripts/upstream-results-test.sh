#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# upstream_results.py passes a run that is as on the unpatched kernel, and fails any other. TAP.

set -euo pipefail
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
number=0

results() {
	python3 "$directory/upstream_results.py" "$@"
}

# add NAME CONSOLE-LINE...: one guest's results
add() {
	local name=$1
	shift
	printf '%s\n' "$@" > console
	results add "$name" list console > left
}

# progs LINE...: what test_progs prints for these
progs() {
	printf '%s\n' "# begin test_progs" "$@" "# end test_progs 0"
}

# runs NAME STATUS...: a test a with the subtest b, run that often
runs() {
	local name=$1 status
	rm -f "$name"
	for status in "${@:2}"; do
		printf '%s\n' "# begin test_progs" "#1/1     a/b:$status" "#1       a:OK" \
			"# end test_progs 0" > console
		results add "$name" list console > left
	done
}

# expect COUNTS LINE NAME: compares. LINE is one of those that come out.
expect() {
	local failed=0 failed_wanted=1
	[[ $1 != *", 0 failed, "* ]] || failed_wanted=0
	results compare base here expected traced list > output 2>&1 || failed=1
	number=$((number + 1))
	if [[ $failed -ne $failed_wanted || $(tail -n 1 output) != "$1" ]] ||
		! grep -qF -- "$2" output; then
		sed 's/^/# /' output
		printf 'not '
	fi
	printf 'ok %d - results: %s\n' "$number" "$3"
}

# is WANTED HAD NAME
is() {
	number=$((number + 1))
	[[ $1 == "$2" ]] || {
		printf '# wanted: %s\n# had: %s\n' "${1//$'\n'/, }" "${2//$'\n'/, }"
		printf 'not '
	}
	printf 'ok %d - results: %s\n' "$number" "$3"
}

echo "TAP version 13"
: > expected

echo "test_progs a" > list
runs base OK
runs here OK
expect "2 passed, 0 failed, 0 skipped" "# OK: 2, unpatched 2" "the same"
is "" "$(results differ base here expected traced list)" "the same is not run again"
runs base FAIL
runs here FAIL
expect "2 passed, 0 failed, 0 skipped" "# FAIL: 1, unpatched 1" "what fails unpatched, too"
runs base SKIP
runs here SKIP
expect "1 passed, 0 failed, 1 skipped" "# SKIP: 1, unpatched 1" "what is skipped unpatched, too"

runs base OK
runs here FAIL
expect "1 passed, 1 failed, 0 skipped" \
	"not ok - traced: test_progs a: a/b: FAIL; unpatched OK" "a difference"
is "test_progs a" "$(results differ base here expected traced list)" "a difference is run again"
runs here SKIP
expect "1 passed, 1 failed, 0 skipped" "a/b: SKIP; unpatched OK" "one that is skipped"
runs base FAIL
runs here OK
expect "1 passed, 1 failed, 0 skipped" "a/b: OK; unpatched FAIL" "one that fails unpatched only"
runs base OK
add here "# begin test_progs" "#1 a:OK" "# end test_progs 0"
rm here
add here "# begin test_progs" "#1 a:OK" "# end test_progs 0"
expect "1 passed, 1 failed, 0 skipped" "a/b: absent; unpatched OK" "one that is not there"
rm here
add here "# begin test_progs" "#1/1     a/b:OK" "#1       a:OK" "# end test_progs 139"
expect "2 passed, 1 failed, 0 skipped" "program: ended with status 139" \
	"a program that dies at its end"
rm here
expect "0 passed, 1 failed, 0 skipped" "test_progs a: never ran" "a test that was not run"
runs here OK
rm base
expect "0 passed, 1 failed, 0 skipped" "never ran on the unpatched kernel" \
	"a test that was not run unpatched"

runs base OK OK OK OK
runs here FAIL OK OK OK
expect "2 passed, 0 failed, 0 skipped" "once, and as unpatched 3 times" "a failure that does not come again"
runs here FAIL OK FAIL OK
expect "1 passed, 1 failed, 0 skipped" "FAIL, OK, FAIL, OK; unpatched OK" "one that comes again"
runs here OK FAIL OK OK
expect "1 passed, 1 failed, 0 skipped" "OK, FAIL, OK, OK; unpatched OK" "one that comes later"
runs base OK FAIL OK OK
runs here FAIL FAIL OK OK
expect "2 passed, 0 failed, 0 skipped" "not the same each time on the unpatched kernel either" \
	"one that is so unpatched, too"
runs here FAIL
is "test_progs a" "$(results differ base here expected traced list)" \
	"one that has not passed here yet is run again"
runs here FAIL FAIL FAIL FAIL
expect "1 passed, 1 failed, 0 skipped" "FAIL, FAIL, FAIL, FAIL; unpatched" \
	"one that fails unpatched now and then, and here each time"

echo "patched traced | test_progs a: a/b | FAIL | a reason" > expected
runs base OK
runs here FAIL
expect "2 passed, 0 failed, 0 skipped" "expected: a reason" "one that is expected"
is "" "$(results differ base here expected traced list)" "what is expected is not run again"
runs here SKIP
expect "1 passed, 2 failed, 0 skipped" "a/b: SKIP; unpatched OK" "another status than expected"
runs here OK
expect "2 passed, 1 failed, 0 skipped" "is expected to be FAIL, and is not" \
	"one that is expected and does not differ"
echo "patched | test_progs a: a/b | FAIL | a reason" > expected
runs here FAIL
expect "1 passed, 1 failed, 0 skipped" "a/b: FAIL; unpatched OK" "one that is expected of another kind"
echo "traced | test_progs a: * | sometimes | a reason" > expected
runs here FAIL FAIL OK FAIL
expect "2 passed, 0 failed, 0 skipped" "expected: a reason" "one that fails sometimes"
is "test_progs a" "$(results differ base here expected traced list)" "it is run again"
runs here FAIL FAIL FAIL FAIL
expect "1 passed, 1 failed, 0 skipped" "is so each time" "one that ought to fail sometimes"
: > expected

runs base OK
runs here OK
printf '%s\n' '12:[    1.5] WARNING: kernel/bpf/core.c:12 at f+0x12/0x20' '13-[    1.5] Modules:' > log
results add-log here log
expect "2 passed, 1 failed, 0 skipped" "WARNING: kernel/bpf/core.c:N at f" "a report of the kernel"
echo '7:[    9.5][  T99] WARNING: kernel/bpf/core.c:34 at f+0x34/0x20' > log
results add-log base log
expect "2 passed, 0 failed, 0 skipped" "# OK: 2" "one that the unpatched kernel has, too"

echo '9:[    9.5] rcu: INFO: rcu_preempt self-detected stall on CPU' > log
results add-log base log
results add-log here log
expect "2 passed, 1 failed, 0 skipped" "self-detected stall" "a stall, whoever had one, too"

printf 'test_progs %s\n' a b c > list
rm -f here
add here "# begin test_progs" "#1 a:OK" "#2/1 b/x:OK"
is "test_progs c" "$(< left)" "a guest that dies leaves what comes after"
is '{"b/x": "OK", "b": "the guest died"}' "$(python3 -c '
import json
print(json.dumps(json.load(open("here"))["tests"]["test_progs b"][0]))')" "where it has died is known"
rm -f here
add here "# begin test_progs" "#1 a:OK" "# end test_progs 139"
is "test_progs c" "$(< left)" "and so does a program"
rm -f here
mapfile -t lines < <(progs "#1 a:OK" "#2 b:FAIL" "#3 c:SKIP (not built)" "All error logs:" "#2/1 b/x:FAIL" "#2 b:FAIL")
add here "${lines[@]}"
is '["a:OK", "b:FAIL", "c:SKIP (not built)"]' "$(python3 -c '
import json
print(json.dumps([f"{n}:{s}" for t in json.load(open("here"))["tests"].values()
	for r in t for n, s in r.items()]))')" "what is told again is no result"

printf '%s\n' test_verifier test_maps > list
rm -f base here
lines=("# begin test_verifier" "#0/u add SKIP" "#0/p add OK" "#1/p two (run 1/2) OK"
	"#2/p jump 3 cases OK" "#3/p bad FAIL" "Unexpected success to load!" "#4/p printed: a line" "OK"
	"Summary: 3 PASSED, 1 SKIPPED, 1 FAILED" "# end test_verifier 1"
	"# begin test_maps" "test_a:PASS" "test_b:PASS" "test_maps: OK, 1 SKIPPED" "# end test_maps 0")
add base "${lines[@]}"
add here "${lines[@]}"
expect "10 passed, 0 failed, 1 skipped" "# OK: 5, unpatched 5" "test_verifier and test_maps"
rm here
add here "${lines[@]/#\#3\/p bad FAIL/#3/p bad OK}"
expect "9 passed, 1 failed, 1 skipped" "3/p bad: OK; unpatched FAIL" "a result of test_verifier"
rm here
add here "${lines[@]:0:12}" "test_a:PASS" "test_b() failed" "# end test_maps 255"
expect "7 passed, 3 failed, 1 skipped" "program: ended with status 255; unpatched ended with status 0" \
	"a test_maps that fails"
echo "1..$number"
