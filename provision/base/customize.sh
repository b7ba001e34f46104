#!/bin/sh
# mmdebstrap customize hook, run on the host: the last steps on the finished root ($1), and the file
# system made of it. In the environment:
#   VEXFS_UNITS     units to enable
#   VEXFS_EXCLUDES  paths no package may have left behind (dpkg leaves what was unpacked before it)
#   VEXFS_KEEP      exceptions to VEXFS_EXCLUDES
#   VEXFS_UUID      of the root file system
#   VEXFS_KERNEL    package of a kernel of our own among the downloaded ones; may be empty
# and as open files 97 (gets the kernel), 98 (gets the package list) and 99 (gets the file system):
# in mmdebstrap's unshare mode the folders they are in cannot be reached from here.
set -eu
root=$1

if [ -n "$VEXFS_KERNEL" ]; then
    chroot "$root" dpkg --install "/var/cache/apt/archives/$VEXFS_KERNEL"
fi

for unit in $VEXFS_UNITS; do
    chroot "$root" systemctl --quiet enable "$unit"
done

# Paths without blanks, from recipe.toml; the shell must not expand them here.
set -f
for path in $VEXFS_EXCLUDES; do
    find "$root" -xdev -path "$root$path" ! -type d | while IFS= read -r file; do
        for keep in $VEXFS_KEEP; do
            # shellcheck disable=SC2254 # $keep is a pattern
            case ${file#"$root"} in $keep) continue 2 ;; esac
        done
        rm -f "$file"
    done
done
set +f
find "$root/usr/share" -xdev -depth -type d -empty -delete

# mmdebstrap keeps services from starting while packages install, and ends that only after this hook.
rm -f "$root/usr/sbin/policy-rc.d"
if [ -e "$root/usr/sbin/start-stop-daemon.REAL" ]; then
    mv "$root/usr/sbin/start-stop-daemon.REAL" "$root/usr/sbin/start-stop-daemon"
fi

# Made at the first boot instead; and no trace of where and when this was built.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/.pwd.lock "$root"/etc/*-
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old \
    "$root"/var/lib/dpkg/*-old "$root"/var/log/apt "$root"/tmp/* "$root"/run/* \
    "$root"/etc/apt/apt.conf.d/??mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap \
    "$root"/etc/dpkg/dpkg.cfg.d/vexfs-build
find "$root/var/log" -type f -delete
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
mv "$root/etc/apt/vexfs.sources" "$root/etc/apt/sources.list.d/debian.sources"
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/0000*

# A bind mount that is not recursive leaves out what mmdebstrap mounted on proc, sys and dev. It is
# in mmdebstrap's own mount namespace and ends with it.
tree=$root/mnt
mount --bind "$root" "$tree"

# "Now" is the kernel's own build time, the same for everyone who builds from these packages.
# .updated tells systemd that nothing below /usr is news (ConditionNeedsUpdate, systemd.unit(5)).
now=$(stat --dereference --format=%Y "$tree/boot/vmlinuz")

# mktirfs packs with the times and inode numbers of its own run: packed again, it is the same for everyone.
for initrd in "$tree"/boot/initrd.img-*; do
    gzip --test "$initrd"
    # shellcheck disable=SC2016 # the inner shell's own variables
    chroot "$tree" sh -euc 'work=$(mktemp -d); cd "$work"
        gzip --decompress --stdout "$1" | cpio --extract --quiet --make-directories
        find . -exec touch --no-dereference --date="@$2" {} +
        find . ! -name . -print0 | LC_ALL=C sort --zero-terminated |
            cpio --create --null --quiet --reproducible --owner=0:0 --format=newc | gzip -9 --no-name >"$1"
        cd /; rm -rf "$work"' sh "${initrd#"$tree"}" "$now"
done
# Inode numbers and times again; ldconfig does without.
rm -f "$tree/var/cache/ldconfig/aux-cache"

: >"$tree/etc/.updated"
: >"$tree/var/.updated"
find "$tree" -newermt "@$now" -exec touch --no-dereference --date="@$now" {} +

cat "$tree/boot/vmlinuz" >/proc/self/fd/97
{
    printf 'epoch\t%s\n' "$now"
    # shellcheck disable=SC2016 # dpkg-query's own variables
    chroot "$tree" dpkg-query --show --showformat='${Package}\t${Version}\t${Architecture}\n'
} >/proc/self/fd/98

E2FSPROGS_FAKE_TIME=$now mke2fs -q -t ext4 -d "$tree" -L vexfs-root -U "$VEXFS_UUID" -m 1 \
    -E "hash_seed=$VEXFS_UUID,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0" /proc/self/fd/99
umount "$tree"
