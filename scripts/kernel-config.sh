#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kernel-config.sh TREE OUTPUT FRAGMENT...: allnoconfig and the fragments. An
# option that Kconfig drops is an error, with its name. Runs in the toolchain.

set -euo pipefail

tree=$1
output=$2
shift 2

fail=0
make -s -C "$tree" "O=$output" allnoconfig
(cd "$output" && KCONFIG_CONFIG=$output/.config "$tree/scripts/kconfig/merge_config.sh" \
	-m -O "$output" "$output/.config" "$@")
make -s -C "$tree" "O=$output" olddefconfig

# The last fragment that names an option decides.
declare -A wanted
while IFS= read -r line; do
	case $line in
	CONFIG_*=*)
		wanted[${line%%=*}]=$line
		;;
	"# CONFIG_"*" is not set")
		line=${line#\# }
		wanted[${line%% *}]="# $line"
		;;
	esac
done < <(cat "$@")

for option in "${!wanted[@]}"; do
	line=${wanted[$option]}
	if [[ $line == "# "* ]]; then
		grep -q "^$option=" "$output/.config" || continue
	else
		! grep -qxF -- "$line" "$output/.config" || continue
	fi
	found=$(grep -E "^(# )?${option}[ =]" "$output/.config" || echo "not known or not visible")
	echo "error: configs/ asks for $line, Kconfig decided: $found" >&2
	fail=1
done
exit $fail
