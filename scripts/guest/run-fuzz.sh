#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-fuzz.sh FUZZER SECONDS SEED: runs the fuzzer in the guest, then looks at what it
# left behind. Prints TAP as guest/run-tests.sh does.

set -uo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/results.sh"

begin fuzz
status=0
"$1" "$2" "$3" 2>&1 || status=$?
end fuzz $status
system_results
