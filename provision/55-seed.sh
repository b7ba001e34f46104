#!/usr/bin/env bash
# What reads a NoCloud seed at the first boot; udev starts it when there is one.
set -euo pipefail

install -D --mode=755 "$PAYLOAD/vexfs-seed" /usr/lib/vexfs/vexfs-seed
install --mode=644 "$PAYLOAD/vexfs-seed@.service" /usr/lib/systemd/system/vexfs-seed@.service
install -D --mode=644 "$PAYLOAD/90-vexfs-seed.rules" /usr/lib/udev/rules.d/90-vexfs-seed.rules
