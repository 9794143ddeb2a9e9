#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# maptrace.sh build|test|clippy|fmt: builds maptrace and prints where it is; runs its tests
# that need no guest; lints it; sees whether it is formatted.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck source=cargo.sh
source "$SCRIPTS/cargo.sh"

what=${1:-build}
output=$BUILD/maptrace
use_cargo maptrace "$output"

build() {
	local built=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release
	cargo build --locked --release --workspace || return
	mkdir -p "$output/bin" "$output/include" "$output/man" "$output/completions" || return
	cp "$built/maptrace" "$built/maptrace_test" "$output/bin/" || return
	cp "$cargo_project/include/maptrace_convert.h" "$output/include/" || return
	"$output/bin/maptrace" man "$output/man" || return
	"$output/bin/maptrace" completions bash > "$output/completions/maptrace.bash" &&
		"$output/bin/maptrace" completions zsh > "$output/completions/_maptrace" &&
		"$output/bin/maptrace" completions fish > "$output/completions/maptrace.fish"
}

lock "$output.lock"
case $what in
build)
	ON_FAILURE=$CARGO_FAILED \
		run_logged "building maptrace" "$LOGS/maptrace.log" build
	echo "$output"
	;;
test) cargo test --locked --release --package maptrace ;;
clippy) cargo clippy --locked --release --workspace --all-targets -- --deny warnings ;;
fmt) cargo fmt --all --check ;;
*) die "${0##*/}: $what?" ;;
esac
