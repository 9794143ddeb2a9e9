# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# How cargo runs in the toolchain. What it builds of comes from the package registry of
# Rust, in the versions of a Cargo.lock, and is kept in the cache.

# shellcheck disable=SC2034 # for the scripts that source this
CARGO_FAILED="Fix what cargo reports above (the first build fetches crates, and needs the network)."

# use_cargo PROJECT OUTPUT: builds what is in a directory below the clone into another one.
use_cargo() {
	local output=$2 certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
	cargo_project=$MAP_TRACE_ROOT/$1
	mkdir -p "$output" "$MAP_TRACE_CACHE/cargo"
	export CARGO_HOME=$MAP_TRACE_CACHE/cargo CARGO_TARGET_DIR=$output/target
	export MAP_TRACE_ENV="CARGO_HOME CARGO_TARGET_DIR"
	# A machine behind a proxy of its own trusts what the toolchain does not know.
	if [[ -r $certificates ]]; then
		cmp -s "$certificates" "$output/certificates.crt" ||
			cp "$certificates" "$output/certificates.crt"
		export CARGO_HTTP_CAINFO=$output/certificates.crt
		MAP_TRACE_ENV+=" CARGO_HTTP_CAINFO"
	fi
}

cargo() {
	(cd "$cargo_project" && "$SCRIPTS/enter.sh" cargo "$@")
}
