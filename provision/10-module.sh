#!/usr/bin/env bash
# The module, where depmod and modprobe look for it, and what it needs of a kernel.
set -euo pipefail

release=$(uname -r)
install -D --mode=644 "$PAYLOAD/$MODULE.ko" "/lib/modules/$release/extra/vexfs/$MODULE.ko"
depmod "$release"
modinfo --field=vermagic "$MODULE"
# The build has held the kernel against it before it compiled anything.
if [ -e "$PAYLOAD/vexfs.config" ]; then
    install -D --mode=644 "$PAYLOAD/vexfs.config" /etc/vexfs/kernel/vexfs.config
fi

# What the source tree brings besides: mkfs and the like of another file system.
while read -r mode from to; do
    install -D --mode="$mode" "$PAYLOAD/$from" "$to"
done <"$PAYLOAD/install.list"

# The same for a second kernel, which a machine has to ask for.
if [ -e "$PAYLOAD/second-kernel" ]; then
    release=$(cat "$PAYLOAD/second-kernel")
    install -D --mode=644 "$PAYLOAD/second-module.ko" "/lib/modules/$release/extra/vexfs/$MODULE.ko"
    depmod "$release"
fi
