// SPDX-License-Identifier: GPL-2.0
/*
 * Writes one byte behind an object of 40 bytes, into what its cache of 64 has left: only a kernel with
 * KASAN notices.
 */
#include <linux/module.h>
#include <linux/slab.h>

static int __init fault_init(void)
{
	char *object = kmalloc(40, GFP_KERNEL);

	if (!object)
		return -ENOMEM;
	/* The compiler must not know that this is outside. */
	OPTIMIZER_HIDE_VAR(object);
	WRITE_ONCE(object[40], 'x');
	kfree(object);
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: slab_oob");
MODULE_LICENSE("GPL");
