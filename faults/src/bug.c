// SPDX-License-Identifier: GPL-2.0
/* Hits a BUG() while it loads. */
#include <linux/module.h>
#include <linux/bug.h>

static int __init fault_init(void)
{
	BUG();
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: bug");
MODULE_LICENSE("GPL");
