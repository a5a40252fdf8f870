#!/usr/bin/env bash
# usage: scripts/make-build.sh [--version 2150.1.0] [--commit abc12345] [--flavors A,B,...]
#                              [--packages updates|release] [--cache DIR] OUT
#
# Writes what a Garden Linux build leaves in .build/ to the new directory OUT,
# made from Debian packages: real root file systems, kernels and initrds under
# the names of the real thing. The same version, commit and cache give the same
# bytes, but for the time stamp that objcopy puts into a .uki (and with it into
# the .esp.tar and .raw that hold it).
#
# A flavour is CNAME-ARCH, and its name says what is built beside the tar:
#   container*-{amd64,arm64}  .oci            gcp-*-amd64        .gcpimage.tar.gz
#   *_pxe-{amd64,arm64}       .pxe.tar.gz     openstack-*-amd64  .qcow2 .vmdk
#   *_usi-amd64               .uki .esp.tar .raw      others     .raw
#
# A higher minor version has another base-files and more packages, as releases do.
# With --packages release, kernel and packages are those of Debian's last point
# release, without the updates since: an older build.
# Downloads and root file systems are kept in DIR (default
# ${XDG_CACHE_HOME:-~/.cache}/gloci-layout); remove it to get newer packages.
# Needs the packages that scripts/ci-packages.sh lists under "build"; root
# gets them installed, others need only them (fakeroot stands in).
set -euo pipefail
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1751328000}" # 2025-07-01
umask 022

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/build-images.sh
. "$here/build-images.sh"

die() {
	printf 'make-build: %s\n' "$1" >&2
	exit "${2:-1}"
}

version=2150.1.0
commit=abc12345
flavors=container-amd64,container-arm64,baremetal_pxe-amd64,baremetal_pxe-arm64
flavors+=,aws-gardener_prod_usi-amd64,gcp-gardener_prod-amd64
packages=updates
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/gloci-layout
out=
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in
	--*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
	--version | --commit | --flavors | --packages | --cache)
		[ $# -ge 2 ] || die "$1 needs a value" 64
		declare "${1#--}=$2"
		shift
		;;
	-h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
	-*) die "$1: no such flag" 64 ;;
	*)
		[ -z "$out" ] || die "more than one OUT: $1" 64
		out=$1
		;;
	esac
	shift
done
[ -n "$out" ] || die "which directory to make? see --help" 64
[[ $version =~ ^([0-9]+\.([0-9]+)(\.[0-9]+)?|today)$ ]] || die "$version: not a version like 2150.1.0 or today" 64
# shellcheck disable=SC2034 # build-images.sh reads it
minor=${BASH_REMATCH[2]:-1}
[[ $commit =~ ^([0-9a-f]{8}|local)$ ]] || die "$commit: not a commit of 8 hex digits or local" 64
[[ $packages =~ ^(updates|release)$ ]] || die "$packages: not updates or release" 64
if [ -e "$out" ] && ! rmdir "$out" 2>/dev/null; then
	die "$out: exists"
fi
[[ $flavors != *_usi-* ]] || [ "$(uname -m)" = x86_64 ] || die "objcopy of an amd64 machine is needed for _usi"
IFS=', ' read -r -a flavors <<<"$flavors"
for flavor in "${flavors[@]}"; do
	case $flavor in
	*[!A-Za-z0-9_-]*) die "$flavor: not a flavour" 64 ;;
	azure-* | vmware-* | *_trustedboot-*) die "$flavor: no recipe for this kind of image" 64 ;;
	container*-arm64 | *_pxe-arm64 | *-amd64) ;;
	*) die "$flavor: only amd64, and arm64 of container and _pxe, can be built" 64 ;;
	esac
done

if [ "$(id -u)" != 0 ]; then
	"$here/ci-packages.sh" build
	exec fakeroot -- "$0" "${arguments[@]}" # owners in the root file systems
elif [ -z "${FAKEROOTKEY-}" ]; then
	"$here/ci-packages.sh" build
fi

# ---- the cache: one item per kind of root file system and per kernel

suite=bookworm
mirror=() # mmdebstrap's own: with updates
[ "$packages" = updates ] || mirror=("deb http://deb.debian.org/debian $suite main")
slim="base-files,base-passwd,bash,busybox-static,ca-certificates,coreutils,dash,dpkg,findutils,grep,gzip,kmod,mawk,netbase,sed,tar"
metal=$slim,iproute2,systemd,systemd-sysv,udev
extras=(publicsuffix wireless-regdb) # Architecture: all; one more per minor version
installer=debian-installer-12-netboot-arm64

# download ARCH DIR INCLUDE [COMMAND]: the packages INCLUDE and all that they depend
# on as .deb files in DIR; or what COMMAND gets with that apt. Signatures are
# checked, nothing in the packages is run, the host's sources.list is not read.
download() {
	mkdir -p "$2"
	local log=$2.log
	# shellcheck disable=SC2016 # expanded by the hook
	if ! target=$2 then=${4-} mmdebstrap --mode=chrootless --variant=extract --format=null \
		--architectures="$1" --include="$3" --extract-hook='
			set -eu
			[ -n "$then" ] || cp "$1"/var/cache/apt/archives/*.deb "$target"
			cd "$target"
			export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
			eval "$then"' "$suite" /dev/null "${mirror[@]}" >"$log" 2>&1; then
		cat "$log" >&2
		die "mmdebstrap --architectures=$1 --include=$3 failed"
	fi
}

# cached ITEM COMMAND...: runs COMMAND... FILE to make ITEM of the cache, once.
cached() {
	local item=$cache/$1
	shift
	[ ! -e "$item" ] || return 0
	local work
	work=$(mktemp -d "$cache/tmp.XXXXXX")
	"$@" "$work/item"
	touch --no-create --date="@$SOURCE_DATE_EPOCH" "$work/item"
	mv -T "$work/item" "$item"
	rm -rf "$work"
}

cache_root() { # ARCH KIND FILE
	local work=${3%/*}
	printf '  downloading packages for the %s %s root file system\n' "$1" "$2" >&2
	download "$1" "$work/debs" "${!2}"
	make_root "$1" "$work/debs" "$work/root"
	tar_root "$work/root" "$3"
}

cache_kernel_amd64() { # FILE
	local work=${1%/*}
	printf '  downloading the amd64 kernel\n' >&2
	# shellcheck disable=SC2016 # expanded by the hook
	download amd64 "$work/debs" base-files '
		kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)/\1/p")
		apt-get -o APT::Sandbox::User=root download "$kernel" busybox-static systemd-boot-efi'
	dpkg-deb --extract "$work"/debs/linux-image-*.deb "$work/kernel"
	dpkg-deb --extract "$work"/debs/busybox-static_*.deb "$work/busybox"
	dpkg-deb --extract "$work"/debs/systemd-boot-efi_*.deb "$work/efi"
	mkdir "$1"
	cp "$work"/efi/usr/lib/systemd/boot/efi/{linuxx64.efi.stub,systemd-bootx64.efi} "$1/"
	make_modules "$work/kernel" "$1/modules"
	cp "$work"/kernel/boot/vmlinuz-* "$1/vmlinuz"
	cp "$work"/kernel/boot/config-* "$1/config"
	make_initrd "$work/busybox/bin/busybox" "$1/modules" "$1/initrd"
}

cache_kernel_arm64() { # FILE
	local work=${1%/*} from=usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64
	printf '  downloading the arm64 kernel and initrd (128 MB)\n' >&2
	download amd64 "$work/debs" base-files "apt-get -o APT::Sandbox::User=root download $installer"
	mkdir "$1" "$work/installer"
	dpkg-deb --fsys-tarfile "$work"/debs/*.deb |
		tar --extract --directory="$work/installer" "./$from/linux" "./$from/initrd.gz"
	cp "$work/installer/$from/linux" "$1/vmlinuz"
	cp "$work/installer/$from/initrd.gz" "$1/initrd"
}

cache_extras() { # FILE
	download amd64 "$1" base-files "apt-get -o APT::Sandbox::User=root download ${extras[*]}"
}

# kind_of CNAME ARCH: the root file system that the flavour is made from
kind_of() {
	case $1-$2 in
	*_pxe-amd64) echo metal ;;
	*) echo slim ;;
	esac
}

fill_cache() {
	local jobs=() flavor cname arch
	declare -A wanted=([extras]=cache_extras)
	for flavor; do
		cname=${flavor%-*} arch=${flavor##*-}
		wanted[root-$arch-$(kind_of "$cname" "$arch").tar]="cache_root $arch $(kind_of "$cname" "$arch")"
		[[ $cname = container* ]] || wanted[kernel-$arch]=cache_kernel_$arch
	done
	local item make
	for item in "${!wanted[@]}"; do
		[ ! -e "$cache/$item" ] || continue
		make=${wanted[$item]}
		jobs+=("$item $make")
	done
	[ "${#jobs[@]}" -gt 0 ] || return 0
	printf 'make-build: filling the cache %s\n' "$cache" >&2
	flock 9 # two first runs would download the same twice; cached looks again
	filling=yes
	mkdir -p "$cache"
	for item in "${cache%/*}"/build-*; do
		[ "$item" = "$cache" ] || rm -rf "$item"
	done
	rm -rf "$cache"/tmp.*
	in_parallel cached "${jobs[@]}"
	filling=
}

# in_parallel COMMAND LINE...: COMMAND with the words of each LINE, two at a time
in_parallel() {
	local command=$1 line words pid
	local -a running=()
	shift
	set -m # each job its own process group, so that cleanup can end all of it
	for line; do
		if [ "${#running[@]}" -ge 2 ]; then
			wait "${running[0]}" || exit 1
			running=("${running[@]:1}")
		fi
		read -r -a words <<<"$line"
		"$command" "${words[@]}" &
		running+=("$!")
	done
	for pid in "${running[@]}"; do
		wait "$pid" || exit 1
	done
	set +m
}

# ---- one flavour

build_flavor() {
	local flavor=$1 cname=${1%-*} arch=${1##*-} kind base work file
	kind=$(kind_of "$cname" "$arch")
	base=$tmp/out/$flavor-$version-$commit
	work=$tmp/$flavor
	mkdir "$work"

	mkdir "$work/root"
	tar --extract --same-owner --same-permissions --numeric-owner --directory="$work/root" \
		--file="$cache/root-$arch-$kind.tar"
	finish_root "$work/root" "$flavor"
	tar_root "$work/root" "$base.tar"
	cp "$work/root/usr/lib/os-release" "$base.release"
	dpkg-query --admindir="$work/root/var/lib/dpkg" --show --showformat '${Package} ${Version}\n' |
		sort >"$base.manifest"
	make_sbom "$arch" "$base"
	make_requirements "$cname" "$arch" >"$base.requirements"

	case $flavor in
	container*) make_oci "$work" "$base" "$flavor" "$arch" ;;
	*_pxe-*) make_pxe "$work" "$base" "$cache/kernel-$arch" ;;
	*_usi-*) make_usi "$work" "$base" "$cache/kernel-$arch" "$flavor" ;;
	*)
		make_disk "$work" "$base" "$cache/kernel-$arch" "$work/disk.raw"
		case $flavor in
		gcp-*) make_gcpimage "$work" "$base" ;;
		openstack-*) make_openstack "$work" "$base" ;;
		*) mv "$work/disk.raw" "$base.raw" ;;
		esac
		;;
	esac

	# the order of the builder: what every build has, then the images
	printf "$base.%s\n" tar release manifest requirements sbom >"$work/common"
	find "$tmp/out" -name "${base##*/}.*" | sort | grep -vxF -f "$work/common" | cat "$work/common" - >"$work/list"
	while read -r file; do
		make_log "$flavor" "${file#"$base."}" >"$file.log"
		printf '%s\n%s\n' "${file##*/}" "${file##*/}.log"
	done <"$work/list" >"$base.artifacts"
	ln -s "${base##*/}.artifacts" "$tmp/out/$flavor"
	rm -rf "$work"
	printf '  %s (%s)\n' "$flavor" "$(du -ch "$base".* | tail -n 1 | cut -f 1)" >&2
}

SECONDS=0
# whatever changes what the cache holds changes its name; comments do not
recipe=$(
	{
		declare -f download cached cache_root cache_kernel_amd64 cache_kernel_arm64 cache_extras \
			make_root add_package tar_root make_modules make_initrd pack_cpio
		echo "$suite $slim $metal ${extras[*]} $installer $SOURCE_DATE_EPOCH"
	} | sha256sum | head -c 12
)
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)/build-$recipe
[ "$packages" = updates ] || cache+=/$packages
mkdir -p "${cache%/*}"
exec 9>"${cache%/*}/lock"

mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/${out##*/}
tmp=$(mktemp -d "${out%/*}/.make-build.XXXXXX")
filling=
cleanup() {
	local pid
	for pid in $(jobs -p); do
		kill -TERM -- "-$pid" 2>/dev/null || true
	done
	wait 2>/dev/null # that they were terminated is no news
	rm -rf "$tmp"
	[ -z "$filling" ] || rm -rf "$cache"/tmp.*
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$tmp/out"

fill_cache "${flavors[@]}"
flock --shared 9 # whoever makes a newer cache waits before it removes ours
printf 'make-build: version %s, commit %s\n' "$version" "$commit" >&2
in_parallel build_flavor "${flavors[@]}"
find "$tmp/out" -type f -exec chmod 0644 {} +
find "$tmp/out" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mv -T "$tmp/out" "$out"
printf 'make-build: %s: %s, %d files in %d s\n' "$out" "$(du -sh "$out" | cut -f 1)" \
	"$(find "$out" -type f | wc -l)" "$SECONDS" >&2
