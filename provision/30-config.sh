#!/usr/bin/env bash
# Configuration, and what this image is.
set -euo pipefail

install -D --mode=644 "$PAYLOAD/vexfs.conf" /etc/vexfs/vexfs.conf
sed --in-place --expression="s/^version = .*/version = $VEXFS_VERSION/" \
    --expression="s/^variant = .*/variant = $VEXFS_VARIANT/" /etc/vexfs/vexfs.conf
