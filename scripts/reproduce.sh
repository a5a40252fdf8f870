#!/usr/bin/env bash
# usage: scripts/reproduce.sh [--gloci FILE] [--build DIR]   (make reproduce)
#
# Same input, same bytes. Builds the program twice, in directories of different
# names, the second time with an empty build cache, another umask and time zone;
# then adds and packs one build directory under another umask, time zone, locale,
# user (root only), order of file creation, file times and number of processors.
# All programs and all .oci files must have one sha256 each.
#
# --gloci FILE uses this program and builds none; --build DIR packs a real build
# directory (of scripts/make-build.sh) in place of a small one made here.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
gloci=
build=

die() {
	printf 'reproduce: %s\n' "$1" >&2
	exit "${2:-1}"
}

while [ $# -gt 0 ]; do
	case $1 in
	--gloci | --build)
		[ $# -ge 2 ] || die "$1 needs a value" 64
		declare "${1#--}=$(realpath "$2")"
		shift
		;;
	-h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
	*) die "$1: no such flag" 64 ;;
	esac
	shift
done

work=$(mktemp -d "${TMPDIR:-/tmp}/gloci-reproduce.XXXXXX")
chmod 0755 "$work" # for the other user
trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=false
# compare WHAT DIGEST WANTED
compare() {
	if [ "$2" = "$3" ]; then
		printf '%s  %s\n' "$2" "$1"
	else
		printf '%s  %s  DIFFERS\n' "$2" "$1"
		failed=true
	fi
}

sha256() {
	sha256sum <"$1" | head -c 64
}

# ---- the program

# checkout DIR: the work tree as it is, with what git knows of it
checkout() {
	if ! git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
		cp -r "$root" "$1"
		return
	fi
	git clone --quiet --no-checkout "$root" "$1"
	git -C "$root" ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d '' file; do [ ! -e "$root/$file" ] || printf '%s\0' "$file"; done |
		tar --create --directory="$root" --null --files-from=- | tar --extract --directory="$1"
	git -C "$1" reset --quiet
}

if [ -z "$gloci" ]; then
	checkout "$work/a"
	mkdir "$work/elsewhere"
	checkout "$work/elsewhere/deeper"
	version=$(git -C "$root" describe --tags --always --dirty --match 'v*' 2>/dev/null || echo unknown)
	make --no-print-directory -C "$work/a" build VERSION="$version" >/dev/null
	(
		umask 077
		TZ=Pacific/Kiritimati GOCACHE=$work/cache make --no-print-directory \
			-C "$work/elsewhere/deeper" build VERSION="$version" >/dev/null
	)
	gloci=$work/a/bin/gloci-layout
	printf '# the program, %s\n' "$(go version)"
	first=$(sha256 "$gloci")
	compare 'built once' "$first" "$first"
	compare 'elsewhere, with an empty cache' "$(sha256 "$work/elsewhere/deeper/bin/gloci-layout")" "$first"
	chmod -R u+w "$work/cache" && rm -rf "$work/cache"
fi
install --mode=0755 "$gloci" "$work/gloci-layout"

# ---- a pack

# small_build DIR: the files of three flavours, a few bytes each
small_build() {
	local flavor base file features
	mkdir "$1" "$work/parts"
	for flavor in container-amd64 baremetal_pxe-amd64 aws-gardener_prod_usi-amd64; do
		base=$1/$flavor-2150.1.0-abc12345
		case $flavor in
		container*) features=container,base,_slim ;;
		*_pxe-*) features=baremetal,base,_pxe ;;
		*) features=aws,base,gardener,_prod,_usi ;;
		esac
		for file in tar manifest sbom requirements; do
			printf '%s of %s\n' "$file" "$flavor" >"$base.$file"
		done
		printf 'arch=amd64\nuefi=true\n' >"$base.requirements"
		printf '%s\n' ID=gardenlinux "GARDENLINUX_CNAME=$flavor-2150.1.0" GARDENLINUX_VERSION=2150.1.0 \
			"GARDENLINUX_FEATURES=$features" GARDENLINUX_COMMIT_ID=abc12345 >"$base.release"
		case $flavor in
		container*) small_oci "$base.oci" "$flavor" ;;
		*_pxe-*)
			for file in vmlinuz initrd cmdline root.squashfs; do echo "$file" >"$work/parts/$file"; done
			plain_tar "$work/parts" vmlinuz initrd cmdline root.squashfs | gzip -n >"$base.pxe.tar.gz"
			;;
		*_usi-*) for file in uki esp.tar raw; do echo "$file" >"$base.$file"; done ;;
		esac
		for file in "$base".*; do
			printf '[2025-07-01 00:00:00] %s\n' "${file##*/}" >"$file.log"
		done
		find "$1" -name "$flavor-*" -printf '%f\n' | sort >"$work/list"
		mv "$work/list" "$base.artifacts"
	done
	rm -r "$work/parts"
}

# plain_tar DIR FILE...: the same on every machine, so that its digests can be compared
plain_tar() {
	local dir=$1
	shift
	tar --create --directory="$dir" --format=ustar --sort=name --mtime=@1751328000 --owner=0 --group=0 \
		--numeric-owner --mode=u=rwX,go=rX "$@"
}

# small_oci FILE REFNAME: an image with one empty layer
small_oci() {
	local oci=$work/oci layer config manifest
	mkdir -p "$oci/blobs/sha256"
	head -c 10240 /dev/zero >"$oci/tar"
	gzip -n <"$oci/tar" >"$oci/layer"
	layer=$(adopt "$oci/layer" application/vnd.oci.image.layer.v1.tar+gzip)
	printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/bash"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{}]}\n' \
		"$(sha256 "$oci/tar")" >"$oci/config"
	config=$(adopt "$oci/config" application/vnd.oci.image.config.v1+json)
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}\n' \
		"$config" "$layer" >"$oci/manifest"
	manifest=$(adopt "$oci/manifest" application/vnd.oci.image.manifest.v1+json)
	printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}\n' \
		"${manifest%\}}" "$2" >"$oci/index.json"
	echo '{"imageLayoutVersion":"1.0.0"}' >"$oci/oci-layout"
	plain_tar "$oci" blobs index.json oci-layout >"$1"
	rm -r "$oci"
}

# adopt FILE MEDIATYPE: FILE becomes a blob; prints its descriptor
adopt() {
	local sum size
	sum=$(sha256 "$1") size=$(stat --format=%s "$1")
	mv "$1" "${1%/*}/blobs/sha256/$sum"
	printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$2" "$sum" "$size"
}

# pack NAME BUILD COMMAND...: prints the digest of the file that init, add and pack
# make of BUILD, run by COMMAND...
pack() {
	local name=$1 from=$2
	shift 2
	mkdir -m 0777 "$work/pack-$name"
	chmod 0777 "$work/pack-$name"
	# shellcheck disable=SC2016 # expanded by the inner shell
	"$@" sh -euc '
		[ -z "${MASK-}" ] || umask "$MASK"
		cd "$1"
		"$2" init --quiet layout
		"$2" add flavor --quiet layout --ref 2150.1.0 "$3"
		"$2" pack --quiet layout layout.oci' - "$work/pack-$name" "$work/gloci-layout" "$from" >&2 ||
		die "packing under: $*"
	sha256 "$work/pack-$name/layout.oci"
	chmod -R u+rwX "$work/pack-$name"
	rm -rf "$work/pack-$name"
}

# reversed FROM TO: the same files, made in the opposite order, at another time
reversed() {
	mkdir "$2"
	find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort --reverse | while read -r file; do
		cp --no-dereference "$1/$file" "$2/$file"
		touch --no-dereference --date='1999-12-31 23:59:58 UTC' "$2/$file"
	done
}

if [ -z "$build" ]; then
	build=$work/build
	small_build "$build"
fi
reversed "$build" "$work/reversed"
chmod -R a+rX "$work/reversed"

printf '# the pack of %s\n' "$([ "$build" = "$work/build" ] && echo 'a small build directory' || echo "$build")"
one=$(pack plain "$build" env)
compare 'as it is' "$one" "$one"
check() {
	local name=$1
	shift
	compare "$name" "$(pack "$@")" "$one"
}
check 'again' again "$build" env
check 'umask 077' umask "$build" env MASK=077
check 'umask 000' umask "$build" env MASK=000
check 'TZ=Pacific/Kiritimati' tz "$build" env TZ=Pacific/Kiritimati
check 'LC_ALL=tr_TR.UTF-8' locale "$build" env LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8
check 'files made in reverse order, in 1999' reversed "$work/reversed" env
check 'GOMAXPROCS=1' one "$build" env GOMAXPROCS=1
check 'GOMAXPROCS=7' seven "$build" env GOMAXPROCS=7
all=(env MASK=027 TZ=America/St_Johns LC_ALL=de_DE.UTF-8 GOMAXPROCS=3)
if [ "$(id -u)" = 0 ]; then
	all=(setpriv --reuid=65534 --regid=65534 --clear-groups "${all[@]}" HOME=/nonexistent)
	check 'user 65534' user "$work/reversed" setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent
else
	printf 'reproduce: another user: not tried, as this is not root\n' >&2
fi
check 'all of these' all "$work/reversed" "${all[@]}"

$failed && die 'the bytes differ'
exit 0
