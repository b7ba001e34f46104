#!/usr/bin/env bash
# The sources, ready to be built without network, and the module known to dkms, so that a kernel that
# comes later gets one of its own.
set -euo pipefail

mkdir -p /usr/src/vexfs /usr/src/vexctl
tar --extract --file="$PAYLOAD/vexfs-source.tar" --directory=/usr/src/vexfs
tar --extract --file="$PAYLOAD/vexctl-source.tar" --directory=/usr/src/vexctl
if [ -e /usr/src/vexfs/dkms.conf ]; then
    dkms add /usr/src/vexfs
fi
