// SPDX-License-Identifier: GPL-2.0
/* The vector a file carries: stored in blocks of its own, journaled with the inode. */
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/uaccess.h>
#include "vector.h"

static u32 vexfs_vector_count(u32 dims)
{
	return DIV_ROUND_UP(dims, VEXFS_VECTOR_FLOATS);
}

static struct buffer_head *vexfs_vector_block(struct inode *inode, u64 block, u32 place)
{
	struct buffer_head *bh = vexfs_read_block(inode->i_sb, block, VEXFS_VECTOR_MAGIC,
						  inode->i_ino, inode->i_generation);
	struct vexfs_vector *v;

	if (IS_ERR(bh))
		return bh;
	v = (struct vexfs_vector *)bh->b_data;
	if (le16_to_cpu(v->h.h_level) == place &&
	    (place || le32_to_cpu(v->v_dims) == VEXFS_I(inode)->vector_dims))
		return bh;
	vexfs_error(inode->i_sb, block, "vector of inode %lu does not fit its inode",
		    inode->i_ino);
	brelse(bh);
	return ERR_PTR(-EUCLEAN);
}

/* The disk blocks of a vector, first to last; xattr_lock is held. */
static int vexfs_vector_blocks(struct inode *inode, u64 *blocks)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u32 count = vexfs_vector_count(vi->vector_dims), i;
	struct buffer_head *bh = vexfs_vector_block(inode, vi->vector_block, 0);

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	blocks[0] = vi->vector_block;
	for (i = 1; i < count; i++)
		blocks[i] = le32_to_cpu(((struct vexfs_vector *)bh->b_data)->v_blocks[i - 1]);
	brelse(bh);
	return count;
}

/* Copies vector_dims numbers to @data; xattr_lock is held. */
int vexfs_read_vector(struct inode *inode, u32 *data)
{
	u32 left = VEXFS_I(inode)->vector_dims, part;
	u64 blocks[VEXFS_VECTOR_BLOCKS];
	struct buffer_head *bh;
	int count = vexfs_vector_blocks(inode, blocks), i;

	if (count < 0)
		return count;
	for (i = 0; i < count; i++, left -= part, data += part) {
		bh = vexfs_vector_block(inode, blocks[i], i);
		if (IS_ERR(bh))
			return PTR_ERR(bh);
		part = min_t(u32, left, VEXFS_VECTOR_FLOATS);
		memcpy(data, ((struct vexfs_vector *)bh->b_data)->v_data, part * sizeof(*data));
		brelse(bh);
	}
	return 0;
}

/* Counts a file that got or lost its vector. */
static int vexfs_count_vector(handle_t *handle, struct inode *inode, int change)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(inode->i_sb);
	u32 group = vexfs_group_of_ino(sbi, inode->i_ino);
	struct buffer_head *bh = vexfs_change_group(handle, inode->i_sb, group);
	int err;

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	spin_lock(&sbi->group[group].lock);
	le32_add_cpu(&((struct vexfs_group *)bh->b_data)->g_vectors, change);
	spin_unlock(&sbi->group[group].lock);
	atomic64_add(change, &sbi->vectors);
	err = vexfs_dirty(handle, inode->i_sb, bh);
	brelse(bh);
	return err;
}

/* Takes the vector away; xattr_lock is held for writing, or nobody else knows the inode. */
int vexfs_free_vector(handle_t *handle, struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u64 blocks[VEXFS_VECTOR_BLOCKS];
	int count, i, err = 0;

	vexfs_cache_forget(inode);
	if (!vi->vector_block)
		return 0;
	count = vexfs_vector_blocks(inode, blocks);
	if (count < 0)
		return count;
	for (i = 0; i < count && !err; i++)
		err = vexfs_free_blocks(handle, inode, blocks[i], 1, true);
	vi->vector_block = 0;
	vi->vector_dims = 0;
	return err ? err : vexfs_count_vector(handle, inode, -1);
}

static int vexfs_alloc_vector(handle_t *handle, struct inode *inode, u32 count, u64 *blocks)
{
	u64 goal = vexfs_group_first(vexfs_group_of_ino(VEXFS_SB(inode->i_sb), inode->i_ino));
	int err = 0, freed = 0;
	u32 i, got;

	for (i = 0; i < count && !err; i++) {
		err = vexfs_alloc_blocks(handle, inode, goal, 1, true, &blocks[i], &got);
		goal = blocks[i] + 1;
	}
	if (err == -ENOSPC)
		for (i--; i > 0 && !freed; i--)
			freed = vexfs_free_blocks(handle, inode, blocks[i - 1], 1, true);
	return err;
}

static int vexfs_write_vector(handle_t *handle, struct inode *inode, const u32 *data, u32 dims)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u32 count = vexfs_vector_count(dims), left = dims, part, i, j;
	u64 blocks[VEXFS_VECTOR_BLOCKS];
	int err = vexfs_free_vector(handle, inode);

	if (!err)
		err = vexfs_alloc_vector(handle, inode, count, blocks);
	if (err)
		return err;
	for (i = 0; i < count && !err; i++, left -= part, data += part) {
		struct buffer_head *bh = vexfs_new_block(handle, inode->i_sb, blocks[i],
							 VEXFS_VECTOR_MAGIC, inode->i_ino,
							 inode->i_generation);
		struct vexfs_vector *v;

		if (IS_ERR(bh))
			return PTR_ERR(bh);
		v = (struct vexfs_vector *)bh->b_data;
		part = min_t(u32, left, VEXFS_VECTOR_FLOATS);
		v->h.h_level = cpu_to_le16(i);
		if (!i) {
			v->v_dims = cpu_to_le32(dims);
			for (j = 1; j < count; j++)
				v->v_blocks[j - 1] = cpu_to_le32(blocks[j]);
		}
		memcpy(v->v_data, data, part * sizeof(*data));
		err = vexfs_dirty(handle, inode->i_sb, bh);
		brelse(bh);
	}
	if (err)
		return err;
	vi->vector_block = blocks[0];
	vi->vector_dims = dims;
	return vexfs_count_vector(handle, inode, 1);
}

/* Sets a vector, or with @dims 0 removes it, in one transaction. */
static int vexfs_change_vector(struct inode *inode, const u32 *data, u32 dims)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err, failed, retries = 0;
	handle_t *handle;

	do {
		handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_VECTOR + VEXFS_CREDITS_INODE);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		down_write(&vi->xattr_lock);
		if (dims)
			err = vexfs_write_vector(handle, inode, data, dims);
		else
			err = vi->vector_block ? vexfs_free_vector(handle, inode) : -ENODATA;
		inode_set_ctime_current(inode);
		failed = vexfs_update_inode(handle, inode);
		up_write(&vi->xattr_lock);
		err = vexfs_end(handle, err ? err : failed);
	} while (vexfs_retry_alloc(inode->i_sb, err, &retries));
	return err;
}

static int vexfs_read_arg(struct vexfs_vector_arg *arg, struct vexfs_vector_arg __user *user)
{
	if (copy_from_user(arg, user, sizeof(*arg)))
		return -EFAULT;
	return arg->flags || arg->reserved[0] || arg->reserved[1] ? -EINVAL : 0;
}

/* Numbers from user space: as many as can be, and every one finite. */
u32 *vexfs_user_vector(u64 address, u32 dims)
{
	u32 *data, i;

	if (!dims || dims > VEXFS_DIMS_MAX)
		return ERR_PTR(-EINVAL);
	data = vmemdup_user(u64_to_user_ptr(address), dims * sizeof(*data));
	if (IS_ERR(data))
		return data;
	for (i = 0; i < dims; i++) {
		if ((data[i] & 0x7f800000) == 0x7f800000) {
			kvfree(data);
			return ERR_PTR(-EINVAL);
		}
	}
	return data;
}

static int vexfs_set_vector(struct file *file, struct vexfs_vector_arg __user *user)
{
	struct inode *inode = file_inode(file);
	struct vexfs_vector_arg arg;
	u32 *data;
	int err = vexfs_read_arg(&arg, user);

	if (err)
		return err;
	data = vexfs_user_vector(arg.data, arg.dims);
	if (IS_ERR(data))
		return PTR_ERR(data);
	err = vexfs_change_vector(inode, data, arg.dims);
	kvfree(data);
	return err;
}

static int vexfs_get_vector(struct file *file, struct vexfs_vector_arg __user *user)
{
	struct inode *inode = file_inode(file);
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_vector_arg arg;
	u32 *data, dims = 0;
	int err = vexfs_read_arg(&arg, user);

	if (err)
		return err;
	data = kvmalloc_array(VEXFS_DIMS_MAX, sizeof(*data), GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	down_read(&vi->xattr_lock);
	dims = vi->vector_dims;
	err = dims ? vexfs_read_vector(inode, data) : -ENODATA;
	up_read(&vi->xattr_lock);
	if (!err && put_user(dims, &user->dims))
		err = -EFAULT;
	else if (!err && arg.dims < dims)
		err = -ERANGE;
	else if (!err && copy_to_user(u64_to_user_ptr(arg.data), data, dims * sizeof(*data)))
		err = -EFAULT;
	kvfree(data);
	return err;
}

static int vexfs_for_writing(struct file *file, struct vexfs_vector_arg __user *user)
{
	int err = mnt_want_write_file(file);

	if (err)
		return err;
	err = user ? vexfs_set_vector(file, user) : vexfs_change_vector(file_inode(file), NULL, 0);
	mnt_drop_write_file(file);
	return err;
}

long vexfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct inode *inode = file_inode(file);
	bool regular = S_ISREG(inode->i_mode);

	BUILD_BUG_ON(sizeof(struct vexfs_vector_arg) != 32);
	BUILD_BUG_ON(sizeof(struct vexfs_hit) != 24);
	BUILD_BUG_ON(sizeof(struct vexfs_search_arg) != 64);
	switch (cmd) {
	case FS_IOC_GETVERSION:
		return put_user(inode->i_generation, (int __user *)arg);
	case VEXFS_IOC_SET_VECTOR:
	case VEXFS_IOC_REMOVE_VECTOR:
		if (!regular)
			return -EINVAL;
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		return vexfs_for_writing(file, cmd == VEXFS_IOC_SET_VECTOR ?
					 (struct vexfs_vector_arg __user *)arg : NULL);
	case VEXFS_IOC_GET_VECTOR:
		if (!regular)
			return -EINVAL;
		if (!(file->f_mode & FMODE_READ))
			return -EBADF;
		return vexfs_get_vector(file, (struct vexfs_vector_arg __user *)arg);
	case VEXFS_IOC_SEARCH:
		if (!S_ISDIR(inode->i_mode))
			return -ENOTDIR;
		return vexfs_search_ioctl(file, (struct vexfs_search_arg __user *)arg);
	}
	return -ENOTTY;
}
