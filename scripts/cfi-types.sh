#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# cfi-types.sh VMLINUX MODULE: sees that what programs call in place of an operation of a map,
# and what the module does in that of any of them, are of the type of that. With CONFIG_CFI
# compilers leave the number of a function's type in front of it, but no direct call checks
# that, and both are called directly. TAP.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

vmlinux=$1
module=$2
suffix=$("$SCRIPTS/llvm-suffix.sh")

# types FILE PATTERN: prints "FUNCTION TYPE" for each function that PATTERN finds.
types() {
	local symbols
	symbols=$("$SCRIPTS/enter.sh" "llvm-nm$suffix" --format=just-symbols "$1" |
		grep -E "^__cfi_$2\$" | paste -sd ,) || return
	"$SCRIPTS/enter.sh" "llvm-objdump$suffix" --disassemble --no-show-raw-insn \
		"--disassemble-symbols=$symbols" "$1" |
		sed -nE 's/^[0-9a-f]+ <__cfi_(.*)>:$/\1/p; s/.*\bmovl?\s+\$(0x[0-9a-fA-F]+), %e.*/\1/p' |
		paste -d ' ' - -
}

declare -A type=()
while read -r name number; do
	type[$name]=$number
done < <(types "$vmlinux" '[a-z_]+_(update|delete|lookup)_elem(_(plain|sleepable|copy|to_write))?')

number=0
# same FUNCTION TYPE OTHER: whether it is of the type of the other one
same() {
	number=$((number + 1))
	[[ -n $2 && $2 == "${type[$3]:-}" ]] || printf 'not '
	echo "ok $number - types: $1 is of that of $3"
}

echo "TAP version 13"
while read -r name; do
	same "$name" "${type[$name]}" "${name%_elem_*}_elem"
done < <(printf '%s\n' "${!type[@]}" | grep -v '_elem$' | sort)
stubs=$number
while read -r name its_type; do
	[[ $name =~ 11((update|delete)_elem)Km([0-9]) ]]
	same "the module's ${BASH_REMATCH[1]} ${BASH_REMATCH[3]}" "$its_type" \
		"bpf_map_trace_${BASH_REMATCH[1]}"
done < <(types "$module" '_R.*Registration.*11(update|delete)_elemKm[0-9].*')
[[ $stubs -gt 0 && $((number - stubs)) -eq 6 ]] || printf 'not '
echo "ok $((number + 1)) - types: $stubs functions for programs are found, 6 of the module"
echo "1..$((number + 1))"
