# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # read by the scripts that source this
# The one place that names what is built, and with what.

# The kernel that patches/ applies to. A newer release of the same series in
# the archive is taken instead, and the build says so.
KERNEL_VERSION=7.3.4
KERNEL_PACKAGE=linux-source-${KERNEL_VERSION%.*}
KERNEL_PACKAGE_SUITE=trixie-backports

# rustc of this suite is built on this LLVM: clang has to be the same for
# RUST_INLINE_HELPERS.
TOOLCHAIN_SUITE=trixie
LLVM_VERSION=19
TOOLCHAIN_PACKAGES=(
	# building the kernel
	bc bison ccache cpio flex git kmod libc6-dev libdw-dev libelf-dev
	libssl-dev make pahole patch perl python3 rsync xz-utils zstd
	"clang-$LLVM_VERSION" "lld-$LLVM_VERSION" "llvm-$LLVM_VERSION"
	"libclang-$LLVM_VERSION-dev" "libclang-rt-$LLVM_VERSION-dev"
	# Rust
	bindgen cargo rust-clippy rust-src rustc rustfmt
	# bpftool, libbpf and what is linked to them
	libcap-dev "llvm-$LLVM_VERSION-dev" zlib1g-dev
	# the distribution's own libbpf, for tests, and C++, which headers are compiled as
	g++ libbpf-dev
	# the guest
	busybox-static iproute2 mount procps qemu-system-x86 strace udev util-linux virtme-ng
	# checks
	ca-certificates codespell curl file less python3-matplotlib shellcheck
	# the models
	spin
)

# The Debian with the oldest headers that a program may be built with.
OLDEST_HEADERS_SUITE=bookworm
OLDEST_HEADERS=/usr/lib/map_trace/$OLDEST_HEADERS_SUITE

# BPF programs that nobody here wrote, for make test-maptrace
PROGRAMS_PACKAGES=(bpftrace iproute2 libbpf-tools xdp-tools)

# The kernel's own tests of BPF, for make test-upstream, want a newer clang than the one
# that builds the kernel, and bindgen must not see it: a root of its own, in which they run,
# too.
UPSTREAM_SUITE=forky
UPSTREAM_LLVM_VERSION=22
UPSTREAM_PACKAGES=(
	# building them
	"clang-$UPSTREAM_LLVM_VERSION" "lld-$UPSTREAM_LLVM_VERSION" "llvm-$UPSTREAM_LLVM_VERSION"
	"llvm-$UPSTREAM_LLVM_VERSION-dev" "libclang-rt-$UPSTREAM_LLVM_VERSION-dev" bc g++ kmod
	libc6-dev libcap-dev libelf-dev libssl-dev libzstd-dev make openssl pkgconf python3 rsync
	zlib1g-dev
	# what they call
	ethtool iproute2 iptables iputils-ping mount ncat netcat-openbsd nftables procps tcpdump
	util-linux xxd
)

# Go, and what examples/go imports
GO_PACKAGES=(golang-go golang-github-cilium-ebpf-dev)

# For TOOLCHAIN=host, where the kernel does not say: a vng that passes on the
# status of a command and ends with 255 where the guest died, and the QEMU of
# Debian 12.
VNG_LEAST=1.22
QEMU_LEAST=7.2
