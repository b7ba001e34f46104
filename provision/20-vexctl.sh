#!/usr/bin/env bash
# The control tool; it is mkfs and fsck too, by the name it is called with.
set -euo pipefail

install --mode=755 "$PAYLOAD/vexctl" /usr/sbin/vexctl
for name in mkfs.vexfs fsck.vexfs; do
    ln --symbolic --force vexctl "/usr/sbin/$name"
done
vexctl --version
