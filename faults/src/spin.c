// SPDX-License-Identifier: GPL-2.0
/* Spins for ever on one processor, with preemption off. */
#include <linux/module.h>
#include <linux/preempt.h>

static int __init fault_init(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: spin");
MODULE_LICENSE("GPL");
