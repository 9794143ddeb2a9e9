#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# examples.sh [rust|go|aya]...: builds the program of examples/ whose map is in use, and what
# follows it in these languages, without any in all, and prints where they are. LINT=1 lints
# them before.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=cargo.sh
source "$SCRIPTS/cargo.sh"

sources=$MAP_TRACE_ROOT/examples
output=$BUILD/examples

build_runs() {
	"$SCRIPTS/enter.sh" sh -c '"$CLANG" -target bpf -D__TARGET_ARCH_x86 -O2 -g -Wall -Werror \
		-idirafter /usr/include/x86_64-linux-gnu -c "$0" -o "$1"' \
		"$sources/runs.bpf.c" "$output/runs.bpf.o"
}

# build_crate NAME
build_crate() {
	use_cargo "examples/$1" "$output/$1"
	# libelf is where the compiler looks by itself, and the toolchain has no pkg-config.
	export PKG_CONFIG=true
	MAP_TRACE_ENV+=" PKG_CONFIG"
	[[ -z ${LINT:-} ]] || cargo clippy --locked --release -- --deny warnings || return
	cargo build --locked --release && cp "$CARGO_TARGET_DIR/release/follow" "$output/follow-$1"
}

build_rust() {
	build_crate rust
}

build_aya() {
	build_crate aya
}

# What gofmt would change is printed, and is none.
lint_go() {
	local changes
	"$SCRIPTS/enter.sh" "$GOROOT/bin/go" vet || return
	changes=$("$SCRIPTS/enter.sh" "$GOROOT/bin/gofmt" -d .) || return
	printf '%s' "$changes"
	[[ -z $changes ]]
}

# Go wants to embed a file that is beside the source: in a copy of that. The modules are those of
# Debian, which come as GOPATH.
build_go() {
	local root go
	root=$("$SCRIPTS/packages-root.sh" go) || return
	go=$(echo "$root"/usr/lib/go-*/bin/go)
	export GOROOT=${go%/bin/go} GOPATH=$root/usr/share/gocode GO111MODULE=off CGO_ENABLED=0
	export GOCACHE=$output/go/cache
	export MAP_TRACE_ENV="GOROOT GOPATH GO111MODULE CGO_ENABLED GOCACHE"
	rm -rf "$output/go/source"
	mkdir -p "$output/go/source"
	cp -r "$sources/go" "$sources/follow.bpf.c" "$sources/runs.h" "$output/go/source/"
	cd "$output/go/source/go" || return
	"$SCRIPTS/enter.sh" "$go" generate || return
	[[ -z ${LINT:-} ]] || lint_go || return
	"$SCRIPTS/enter.sh" "$go" build -o "$output/follow-go"
}

mkdir -p "$output"
[[ $# -gt 0 ]] || set -- rust go aya
for language; do
	[[ $(type -t "build_$language") == function && $language != runs ]] ||
		die "EXAMPLES=$*: there are: rust go aya"
done
lock "$output.lock"
for language in runs "$@"; do
	ON_FAILURE=$CARGO_FAILED run_logged "building the example: $language" \
		"$LOGS/example-$language.log" "build_$language"
done
echo "$output"
