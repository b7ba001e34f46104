// SPDX-License-Identifier: GPL-2.0
/* Panics while it loads. */
#include <linux/module.h>
#include <linux/panic.h>

static int __init fault_init(void)
{
	panic("fault gallery: panic at load");
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: panic_at_load");
MODULE_LICENSE("GPL");
