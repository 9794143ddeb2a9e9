#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# fuzz.sh build|clippy|fmt: builds the fuzzer and prints where it is; lints it; sees whether
# it is formatted.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=cargo.sh
source "$SCRIPTS/cargo.sh"

what=${1:-build}
use_cargo fuzz "$BUILD/fuzz"

lock "$BUILD/fuzz.lock"
case $what in
build)
	ON_FAILURE=$CARGO_FAILED \
		run_logged "building the fuzzer" "$LOGS/fuzz.log" cargo build --locked --release
	echo "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release/map_trace_fuzz"
	;;
clippy) cargo clippy --locked --release --all-targets -- --deny warnings ;;
fmt) cargo fmt --all --check ;;
*) die "${0##*/}: $what?" ;;
esac
