#!/usr/bin/env bash
# usage: scripts/ci-packages.sh [--list] [build|demo|test|lint|model|page]...   (no group: all of them)
#
# The one place that names the Debian packages this project uses outside Go.
# Installs those that are missing, with one apt-get update; as another user than
# root it prints the command and fails. --list only prints the names.
#
#   build  scripts/make-build.sh: Garden Linux build output from Debian packages
#   demo   scripts/demo.sh: what build needs, and the clients that the demo shows
#   test   go test ./...: the peers whose files we read and who read ours
#   lint   make lint, go test -race
#   model  make model
#   page   make page
set -euo pipefail
export LC_ALL=C

packages() {
	case $1 in
	build)
		printf '%s\n' binutils ca-certificates cpio fakeroot fdisk jq kmod mmdebstrap \
			mtools qemu-utils squashfs-tools util-linux xz-utils
		;;
	demo)
		packages build
		printf '%s\n' buildah ca-certificates curl jq skopeo
		;;
	test)
		printf '%s\n' buildah busybox-static ca-certificates containerd curl docker-registry git gpg gpg-agent jq make mmdebstrap pigz podman \
			python3-minimal skopeo umoci util-linux xz-utils zstd
		;;
	lint)
		printf '%s\n' gcc libc6-dev shellcheck
		;;
	model)
		printf '%s\n' gcc libc6-dev spin
		;;
	page)
		printf '%s\n' chromium fonts-inter
		# A node from elsewhere brings its npm, and Debian's would be in its way.
		command -v node >/dev/null && command -v npm >/dev/null || printf '%s\n' nodejs npm
		;;
	*)
		printf 'ci-packages: %s: no such group (build, demo, test, lint, model, page)\n' "$1" >&2
		return 64
		;;
	esac
}

list=false
if [ "${1-}" = --list ]; then
	list=true
	shift
fi
[ $# -gt 0 ] || set -- build demo test lint model page

wanted=()
for group; do
	names=$(packages "$group")
	mapfile -t -O "${#wanted[@]}" wanted <<<"$names"
done
mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)

if $list; then
	printf '%s\n' "${wanted[@]}"
	exit 0
fi

if ! command -v dpkg-query >/dev/null; then
	printf 'ci-packages: this is no Debian: install the equivalents of: %s\n' "${wanted[*]}" >&2
	exit 1
fi

missing=()
for name in "${wanted[@]}"; do
	status=$(dpkg-query --show --showformat '${db:Status-Status}\n' "$name" 2>/dev/null | head -n 1) || status=
	[ "$status" = installed ] || missing+=("$name")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

install=(apt-get install --yes --no-install-recommends "${missing[@]}")
# fakeroot only pretends
if [ "$(id -u)" != 0 ] || [ -n "${FAKEROOTKEY-}" ]; then
	printf 'ci-packages: missing packages; run as root:\n  apt-get update && %s\n' "${install[*]}" >&2
	exit 1
fi
printf 'installing Debian packages: %s\n' "${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && "${install[@]}"; } >"$log" 2>&1; then
	cat "$log" >&2
	printf 'ci-packages: %s failed\n' "${install[*]}" >&2
	exit 1
fi
