// SPDX-License-Identifier: GPL-2.0
/* File handles, for name_to_handle_at(2) and NFS: inode number and generation. */
#include <linux/exportfs.h>
#include "super.h"
#include "vexfs.h"

static struct inode *vexfs_nfs_inode(struct super_block *sb, u64 ino, u32 generation)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct buffer_head *bh;
	struct inode *inode;
	u32 group, bit;
	bool used;

	/* A handle may be old or made up: that is no damage. */
	if (ino < VEXFS_ROOT_INO || ino > (u64)sbi->groups * sbi->group_inodes)
		return ERR_PTR(-ESTALE);
	group = vexfs_group_of_ino(sbi, ino);
	bit = (ino - 1) % sbi->group_inodes;
	if (ino != VEXFS_ROOT_INO && ino < VEXFS_FIRST_INO)
		return ERR_PTR(-ESTALE);
	bh = vexfs_read_group(sb, group);
	if (IS_ERR(bh))
		return ERR_CAST(bh);
	used = test_bit_le(bit, ((struct vexfs_group *)bh->b_data)->g_inode_map);
	brelse(bh);
	if (!used)
		return ERR_PTR(-ESTALE);
	inode = vexfs_iget(sb, ino);
	if (!IS_ERR(inode) && (inode->i_generation != generation || !inode->i_nlink)) {
		iput(inode);
		return ERR_PTR(-ESTALE);
	}
	return inode;
}

static struct dentry *vexfs_fh_to_dentry(struct super_block *sb, struct fid *fid, int len, int type)
{
	return generic_fh_to_dentry(sb, fid, len, type, vexfs_nfs_inode);
}

static struct dentry *vexfs_fh_to_parent(struct super_block *sb, struct fid *fid, int len, int type)
{
	return generic_fh_to_parent(sb, fid, len, type, vexfs_nfs_inode);
}

static struct dentry *vexfs_get_parent(struct dentry *child)
{
	return d_obtain_alias(vexfs_iget(child->d_sb, VEXFS_I(d_inode(child))->parent));
}

const struct export_operations vexfs_export_ops = {
	VEXFS_EXPORT_ENCODE
	.fh_to_dentry	= vexfs_fh_to_dentry,
	.fh_to_parent	= vexfs_fh_to_parent,
	.get_parent	= vexfs_get_parent,
};
