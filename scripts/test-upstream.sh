#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# test-upstream.sh release|debug: builds the kernel's own tests of BPF, runs them in guests,
# and compares what they say with what they say on the unpatched kernel. KIND= are one or more
# of
#	base	the unpatched kernel, with its own tools
#	patched	the patched kernel, and its tools, without the module
#	loaded	the same with the module
#	traced	the same, and every map that the tests create gets tracers of its updates, of
#		its deletes and of its states
# TESTS= are test_verifier, test_maps, test_progs, patterns of tests of the latter ("map* link*"),
# or test_bpftool_synctypes, which compares lists in sources and needs no guest. The results on
# the unpatched kernel are kept: they do not change. That one is always the release kernel;
# CONFIG=debug is about the others. What is printed of each kind is TAP; the last line is
# "N passed, N failed, N skipped".

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=$1
KINDS=(base patched loaded traced)
read -ra kinds <<< "${KIND:-patched loaded traced}"
read -ra wanted <<< "${TESTS:-test_verifier test_maps test_progs test_bpftool_synctypes}"
# For one guest
GUEST_SECONDS=${GUEST_SECONDS:-7200}
# As often is run again what differs
RERUNS=3
for kind in "${kinds[@]}"; do
	[[ " ${KINDS[*]} " == *" $kind "* ]] || die "KIND=$KIND: there are: ${KINDS[*]}"
done

expected=$MAP_TRACE_ROOT/upstream/expected
work=$BUILD/upstream-$config-results
mkdir -p "$work"

root=$("$SCRIPTS/upstream-root.sh")
{
	read -r tests
	read -r base_programs
} < <("$SCRIPTS/upstream-build.sh" release)
use_kernel base release
base_kernel=$KERNEL_BUILD
patched_programs=''
if [[ ${kinds[*]} != base ]]; then
	patched_programs=$("$SCRIPTS/upstream-build.sh" "$config" patched | tail -n 1)
	use_guest_files "$config" upstream
	KERNEL_TREE=$(dirname "$KERNEL_BUILD")
fi

# No other clone links them anew meanwhile.
lock "${tests%/linux/tools/testing/selftests/bpf}.lock" shared

results() {
	"$SCRIPTS/enter.sh" python3 "$SCRIPTS/upstream_results.py" "$@"
}

# Of this kernel and these tests, whichever clone runs them
base_store=$base_programs.json

# store KIND: where its results are
store() {
	if [[ $1 == base ]]; then
		echo "$base_store"
	else
		echo "$work/$1.json"
	fi
}

# Those that are never run: "never" in place of KINDS in upstream/expected
never() {
	sed -nE 's/^never *\| *([^|]*[^ |]) *\|.*/\1/p' "$expected"
}

# list_tests FILE: what TESTS= names
list_tests() {
	local name patterns=()
	: > "$1"
	for name in "${wanted[@]}"; do
		case $name in
		test_verifier | test_maps) echo "$name" >> "$1" ;;
		test_progs) patterns+=('*') ;;
		test_bpftool_synctypes) ;;
		*) patterns+=("$name") ;;
		esac
	done
	[[ ${#patterns[@]} -gt 0 ]] || return 0
	# It takes itself for another flavor of itself where its path has a dash.
	(
		cd "$tests" || exit
		MAP_TRACE_BUILD_ROOT=$root "$SCRIPTS/enter.sh" ./test_progs --list \
			--allow "$(IFS=,; echo "${patterns[*]}")"
	) | sed 's/^/test_progs /' | { grep -vxFf <(never; echo "test_progs ") || true; } >> "$1"
	[[ -s $1 ]] || die "TESTS=$TESTS: no such test"
}

# What bpftool knows of lists of the kernel, in the tree of the patched one: the same as that
synctypes() {
	"$SCRIPTS/enter.sh" env PYTHONDONTWRITEBYTECODE=1 python3 \
		"$KERNEL_TREE/tools/testing/selftests/bpf/test_bpftool_synctypes.py"
}

# boot KIND LIST TIMES LOG: runs LIST in a guest, and has what it has printed in LOG
boot() {
	local kind=$1 list=$2 times=$3 log=$4 kernel=$KERNEL_BUILD programs=$patched_programs
	local command='' tracers=''
	case $kind in
	base) kernel=$base_kernel programs=$base_programs ;;
	loaded | traced) command="insmod '$MAP_TRACE_KO' && " ;;
	esac
	[[ $kind != traced ]] || tracers=$BUILD/upstream-$config
	command+="$SCRIPTS/guest/run-upstream.sh '$root' '$tests' '$programs' '$tracers' $times '$list'"
	(
		# It is loaded here, or it is not there.
		unset MAP_TRACE_MODULES
		"$SCRIPTS/vm.sh" --image "$kernel/arch/x86/boot/bzImage" --log "$log.kernel" \
			--memory 4G --timeout "$GUEST_SECONDS" "${TEST_GUEST[@]}" -- "$command"
	) > "$log" < /dev/null 2> >(sed "s/^/[$kind] /" >&2)
}

# run KIND LIST TIMES: runs all of LIST, in as many guests as it takes: what a test leaves that
# was not run, as it has ended its program or its guest, is run in the next one. A guest that dies
# before a test has begun, as it can where this machine is busy, has two more tries.
run() {
	local kind=$1 left=$work/$1.left log number=0 status before tries=3 start=$SECONDS
	cp "$2" "$left"
	while [[ -s $left ]]; do
		number=$((number + 1))
		log=$LOGS/upstream-$config-$kind-$number.log
		before=$(wc -l < "$left")
		say "booting to run $before tests $3 times, $kind (log: $log)"
		status=0
		boot "$kind" "$left" "$3" "$log" || status=$?
		if ! grep -q '^# begin ' "$log" && [[ $tries -gt 1 ]]; then
			tries=$((tries - 1))
			say "$kind: the guest has ended with status $status before a test began ($log.kernel)"
			continue
		fi
		results add "$(store "$kind")" "$left" "$log" > "$left.new"
		sed -i '/^$/d' "$left.new"
		"$SCRIPTS/scan-log" "$log.kernel" > "$log.reports" || true
		results add-log "$(store "$kind")" "$log.reports"
		mv "$left.new" "$left"
		say "$kind: ended with status $status after $(elapsed $((SECONDS - start))), $(wc -l < "$left") tests left"
		grep -aE '^# (tracers|without tracers|missed) ' "$log" || true
		traced=$((traced + $(awk '/^# tracers / { n += $(NF - 1) } END { print n + 0 }' "$log")))
		if [[ $(wc -l < "$left") -eq $before ]]; then
			tail -n 20 "$log" | sed 's/^/  | /' >&2
			die "no test was run to its end ($log)"
		fi
		if [[ $status -ne 0 && ! -s $left ]]; then
			echo "not ok - $kind: the guest ended with status $status ($log)"
			bad=$((bad + 1))
		fi
	done
}

list=$work/list
list_tests "$list"
while IFS= read -r test; do
	say "$test is never run: $(grep -F "| $test |" "$expected" | sed 's/.*| *//')"
done < <(never)

# In upstream/expected
suffix=''
[[ $config == release ]] || suffix=-$config
bad=0 traced=0 passed=0 failed=0 skipped=0
lock "$base_store.lock"
if [[ " ${kinds[*]} " == *" base "* ]]; then
	cp "$list" "$work/base.list"
else
	results missing "$base_store" "$list" | sed '/^$/d' > "$work/base.list"
fi
run base "$work/base.list" 1
unlock

if [[ " ${wanted[*]} " == *" test_bpftool_synctypes "* && -n $patched_programs ]]; then
	if output=$(synctypes 2>&1); then
		echo "ok - test_bpftool_synctypes"
		passed=$((passed + 1))
	else
		printf '%s\n' "$output" | sed 's/^/# /'
		echo "not ok - test_bpftool_synctypes"
		bad=$((bad + 1))
	fi
fi

for kind in "${kinds[@]}"; do
	[[ $kind != base && -s $list ]] || continue
	rm -f "$(store "$kind")"
	traced=0
	run "$kind" "$list" 1
	if [[ $kind == traced && $traced -eq 0 ]]; then
		echo "not ok - $kind: no tracer has run"
		bad=$((bad + 1))
	fi
	results differ "$base_store" "$(store "$kind")" "$expected" "$kind$suffix" "$list" |
		sed '/^$/d' > "$work/again"
	if [[ -s $work/again ]]; then
		say "$kind: $(wc -l < "$work/again") tests differ, and are run again on both kernels"
		cp "$work/again" "$LOGS/upstream-$config-$kind.again"
		lock "$base_store.lock"
		run base "$work/again" $RERUNS
		unlock
		run "$kind" "$work/again" $RERUNS
	fi
	status=0
	results compare "$base_store" "$(store "$kind")" "$expected" "$kind$suffix" "$list" \
		> "$LOGS/upstream-$config-$kind.tap" || status=$?
	cat "$LOGS/upstream-$config-$kind.tap"
	read -r p _ f _ s _ < <(tail -n 1 "$LOGS/upstream-$config-$kind.tap")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	[[ $status -eq 0 || $f -gt 0 ]] || bad=$((bad + 1))
done
echo "$passed passed, $((failed + bad)) failed, $skipped skipped"
[[ $((failed + bad)) -eq 0 ]]
