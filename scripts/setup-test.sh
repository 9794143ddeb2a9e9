#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The set-up takes no failure for another one, and nothing half-finished for finished.
# The archives are those of a server on this machine; apt, dpkg's locks and the cache
# are in a scratch directory. TAP.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! command -v apt-get >/dev/null; then
	echo "1..0 # SKIP this machine has no apt"
	exit 0
fi

root=''
[[ ${TOOLCHAIN:-} == host ]] || root=$("$SCRIPTS/toolchain.sh")
export -n MAP_TRACE_ROOT MAP_TRACE_CACHE
work=$(mktemp -d)
server=''
on_exit 'rm -rf "$work"'
on_exit '[[ -z $server ]] || kill "$server"'
number=0
mkdir -p "$work/clone" "$work/www" "$work/bin"
cp -r "$SCRIPTS" "$work/clone/"
cache=$work/cache/map_trace

in_toolchain() {
	MAP_TRACE_BIND=$work "$SCRIPTS/enter.sh" "$@"
}

# --- a server, which does what $work/mode says

cat > "$work/server.py" <<'END'
import http.server, os, sys, time

work = sys.argv[1]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(work + "/mode") as f:
            mode = f.read().strip()
        path = work + "/www" + self.path.replace("%7e", "~").replace("%2b", "+")
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        with open(work + "/requests", "a") as f:
            f.write(f"{self.path} {start}\n")
        if mode == "stalled":
            time.sleep(60)
        if mode == "error" or not os.path.isfile(path):
            return self.send_error(503 if mode == "error" else 404)
        with open(path, "rb") as f:
            data = f.read()
        large = path.endswith((".deb", ".tar.xz"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if large and mode == "cut-unnoticed":
            data = data[:len(data) // 2]
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", len(data) - start)
        self.end_headers()
        end = len(data)
        if large and (mode in ("cut", "stalled-late", "slow") or mode == "cut-once" and not start):
            end //= 2
        self.wfile.write(data[start:end])
        self.wfile.flush()
        if large and mode == "stalled-late":
            time.sleep(60)
        if large and mode == "slow":
            time.sleep(0.7)
            self.wfile.write(data[end:])
        if large and mode.startswith("cut"):
            self.close_connection = True

    def log_message(self, *args):
        pass

httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(work + "/port.new", "w") as f:
    f.write(str(httpd.server_port))
os.rename(work + "/port.new", work + "/port")
httpd.serve_forever()
END

mode() {
	echo "$1" > "$work/mode"
	: > "$work/requests"
}

# asked PATTERN: how many requests
asked() {
	grep -cE -- "$1" "$work/requests" || true
}

# --- what it serves: archives with a small kernel, an old one, none; a tarball

cat > "$work/archives.sh" <<'END'
set -euo pipefail
cd "$1/www"
mkdir -p linux-7.3.4/scripts/kconfig
touch linux-7.3.4/Kbuild linux-7.3.4/scripts/kconfig/merge_config.sh
printf 'kernelversion:\n\t@echo 7.3.4\nmrproper:\n' > linux-7.3.4/Makefile
head -c 300000 /dev/urandom > linux-7.3.4/noise
tar -cJf linux-7.3.4.tar.xz linux-7.3.4

# package ARCHIVE NAME VERSION [FILE PATH]
package() {
	mkdir -p "$1/pool" "$1/dists" package/DEBIAN
	[[ $# -lt 5 ]] || install -D "$4" "package/$5"
	printf '%s\n' "Package: $2" "Version: $3" "Architecture: all" "Maintainer: nobody <nobody@localhost>" \
		"Description: test" > package/DEBIAN/control
	dpkg-deb --root-owner-group --build -Znone package "$1/pool/$2_$3_all.deb" > /dev/null
	{
		cat package/DEBIAN/control
		echo "Filename: pool/$2_$3_all.deb"
		echo "Size: $(stat -c %s "$1/pool/$2_$3_all.deb")"
		echo "SHA256: $(sha256sum < "$1/pool/$2_$3_all.deb" | cut -d ' ' -f 1)"
		echo
	} >> "$1/Packages"
	rm -r package
}

# suite ARCHIVE ORIGIN LABEL SUITE: with the packages of the archive
suite() {
	local directory=$1/dists/$4
	mkdir -p "$directory/main/binary-amd64"
	cp "$1/Packages" "$directory/main/binary-amd64/"
	{
		printf '%s\n' "Origin: $2" "Label: $3" "Suite: $4" "Codename: $4" "Components: main" \
			"Architectures: amd64" "Date: $(date -Ru)" "SHA256:"
		echo " $(sha256sum < "$1/Packages" | cut -d ' ' -f 1) $(stat -c %s "$1/Packages")" \
			"main/binary-amd64/Packages"
	} > "$directory/Release"
}

package full linux-source-7.3 7.3.5-1~bpo13+1 linux-7.3.4.tar.xz usr/src/linux-source-7.3.tar.xz
package full mmdebstrap 1
package full bubblewrap 1
package full debian-archive-keyring 1
package old linux-source-7.3 7.3.3-1 linux-7.3.4.tar.xz usr/src/linux-source-7.3.tar.xz
package empty hello 1
cp -r empty other
for archive in full old empty; do
	suite "$archive" Debian Debian bookworm
	suite "$archive" Debian "Debian Backports" trixie-backports
done
suite empty Debian Debian-Security bookworm-security
suite other Somebody Somebody bookworm
mkdir without
cp -r full/Packages full/pool without/
suite without Debian Debian bookworm
END
in_toolchain bash "$work/archives.sh" "$work"

mode ok
in_toolchain python3 "$work/server.py" "$work" &
# shellcheck disable=SC2034 # in a command for the end
server=$!
for ((i = 0; i < 100; i++)); do
	[[ ! -e $work/port ]] || break
	sleep 0.1
done
url=http://127.0.0.1:$(cat "$work/port")

# --- a machine

# What a new one lacks, and what nobody but root can do
ln -s /usr/bin/* /usr/sbin/* "$work/bin/" 2>/dev/null || true
for command in /bin/* /sbin/*; do
	[[ -e $work/bin/${command##*/} ]] || ln -s "$command" "$work/bin/"
done
rm -f "$work/bin/"{mmdebstrap,bwrap}

# stub NAME: standard input in place of that command
stub() {
	rm -f "$work/bin/$1"
	cat > "$work/bin/$1"
	chmod +x "$work/bin/$1"
}

stub unshare <<'END'
#!/bin/bash
while [[ $1 != -- ]]; do shift; done
exec "${@:2}"
END
stub id <<'END'
#!/bin/sh
echo 0
END
stub df <<END
#!/bin/sh
[ ! -e $work/free ] || exec printf 'Avail\n%s\n' "\$(cat $work/free)"
exec $(command -v df) "\$@"
END
# Makes a root of the toolchain, after it has noted what of.
cat > "$work/mmdebstrap" <<END
#!/bin/bash
printf '%s\n' "\$@" > $work/arguments
for argument in "\$@"; do
	[[ ! -r \${argument#--aptopt=} ]] || cat "\${argument#--aptopt=}" >> $work/arguments
done
cat > $work/sources
sleep 0.3
echo made >> $work/made
mkdir -p "\${@: -2:1}"
END
# Installs nothing but that.
cat > "$work/dpkg" <<END
#!/bin/bash
case "\$*" in
*--unpack*)
	echo installed >> $work/installed
	cp $work/mmdebstrap $work/bin/
	ln -sf /bin/true $work/bin/bwrap
	;;
esac
END
chmod +x "$work/mmdebstrap" "$work/dpkg"

with_tools() {
	cp "$work/mmdebstrap" "$work/bin/"
	ln -s /bin/true "$work/bin/bwrap"
}

# machine FILE [new]: one whose apt is set up by that file, which is standard input, and has
# fetched its lists unless it is new. It has a toolchain, and no kernel.
machine() {
	rm -rf "$work/apt" "$work/cache" "$work/bin/mmdebstrap" "$work/bin/bwrap" "$work/free"
	: > "$work/installed"
	: > "$work/made"
	mkdir -p "$work/apt/etc/apt/"{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
		"$work/apt/var/lib/dpkg" "$work/apt/var/lib/apt/lists/partial" \
		"$work/apt/var/cache/apt/archives/partial" "$work/apt/var/log/apt" "$cache/toolchain"
	: > "$work/apt/var/lib/dpkg/status"
	cat > "$work/apt/etc/apt/$1"
	cat > "$work/apt.conf" <<-END
		Dir "$work/apt";
		Dir::Bin::dpkg "$work/dpkg";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "0";
		Acquire::http::Timeout "1";
	END
	[[ -z $root ]] || ln -s "$root" "$cache/toolchain/"
	mode ok
	[[ ${2:-} == new ]] || APT_CONFIG=$work/apt.conf apt-get update > /dev/null
}

with_archive() {
	machine sources.list "${@:2}" <<< "deb [trusted=yes] $url/$1 bookworm main"
}

# as_user COMMAND...: on that machine, with the variables of "environment".
environment=()
as_user() {
	env -u KSRC -u MIRROR -u KERNEL_TARBALL -u APT_WAIT -u STALL_TIME "XDG_CACHE_HOME=$work/cache" \
		"APT_CONFIG=$work/apt.conf" "TMPDIR=$work" "${environment[@]}" "$@" < /dev/null
}

# Each has its status in "status", its output in $work/output. Arguments are variables.
kernel_source() {
	environment=("$@")
	status=0
	as_user "$work/clone/scripts/kernel-source.sh" > "$work/output" 2>&1 || status=$?
}

# On a machine without any
toolchain() {
	rm -rf "$cache/toolchain"
	environment=("PATH=$work/bin" "$@")
	status=0
	as_user "$work/clone/scripts/toolchain.sh" > "$work/output" 2>&1 || status=$?
}

# result NAME CONDITION...: commands that all succeed
result() {
	local name=$1 failed=''
	shift
	for condition in "$@"; do
		eval "$condition" || failed+=" [$condition]"
	done
	number=$((number + 1))
	if [[ -n $failed ]]; then
		echo "# not so:$failed (status $status)"
		sed 's/^/# | /' "$work/output"
		printf 'not '
	fi
	echo "ok $number - set-up: $name"
}

# shellcheck disable=SC2317 # used by the conditions
{
	succeeded() { [[ $status -eq 0 ]]; }
	failed() { [[ $status -ne 0 ]]; }
	says() { grep -qE -- "$1" "$work/output"; }
	not_says() { ! says "$1"; }
	made() { [[ $(wc -l < "$work/made") -eq 1 ]]; }
	not_made() { [[ ! -s $work/made ]]; }
	# The kernel of the archive, or that of the tarball, or none
	complete() { [[ $(cat "$cache"/source/*/version) == 7.3.4 && ! -d $(echo "$cache"/source/*.new) ]]; }
	incomplete() { [[ -z $(find "$cache/source" -name .complete) ]]; }
	not_asked() { [[ $(asked "$1") -eq 0 ]]; }
}

# hold FILE SECONDS: the lock that apt and dpkg take
hold() {
	rm -f "$work/held"
	perl -e 'use Fcntl; my ($file, $seconds, $held) = @ARGV;
		open(my $f, ">>", $file) or die "$file: $!";
		my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
		fcntl($f, F_SETLK, $lock) or die "$file: $!";
		open(my $h, ">", $held); close($h);
		sleep($seconds)' "$work/apt$1" "$2" "$work/held" &
	holder=$!
	until [[ -e $work/held ]]; do
		kill -0 "$holder"
		sleep 0.05
	done
}

echo "TAP version 13"

# --- locks
for file in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/cache/apt/archives/lock; do
	with_archive full
	hold "$file" 1
	toolchain
	result "a lock at ${file#/var/} is waited for" succeeded made \
		"says 'waiting for apt, .*: perl .process $holder. holds .*$file'"
	wait "$holder"
done
with_archive full new
hold /var/lib/apt/lists/lock 1
toolchain
result "so is that of apt's lists" succeeded made \
	"says 'waiting for apt, .*: perl .process $holder. holds .*/lists/lock'"
wait "$holder"

with_archive full
hold /var/lib/dpkg/lock-frontend 30
toolchain APT_WAIT=1
result "but not for ever, and the error says who has it" failed not_made \
	"says 'still locked after 1 seconds: perl .process $holder. holds'" "not_says 'no archive'"
rm -rf "$cache/toolchain"
kernel_source APT_WAIT=1 "PATH=$work/bin" "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "a lock is no reason to take a tarball" failed "says 'still locked'" "not_asked tar.xz"
# The source is there, the toolchain is not: that of another list of packages is.
mkdir -p "$work/clone/configs" "$cache/source"
touch "$work/clone/configs/base.config" "$work/clone/configs/debug.config"
source=$cache/source/$(echo "$KERNEL_PACKAGE $KERNEL_PACKAGE_SUITE $KERNEL_VERSION" | hash_stdin)
mkdir -p "$source/linux"
echo "$KERNEL_VERSION" > "$source/version"
touch "$source/.complete" "$source/linux/Kbuild"
environment=(APT_WAIT=1 "PATH=$work/bin")
status=0
as_user "$work/clone/scripts/kernel-build.sh" base debug > "$work/output" 2>&1 || status=$?
result "nor is it a wrong configuration" failed "says 'still locked'" "not_says configuring"
kill "$holder"
wait "$holder" || true

with_archive empty
toolchain
result "a tool that no archive has is named" failed not_made \
	"says 'E: Unable to locate package mmdebstrap'"
with_archive full
mode error
toolchain
result "a tool that cannot be fetched is another failure" failed not_made \
	"says 'E: Failed to fetch .*503'" "not_says 'Unable to locate'"

# --- archives
machine sources.list <<-END
	deb [trusted=yes] $url/other bookworm main
	deb [arch=amd64 trusted=yes] $url/full bookworm main
	deb [trusted=yes] $url/empty bookworm-security main
END
cat >> "$work/apt.conf" <<-END
	Acquire::http::Proxy::elsewhere.invalid "http://proxy.invalid:3142";
END
toolchain_sources() {
	printf 'deb [trusted=yes] %s\n' "$url/full/ trixie main" "$url/full/ trixie-updates main" \
		"$url/empty/ trixie-security main" | cmp - "$work/sources"
}
with_tools
toolchain
result "the toolchain is made of the archives of sources.list" succeeded made toolchain_sources
result "and by the proxy of apt.conf" \
	"grep -q '^Acquire::http::Proxy::elsewhere.invalid .http://proxy.invalid:3142' $work/arguments"
# What a hook fetches is fetched by that, too: it is removed after all of them.
result "and so is what is added to it" \
	"grep -e '^--customize-hook=.*99mmdebstrap' -e '^--customize-hook=.*/oldest-headers' \
		$work/arguments | tail -n 1 | grep -q 99mmdebstrap"

deb822() {
	cat <<-END
		# A comment
		Types: deb
		URIs: $url/other
		Suites: bookworm
		Components: main
		Trusted: yes

		Types: deb
		# Another
		URIs: $url/full
		Suites: bookworm trixie-backports
		Components: main
		Trusted: yes

		# And one more

		Types: deb
		URIs: $url/empty
		Suites: bookworm-security
		Components: main
		Trusted: yes
	END
}
for age in old new; do
	machine sources.list.d/debian.sources "$age" < <(deb822)
	with_tools
	toolchain
	result "and of those in the newer format, on an $age machine" succeeded made toolchain_sources
done
machine sources.list <<< "deb [trusted=yes] $url/other bookworm main"
with_tools
toolchain
result "where none is Debian's, it says what to give" failed not_made "says MIRROR=" "not_says '^E: '"
toolchain "MIRROR=$url/full $url/empty"
result "MIRROR= is taken instead" succeeded made \
	"grep -q '^deb .signed-by=/usr/share/keyrings/.*. $url/full trixie main' $work/sources" \
	"grep -q '$url/empty trixie-security main' $work/sources"
with_archive full new
with_tools
mode stalled
toolchain
result "where none answers, it says that" failed not_made "says 'E: Failed to fetch'" \
	"not_says 'no archive of Debian'"

# --- the kernel
with_archive full
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "the kernel is that of the archive" succeeded complete "not_asked tar.xz"
for archive in empty old without; do
	with_archive "$archive"
	kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
	result "a tarball is taken where the archive is $archive" succeeded complete
	with_archive "$archive"
	kernel_source
	result "and asked for, if there is no address" failed incomplete \
		"says '^error: the archive has (no|only)'" "says KERNEL_TARBALL=" "says KSRC="
done
for mode in stalled error; do
	with_archive full
	mode $mode
	kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
	result "not where the archive is $mode" failed incomplete "says 'E: Failed to fetch'" \
		"not_asked tar.xz" "not_says KERNEL_TARBALL"
done
with_archive full
sed -i "s,$url,http://127.0.0.1:1," "$work/apt/etc/apt/sources.list"
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "not where it cannot be reached" failed incomplete \
	"says 'E: Failed to fetch.*Connection refused'" "not_asked tar.xz"
with_archive full
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz" "MIRROR=$url/full"
result "not where it is not signed" failed incomplete "says 'E: .* is not signed'" "not_asked tar.xz"
for mode in cut stalled-late; do
	with_archive full
	mode $mode
	kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
	result "not where a download is $mode" failed incomplete "says 'E: Failed to fetch'" \
		"not_asked tar.xz"
	mode ok
	kernel_source
	result "the next run fetches it" succeeded complete
done
with_archive full
sed -i '/Retries/s/0/3/' "$work/apt.conf"
mode cut-once
kernel_source
result "apt goes on with a download that was cut" succeeded complete "[[ \$(asked 'deb [1-9]') -eq 1 ]]"

with_archive empty
mode cut
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "a tarball that is cut is not taken" failed incomplete "says 'curl: .18.'"
mode ok
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "the next run goes on with it" succeeded complete "[[ \$(asked 'xz [1-9]') -eq 1 ]]"
with_archive empty
mode stalled-late
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz" STALL_TIME=1
result "nor one that stalls" failed incomplete "says 'curl: .28.'" "[[ \$(asked tar.xz) -eq 1 ]]"
with_archive empty
mode cut-unnoticed
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "nor one whose end is missing" failed incomplete "says 'not all of it'"
mode ok
kernel_source "KERNEL_TARBALL=$url/linux-7.3.4.tar.xz"
result "the next run fetches it again" succeeded complete

# --- two at once, and an end from outside
with_archive full
mode slow
environment=()
as_user "$work/clone/scripts/kernel-source.sh" > "$work/other" 2>&1 &
other=$!
kernel_source
wait "$other" || status=$?
result "two at once download once" succeeded complete \
	"[[ \$(asked deb) -eq 1 && \$(tail -n 1 $work/other) == \$(tail -n 1 $work/output) ]]"
with_archive full
with_tools
rm -rf "$cache/toolchain"
environment=("PATH=$work/bin")
as_user "$work/clone/scripts/toolchain.sh" > "$work/other" 2>&1 &
other=$!
status=0
as_user "$work/clone/scripts/toolchain.sh" > "$work/output" 2>&1 || status=$?
wait "$other" || status=$?
result "and make one toolchain" succeeded made

with_archive full
mode slow
environment=()
# shellcheck disable=SC2016
as_user setsid sh -c 'echo $$ > "$1" && exec env --default-signal=INT "$2"' sh "$work/group" \
	"$work/clone/scripts/kernel-source.sh" > "$work/output" 2>&1 &
other=$!
for ((i = 0; i < 200; i++)); do
	[[ $(asked deb) -eq 0 ]] || break
	sleep 0.05
done
group=$(cat "$work/group")
kill -INT -- "-$group"
status=0
wait "$other" || status=$?
for ((i = 0; i < 60; i++)); do
	pgrep -g "$group" > /dev/null || break
	sleep 0.05
done
result "Ctrl-C ends all of it" failed incomplete "! pgrep -g $group"
mode ok
kernel_source
result "and the next run succeeds" succeeded complete

# --- no room
with_archive full
echo 1000 > "$work/free"
kernel_source "PATH=$work/bin:$PATH"
result "a disk that is too full is seen before a download" failed incomplete "not_asked deb" \
	"says '^error: the disk is too full: .* 3 GB'" "says '1000 MB are free'"
cat > "$work/clone/scripts/full.sh" <<'END'
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_logged "writing" "$LOGS/full.log" sh -c 'cat /proc/version > /dev/full'
END
rm -f "$work/free"
status=0
as_user bash "$work/clone/scripts/full.sh" > "$work/output" 2>&1 || status=$?
result "and told where it fills up on the way" failed "says '^The disk is full. Free space'"

# --- a lock whose file is removed by distclean, while it is waited for
cat > "$work/clone/scripts/lock.sh" <<'END'
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
lock "$1"
[[ -e $1 ]] && ! flock --nonblock "$1" true
END
(
	exec 9>> "$work/some.lock"
	flock 9
	sleep 1
	rm "$work/some.lock"
) &
other=$!
sleep 0.3
status=0
as_user bash "$work/clone/scripts/lock.sh" "$work/some.lock" > "$work/output" 2>&1 || status=$?
wait "$other"
result "a lock is one that others see" succeeded "says 'waiting for another run'"
echo "1..$number"
