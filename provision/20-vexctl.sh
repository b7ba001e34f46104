#!/usr/bin/env bash
# The control tool, its manual pages and completions, and what udev asks it. It is mkfs and fsck too, by the name it
# is called with.
set -euo pipefail

install --mode=755 "$PAYLOAD/vexctl" /usr/sbin/vexctl
for name in mkfs.vexfs fsck.vexfs; do
    ln --symbolic --force vexctl "/usr/sbin/$name"
done
vexctl --version
vexctl man /usr/share/man/man8
gzip --best --no-name --force /usr/share/man/man8/{vexctl,mkfs.vexfs,fsck.vexfs}*.8
install -d /usr/share/bash-completion/completions
vexctl completions bash >/usr/share/bash-completion/completions/vexctl
install -D --mode=644 "$PAYLOAD/60-vexfs.rules" /usr/lib/udev/rules.d/60-vexfs.rules
