// SPDX-License-Identifier: GPL-2.0
/* Takes its slab cache down at unload while an object of it still lives. */
#include <linux/module.h>
#include <linux/slab.h>

static struct kmem_cache *cache;
static void *forgotten;

static int __init fault_init(void)
{
	cache = kmem_cache_create("fault_leak", 192, 0, SLAB_TYPESAFE_BY_RCU, NULL);
	if (!cache)
		return -ENOMEM;
	forgotten = kmem_cache_alloc(cache, GFP_KERNEL);
	return forgotten ? 0 : -ENOMEM;
}

static void __exit fault_exit(void)
{
	kmem_cache_destroy(cache);
}
module_init(fault_init);
module_exit(fault_exit);

MODULE_DESCRIPTION("Fault gallery: slab_leak");
MODULE_LICENSE("GPL");
