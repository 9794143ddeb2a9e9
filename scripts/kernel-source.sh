#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fetches and unpacks the kernel that the patches apply to, once, and prints
# where it is: a directory that holds the tree (linux/) and its version.
# KSRC= is a tree or a tarball to take instead.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

KSRC=${KSRC:-}
if [[ -n $KSRC ]]; then
	[[ -e $KSRC ]] || die "KSRC=$KSRC: no such file or directory"
	KSRC=$(realpath "$KSRC")
	plain_path KSRC "$KSRC"
fi

# What is copied of a tree of the user: what git knows, or all there is.
list_tree() {
	if [[ -e $KSRC/.git ]] && git -C "$KSRC" rev-parse >/dev/null 2>&1; then
		git -C "$KSRC" ls-files -z
	else
		find "$KSRC" -name .git -prune -o ! -type d -printf '%P\0' | sort -z
	fi
}

# Of a tree of the user: name, size and time of each file.
source_key() {
	if [[ -z $KSRC ]]; then
		echo "$KERNEL_PACKAGE $KERNEL_PACKAGE_SUITE $KERNEL_VERSION"
	elif [[ -d $KSRC ]]; then
		echo "$KSRC"
		(
			cd "$KSRC" || exit
			list_tree | xargs -0 stat -c '%n %s %Y' 2>/dev/null || true
		)
	else
		stat -c '%n %s %Y' "$KSRC"
	fi
}

# The package, when the toolchain's archive has it in a version that serves.
download_package() {
	local deb version
	mkdir -p "$new/download" || return
	MAP_TRACE_BIND=$new "$SCRIPTS/enter.sh" sh -ec '
		cd "$1"
		mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial
		echo "Dir::State::lists \"/tmp/apt/lists\"; Dir::Cache \"/tmp/apt/cache\";
			APT::Sandbox::User \"root\"; Acquire::Retries \"3\";" > /tmp/apt/conf
		export APT_CONFIG=/tmp/apt/conf
		apt-get update
		apt-get download "$2/$3" || apt-get download "$2"' \
		sh "$new/download" "$KERNEL_PACKAGE" "$KERNEL_PACKAGE_SUITE" || return 1
	deb=("$new"/download/*.deb)
	[[ -e ${deb[0]} ]] || return 1
	version=$("$SCRIPTS/enter.sh" dpkg-deb -f "${deb[0]}" Version) || return
	echo "package version: $version"
	version=${version%%-*}
	if [[ $(printf '%s\n' "$version" "$KERNEL_VERSION" | sort -V | head -n 1) != \
		"$KERNEL_VERSION" ]]; then
		echo "the archive holds only $version, $KERNEL_VERSION is wanted"
		return 1
	fi
}

unpack_package() {
	"$SCRIPTS/enter.sh" bash -o pipefail -ec '
		dpkg-deb --fsys-tarfile "$1"/download/*.deb |
			tar -xO --wildcards "./usr/src/linux-source-*.tar.xz" |
			xz -dc -T0 | tar -x -C "$1/linux" --strip-components=1' bash "$new"
}

download_tarball() {
	"$SCRIPTS/enter.sh" curl --fail --location --retry 3 --silent --show-error \
		--output "$new/download/linux.tar.xz" "$KERNEL_TARBALL"
}

unpack_tarball() {
	MAP_TRACE_BIND=$1 "$SCRIPTS/enter.sh" \
		tar -xf "$1" -C "$new/linux" --strip-components=1
}

copy_tree() {
	list_tree | MAP_TRACE_BIND=$KSRC "$SCRIPTS/enter.sh" \
		rsync -a --from0 --ignore-missing-args --files-from=- "$KSRC/" "$new/linux/"
}

# kbuild takes no source for a build elsewhere that was built in itself.
clean_tree() {
	"$SCRIPTS/enter.sh" make -C "$new/linux" mrproper
}

source=$MAP_TRACE_CACHE/source/$(source_key | hash_stdin)
new=$source.new
if [[ ! -e $source/.complete ]]; then
	lock "$source.lock"
	if [[ ! -e $source/.complete ]]; then
		rm -rf "$new" "$source"
		mkdir -p "$new/linux" "$new/download"
		if [[ -z $KSRC ]]; then
			if run_logged "downloading $KERNEL_PACKAGE (170 MB)" "$LOGS/source.log" \
				download_package; then
				run_logged "unpacking the kernel" "$LOGS/source.log" unpack_package
			else
				say "taking the tarball of $KERNEL_VERSION instead: $KERNEL_TARBALL"
				ON_FAILURE="Check the network, or give a tree or tarball of Linux \
$KERNEL_VERSION: KSRC=..." \
					run_logged "downloading Linux $KERNEL_VERSION" "$LOGS/source.log" \
					download_tarball
				run_logged "unpacking the kernel" "$LOGS/source.log" \
					unpack_tarball "$new/download/linux.tar.xz"
			fi
		elif [[ -d $KSRC ]]; then
			run_logged "copying $KSRC" "$LOGS/source.log" copy_tree
		else
			ON_FAILURE="Is KSRC=$KSRC a tarball of a Linux tree?" \
				run_logged "unpacking $KSRC" "$LOGS/source.log" unpack_tarball "$KSRC"
		fi
		[[ -e $new/linux/Kbuild && -e $new/linux/scripts/kconfig/merge_config.sh ]] ||
			die "what was unpacked into $new/linux is no Linux tree"
		[[ -z $KSRC ]] ||
			run_logged "removing build results from the copy" "$LOGS/source-clean.log" clean_tree
		rm -rf "$new/download"
		make -s --no-print-directory -C "$new/linux" kernelversion > "$new/version"
		touch "$new/.complete"
		mv "$new" "$source"
	fi
	unlock
fi
version=$(cat "$source/version")
if [[ $version != "$KERNEL_VERSION" ]]; then
	say "note: building Linux $version; patches/ was written for $KERNEL_VERSION"
fi
echo "$source"
