# For Packer 1.7 and newer only: `packer init packer/plugins`, once. The distribution's 1.6.6 has its
# plugins built in and does not know this block, so it stands in a folder of its own; newer ones find
# an installed plugin without being pointed at this file again.
packer {
  required_plugins {
    qemu = {
      version = ">= 1.1.0"
      source  = "github.com/hashicorp/qemu"
    }
  }
}
