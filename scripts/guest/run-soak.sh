#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest/run-soak.sh OUTPUT SECONDS SEED: runs in the guest OUTPUT/soak, then looks at what
# it left behind. Prints TAP as guest/run-tests.sh does.

set -uo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/results.sh"

begin soak
status=0
(cd "$1" && exec ./soak "$2" "$3" 2>&1) || status=$?
end soak $status
system_results
