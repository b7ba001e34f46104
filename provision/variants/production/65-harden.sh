#!/usr/bin/env bash
# What is not a file to lay down: modes, the kernel held, and mounts without what they do not need.
set -euo pipefail

chmod 640 /etc/audit/rules.d/50-vexfs.rules
chmod 755 /etc/nftables.conf
systemd-tmpfiles --create vexfs-production.conf

# Kernel and module ship together: apt must not bring another one, and one that somebody brings by
# hand must not be booted unasked (60-files.sh laid down kernel-img.conf without links).
# shellcheck disable=SC2016 # dpkg-query's own variables
dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' 'linux-image-*' |
    sed -n 's/^installed //p' | xargs apt-mark hold

# systemd.mount(5) drop-ins do not reach /dev/shm: systemd mounts it before it reads units.
cat >>/etc/fstab <<'FSTAB'
tmpfs /tmp tmpfs nodev,nosuid,noexec,mode=1777,size=25% 0 0
tmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0
/var/tmp /var/tmp none bind,nodev,nosuid,noexec 0 0
/home /home none bind,nodev,nosuid 0 0
FSTAB

# A login shell for nobody who has no password, and no core from anybody.
printf '* hard core 0\n' >/etc/security/limits.d/50-vexfs.conf
sed --in-place --expression='s/^UMASK.*/UMASK 027/' --expression='s/^#\?HOME_MODE.*/HOME_MODE 0700/' /etc/login.defs
chmod 700 /root
# Setuid programs nobody needs here: passwords are not changed by users, mounts are root's.
for program in chfn chsh gpasswd newgrp mount umount; do
    chmod u-s "/usr/bin/$program"
    dpkg-statoverride --force-statoverride-add --add root root 755 "/usr/bin/$program"
done
nft --check --file /etc/nftables.conf
sshd -t
