#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# oldest-headers.sh ROOT: for mmdebstrap, which runs it when the root is made. Puts the
# oldest headers that a program may be built with beside those of the root, from the
# archive where the rest came from.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=versions.sh
source "$(dirname "${BASH_SOURCE[0]}")/versions.sh"

root=$1
list=$root/etc/apt/sources.list.d/oldest-headers.list
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG

sed -n "s/ $TOOLCHAIN_SUITE main/ $OLDEST_HEADERS_SUITE main/p" "$root/etc/apt/sources.list" > "$list"
[[ -s $list ]]
apt-get update
cd "$root/tmp"
for package in linux-libc-dev libbpf-dev; do
	apt-get -o APT::Sandbox::User=root download "$package/$OLDEST_HEADERS_SUITE"
	chroot "$root" sh -ec "mkdir -p $OLDEST_HEADERS; dpkg-deb -x /tmp/${package}_*.deb $OLDEST_HEADERS"
	rm "$package"_*.deb
done
rm "$list"
