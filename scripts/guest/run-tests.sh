#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-tests.sh OUTPUT [NAME]...: runs in the guest the test binaries that
# OUTPUT/tests.list names, or those of them that are named, then looks at what
# they left behind. Prints TAP; "begin" and "end" lines tell the host which
# binary it belongs to.

set -uo pipefail

output=$1
shift
wanted=" $* "

source "$(dirname "${BASH_SOURCE[0]}")/results.sh"

while read -r name seconds; do
	[[ -n $name && $name != "#"* ]] || continue
	[[ $wanted == "  " || $wanted == *" $name "* || $wanted == *" ${name%_test} "* ]] || continue
	begin "$name"
	status=0
	(cd "$output" && exec timeout --kill-after=10 "$seconds" "./$name" 2>&1) || status=$?
	end "$name" $status
done < "$output/tests.list"

system_results
