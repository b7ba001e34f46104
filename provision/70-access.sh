#!/usr/bin/env bash
# How root gets in: not at all, unless the builder gave a password or keys. What they are comes as
# files of the payload, never as words of a command line.
set -euo pipefail

if [ -e "$PAYLOAD/root-password" ]; then
    # A crypt(5) hash.
    printf 'root:%s\n' "$(cat "$PAYLOAD/root-password")" | chpasswd --encrypted
else
    usermod --lock root
fi
# The build's own key is not in this file: it is a credential of this boot (90-trim.sh removes what
# systemd made of it).
if [ -e "$PAYLOAD/authorized-keys" ]; then
    install -D --mode=600 "$PAYLOAD/authorized-keys" /etc/ssh/authorized_keys.d/root
    printf 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%%u\n' \
        >/etc/ssh/sshd_config.d/20-authorized-keys.conf
fi
