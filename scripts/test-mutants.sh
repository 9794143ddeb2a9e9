#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests the tests: breaks the module or the kernel in one point at a time, as
# selftests/mutants/*.patch say, and requires that the test which each of them
# names fails. MUTANTS= names those to try, without it all. Works in a copy of
# the clone below build/. The last line is "N passed, N failed, N skipped".
# test-mutants.sh apply: only looks whether each of them still applies, and
# whether its test is there.
#
# A mutant begins with
#	Breaks: what it breaks
#	Test: BINARY FIXTURE.TEST, what has to fail
#	Where: kernel, if it goes on top of patches/; else it is for the clone
#	Shows: taint, if it is the kernel that complains, in the course of the
#	       test; death, if the guest may not live to see the result; or
#	       "taint or death", if there is no telling which

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=${CONFIG:-debug}
# For one guest, which runs as many mutants as it survives.
GUEST_SECONDS=${GUEST_SECONDS:-7200}
mutants_directory=selftests/mutants
read -ra wanted <<< "${MUTANTS:-}"
passed=0 failed=0
table=()

# The tree of a mutant is one more, and is deleted after it: the others stay.
export KEEP_TREES=100

header() {
	sed -n "/^diff --git/q; s/^$2: //p" "$1"
}

selected() {
	local mutant name
	for mutant in "$MAP_TRACE_ROOT/$mutants_directory"/*.patch; do
		[[ -e $mutant ]] || continue
		name=$(basename "$mutant" .patch)
		[[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ]] || continue
		echo "$mutant"
	done
}

apply_in() {
	local tree=$1
	shift
	GIT_CEILING_DIRECTORIES=$(dirname "$tree") git -C "$tree" apply "$@"
}

# result NAME ok|"not ok" WHAT
result() {
	if [[ $2 == ok ]]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	echo "$2 - mutant $1: $3"
}

finish() {
	echo "$passed passed, $failed failed, 0 skipped"
	[[ $failed -eq 0 ]]
	exit
}

mapfile -t mutants < <(selected)
[[ ${#mutants[@]} -gt 0 ]] || die "MUTANTS=${MUTANTS:-}: no such mutant in $mutants_directory"

if [[ ${1:-} == apply ]]; then
	tree=$("$SCRIPTS/kernel-tree.sh" patched)
	for mutant in "${mutants[@]}"; do
		# One of the kernel becomes a patch of the series, with its whole context.
		target=$MAP_TRACE_ROOT options=(-C1)
		[[ $(header "$mutant" Where) != kernel ]] || target=$tree options=()
		read -r binary test < <(header "$mutant" Test) || test=''
		if [[ -n $(header "$mutant" Breaks) && -n $test ]] &&
			grep -qw "${test##*.}" "$MAP_TRACE_ROOT/selftests/${binary}_test.c" &&
			apply_in "$target" "${options[@]}" --check "$mutant"; then
			result "$(basename "$mutant" .patch)" ok "applies"
		else
			result "$(basename "$mutant" .patch)" "not ok" "applies"
		fi
	done
	finish
fi

copy=$(mktemp -d "$BUILD/mutants.XXXXXX")
# The tree of the mutant that is being tried
tree=
on_exit '[[ -z $tree ]] || delete_tree'
on_exit 'rm -rf "$copy"'
cd "$MAP_TRACE_ROOT" || exit
git ls-files -z --cached --others --exclude-standard | while IFS= read -rd '' file; do
	[[ ! -f $file ]] || printf '%s\0' "$file"
done | tar --create --null --files-from=- | tar --extract --directory "$copy"

# What became of a mutant: "ok", or "not ok", and how
declare -A verdicts=() how=()

verdict() {
	verdicts[$1]=$2
	how[$1]=$3
}

# Boots guests with what guest-files.sh said, until each line of LIST has had
# its turn. What they print goes to LOG.
run_list() {
	local list=$1 log=$2 files=$3 begun
	: > "$log"
	while [[ -s $list ]]; do
		(
			eval "$files"
			exec {fd}>>"$(dirname "$KERNEL_BUILD").lock"
			flock --shared "$fd"
			"$copy/scripts/vm.sh" --image "$KERNEL_BUILD/arch/x86/boot/bzImage" \
				--log "$log.kernel" --memory "$DEBUG_MEMORY" --timeout "$GUEST_SECONDS" \
				"${TEST_GUEST[@]}" -- \
				"'$copy/scripts/guest/run-mutants.sh' '$copy/build/selftests-$config' \
				'$list'" 2>&1 || true
		) | sed -u 's/\r//g' > "$log.now"
		cat "$log.now" >> "$log"
		begun=$(grep -c '^# begin ' "$log.now") || begun=0
		if [[ $begun -eq 0 ]]; then
			say "the guest did not come up ($log.now)"
			return 1
		fi
		sed -i "1,${begun}d" "$list"
	done
}

# outcome LOG NAME TEST: "ok", "not ok" or nothing, for a test with variants of
# all of them.
outcome() {
	local log=$1 name=$2 test=$3 results
	results=$(sed -n "/^# begin $name$/,/^# \(end $name \|begin [^ ]*$\)/p" "$log" |
		sed -nE "s/^((not )?ok) [0-9]+ ${test%%.*}\.([^ ]*\.)?${test##*.}( .*)?$/\1/p")
	case $results in
	"") ;;
	*not*) echo "not ok" ;;
	*) echo ok ;;
	esac
}

state() {
	sed -n "s/^# end $2 //p" "$1"
}

judge() {
	local mutant=$1 log=$2 name test shows seen state
	name=$(basename "$mutant" .patch)
	test=$(header "$mutant" Test)
	test=${test##* }
	shows=$(header "$mutant" Shows)
	seen=$(outcome "$log" "$name" "$test")
	state=$(state "$log" "$name")
	if [[ $seen == "not ok" ]]; then
		verdict "$name" ok "caught by $test"
	elif [[ $shows == *taint* && $state == tainted ]]; then
		verdict "$name" ok "caught by the kernel in $test"
	elif [[ $shows == *death* && -z $state ]]; then
		verdict "$name" ok "caught by $test: the guest dies"
	elif [[ -n $seen ]]; then
		verdict "$name" "not ok" "survives $test"
	else
		verdict "$name" "not ok" "$test never ended (${state:-the guest died})"
	fi
}

# With its build. What was interrupted may hold it for a moment longer.
delete_tree() {
	(
		exec {fd}>>"$tree.lock"
		flock --timeout 20 --exclusive "$fd" || exit 0
		mv "$tree" "$tree.old" && rm -rf "$tree.old"
	)
	tree=
}

# --- without a mutant: what is a test worth that fails anyway?
modules=$copy/build/mutants
mkdir -p "$modules"
files=$("$copy/scripts/guest-files.sh" "$config" selftests) || die "this clone does not build"
kernel=$(eval "$files" && echo "$KERNEL_BUILD")
built=$copy/build/module-$config
cp "$built/map_trace.ko" "$modules/none.ko"
for mutant in "${mutants[@]}"; do
	header "$mutant" Test
done | sort -u > "$modules/tests"
number=0
while read -r binary test; do
	number=$((number + 1))
	echo "none-$number $binary ${test##*.} $modules/none.ko"
done < "$modules/tests" > "$modules/list"

# --- mutants of the module: each is built, then all of them run
for mutant in "${mutants[@]}"; do
	[[ $(header "$mutant" Where) != kernel ]] || continue
	name=$(basename "$mutant" .patch)
	if ! apply_in "$copy" -C1 "$mutant"; then
		verdict "$name" "not ok" "does not apply"
		continue
	fi
	if "$copy/scripts/module.sh" "$kernel" "$built" && cp "$built/map_trace.ko" "$modules/$name.ko"; then
		read -r binary test < <(header "$mutant" Test)
		echo "$name $binary ${test##*.} $modules/$name.ko" >> "$modules/list"
	else
		verdict "$name" "not ok" "does not build"
	fi
	apply_in "$copy" -C1 --reverse "$mutant"
done

log=$LOGS/mutants.tap
say "running $(wc -l < "$modules/list") tests (log: $log)"
run_list "$modules/list" "$log" "$files" || true
number=0
while read -r binary test; do
	number=$((number + 1))
	if [[ $(outcome "$log" "none-$number" "$test") == ok ]]; then
		result none ok "passes $test"
	else
		result none "not ok" "passes $test"
	fi
done < "$modules/tests"
for mutant in "${mutants[@]}"; do
	name=$(basename "$mutant" .patch)
	[[ $(header "$mutant" Where) == kernel || -n ${verdicts[$name]:-} ]] || judge "$mutant" "$log"
done

# --- mutants of the kernel: a kernel and a guest for each
for mutant in "${mutants[@]}"; do
	[[ $(header "$mutant" Where) == kernel ]] || continue
	name=$(basename "$mutant" .patch)
	log=$LOGS/mutant-$name.tap
	series=$copy/patches/9999-$name.patch
	cp "$mutant" "$series"
	if ! tree=$("$copy/scripts/kernel-tree.sh" patched); then
		verdict "$name" "not ok" "does not apply"
	elif ! files=$("$copy/scripts/guest-files.sh" "$config" selftests); then
		verdict "$name" "not ok" "does not build"
	else
		read -r binary test < <(header "$mutant" Test)
		echo "$name $binary ${test##*.} $built/map_trace.ko" > "$modules/list"
		say "trying $name (log: $log)"
		run_list "$modules/list" "$log" "$files" || true
		judge "$mutant" "$log"
	fi
	[[ -z $tree ]] || delete_tree
	rm "$series"
done

for mutant in "${mutants[@]}"; do
	name=$(basename "$mutant" .patch)
	result "$name" "${verdicts[$name]}" "${how[$name]}"
	table+=("$name" "$(header "$mutant" Breaks)" "${how[$name]}")
done
printf '# %-42s | %-69s | %s\n' mutant breaks result "${table[@]}"
finish
