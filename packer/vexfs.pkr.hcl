# Boots the base disk and makes a VexFS image of it: the part of the build that needs a running system.
#
# image-builder fills in the inputs below. By hand:
#   packer validate packer/vexfs.pkr.hcl
#   packer build -var-file=packer/variants/minimal.pkrvars.hcl -var base_disk=... packer/vexfs.pkr.hcl
# Works with Packer 1.6.6 as it is; newer ones need `packer init packer/plugins` first.

variable "image_variant" {
  type        = string
  default     = "minimal"
  description = "Name of a file in packer/variants."
  validation {
    condition     = var.image_variant != "" && regex_replace(var.image_variant, "^[a-z][a-z0-9-]*$", "") == ""
    error_message = "The image_variant is a name of small letters, digits and dashes."
  }
}

variable "kernel_version" {
  type        = string
  default     = "6.1"
  description = "Kernel series of the base."
  validation {
    condition     = contains(["6.1", "6.12"], var.kernel_version)
    error_message = "The kernel_version is 6.1 or 6.12."
  }
}

variable "vexfs_version" {
  type        = string
  default     = "1.0.0"
  description = "Version the image is labelled with."
  validation {
    condition     = var.vexfs_version != "" && regex_replace(var.vexfs_version, "^[0-9]+\\.[0-9]+\\.[0-9]+([-+.][0-9A-Za-z.-]+)?$", "") == ""
    error_message = "The vexfs_version looks like 1.0.0 or 1.0.0-rc.1."
  }
}

variable "disk_size" {
  type        = string
  default     = "8G"
  description = "Virtual size of the disk, in M, G or T."
  validation {
    condition     = var.disk_size != "" && regex_replace(var.disk_size, "^[1-9][0-9]*[MGT]$", "") == ""
    error_message = "The disk_size looks like 8G."
  }
}

variable "memory" {
  type        = number
  default     = 2048
  description = "Memory of the machine that is provisioned, in MiB."
  validation {
    condition     = var.memory >= 512 && var.memory <= 1048576
    error_message = "The memory is between 512 and 1048576 MiB."
  }
}

variable "enable_testing" {
  type        = bool
  default     = true
  description = "Run the test stage inside the guest."
  validation {
    condition     = contains([true, false], var.enable_testing)
    error_message = "The enable_testing is true or false."
  }
}

variable "enable_validation" {
  type        = bool
  default     = true
  description = "Whether the host validates the finished image; done by vexfs-images, recorded in the image."
  validation {
    condition     = contains([true, false], var.enable_validation)
    error_message = "The enable_validation is true or false."
  }
}

variable "packages" {
  type        = list(string)
  default     = []
  description = "Debian packages of the variant; they are in the base before Packer sees it."
}

variable "path_excludes" {
  type        = list(string)
  default     = []
  description = "Files of packages the variant does without; they are not in the base."
}

variable "scripts" {
  type        = list(string)
  default     = []
  description = "Stages of the variant's own, in provision/variants/<variant>/."
}

variable "enabled_units" {
  type        = list(string)
  default     = []
  description = "Units the variant enables."
}

variable "unmasked_units" {
  type        = list(string)
  default     = []
  description = "Units that other variants have masked."
}

variable "debug_module" {
  type        = bool
  default     = false
  description = "The module keeps its debug information; done by image-builder."
}

variable "sources" {
  type        = bool
  default     = false
  description = "Sources of module and control tool are installed below /usr/src; prepared by image-builder."
}

variable "test_programs" {
  type        = bool
  default     = false
  description = "The harness's test programs are installed; built and laid over the root by image-builder."
}

variable "lockdown" {
  type        = bool
  default     = false
  description = "With a key its kernel trusts, only signed modules are taken; done by image-builder."
}

variable "root_access" {
  type        = string
  default     = "none"
  description = "How root may log in; recorded in the image's manifest."
  validation {
    condition     = contains(["none", "password", "keys", "password and keys"], var.root_access)
    error_message = "The root_access is none, password, keys, or password and keys."
  }
}

# The tree under test, by its vexfs-source.toml.

variable "module" {
  type        = string
  default     = "vexfs"
  description = "Module, as modprobe knows it."
}

variable "fstype" {
  type        = string
  default     = "vexfs"
  description = "File system type, as mount knows it."
}

variable "mkfs" {
  type        = string
  default     = "mkfs.vexfs"
  description = "Command that makes a file system; the device is appended."
}

variable "control" {
  type        = string
  default     = "vexctl"
  description = "Control tool."
}

# Inputs from image-builder.

variable "base_disk" {
  type        = string
  default     = "base.img"
  description = "Bootable disk with the base: raw, and not called .raw (see format)."
}

variable "payload_dir" {
  type        = string
  default     = ""
  description = "Folder with module, programs, configuration and units; empty: provision itself, for `packer validate`."
}

variable "ssh_private_key_file" {
  type        = string
  default     = ""
  description = "Key of this one build."
}

variable "smbios_file" {
  type        = string
  default     = "/dev/null"
  description = "SMBIOS string that hands the public key to the guest as a systemd credential."
}

variable "output_dir" {
  type        = string
  default     = "output-vexfs"
  description = "Where the disk goes; must not exist."
}

variable "console_log" {
  type        = string
  default     = "/dev/null"
  description = "Serial console of the machine."
}

variable "accelerator" {
  type        = string
  default     = "tcg"
  description = "QEMU accelerator."
  validation {
    condition     = contains(["tcg", "kvm"], var.accelerator)
    error_message = "The accelerator is tcg or kvm."
  }
}

variable "ssh_timeout" {
  type        = string
  default     = "5m"
  description = "How long the base may take to answer."
}

locals {
  provision = "${path.root}/../provision"
  payload   = var.payload_dir == "" ? local.provision : var.payload_dir
  stages = concat(
    ["10-module.sh", "20-vexctl.sh", "30-config.sh", "40-service.sh", "50-agent.sh", "55-seed.sh", "60-files.sh"],
    [for script in var.scripts : "variants/${var.image_variant}/${script}"],
    ["70-access.sh"],
    var.enable_testing ? ["80-test.sh"] : [],
    ["90-trim.sh"],
  )
}

source "qemu" "vexfs" {
  disk_image       = true
  iso_url          = var.base_disk
  iso_checksum     = "none"
  skip_resize_disk = true
  disk_size        = var.disk_size
  # Raw, because a discard of less than a qcow2 cluster leaves the data there: a deleted key would
  # still be in the image. Host file systems punch holes by the block.
  format           = "raw"
  disk_interface   = "virtio"
  disk_discard     = "unmap"
  disk_cache       = "unsafe"
  skip_compaction  = true
  output_directory = var.output_dir
  vm_name          = "disk.raw"

  accelerator  = var.accelerator
  machine_type = "q35"
  cpus         = 2
  memory       = var.memory
  headless     = true
  # An attempt at SSH before the guest's network is up costs more than this wait: QEMU's user network
  # has accepted it and repeats its SYN after 6 and 12 seconds only.
  boot_wait = var.accelerator == "kvm" ? "3s" : "14s"
  # A network card without boot ROM: SeaBIOS would spend seconds in it.
  qemuargs = [
    ["-cpu", "max"],
    ["-device", "virtio-net-pci,netdev=user.0,romfile="],
    ["-device", "virtio-rng-pci"],
    ["-serial", "file:${var.console_log}"],
    ["-smbios", "type=11,path=${var.smbios_file}"],
  ]

  communicator           = "ssh"
  ssh_username           = "root"
  ssh_private_key_file   = var.ssh_private_key_file
  ssh_timeout            = var.ssh_timeout
  ssh_handshake_attempts = 1000
  shutdown_command       = "sync; echo u >/proc/sysrq-trigger; sleep 1; echo o >/proc/sysrq-trigger"
  shutdown_timeout       = "2m"
}

build {
  sources = ["source.qemu.vexfs"]

  provisioner "file" {
    # Without a slash at its end the folder itself arrives, below one that is there.
    source      = local.payload
    destination = "/run"
  }

  # One session for all of them: a script of its own costs three, half a second under emulation. What they
  # print arrives in one stream, so that what a script said is behind its name. (file() starts from this folder.)
  provisioner "shell" {
    inline = concat(
      ["set -euo pipefail", "exec 2>&1"],
      [for stage in local.stages : <<-EOF
        printf 'stage: %s\n' '${stage}'
        cat >/run/stage.sh <<'END OF THE STAGE'
        ${file("../provision/${stage}")}
        END OF THE STAGE
        bash /run/stage.sh </dev/null
        EOF
      ],
    )
    inline_shebang = "/usr/bin/env bash"
    remote_folder  = "/run"
    skip_clean     = true
    environment_vars = [
      "PAYLOAD=/run/${basename(local.payload)}",
      "VEXFS_VARIANT=${var.image_variant}",
      "VEXFS_VERSION=${var.vexfs_version}",
      "MODULE=${var.module}",
      "FSTYPE=${var.fstype}",
      "MKFS=${var.mkfs}",
      "CONTROL=${var.control}",
      "ENABLED_UNITS=${join(" ", var.enabled_units)}",
      "UNMASKED_UNITS=${join(" ", var.unmasked_units)}",
    ]
    execute_command = "{{ .Vars }} bash {{ .Path }}"
  }
}
