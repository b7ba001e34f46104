// SPDX-License-Identifier: GPL-2.0
/* Refuses to load. */
#include <linux/module.h>

static int __init fault_init(void)
{
	return -ENODEV;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: refuse");
MODULE_LICENSE("GPL");
