#!/usr/bin/env bash
# What was installed works on the running system (only with enable_testing).
set -euo pipefail

say() { printf 'test: %s\n' "$*"; }
fail() { say "$*"; exit 1; }
# MOUNT_OPTIONS and LACKS of the source tree.
# shellcheck source=/dev/null
. "$PAYLOAD/source.env"
lacks() { case " $LACKS " in *" $1 "*) ;; *) return 1 ;; esac; }

modprobe "$MODULE"
lsmod | grep --quiet "^$MODULE " || fail "$MODULE is not among the loaded modules"
say "module $MODULE $(cat "/sys/module/$MODULE/version" 2>/dev/null || echo 'without version') is loaded"
grep --quiet "[[:blank:]]$FSTYPE\$" /proc/filesystems || fail "the module registers no file system $FSTYPE"
"$CONTROL" --version
"$CONTROL" status

disk=/run/vexfs-test.img
mnt=/run/vexfs-test
truncate --size=64M "$disk"
mkdir "$mnt"
# shellcheck disable=SC2086 # a command with its options
$MKFS "$disk"
mount -t "$FSTYPE" -o "loop${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}" "$disk" "$mnt"
echo "$VEXFS_VERSION" >"$mnt/file"
umount "$mnt"
mount -t "$FSTYPE" -o "loop,ro${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}" "$disk" "$mnt"
lacks persistence || [ "$(cat "$mnt/file")" = "$VEXFS_VERSION" ] ||
    fail "a file is not the same after a remount"
umount "$mnt"
rm -rf "$disk" "$mnt"

modprobe --remove "$MODULE"
! lsmod | grep --quiet "^$MODULE " || fail "$MODULE is still loaded after modprobe --remove"
say "module unloaded"
if dmesg --level=emerg,alert,crit,err | grep -i "$MODULE"; then
    fail "the kernel complained about $MODULE"
fi
