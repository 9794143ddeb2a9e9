#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# tap-count.sh passes a run that is as it should be, and fails any other. TAP.

set -euo pipefail
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0

cat > "$work/expected-skips" <<-'END'
	# A comment, and an empty line

	some_test some.skipped
	none_test none_test
	any_test *
END

# expect COUNTS LINE NAME: counts standard input, as a run that has to have
# a_test in it. LINE is one of those that come out.
expect() {
	local failed=0 failed_wanted=1
	[[ $1 != *", 0 failed, "* ]] || failed_wanted=0
	"$directory/tap-count.sh" "$work/expected-skips" a_test > "$work/output" || failed=1
	number=$((number + 1))
	[[ $failed -eq $failed_wanted && $(tail -n 1 "$work/output") == "$1" ]] &&
		grep -qxF -- "$2" "$work/output" || printf 'not '
	printf 'ok %d - counter: %s\n' "$number" "$3"
}

# run COUNTS LINE NAME STATUS TAP-LINE...: the same for what a_test prints.
run() {
	expect "$1" "$2" "$3" < <(printf '%s\n' "# begin a_test" "TAP version 13" "${@:5}" "# end a_test $4")
}

# run_too COUNTS LINE NAME BINARY TAP-LINE...: the same for another binary,
# which runs after an a_test that is in order.
run_too() {
	expect "$1" "$2" "$3" < <(printf '%s\n' "# begin a_test" 1..1 "ok 1 a.x" "# end a_test 0" \
		"# begin $4" "${@:5}" "# end $4 0")
}

echo "TAP version 13"
run "2 passed, 0 failed, 0 skipped" "ok 2 a.y" "all pass" 0 1..2 "ok 1 a.x" "ok 2 a.y"
expect "1 passed, 0 failed, 0 skipped" $'ok 1 a.x\r' "the lines of a console" \
	< <(printf '%s\r\n' "# begin a_test" 1..1 "ok 1 a.x" "# end a_test 0")
run "1 passed, 2 failed, 0 skipped" "not ok 2 a.y" "failures" 1 \
	1..3 "ok 1 a.x" "not ok 2 a.y" "not ok 3 a.z"
run "1 passed, 1 failed, 0 skipped" "not ok - a_test: 1 of 2 results (status 0)" \
	"a plan that is not kept" 0 1..2 "ok 1 a.x"
run "2 passed, 1 failed, 0 skipped" "not ok - a_test: 2 results, planned 1" \
	"a result more than planned" 0 1..1 "ok 1 a.x" "ok 2 a.y"
run "0 passed, 1 failed, 0 skipped" "not ok - a_test: no plan (status 127)" \
	"a binary that does not start" 127
run "1 passed, 1 failed, 0 skipped" "not ok - a_test: status 139" \
	"a binary that dies after its last result" 139 1..1 "ok 1 a.x"
run "1 passed, 1 failed, 0 skipped" "not ok - a_test: out of time" \
	"a binary that does not end after its last result" 124 1..1 "ok 1 a.x"
expect "1 passed, 1 failed, 0 skipped" "not ok - a_test: 1 of 2 results (status unknown)" \
	"a guest that dies in a binary" < <(printf '%s\n' "# begin a_test" 1..2 "ok 1 a.x")
expect "1 passed, 2 failed, 0 skipped" "not ok - a_test: never ran to its end" \
	"a guest that hangs, and a binary that never ran" \
	< <(printf '%s\n' "# begin host" 1..2 "not ok 1 - guest: hangs" "ok 2 - kernel log" "# end host 0")
expect "0 passed, 1 failed, 0 skipped" "not ok - a_test: never ran to its end" \
	"nothing at all" < /dev/null
run "0 passed, 1 failed, 0 skipped" \
	"not ok - a_test: a.x is skipped (needs 2 CPUs), and not in expected-skips" \
	"a skip that is not listed" 0 1..1 "ok 1 a.x # SKIP needs 2 CPUs"
run "0 passed, 1 failed, 0 skipped" \
	"not ok - a_test: some.skipped is skipped (why), and not in expected-skips" \
	"a skip that is listed for another binary" 0 1..1 "ok 1 some.skipped # SKIP why"
run "0 passed, 1 failed, 0 skipped" \
	"not ok - a_test: a_test is skipped (why), and not in expected-skips" \
	"a binary that skips all, and is not listed" 4 "1..0 # SKIP why"
run_too "2 passed, 0 failed, 1 skipped" "ok 2 some.skipped # SKIP why" "a skip that is listed" \
	some_test 1..2 "ok 1 some.x" "ok 2 some.skipped # SKIP why"
run_too "2 passed, 1 failed, 0 skipped" \
	"not ok - some_test: some.skipped is in expected-skips, and not skipped" \
	"a skip that is listed and runs" some_test 1..1 "ok 1 some.skipped"
run_too "1 passed, 0 failed, 1 skipped" "1..0 # SKIP why" "a binary that skips all, and is listed" \
	none_test "1..0 # SKIP why"
run_too "2 passed, 0 failed, 2 skipped" "ok 1 some.x # SKIP why" \
	"a binary that skips some, and is listed" any_test \
	1..3 "ok 1 some.x # SKIP why" "ok 2 some.y" "ok 3 some.z # SKIP why"
run_too "2 passed, 1 failed, 0 skipped" \
	"not ok - any_test: * is in expected-skips, and not skipped" \
	"a binary that is listed, and skips none" any_test 1..1 "ok 1 some.x"
echo "1..$number"
