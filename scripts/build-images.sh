# shellcheck shell=bash disable=SC2154 # variables of make-build.sh
# usage: . scripts/build-images.sh   (from scripts/make-build.sh)
#
# How each file of a build is made from Debian packages. Functions read version,
# commit, minor, cache and SOURCE_DATE_EPOCH of make-build.sh, and write only
# under the directories that they are given.

# make_root ARCH DEBS ROOT: the packages' files, the dpkg database of them, and
# the few things that their maintainer scripts would have made. No foreign code
# runs, so arm64 works anywhere.
make_root() {
	local arch=$1 debs=$2 root=$3 dir deb
	mkdir -p "$root/usr"
	for dir in bin lib lib64 sbin; do
		[ "$dir-$arch" != lib64-arm64 ] || continue
		mkdir "$root/usr/$dir"
		ln -s "usr/$dir" "$root/$dir"
	done
	mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers} "$root/boot/efi" "$root/efi"
	echo "$arch" >"$root/var/lib/dpkg/arch"
	: >"$root/var/lib/dpkg/status"
	for deb in "$debs"/*.deb; do
		add_package "$deb" "$root"
	done
	cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
	cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
	[ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
	ln -sf mawk "$root/usr/bin/awk"
	find "$root/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat \
		>"$root/etc/ssl/certs/ca-certificates.crt"
}

# add_package DEB ROOT: like dpkg --unpack, without documentation and locales, as Garden Linux
add_package() {
	local deb=$1 root=$2 control=$2.control name
	dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory="$root" --keep-directory-symlink \
		--same-permissions --wildcards --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
		--exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*' \
		--exclude='./usr/lib/*/gconv/*' --exclude='./usr/lib/*/perl*' --exclude='./lib/udev/hwdb.d/*'
	rm -rf "$control"
	dpkg-deb --control "$deb" "$control"
	name=$(sed -n 's/^Package: //p' "$control/control")
	! grep -qx 'Multi-Arch: same' "$control/control" || name=$name:$(sed -n 's/^Architecture: //p' "$control/control")
	dpkg-deb --fsys-tarfile "$deb" | tar --list | sed 's|^\.||; s|/$||; s|^$|/.|' >"$root/var/lib/dpkg/info/$name.list"
	[ ! -e "$control/md5sums" ] || cp "$control/md5sums" "$root/var/lib/dpkg/info/$name.md5sums"
	[ ! -e "$control/conffiles" ] || cp "$control/conffiles" "$root/var/lib/dpkg/info/$name.conffiles"
	sed '/^Package: /a Status: install ok installed' "$control/control" >>"$root/var/lib/dpkg/status"
	echo >>"$root/var/lib/dpkg/status"
	rm -rf "$control"
}

# finish_root ROOT FLAVOR: what is the version's and the flavour's own
finish_root() {
	local root=$1 flavor=$2 cname=${2%-*} arch=${2##*-} i long kver deb
	for ((i = 0; i < minor - 1 && i < ${#extras[@]}; i++)); do
		for deb in "$cache/extras/${extras[i]}"_*.deb; do
			add_package "$deb" "$root"
		done
	done
	# os-release and issue are files of base-files, so this is a new version of it
	sed -i "/^Package: base-files\$/,/^\$/s/^Version: .*/&gardenlinux$minor/" "$root/var/lib/dpkg/status"
	long=local
	[ "$commit" = local ] || long=$commit$(printf %s "$commit" | sha256sum | head -c 32)
	features_of "$cname"
	cat >"$root/usr/lib/os-release" <<-END
		ID=gardenlinux
		ID_LIKE=debian
		NAME="Garden Linux"
		PRETTY_NAME="Garden Linux $version"
		IMAGE_VERSION=$version
		VARIANT_ID=$flavor
		HOME_URL="https://gardenlinux.io"
		SUPPORT_URL="https://github.com/gardenlinux/gardenlinux"
		BUG_REPORT_URL="https://github.com/gardenlinux/gardenlinux/issues"
		GARDENLINUX_CNAME=$flavor-$version
		GARDENLINUX_FEATURES=$platform,$elements$flags
		GARDENLINUX_FEATURES_PLATFORMS=$platform
		GARDENLINUX_FEATURES_ELEMENTS=$elements
		GARDENLINUX_FEATURES_FLAGS=${flags#,}
		GARDENLINUX_PLATFORM=$platform
		GARDENLINUX_VERSION=$version
		GARDENLINUX_COMMIT_ID=$commit
		GARDENLINUX_COMMIT_ID_LONG=$long
	END
	ln -sf ../usr/lib/os-release "$root/etc/os-release"
	printf 'Garden Linux %s \\n \\l\n\n' "$version" >"$root/etc/issue"
	echo garden >"$root/etc/hostname"
	if [ "$platform" != container ] && [ -d "$cache/kernel-$arch/modules" ]; then
		kver=$(ls "$cache/kernel-$arch/modules")
		mkdir -p "$root/usr/lib/modules"
		cp -r "$cache/kernel-$arch/modules/$kver" "$root/usr/lib/modules/"
		cp "$cache/kernel-$arch/config" "$root/boot/config-$kver"
		# network boot and unified images bring their kernel beside the root
		[[ $cname = *_pxe* || $cname = *_usi* ]] || cp "$cache/kernel-$arch/vmlinuz" "$root/boot/vmlinuz-$kver"
	fi
}

# features_of CNAME sets platform, elements and flags (with a comma before each)
features_of() {
	local part flag parts
	platform=${1%%[-_]*} elements=base flags=
	[ "$platform" = container ] || elements=base,log,server,ssh
	IFS=- read -r -a parts <<<"$1"
	for part in "${parts[@]}"; do
		[ "${part%%_*}" = "$platform" ] || elements+=,${part%%_*}
		part=_${part#*_}_
		while [[ ${part#_} = *_* ]]; do
			flag=${part#_} flag=${flag%%_*}
			part=${part#"_$flag"}
			[ "$flag" = "${1%%[-_]*}" ] || [[ ,$elements, = *,$flag,* ]] || flags+=,_$flag
		done
	done
	flags=,_slim$flags
}

# tar_root ROOT FILE: the builder's way of making a tar
tar_root() {
	tar --create --directory="$1" --file="$2" --format=pax --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
		--numeric-owner --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
		--transform='s|^\./||' --exclude='./dev/*' .
}

# make_sbom ARCH BASE: CycloneDX, from BASE.manifest
make_sbom() {
	local id
	id=$(printf %s "${2##*/}" | sha256sum)
	jq --null-input --rawfile manifest "$2.manifest" --arg arch "$1" --arg version "$version" \
		--arg time "$(date --date="@$SOURCE_DATE_EPOCH" +%FT%TZ)" \
		--arg id "urn:uuid:${id:0:8}-${id:8:4}-4${id:13:3}-8${id:17:3}-${id:20:12}" '{
			bomFormat: "CycloneDX", specVersion: "1.6", serialNumber: $id, version: 1,
			metadata: {timestamp: $time, component: {type: "operating-system", name: "gardenlinux", version: $version}},
			components: [$manifest | split("\n")[] | select(. != "") | split(" ") |
				{type: "library", name: .[0], version: .[1],
				purl: "pkg:deb/debian/\(.[0])@\(.[1] | @uri)?arch=\($arch)&distro=gardenlinux-\($version)"}]
		}' >"$2.sbom"
}

make_requirements() { # CNAME ARCH
	local uefi=false group=gardenlinux
	[[ $1 != *_usi* ]] || uefi=true
	[ "$2" != arm64 ] || [[ $1 = container* ]] || uefi=true
	[[ $1 != *gardener_prod* ]] || group=gardener
	printf '%s\n' "arch=$2" autoinstall=false "publishing_group=$group" secureboot=false tpm2=false "uefi=$uefi"
}

make_log() { # FLAVOR EXTENSION
	local t=$SOURCE_DATE_EPOCH
	printf '[%s] building %s of %s, version %s\n' "$(date --date="@$t" '+%F %T')" "$2" "$1" "$version"
	printf '[%s] %s done\n' "$(date --date="@$((t + 42))" '+%F %T')" "$1-$version-$commit.$2"
}

# make_oci WORK BASE FLAVOR ARCH: one image in a layout in a tar
make_oci() {
	local layout=$1/oci title='Garden Linux' diffid config layer manifest
	mkdir -p "$layout/blobs/sha256"
	diffid=$(sha256sum <"$2.tar" | head -c 64)
	gzip -n <"$2.tar" >"$layout/layer"
	layer=$(adopt "$layout" layer application/vnd.oci.image.layer.v1.tar+gzip)
	jq --null-input --arg arch "$4" --arg title "$title" --arg version "$version" --arg commit "$commit" \
		--arg diffid "sha256:$diffid" --arg features "$platform,$elements$flags" '{
			architecture: $arch, os: "linux",
			config: {Cmd: ["/bin/bash"], Labels: ({
				title: $title, version: $version, architecture: $arch,
				source: "https://github.com/gardenlinux/gardenlinux", revision: $commit,
				description: "\($title) \($version) \($arch) \($features)"
			} | with_entries(.key |= "org.opencontainers.image." + .))},
			rootfs: {type: "layers", diff_ids: [$diffid]}, history: [{}]
		}' >"$layout/config"
	config=$(adopt "$layout" config application/vnd.oci.image.config.v1+json)
	jq --null-input --argjson config "$config" --argjson layer "$layer" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: [$layer]}' >"$layout/manifest"
	manifest=$(adopt "$layout" manifest application/vnd.oci.image.manifest.v1+json)
	# lower case: podman load refuses container-pythonDev
	jq --null-input --argjson manifest "$manifest" --arg name "${3,,}" '{schemaVersion: 2,
		manifests: [$manifest + {annotations: {"org.opencontainers.image.ref.name": $name}}]}' >"$layout/index.json"
	echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
	tar --create --directory="$layout" --file="$2.oci" --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
		--owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX blobs index.json oci-layout
}

# adopt LAYOUT FILE MEDIATYPE: FILE becomes a blob; prints its descriptor
adopt() {
	local sum size
	sum=$(sha256sum <"$1/$2" | head -c 64)
	size=$(stat --format=%s "$1/$2")
	mv "$1/$2" "$1/blobs/sha256/$sum"
	printf '{"mediaType": "%s", "digest": "sha256:%s", "size": %d}\n' "$3" "$sum" "$size"
}

# make_modules KERNEL DIR: those modules (and what they need) that our images use
make_modules() {
	local kver module file
	kver=$(ls "$1/lib/modules")
	cp "$1/boot/System.map-$kver" "$1/System.map"
	depmod --basedir "$1" --filesyms "$1/System.map" "$kver"
	mkdir -p "$2/$kver"
	for module in loop squashfs overlay isofs vfat nls_ascii nls_cp437 ext4 virtio_blk virtio_net virtio_scsi nvme ena gve; do
		sed -n "s|:||; \|/$module\.ko\( .*\)\{0,1\}\$|p" "$1/lib/modules/$kver/modules.dep" | grep "^[^ ]*/$module\.ko" || true
	done | tr ' ' '\n' | sort -u | while read -r file; do
		[ -n "$file" ] || continue
		install -D --mode=0644 "$1/lib/modules/$kver/$file" "$2/$kver/$file"
	done
	cp "$1"/lib/modules/"$kver"/modules.{builtin,builtin.modinfo,order} "$2/$kver/"
	rm -rf "$1/depmod"
	mkdir -p "$1/depmod/lib/modules"
	mv "$2/$kver" "$1/depmod/lib/modules/"
	depmod --basedir "$1/depmod" --filesyms "$1/System.map" "$kver"
	mv "$1/depmod/lib/modules/$kver" "$2/"
}

# make_initrd BUSYBOX MODULES FILE: brings up the modules and the squashfs behind it
make_initrd() {
	local dir=${3%/*}/../initrd.d
	mkdir -p "$dir"/{bin,dev,proc,sys,run,sysroot,usr/lib/modules}
	install --mode=0755 "$1" "$dir/bin/busybox"
	cp -r "$2"/* "$dir/usr/lib/modules/"
	ln -s usr/lib "$dir/lib"
	cat >"$dir/init" <<-'END'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t devtmpfs dev /dev
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		for module in loop squashfs overlay virtio_blk virtio_net virtio_scsi nvme; do modprobe "$module"; done
		mkdir -p /run/root /run/rw
		mount -t squashfs -o loop,ro /root.squashfs /run/root || exec sh
		mount -t tmpfs rw /run/rw && mkdir /run/rw/upper /run/rw/work
		mount -t overlay -o lowerdir=/run/root,upperdir=/run/rw/upper,workdir=/run/rw/work overlay /sysroot || exec sh
		exec switch_root /sysroot /sbin/init
	END
	chmod 0755 "$dir/init"
	pack_cpio "$dir" | xz --check=crc32 --threads=1 >"$3"
	rm -rf "$dir"
}

# pack_cpio DIR: an archive as the kernel wants it for an initramfs
pack_cpio() {
	find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
	(cd "$1" && find . -print0 | sort -z | cpio --create --null --quiet --format=newc --reproducible --owner=0:0)
}

# make_squashfs WORK: WORK/root.squashfs of WORK/root, without what the boot loader reads.
# mksquashfs refuses its own time options beside SOURCE_DATE_EPOCH.
make_squashfs() {
	env --unset=SOURCE_DATE_EPOCH mksquashfs "$1/root" "$1/root.squashfs" -comp xz -noappend -no-progress -quiet \
		-no-xattrs -mkfs-time "$SOURCE_DATE_EPOCH" -all-time "$SOURCE_DATE_EPOCH" -wildcards -e 'dev/*' 'boot/vmlinuz-*' >/dev/null
}

make_pxe() { # WORK BASE KERNEL
	local pxe=$1/pxe
	mkdir -p "$pxe" "$1/sum"
	make_squashfs "$1"
	mv "$1/root.squashfs" "$pxe/root.squashfs"
	cp "$3/vmlinuz" "$pxe/vmlinuz"
	(cd "$pxe" && sha256sum root.squashfs) >"$1/sum/root.squashfs.sha256sum"
	pack_cpio "$1/sum" | xz --check=crc32 >"$1/sum.cpio"
	cat "$3/initrd" "$1/sum.cpio" >"$pxe/initrd"
	echo 'console=ttyS0,115200 console=tty0 earlyprintk=ttyS0,115200 consoleblank=0 ip=dhcp gl.ovl=/:tmpfs gl.live=1' >"$pxe/cmdline"
	tar --create --directory="$pxe" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
		vmlinuz initrd cmdline root.squashfs | gzip -n >"$2.pxe.tar.gz"
}

# make_uki WORK KERNEL FILE: systemd's EFI stub with kernel, initrd and squashfs in it.
# objcopy writes the time of now into the PE header, as it does for the real one.
make_uki() {
	local work=$1 stub=$2/linuxx64.efi.stub align=4096 offset name file args=()
	mkdir "$work/unified"
	mv "$work/root.squashfs" "$work/unified/root.squashfs"
	pack_cpio "$work/unified" >"$work/unified.cpio" # a squashfs is compressed already
	cat "$2/initrd" "$work/unified.cpio" >"$work/initrd.unified"
	rm -r "$work/unified" "$work/unified.cpio"
	printf 'console=ttyS0,115200 root=/dev/ram0 ro' >"$work/cmdline"
	cp "$work/root/usr/lib/os-release" "$work/osrel"
	offset=$(objdump --section-headers "$stub" | awk '$1 ~ /^[0-9]+$/ { print "0x" $3, "0x" $4 }' |
		while read -r size vma; do echo $((size + vma)); done | sort -n | tail -n 1)
	for name in osrel cmdline linux initrd; do
		case $name in
		linux) file=$2/vmlinuz ;;
		initrd) file=$work/initrd.unified ;;
		*) file=$work/$name ;;
		esac
		offset=$(((offset + align - 1) / align * align))
		args+=(--add-section ".$name=$file" --change-section-vma ".$name=$offset")
		offset=$((offset + $(stat --format=%s "$file")))
	done
	objcopy "${args[@]}" "$stub" "$3"
}

make_usi() { # WORK BASE KERNEL FLAVOR
	local esp=$1/esp
	make_squashfs "$1"
	make_uki "$1" "$3" "$2.uki"
	mkdir -p "$esp/EFI/BOOT" "$esp/EFI/Linux"
	cp "$2.uki" "$esp/EFI/Linux/$4-$version.efi"
	cp "$3/systemd-bootx64.efi" "$esp/EFI/BOOT/BOOTX64.EFI"
	tar --create --directory="$esp" --file="$2.esp.tar" --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
		--owner=0 --group=0 --numeric-owner EFI
	make_esp "$esp" "$1/esp.img"
	make_gpt "$2.raw" "$1/esp.img"
}

# make_disk WORK BASE KERNEL FILE: an ESP with systemd-boot, kernel and initrd, and the root on squashfs
make_disk() {
	local esp=$1/esp
	mkdir -p "$esp/EFI/BOOT" "$esp/loader/entries" "$esp/gardenlinux"
	make_squashfs "$1"
	cp "$3/systemd-bootx64.efi" "$esp/EFI/BOOT/BOOTX64.EFI"
	cp "$3/vmlinuz" "$3/initrd" "$esp/gardenlinux/"
	printf 'timeout 0\n' >"$esp/loader/loader.conf"
	printf 'title Garden Linux %s\nlinux /gardenlinux/vmlinuz\ninitrd /gardenlinux/initrd\noptions root=LABEL=ROOT ro console=ttyS0\n' \
		"$version" >"$esp/loader/entries/gardenlinux.conf"
	make_esp "$esp" "$1/esp.img"
	make_gpt "$4" "$1/esp.img" "$1/root.squashfs"
}

# make_esp DIR FILE: a FAT file system without a loop device
make_esp() {
	local mib
	mib=$(($(du -s --apparent-size --block-size=1M "$1" | cut -f 1) + 8))
	rm -f "$2"
	truncate --size="${mib}M" "$2"
	mformat -i "$2" -N 21500100 -v EFI -h 64 -s 32 -T "$((mib * 2048))" ::
	(cd "$1" && find . -mindepth 1 -type d | sort | while read -r dir; do mmd -i "$2" "::${dir#.}"; done)
	(cd "$1" && find . -type f | sort | while read -r file; do mcopy -i "$2" "$file" "::${file#.}"; done)
}

# mebibytes FILE: its size in MiB, rounded up
mebibytes() {
	echo $((($(stat --format=%s "$1") + 1048575) / 1048576))
}

# make_gpt FILE PARTITION...: EFI first, then the root; identifiers by content's name, not by chance
make_gpt() {
	local disk=$1 start=1 size part script id
	shift
	id=$(printf '%s' "${disk##*/}" | sha256sum)
	script="label: gpt"$'\n'"label-id: ${id:0:8}-${id:8:4}-4${id:13:3}-8${id:17:3}-${id:20:12}"$'\n'
	for part; do
		size=$(mebibytes "$part")
		id=$(printf '%s %s' "${disk##*/}" "${part##*/}" | sha256sum)
		script+="start=${start}MiB, size=${size}MiB, uuid=${id:0:8}-${id:8:4}-4${id:13:3}-8${id:17:3}-${id:20:12}"
		if [ "$part" = "$1" ]; then script+=", type=uefi, name=EFI"; else script+=", type=linux-root-x86-64, name=ROOT"; fi
		script+=$'\n'
		start=$((start + size))
	done
	truncate --size="$((start + 1))M" "$disk"
	sfdisk --quiet "$disk" <<<"$script"
	start=1
	for part; do
		dd if="$part" of="$disk" bs=1M seek="$start" conv=notrunc status=none
		start=$((start + $(mebibytes "$part")))
	done
}

# make_gcpimage WORK BASE: not sparse, since the holes that tar finds depend on the file system
make_gcpimage() {
	tar --create --directory="$1" --format=oldgnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
		--numeric-owner --mode=0644 disk.raw | gzip -n >"$2.gcpimage.tar.gz"
}

make_openstack() { # WORK BASE
	qemu-img convert -f raw -O qcow2 "$1/disk.raw" "$2.qcow2"
	qemu-img convert -f raw -O vmdk -o subformat=streamOptimized "$1/disk.raw" "$2.vmdk"
	# qemu-img draws the content id by lot
	sed --in-place 's/^CID=[0-9a-f]\{8\}$/CID=21500100/' "$2.vmdk"
}
