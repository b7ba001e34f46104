# Working on VexFS: compilers, debuggers, tracers, and the sources of module and control tool, which
# build in the image without network.
image_variant = "development"
disk_size     = "12G"
memory        = 2048
packages = [
  "bpftrace",
  "cargo-web", # the distribution's current Rust
  "dkms",
  "gcc",
  "gdb",
  "htop",
  "libc6-dev",
  "linux-headers-@KERNEL@", # those of the image's own kernel
  "linux-perf",
  "make",
  "patch",
  "perl",
  "rustc-web",
  "strace",
  "vim",
]
scripts      = ["65-sources.sh"]
debug_module = true
sources      = true
