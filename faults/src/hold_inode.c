// SPDX-License-Identifier: GPL-2.0
/* Takes a reference to the inode of the file path= and never gives it back. */
#include <linux/module.h>
#include <linux/fs.h>
#include <linux/namei.h>

static char *path;
module_param(path, charp, 0400);
MODULE_PARM_DESC(path, "a file of the file system to be harmed");

static int __init fault_init(void)
{
	struct path found;
	int error;

	error = kern_path(path ?: "", LOOKUP_FOLLOW, &found);
	if (error)
		return error;
	ihold(d_inode(found.dentry));
	path_put(&found);
	return 0;
}
module_init(fault_init);

MODULE_DESCRIPTION("Fault gallery: hold_inode");
MODULE_LICENSE("GPL");
