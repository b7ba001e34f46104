// SPDX-License-Identifier: GPL-2.0
/* Extended attributes: one block for each inode that has any. */
#include "vexfs.h"

int vexfs_init_security(handle_t *handle, struct inode *inode, struct inode *dir,
			const struct qstr *name)
{
	return 0;
}

/* The inode is being deleted: its attribute block goes too. */
int vexfs_free_attributes(handle_t *handle, struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err = 0;

	if (vi->xattr_block)
		err = vexfs_free_blocks(handle, inode, vi->xattr_block, 1, true);
	vi->xattr_block = 0;
	return err;
}
