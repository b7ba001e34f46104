// SPDX-License-Identifier: GPL-2.0
/* Symbolic links: short targets live in the inode, long ones in blocks of their own. */
#include "vexfs.h"

#define VEXFS_LINK_SPACE	(VEXFS_BLOCK_SIZE - sizeof(struct vexfs_header))

int vexfs_write_link(handle_t *handle, struct inode *inode, const char *target, unsigned int len)
{
	struct vexfs_map map;
	struct buffer_head *bh;
	unsigned int block, part;
	int err = 0;

	inode->i_size = len;
	if (len <= VEXFS_INLINE_LINK) {
		memcpy(VEXFS_I(inode)->root, target, len);
		return 0;
	}
	for (block = 0; len && !err; block++, len -= part, target += part) {
		part = min_t(unsigned int, len, VEXFS_LINK_SPACE);
		err = vexfs_map_run(handle, inode, block, 1, false, &map);
		if (err)
			break;
		bh = vexfs_new_block(handle, inode->i_sb, map.start, VEXFS_LINK_MAGIC,
				     inode->i_ino, inode->i_generation);
		if (IS_ERR(bh))
			return PTR_ERR(bh);
		memcpy(bh->b_data + sizeof(struct vexfs_header), target, part);
		err = vexfs_dirty(handle, inode->i_sb, bh);
		brelse(bh);
	}
	return err;
}

static const char *vexfs_get_link(struct dentry *dentry, struct inode *inode,
				  struct delayed_call *done)
{
	unsigned int len = i_size_read(inode), at, part;
	struct buffer_head *bh;
	struct vexfs_map map;
	char *target;
	int err = 0;

	if (!dentry)
		return ERR_PTR(-ECHILD);
	target = kmalloc(len + 1, GFP_KERNEL);
	if (!target)
		return ERR_PTR(-ENOMEM);
	for (at = 0; at < len && !err; at += part) {
		part = min_t(unsigned int, len - at, VEXFS_LINK_SPACE);
		err = vexfs_lookup_run(inode, at / VEXFS_LINK_SPACE, 1, &map);
		if (err)
			break;
		bh = vexfs_read_block(inode->i_sb, map.start, VEXFS_LINK_MAGIC, inode->i_ino,
				      inode->i_generation);
		if (IS_ERR(bh)) {
			err = PTR_ERR(bh);
			break;
		}
		memcpy(target + at, bh->b_data + sizeof(struct vexfs_header), part);
		brelse(bh);
	}
	if (err) {
		kfree(target);
		return ERR_PTR(err);
	}
	target[len] = '\0';
	set_delayed_call(done, kfree_link, target);
	return target;
}

const struct inode_operations vexfs_link_iops = {
	.get_link	= vexfs_get_link,
	.setattr	= vexfs_setattr,
	.getattr	= vexfs_getattr,
	.listxattr	= vexfs_listxattr,
};

const struct inode_operations vexfs_fast_link_iops = {
	.get_link	= simple_get_link,
	.setattr	= vexfs_setattr,
	.getattr	= vexfs_getattr,
	.listxattr	= vexfs_listxattr,
};
