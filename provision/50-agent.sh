#!/usr/bin/env bash
# The agent. It starts only on a machine whose host hands it a secret; see its unit.
set -euo pipefail

install -D --mode=755 "$PAYLOAD/vexfs-agent" /usr/lib/vexfs/vexfs-agent
install --mode=644 "$PAYLOAD/vexfs-agent.service" /usr/lib/systemd/system/vexfs-agent.service
systemctl --no-reload enable vexfs-agent.service
