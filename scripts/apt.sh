# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What is asked of this machine's apt: to install a tool, and from where it takes
# Debian's packages. Mirrors, proxies and keys are the ones that it is set up with.

# Seconds to wait for another program that has apt's or dpkg's locks.
APT_WAIT=${APT_WAIT:-600}
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

as_root() {
	local name kept=()
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		for name in APT_CONFIG http_proxy https_proxy no_proxy; do
			[[ -z ${!name:-} ]] || kept+=("$name=${!name}")
		done
		sudo env "${kept[@]}" "$@"
	else
		die "making the toolchain needs root or sudo" \
			"run this once as root, or use the tools of this machine: TOOLCHAIN=host"
	fi
}

# lock_holder FILE: which lock apt could not have by its output, and who has it. Fails
# if that was not its trouble.
lock_holder() {
	local line
	while IFS= read -r line; do
		if [[ $line =~ 'Could not get lock '([^ ]+)\.' It is held by process '([0-9]+)' ('(.*)')' ]]; then
			echo "${BASH_REMATCH[3]} (process ${BASH_REMATCH[2]}) holds ${BASH_REMATCH[1]}"
			return
		elif [[ $line =~ 'Could not get lock '([^ ]+) ]]; then
			echo "another program holds ${BASH_REMATCH[1]}"
			return
		elif [[ $line =~ ^dpkg:.*' lock '(was|is)' locked by another process with pid '([0-9]+) ]]; then
			echo "$(cat "/proc/${BASH_REMATCH[2]}/comm" 2>/dev/null || echo "another program")" \
				"(process ${BASH_REMATCH[2]}) holds the lock of dpkg"
			return
		fi
	done < "$1"
	return 1
}

# apt_get OUTPUT ARGUMENT...: apt-get as root, which waits for the locks. By itself it
# waits for one of them only.
apt_get() {
	local output=$1 start=$SECONDS status holder said=''
	shift
	while true; do
		status=0
		as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
			apt-get -o DPkg::Lock::Timeout=0 "$@" > "$output" 2>&1 || status=$?
		[[ $status -ne 0 ]] && holder=$(lock_holder "$output") || return "$status"
		if [[ $((SECONDS - start)) -ge $APT_WAIT ]]; then
			echo "E: still locked after $APT_WAIT seconds: $holder" > "$output"
			return "$status"
		fi
		[[ $holder == "$said" ]] ||
			say "waiting for apt, up to $(elapsed "$APT_WAIT"): $holder"
		said=$holder
		sleep 1
	done
}

# apt_install PACKAGE...: fetches apt's lists only where they are missing or too old.
apt_install() {
	local output status=0 install=(install --yes --no-install-recommends "$@")
	output=$(mktemp) || return
	on_exit "rm -f '$output'"
	apt_get "$output" "${install[@]}" || status=$?
	if [[ $status -ne 0 ]] &&
		grep -qE "^E: (Unable to locate package|Package '.*' has no inst)|  404  " "$output"; then
		status=0
		apt_get "$output" update || status=$?
		# Other archives may have failed: what counts is whether it installs now.
		if ! grep -q '^E: still locked' "$output"; then
			cat "$output"
			status=0
			apt_get "$output" "${install[@]}" || status=$?
		fi
	fi
	cat "$output"
	return "$status"
}

# explain_apt LOG: why apt failed, and what helps.
explain_apt() {
	local errors
	errors=$(grep -aE '^E: |^W: Failed to fetch|NO_PUBKEY' "$1" | grep -vE \
		'Some index files failed|Unable to fetch some archives|is another process using it|mmdebstrap failed to run|^E: apt-get .* failed$' |
		sort -u | tail -n 5)
	echo "The cause, in apt's words:"
	# shellcheck disable=SC2001 # each line
	sed 's/^/  /' <<< "${errors:-(none, see the log)}"
	case $errors in
	*"still locked"*)
		echo "Wait for that program's end, or end it, then run the same command again." \
			"(APT_WAIT=SECONDS waits longer.)"
		;;
	*NO_PUBKEY* | *"is not signed"*)
		echo "This machine's apt does not know the key. That of a newer Debian comes with its" \
			"debian-archive-keyring: upgrade that package, then run the same command again."
		;;
	*"Failed to fetch"* | *"does not have a Release file"*)
		echo "Check the network and what apt is set up with (/etc/apt), or give another archive:" \
			"MIRROR=ADDRESS. Run the same command again to continue."
		;;
	*) echo "Put that right, then run the same command again." ;;
	esac
}

# Prints a line for each index that apt takes from Debian: label, codename, address,
# and the place in its configuration. An archive tells its name only once apt has
# fetched something from there.
list_archives() {
	# shellcheck disable=SC2016 # apt's own variables
	apt-get indextargets "$@" 'Created-By: Packages' \
		--format '$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)|$(SOURCESENTRY)' |
		sed -nE -e '/\|(file|copy|cdrom):/d' -e 's/^Debian( Backports)?\|//p' | sort -u
}

# What is put over the machine's configuration to have lists of our own in a directory,
# where nobody else has locks and no privilege is needed.
own_lists() {
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial" || return
	cat > "$1/apt.conf" <<-END
		Dir::State::lists "$1/lists";
		Dir::Cache "$1/cache";
		APT::Sandbox::User "root";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	END
}

# find_archives: fills ARCHIVES with them. Fails where there is none: with status 2 if
# some could not be asked. MIRROR= is what to take in place of the machine's: the address
# of Debian, and that of its security updates.
find_archives() {
	local main security own status=0
	command -v apt-get >/dev/null || return
	if [[ -n ${MIRROR:-} ]]; then
		read -r main security <<< "$MIRROR"
		ARCHIVES="Debian||$main|"
		[[ -z $security ]] || ARCHIVES+=$'\n'"Debian-Security||$security|"
		return
	fi
	ARCHIVES=$(list_archives) || true
	grep -q '^Debian|' <<< "$ARCHIVES" && grep -q '^Debian-Security|' <<< "$ARCHIVES" && return
	own=$(mktemp -d) || return 2
	on_exit "rm -rf '$own'"
	own_lists "$own" || return 2
	# One of many that fails is no reason to stop.
	LC_ALL=C apt-get -c "$own/apt.conf" update --error-on=any > "$own/log" 2>&1 || status=2
	ARCHIVES=$(list_archives -c "$own/apt.conf") || true
	if grep -q '^Debian|' <<< "$ARCHIVES"; then
		status=0
	else
		cat "$own/log"
		[[ $status -ne 0 ]] || status=1
	fi
	return "$status"
}

# The keys by which apt knows the archive that is configured there, and whether it
# trusts it without.
entry_options() {
	local file=${1%:*} number=${1##*:}
	case $file in
	*.sources)
		sed '/^#/d' "$file" | awk -v number="$number" 'BEGIN { RS = "" } NR == number' |
			sed -nE -e 's/^Signed-By:[[:space:]]*([^[:space:]]+)[[:space:]]*$/signed-by=\1/ip' \
				-e 's/^Trusted:[[:space:]]*([^[:space:]]+)[[:space:]]*$/trusted=\1/ip'
		;;
	*) sed -n "${number}p" "$file" | grep -oE '(signed-by|trusted)=[^] ]+' ;;
	esac
}

# archive_line LABEL SUITE [OPTION]...: a line for a sources.list with this suite of
# Debian: from where apt has that suite, or else another suite.
archive_line() {
	local label=$1 suite=$2 entry address place options=() option
	shift 2
	entry=$(grep -E "^[^|]*\|$suite\|" <<< "$ARCHIVES" || grep "^$label|" <<< "$ARCHIVES") || return
	IFS='|' read -r _ _ address place <<< "$entry"
	if [[ -z $place ]]; then
		options+=("signed-by=$DEBIAN_KEYRING")
	else
		while IFS= read -r option; do
			[[ $option != signed-by=* || $option == *"$DEBIAN_KEYRING"* || ! -e $DEBIAN_KEYRING ]] ||
				option+=,$DEBIAN_KEYRING
			options+=("$option")
		done < <(entry_options "$place")
	fi
	options+=("$@")
	echo "deb ${options[*]:+[${options[*]}] }$address $suite main"
}

# How this machine's apt gets at archives, as lines for another's configuration.
network_options() {
	local netrc='' netrcparts=''
	apt-config dump |
		grep -E '^Acquire::(https?|ftp|tor|ForceIPv[46]|Retries|Check-(Valid-Until|Date))(::| )'
	eval "$(apt-config shell netrc Dir::Etc::netrc/f netrcparts Dir::Etc::netrcparts/d)"
	printf 'Dir::Etc::netrc "%s";\nDir::Etc::netrcparts "%s";\n' "$netrc" "$netrcparts"
}
