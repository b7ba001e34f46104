#!/usr/bin/env bash
# The module, where depmod and modprobe look for it.
set -euo pipefail

release=$(uname -r)
install -D --mode=644 "$PAYLOAD/$MODULE.ko" "/lib/modules/$release/extra/vexfs/$MODULE.ko"
depmod "$release"
modinfo --field=vermagic "$MODULE"
