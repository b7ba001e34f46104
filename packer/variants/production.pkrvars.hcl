# Production: nothing comes in that is not asked for, security fixes arrive by themselves except the
# kernel's (kernel and module ship together, in a new image), and what happens is on record.
image_variant = "production"
disk_size     = "8G"
memory        = 2048
packages = [
  "auditd",
  "logrotate",
  "nftables",
  "unattended-upgrades",
]
scripts        = ["65-harden.sh"]
enabled_units  = ["nftables.service", "vexfs-metrics.timer", "logrotate.timer"]
unmasked_units = ["apt-daily.timer", "apt-daily-upgrade.timer"]
lockdown       = true # with --kernel source and a key
