// SPDX-License-Identifier: GPL-2.0
/* Sleeps for ever; SIGKILL does not wake it (state D). */
#include <linux/module.h>
#include <linux/sched.h>

static int __init fault_init(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: sleep_for_ever");
MODULE_LICENSE("GPL");
