// SPDX-License-Identifier: GPL-2.0
/* Calls itself until the stack runs into its guard page. */
#include <linux/module.h>

static noinline int deeper(volatile char *above)
{
	volatile char here[256];

	here[0] = above[0] + 1;
	return deeper(here) + here[0];
}

static int __init fault_init(void)
{
	volatile char first[1] = { 0 };

	return deeper(first) ? -EINVAL : 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: recurse");
MODULE_LICENSE("GPL");
