// SPDX-License-Identifier: GPL-2.0
/* Reading /proc/fault_null follows a NULL pointer: the reader dies, the machine lives on. */
#include <linux/module.h>
#include <linux/proc_fs.h>

static struct { int pad[4]; int value; } *nothing;

static ssize_t fault_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	return READ_ONCE(nothing->value);
}

static const struct proc_ops fault_ops = {
	.proc_read = fault_read,
};

static int __init fault_init(void)
{
	return proc_create("fault_null", 0400, NULL, &fault_ops) ? 0 : -ENOMEM;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: null_in_read");
MODULE_LICENSE("GPL");
