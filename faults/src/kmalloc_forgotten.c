// SPDX-License-Identifier: GPL-2.0
/*
 * Forgets an object that came from a common cache: only a kernel with kmemleak notices, and only when it
 * is told to look.
 */
#include <linux/module.h>
#include <linux/slab.h>

/* Not __init: kmemleak tells the addresses by the names they have when it looks. */
static noinline int fault_forget(void)
{
	char *object = kmalloc(192, GFP_KERNEL);

	if (!object)
		return -ENOMEM;
	/* The compiler must not know that nobody will ask for it. */
	OPTIMIZER_HIDE_VAR(object);
	WRITE_ONCE(object[0], 'x');
	return 0;
}

static int __init fault_init(void)
{
	return fault_forget();
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: kmalloc_forgotten");
MODULE_LICENSE("GPL");
