# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What this side of a guest says of a run there, as TAP.

# kernel_has OPTION: whether the kernel of use_guest_files is built with it
kernel_has() {
	grep -q "^$1=" "$KERNEL_BUILD/include/config/auto.conf"
}

# For tap-count.sh: what selftests/expected-skips says of the kernel of use_guest_files.
expected_skips() {
	local binary name option
	while read -r binary name option; do
		[[ -n $binary && $binary != "#"* ]] || continue
		[[ -n $option ]] && kernel_has "$option" && continue
		echo "$binary $name"
	done < "$MAP_TRACE_ROOT/selftests/expected-skips"
}

# log_result NUMBER LOG: the result on a kernel's log.
log_result() {
	local reports
	if reports=$("$SCRIPTS/scan-log" "$2") && [[ -s $2 ]]; then
		echo "ok $1 - kernel log: no report"
	else
		[[ -s $2 ]] || reports="the log is empty"
		printf '%s\n' "$reports" | sed 's/^/# | /'
		echo "not ok $1 - kernel log: no report ($2)"
	fi
}

# host_results STATUS LOG SECONDS: how the guest ended, which had so many seconds, and the
# kernel's log. They belong to no binary: a plan of their own.
host_results() {
	local status=$1 log=$2
	printf '# begin host\n1..2\n'
	if [[ $status -eq 0 ]]; then
		echo "ok 1 - guest: ended by itself"
	else
		echo "# status $status; the end of the console ($log):"
		# It may end in the middle of a line.
		tail -n 60 "$log" | sed 's/^/# | /'
		echo
		if [[ $status -eq 124 || $status -eq 137 ]]; then
			echo "not ok 1 - guest: hangs, stopped after $3 s"
		else
			echo "not ok 1 - guest: died (status $status)"
		fi
	fi
	log_result 2 "$log"
	echo "# end host 0"
}
