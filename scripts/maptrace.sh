#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# maptrace.sh build|test|clippy|fmt: builds maptrace and prints where it is; runs its tests
# that need no guest; lints it; sees whether it is formatted. What it is built of comes
# from the package registry of Rust, in the versions of maptrace/Cargo.lock, and is kept
# in the cache.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

what=${1:-build}
output=$BUILD/maptrace
mkdir -p "$output" "$MAP_TRACE_CACHE/cargo"

export CARGO_HOME=$MAP_TRACE_CACHE/cargo CARGO_TARGET_DIR=$output/target
MAP_TRACE_ENV="CARGO_HOME CARGO_TARGET_DIR"
# A machine behind a proxy of its own trusts what the toolchain does not know.
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [[ -r $certificates ]]; then
	cmp -s "$certificates" "$output/certificates.crt" || cp "$certificates" "$output/certificates.crt"
	export CARGO_HTTP_CAINFO=$output/certificates.crt
	MAP_TRACE_ENV+=" CARGO_HTTP_CAINFO"
fi
export MAP_TRACE_ENV

cargo() {
	(cd "$MAP_TRACE_ROOT/maptrace" && "$SCRIPTS/enter.sh" cargo "$@")
}

build() {
	local built=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release
	cargo build --locked --release --workspace || return
	mkdir -p "$output/bin" "$output/man" "$output/completions" || return
	cp "$built/maptrace" "$built/maptrace_test" "$output/bin/" || return
	"$output/bin/maptrace" man "$output/man" || return
	"$output/bin/maptrace" completions bash > "$output/completions/maptrace.bash" &&
		"$output/bin/maptrace" completions zsh > "$output/completions/_maptrace" &&
		"$output/bin/maptrace" completions fish > "$output/completions/maptrace.fish"
}

lock "$output.lock"
case $what in
build)
	ON_FAILURE="Fix what cargo reports above (the first build fetches crates, and needs the network)." \
		run_logged "building maptrace" "$LOGS/maptrace.log" build
	echo "$output"
	;;
test) cargo test --locked --release --package maptrace ;;
clippy) cargo clippy --locked --release --workspace --all-targets -- --deny warnings ;;
fmt) cargo fmt --all --check ;;
*) die "${0##*/}: $what?" ;;
esac
