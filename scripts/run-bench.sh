#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run-bench.sh [check|save]: measures what map tracing costs, on the kernel with
# and without the patches, and prints the tables. The figures go to
# build/bench.json, the plot to build/bench.svg.
#	check	compares with the budgets and with Documentation/cost.json; TAP,
#		the last line is "N passed, N failed, N skipped"
#	save	puts figures, tables and plot into Documentation/
# INTERPRETER=1 adds rows for the interpreter and for a kernel without IBT, on two more kernels.
# Where KVM works, and with BENCH_TIME=1 to see that it would, measures time, too.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

mode=${1:-}
# For one guest; a run takes a few minutes.
BENCH_SECONDS=${BENCH_SECONDS:-900}

results=$BUILD/bench-results
rm -rf "$results"
mkdir -p "$results"

# use_kernels CONFIG: builds both kernels and the benchmark, and keeps the kernels.
use_kernels() {
	use_guest_files "$1" bench
	patched=$KERNEL_BUILD
	use_kernel base "$1"
	unpatched=$KERNEL_BUILD
}

# One guest nanosecond is one guest instruction. Nothing else about the time of
# an emulated machine means anything.
icount=(--cpus 1 --qemu "-icount shift=0,sleep=off")

# measure NAME IMAGE COMMAND [OPTION]...: runs the benchmark in a guest.
measure() {
	local name=$1 image=$2 command=$3 status=0
	shift 3
	"$SCRIPTS/vm.sh" --image "$image/arch/x86/boot/bzImage" --timeout "$BENCH_SECONDS" \
		--cache-files --memory 2G --log "$LOGS/bench-$name-kernel.log" "$@" -- "$command" \
		> "$results/$name.new" 2> >(sed "s/^/[$name] /" >&2) || status=$?
	if [[ $status -ne 0 ]]; then
		say "the benchmark on the $name kernel failed with status $status. The end of its console:"
		tail -n 20 "$LOGS/bench-$name-kernel.log" | sed 's/^/  | /' >&2
		return 1
	fi
	if ! "$SCRIPTS/scan-log" "$LOGS/bench-$name-kernel.log" >&2; then
		say "the kernel reports what is above ($LOGS/bench-$name-kernel.log)"
		return 1
	fi
	tr -d '\r' < "$results/$name.new" > "$results/$name"
}

# count CONFIG WHAT: both kernels, each in a guest.
count() {
	local bench=$BUILD/bench-$1/bench other
	# In a process group of its own, that can be ended with all that is in it.
	set -m
	(
		unset MAP_TRACE_KO MAP_TRACE_MODULES
		ACCEL=tcg measure "unpatched${3:-}" "$unpatched" "$bench $2" "${icount[@]}"
	) &
	other=$!
	set +m
	# shellcheck disable=SC2064 # that one
	trap "kill -- -$other 2> /dev/null; run_exit_commands" EXIT
	ACCEL=tcg measure "patched${3:-}" "$patched" "insmod \$MAP_TRACE_KO && $bench $2" "${icount[@]}"
	wait "$other"
	trap run_exit_commands EXIT
}

# Distributions leave the interpreter out, and have IBT: there is a kernel for these rows alone.
if [[ -n ${INTERPRETER:-} ]]; then
	use_kernels interpreter
	say "counting instructions of the interpreter, and without IBT, in two guests (logs: $LOGS/bench-*-kernel.log)"
	count interpreter interpreter -interpreter
fi

use_kernels release
say "counting instructions in two guests (logs: $LOGS/bench-*-kernel.log)"
count release instructions
bench=$BUILD/bench-release/bench
traced="insmod \$MAP_TRACE_KO && $bench"

if [[ $("$SCRIPTS/accel.sh" "$patched/arch/x86/boot/bzImage") == kvm || -n ${BENCH_TIME:-} ]]; then
	say "measuring time"
	measure time-patched "$patched" "$traced nanoseconds" --cpus 2
	(
		unset MAP_TRACE_KO MAP_TRACE_MODULES
		measure time-unpatched "$unpatched" "$bench nanoseconds" --cpus 2
	)
fi

{
	cat "$patched/include/config/kernel.release"
	"$SCRIPTS/enter.sh" "clang$("$SCRIPTS/llvm-suffix.sh")" --version | head -n 1
	"$SCRIPTS/enter.sh" rustc --version
} > "$results/versions"
"$SCRIPTS/enter.sh" "llvm-objdump$("$SCRIPTS/llvm-suffix.sh")" --disassemble --no-show-raw-insn \
	"$BUILD/module-release/map_trace.ko" > "$results/disassembly"

report() {
	"$SCRIPTS/enter.sh" python3 "$SCRIPTS/bench_report.py" "$@"
}

report collect "$results" "$BUILD/bench.json"
report plot "$BUILD/bench.json" "$BUILD/bench.svg"
case $mode in
check)
	report check "$BUILD/bench.json" "$MAP_TRACE_ROOT/Documentation/cost.json"
	;;
save)
	cp "$BUILD/bench.json" "$MAP_TRACE_ROOT/Documentation/cost.json"
	cp "$BUILD/bench.svg" "$MAP_TRACE_ROOT/Documentation/cost.svg"
	report tables "$BUILD/bench.json" > "$MAP_TRACE_ROOT/Documentation/cost-tables.rst"
	say "Documentation/: cost.json, cost.svg and cost-tables.rst are those of this run"
	;;
*)
	report tables "$BUILD/bench.json"
	say "figures: $BUILD/bench.json, plot: $BUILD/bench.svg"
	;;
esac
