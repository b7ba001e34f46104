#!/usr/bin/env bash
# Files every image has, those of the variant over them, and the units it wants.
set -euo pipefail

tar --extract --file="$PAYLOAD/files.tar" --directory=/ --no-overwrite-dir --keep-directory-symlink
# shellcheck disable=SC2086 # names of units
[ -z "$UNMASKED_UNITS" ] || systemctl --no-reload unmask $UNMASKED_UNITS
# shellcheck disable=SC2086
[ -z "$ENABLED_UNITS" ] || systemctl --no-reload enable $ENABLED_UNITS
