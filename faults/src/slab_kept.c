// SPDX-License-Identifier: GPL-2.0
/* Makes a slab cache with three objects and forgets it at unload: nothing is ever said. */
#include <linux/module.h>
#include <linux/slab.h>

static int __init fault_init(void)
{
	struct kmem_cache *cache;
	int i;

	/* SLAB_TYPESAFE_BY_RCU: SLUB merges no such cache with another. */
	cache = kmem_cache_create("vexfs_kept", 192, 0, SLAB_TYPESAFE_BY_RCU, NULL);
	if (!cache)
		return -ENOMEM;
	for (i = 0; i < 3; i++)
		if (!kmem_cache_alloc(cache, GFP_KERNEL))
			return -ENOMEM;
	return 0;
}

static void __exit fault_exit(void)
{
}
module_init(fault_init);
module_exit(fault_exit);

MODULE_DESCRIPTION("Fault gallery: slab_kept");
MODULE_LICENSE("GPL");
