#!/usr/bin/env bash
# usage: scripts/demo.sh [--keep] [--cache DIR]   (make demo builds what it needs and runs it)
#
# The main job of gloci-layout on real input, as a tutorial: each line that
# begins with "$ " is a command that is run as it stands. Two versions of Garden
# Linux build output are made from Debian packages, added to one layout, packed,
# checked, and published to a registry that the demo starts on loopback; then
# other people's tools run the image and fetch a kernel. Whatever is not as it
# should be ends the demo with an error.
#
# Everything happens below one temporary directory (TMPDIR; about 5 GB), which
# goes away at the end unless --keep is given. --cache as in make-build.sh.
# GLOCI and REGISTRY name other programs than bin/gloci-layout and
# .tools/bin/registry (distribution v3.1.2).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
gloci=$(realpath "${GLOCI:-$root/bin/gloci-layout}")
registry=$(realpath "${REGISTRY:-$root/.tools/bin/registry}")
keep=false
cache=()

die() {
	printf 'demo: %s\n' "$1" >&2
	exit "${2:-1}"
}

while [ $# -gt 0 ]; do
	case $1 in
	--keep) keep=true ;;
	--cache)
		[ $# -ge 2 ] || die "$1 needs a value" 64
		cache=(--cache "$(realpath -m "$2")")
		shift
		;;
	-h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
	*) die "$1: no such flag" 64 ;;
	esac
	shift
done
[ -x "$gloci" ] || die "$gloci is not there: make build"
[ -x "$registry" ] || die "$registry is not there: make tools"

"$here/ci-packages.sh" demo

dir=$(mktemp -d "${TMPDIR:-/tmp}/gloci-demo.XXXXXX")
registry_pid=
# where root's skopeo and buildah write down what they saw, without asking
blob_info=/var/lib/containers/cache/blob-info-cache-v1.boltdb
had_blob_info=
[ ! -e "$blob_info" ] || had_blob_info=yes
cleanup() {
	local status=$?
	trap - EXIT INT TERM
	if [ -n "$registry_pid" ]; then
		kill "$registry_pid" 2>/dev/null || true
		wait "$registry_pid" 2>/dev/null || true
	fi
	if $keep; then
		printf 'demo: kept %s\n' "$dir" >&2
	else
		cd /
		chmod -R u+rwX "$dir" 2>/dev/null || true
		rm -rf "$dir"
	fi
	[ -n "$had_blob_info" ] || {
		rm -f "$blob_info"
		rmdir "${blob_info%/*}" /var/lib/containers 2>/dev/null || true
	}
	[ "$status" = 0 ] || printf 'demo: failed, exit status %d\n' "$status" >&2
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$dir"

mkdir bin
ln -s "$gloci" bin/gloci-layout
export PATH=$dir/bin:$PATH
# buildah keeps nothing on this machine
export CONTAINERS_STORAGE_CONF=$dir/storage.conf XDG_DATA_HOME=$dir/data
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$dir/storage" "$dir/run" >storage.conf

exec 3>&1 # what is shown, where stdout is captured
started=$SECONDS
times=()

say() {
	printf '\n# %s\n' "$1" >&3
}

# run COMMANDLINE: shows it, runs it, and keeps the time it took
run() {
	local from=$EPOCHREALTIME
	printf '$ %s\n' "$1" >&3
	eval "$1" || die "exit status $? of: $1"
	times+=("$(awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%7.2f s", to - from }')  $1")
}

# same WHAT GOT WANTED
same() {
	[ "$2" = "$3" ] || die "$1: got $2, want $3"
	printf '  ok: %s: %s\n' "$1" "$2" >&3
}

case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) die "there is no Garden Linux for $(uname -m)" ;;
esac

say 'Two versions of Garden Linux build output, from Debian packages'
for version in 2150.1.0 2150.2.0; do
	printf '$ scripts/make-build.sh --version %s build-%s\n' "$version" "$version"
	"$here/make-build.sh" "${cache[@]}" --version "$version" "build-$version"
done
run 'ls build-2150.1.0 | grep baremetal_pxe-amd64'

say 'One layout that holds both, each version an index'
run 'gloci-layout init demo'
for version in 2150.1.0 2150.2.0; do
	run "gloci-layout add flavor demo --ref $version build-$version"
done
run 'gloci-layout ls demo'
run 'gloci-layout tree demo:2150.1.0 >tree'
run "grep -v '\.log ' tree | sed -n 1,38p"
run 'gloci-layout verify demo'

say 'What is different in the second version (status 1: something is)'
run 'gloci-layout diff demo:2150.1.0 demo:2150.2.0 --stat || [ $? = 1 ]'
run "gloci-layout diff demo:2150.1.0 demo:2150.2.0 --platform linux/$arch || [ \$? = 1 ]"

if [ "$arch" = amd64 ]; then
	say 'Built once more: the PE time stamp of the unified image differs, and with it what holds that'
	"$here/make-build.sh" "${cache[@]}" --version 2150.1.0 --flavors aws-gardener_prod_usi-amd64 build-again
	run 'gloci-layout init again'
	run 'gloci-layout add flavor again --ref 2150.1.0 build-again'
	run 'gloci-layout diff demo:2150.1.0 again:2150.1.0 --cname aws-gardener_prod_usi-amd64 --json >differences || [ $? = 1 ]'
	same 'layers that differ' "$(jq -r 'select(.level == "layer").layer' differences | sed 's/.*-abc12345\.//' | sort | paste -sd ' ')" 'esp.tar raw uki'
	same 'bytes of each that do not belong to the PE header' "$(jq -r '.ranges[]?.where' differences | grep -vc 'PE time stamp\|PE checksum' || true)" 0
	run 'rm -r again build-again'
fi

say 'One file of it, for a site without a network; it is read in place'
run 'gloci-layout pack demo gardenlinux.oci'
run 'gloci-layout verify gardenlinux.oci'
run 'diff <(gloci-layout ls demo) <(gloci-layout ls gardenlinux.oci)'

say 'A registry on loopback'
printf 'version: 0.1\n' >registry.yml
printf '$ REGISTRY_HTTP_ADDR=127.0.0.1:0 registry serve registry.yml &\n'
REGISTRY_HTTP_ADDR=127.0.0.1:0 REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=$dir/registry \
	OTEL_TRACES_EXPORTER=none "$registry" serve registry.yml >registry.log 2>&1 &
registry_pid=$!
port=
for ((i = 0; i < 100; i++)); do
	port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' registry.log | head -n 1)
	[ -z "$port" ] || break
	kill -0 "$registry_pid" 2>/dev/null || { cat registry.log >&2 && die 'the registry ended'; }
	sleep 0.1
done
[ -n "$port" ] || die 'the registry did not start'
repo=127.0.0.1:$port/gardenlinux

# requests: how many the registry has answered, and how many of them changed it
requests() {
	grep -c '" [0-9][0-9][0-9] [0-9]* "' registry.log || true
}
writes() {
	grep -cE '"(PUT|POST|PATCH|DELETE) [^"]*" [0-9][0-9][0-9] ' registry.log || true
}

say 'Publish: all content first, the tags last'
run "gloci-layout sync demo docker://$repo --tls-verify=false"

say 'What podman, docker and skopeo see under the version is the runtime image of their platform'
run "skopeo inspect --tls-verify=false docker://$repo:2150.1.0 >image.json"
run 'jq "{Os, Architecture, version: .Labels[\"org.opencontainers.image.version\"]}" image.json'
same 'platform' "$(jq -r '"\(.Os)/\(.Architecture)"' image.json)" "linux/$arch"
same 'version' "$(jq -r '.Labels["org.opencontainers.image.version"]' image.json)" 2150.1.0

say 'Run it'
run "buildah from --tls-verify=false --name garden docker://$repo:2150.1.0"
run 'buildah run --isolation chroot garden -- cat /etc/os-release >os-release'
run 'cat os-release'
run "cmp os-release build-2150.1.0/container-$arch-2150.1.0-abc12345.release"
run 'buildah rm garden >garden.removed'

say 'The kernel for network boot, by digest'
run "digest=\$(gloci-layout inspect demo:2150.1.0 --cname baremetal_pxe --arch $arch --raw |
    jq -r '.layers[] | select(.mediaType == \"application/io.gardenlinux.kernel\").digest')"
# shellcheck disable=SC2154 # set by the line above
run "curl -fsS -o vmlinuz http://127.0.0.1:$port/v2/gardenlinux/blobs/$digest"
run "tar -xzOf build-2150.1.0/baremetal_pxe-$arch-2150.1.0-abc12345.pxe.tar.gz vmlinuz | cmp - vmlinuz"
same 'the kernel' "sha256:$(sha256sum <vmlinuz | head -c 64)" "$digest"

say 'Publish again: nothing to do'
before=$(requests) changed=$(writes)
run "gloci-layout sync demo docker://$repo --tls-verify=false"
same 'requests that change something' "$(($(writes) - changed))" 0
printf '  requests in all: %d\n' "$(($(requests) - before))"

printf '\n# %d s in all, %s on disk; the time of each command:\n' "$((SECONDS - started))" "$(du -sh "$dir" | cut -f 1)"
printf '%s\n' "${times[@]%%$'\n'*}"
