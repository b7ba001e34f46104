# Performance and stress: the load makers and the harness's test programs in the image itself, and a kernel
# that tells what it sees.
image_variant = "testing"
disk_size     = "10G"
memory        = 2048
packages = [
  "fio",
  "iperf3",
  "socat",
  "stress-ng",
  "strace",
]
test_programs = true # vexfs-proof, pjdfstest, fsx
