// SPDX-License-Identifier: GPL-2.0
/* Warns while it loads, and then works. */
#include <linux/module.h>
#include <linux/bug.h>

static int __init fault_init(void)
{
	WARN(1, "fault gallery: a warning\n");
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: warn");
MODULE_LICENSE("GPL");
