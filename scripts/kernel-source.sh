#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fetches and unpacks the kernel that the patches apply to, once, and prints
# where it is: a directory that holds the tree (linux/) and its version.
# KSRC= is a tree or a tarball to take instead, KERNEL_TARBALL= the address of a
# tarball for where the archive has none.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=apt.sh
source "$SCRIPTS/apt.sh"

KSRC=${KSRC:-}
KERNEL_TARBALL=${KERNEL_TARBALL:-}
# The seconds with less than 1 kB/s after which a download is given up.
STALL_TIME=${STALL_TIME:-60}
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

own_apt() {
	LC_ALL=C "$1" -c "$download/apt.conf" "${@:2}"
}

# Whether all that apt could not fetch is not there: that is what the archive says, and
# not what happened between here and there.
only_missing() {
	local errors
	errors=$(grep '^E: ' "$1" | grep -v 'Some index files failed') &&
		! grep -qvE "does not have a Release file|  404  " <<< "$errors"
}

# Has the package and its version in "package", or in "absent" why the archive has none
# that serves. Fails where that cannot be told.
find_package() {
	local line output=$download/update.log version status=0
	package='' absent=''
	find_archives || status=$?
	[[ $status -ne 2 ]] || return "$status"
	if [[ $status -ne 0 ]] ||
		! line=$(archive_line Debian "$KERNEL_PACKAGE_SUITE" target=Packages); then
		absent="apt on this machine has no archive of Debian"
		return 0
	fi
	echo "$line" | tee "$download/sources.list" || return
	own_lists "$download" && cat >> "$download/apt.conf" <<-END || return
		Dir::Etc::sourcelist "$download/sources.list";
		Dir::Etc::sourceparts "/dev/null";
	END
	own_apt apt-get update --error-on=any > "$output" 2>&1 || status=$?
	cat "$output"
	if [[ $status -ne 0 ]]; then
		only_missing "$output" || return
		absent="the archive has no $KERNEL_PACKAGE_SUITE ($line)"
		return 0
	fi
	version=$(own_apt apt-cache madison "$KERNEL_PACKAGE" | cut -d '|' -f 2 | tr -d ' ' |
		sort -V | tail -n 1) || return
	if [[ -z $version ]]; then
		absent="the archive has no $KERNEL_PACKAGE in $KERNEL_PACKAGE_SUITE"
	elif [[ $(printf '%s\n' "${version%%-*}" "$KERNEL_VERSION" | sort -V | head -n 1) != \
		"$KERNEL_VERSION" ]]; then
		absent="the archive has only $version of $KERNEL_PACKAGE, $KERNEL_VERSION is wanted"
	else
		package=$KERNEL_PACKAGE=$version
	fi
}

# Apt compares the hash, and fetches again what is not all there.
download_package() {
	find "$download" -name '*.deb' ! -name "*_${package#*=}_*" -delete &&
		(cd "$download" && own_apt apt-get download "$package")
}

unpack_package() {
	"$SCRIPTS/enter.sh" bash -o pipefail -ec '
		dpkg-deb --fsys-tarfile "$1"/*.deb |
			tar -xO --wildcards "./usr/src/linux-source-*.tar.xz" |
			xz -dc -T0 | tar -x -C "$2" --strip-components=1' bash "$download" "$new/linux"
}

# Goes on with what an earlier run has begun, unless the server cannot send the rest (33
# and 36), or has none (22).
download_tarball() {
	local status=0 curl
	curl=(
		"$SCRIPTS/enter.sh" curl --fail --location --retry 3 --silent --show-error
		--connect-timeout 30 --speed-limit 1000 --speed-time "$STALL_TIME"
		--retry-max-time "$STALL_TIME"
		--output "$tarball.part" "$KERNEL_TARBALL"
	)
	"${curl[@]}" --continue-at - || status=$?
	if [[ $status -eq 33 || $status -eq 36 || ($status -eq 22 && -s $tarball.part) ]]; then
		rm -f "$tarball.part"
		status=0
		"${curl[@]}" || status=$?
	fi
	[[ $status -ne 0 ]] || mv "$tarball.part" "$tarball" || status=$?
	return "$status"
}

explain_tarball() {
	echo "The cause: $(grep -a '^curl: ' "$1" | tail -n 1)"
	echo "Check the network and KERNEL_TARBALL=$KERNEL_TARBALL, or give a tree or tarball of" \
		"Linux $KERNEL_VERSION: KSRC=... Run the same command again to continue."
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
download=$source.download
tarball=$download/$(hash_stdin <<< "$KERNEL_TARBALL").tar
if [[ ! -e $source/.complete ]]; then
	lock "$source.lock"
	if [[ ! -e $source/.complete ]]; then
		rm -rf "$new" "$source"
		need_space 3 "the kernel's source"
		make_toolchain
		mkdir -p "$new/linux" "$download"
		if [[ -z $KSRC ]]; then
			ON_FAILURE=explain_apt run_logged "looking for $KERNEL_PACKAGE" \
				"$LOGS/source-find.log" find_package
			if [[ -n $package ]]; then
				ON_FAILURE=explain_apt run_logged "downloading $package (170 MB)" \
					"$LOGS/source.log" download_package
				run_logged "unpacking the kernel" "$LOGS/source.log" unpack_package
			elif [[ -n $KERNEL_TARBALL ]]; then
				say "$absent: taking $KERNEL_TARBALL instead"
				[[ -e $tarball ]] ||
					ON_FAILURE=explain_tarball run_logged "downloading Linux $KERNEL_VERSION" \
						"$LOGS/source.log" download_tarball
				# What it cannot be made of is fetched again.
				mv "$tarball" "$new/linux.tar"
				ON_FAILURE="That was no tarball, or not all of it: $KERNEL_TARBALL" \
					run_logged "unpacking the kernel" "$LOGS/source.log" \
					unpack_tarball "$new/linux.tar"
				rm -f "$new/linux.tar"
			else
				die "$absent" \
					"give a tree or a tarball of Linux $KERNEL_VERSION: KSRC=PATH, or the address of a" \
					"tarball: KERNEL_TARBALL=https://.../linux-$KERNEL_VERSION.tar.xz, or that of" \
					"another archive of Debian: MIRROR=http://.../debian"
			fi
		elif [[ -d $KSRC ]]; then
			run_logged "copying $KSRC" "$LOGS/source.log" copy_tree
		else
			ON_FAILURE="Is KSRC=$KSRC a tarball of a Linux tree?" \
				run_logged "unpacking $KSRC" "$LOGS/source.log" unpack_tarball "$KSRC"
		fi
		[[ -e $new/linux/Kbuild && -e $new/linux/scripts/kconfig/merge_config.sh ]] ||
			die "$new/linux: this is not a Linux tree"
		[[ -z $KSRC ]] ||
			run_logged "removing build results from the copy" "$LOGS/source-clean.log" clean_tree
		make -s --no-print-directory -C "$new/linux" kernelversion > "$new/version"
		touch "$new/.complete"
		mv "$new" "$source"
		rm -rf "$download"
	fi
	unlock
fi
version=$(cat "$source/version")
if [[ $version != "$KERNEL_VERSION" ]]; then
	say "note: building Linux $version; patches/ was written for $KERNEL_VERSION"
fi
echo "$source"
