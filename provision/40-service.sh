#!/usr/bin/env bash
# The service that mounts what fstab and vexfs.conf name.
set -euo pipefail

install --mode=644 "$PAYLOAD/vexfs.service" /usr/lib/systemd/system/vexfs.service
systemctl --no-reload enable vexfs.service
