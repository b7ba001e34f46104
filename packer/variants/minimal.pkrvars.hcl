# Core VexFS and nothing else: embedded systems, clouds, container hosts.
# Read by Packer as HCL and by image-builder as TOML: keep to what both understand
# (name = value; strings, numbers, booleans, lists, # comments).
image_variant = "minimal"
disk_size     = "8G"
memory        = 2048
packages      = []
