# Working on VexFS: compilers, debuggers, tracers, and the sources of module and control tool, which
# build in the image without network.
image_variant = "development"
disk_size     = "12G"
memory        = 2048
packages = [
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
  "trace-cmd", # the kernel's tracers; bpftrace would bring 120 MB of LLVM for its language
  "vim",
]
scripts      = ["65-sources.sh"]
path_excludes = [
  "/usr/bin/*-lto-dump-12", # link-time optimisation, which neither kernel nor Rust asks gcc for
  "/usr/lib/gcc/x86_64-linux-gnu/12/lto1",
  "/usr/lib/gcc/x86_64-linux-gnu/12/libasan*", # sanitizers of user programs in C
  "/usr/lib/gcc/x86_64-linux-gnu/12/liblsan*",
  "/usr/lib/gcc/x86_64-linux-gnu/12/libtsan*",
  "/usr/lib/gcc/x86_64-linux-gnu/12/libubsan*",
  "/usr/lib/x86_64-linux-gnu/libasan.so*", # what they are linked with
  "/usr/lib/x86_64-linux-gnu/liblsan.so*",
  "/usr/lib/x86_64-linux-gnu/libtsan.so*",
  "/usr/lib/x86_64-linux-gnu/libubsan.so*",
  "/usr/lib/x86_64-linux-gnu/gprofng/*", # a profiler for which perf is here
  "/usr/lib/x86_64-linux-gnu/libgprofng.so*",
  "/usr/share/vim/*/doc/*",
  "/usr/share/vim/*/lang/*",
  "/usr/share/vim/*/tutor/*",
]
debug_module = true
sources      = true
