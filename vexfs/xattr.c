// SPDX-License-Identifier: GPL-2.0
/*
 * Extended attributes: one block for each inode that has any, entries one after the other.
 *
 * A change writes the block anew from its entries, so there is no free-space management in it.
 */
#include <linux/capability.h>
#include <linux/security.h>
#include <linux/xattr.h>
#include "super.h"
#include "vector.h"

static struct vexfs_xattr *vexfs_first_xattr(struct buffer_head *bh)
{
	return (struct vexfs_xattr *)(bh->b_data + sizeof(struct vexfs_header));
}

static unsigned int vexfs_xattr_len(const struct vexfs_xattr *x)
{
	return VEXFS_XATTR_LEN(x->x_name_len, le16_to_cpu(x->x_value_len));
}

static struct vexfs_xattr *vexfs_next_xattr(struct vexfs_xattr *x)
{
	return (struct vexfs_xattr *)((char *)x + vexfs_xattr_len(x));
}

static unsigned int vexfs_xattr_count(struct buffer_head *bh)
{
	return le16_to_cpu(((struct vexfs_header *)bh->b_data)->h_count);
}

/* The attribute block, or NULL; every entry's bounds hold when it is returned. */
static struct buffer_head *vexfs_read_xattrs(struct inode *inode)
{
	struct buffer_head *bh;
	struct vexfs_xattr *x;
	unsigned int n;

	if (!VEXFS_I(inode)->xattr_block)
		return NULL;
	bh = vexfs_read_block(inode->i_sb, VEXFS_I(inode)->xattr_block, VEXFS_XATTR_MAGIC,
			      inode->i_ino, inode->i_generation);
	if (IS_ERR(bh))
		return bh;
	x = vexfs_first_xattr(bh);
	for (n = vexfs_xattr_count(bh); n; n--, x = vexfs_next_xattr(x)) {
		unsigned int at = (char *)x - bh->b_data;

		if (at + sizeof(*x) > VEXFS_BLOCK_SIZE || !x->x_name_len ||
		    at + vexfs_xattr_len(x) > VEXFS_BLOCK_SIZE) {
			vexfs_error(inode->i_sb, bh->b_blocknr,
				    "inode %lu has a bad attribute at byte %u", inode->i_ino, at);
			brelse(bh);
			return ERR_PTR(-EUCLEAN);
		}
	}
	return bh;
}

static struct vexfs_xattr *vexfs_find_xattr(struct buffer_head *bh, int index, const char *name)
{
	struct vexfs_xattr *x = vexfs_first_xattr(bh);
	unsigned int n, len = strlen(name);

	for (n = vexfs_xattr_count(bh); n; n--, x = vexfs_next_xattr(x))
		if (x->x_index == index && x->x_name_len == len && !memcmp(x->x_data, name, len))
			return x;
	return NULL;
}

static int vexfs_get_xattr(struct inode *inode, int index, const char *name, void *value,
			   size_t size)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_xattr *x;
	struct buffer_head *bh;
	int ret = -ENODATA;

	down_read(&vi->xattr_lock);
	bh = vexfs_read_xattrs(inode);
	if (IS_ERR_OR_NULL(bh)) {
		ret = bh ? PTR_ERR(bh) : -ENODATA;
		goto unlock;
	}
	x = vexfs_find_xattr(bh, index, name);
	if (x) {
		ret = le16_to_cpu(x->x_value_len);
		if (value && ret <= size)
			memcpy(value, x->x_data + x->x_name_len, ret);
		else if (value)
			ret = -ERANGE;
	}
	brelse(bh);
unlock:
	up_read(&vi->xattr_lock);
	return ret;
}

static void vexfs_put_xattr(struct vexfs_xattr *x, int index, const char *name, const void *value,
			    size_t size)
{
	x->x_index = index;
	x->x_name_len = strlen(name);
	x->x_value_len = cpu_to_le16(size);
	memcpy(x->x_data, name, x->x_name_len);
	memcpy(x->x_data + x->x_name_len, value, size);
}

/* The entries of @old but the one called so, then the new one, in @image. Returns the count. */
static int vexfs_build_xattrs(char *image, struct buffer_head *old, int index, const char *name,
			      const void *value, size_t size)
{
	struct vexfs_xattr *skip = old ? vexfs_find_xattr(old, index, name) : NULL, *x;
	unsigned int n = old ? vexfs_xattr_count(old) : 0, at = 0, count = 0;

	for (x = old ? vexfs_first_xattr(old) : NULL; n; n--, x = vexfs_next_xattr(x)) {
		if (x == skip)
			continue;
		memcpy(image + at, x, vexfs_xattr_len(x));
		at += vexfs_xattr_len(x);
		count++;
	}
	if (!value)
		return count;
	if (at + VEXFS_XATTR_LEN(strlen(name), size) > VEXFS_XATTR_SPACE)
		return -ENOSPC;
	vexfs_put_xattr((struct vexfs_xattr *)(image + at), index, name, value, size);
	return count + 1;
}

static int vexfs_write_xattrs(handle_t *handle, struct inode *inode, struct buffer_head *bh,
			      const char *image, int count)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err;
	u32 got;

	if (!count) {
		err = bh ? vexfs_free_blocks(handle, inode, vi->xattr_block, 1, true) : 0;
		if (!err)
			vi->xattr_block = 0;
		return err;
	}
	if (bh) {
		get_bh(bh);
		err = vexfs_access(handle, inode->i_sb, bh);
	} else {
		u64 goal = vexfs_group_first(vexfs_group_of_ino(VEXFS_SB(inode->i_sb),
								inode->i_ino));

		err = vexfs_alloc_blocks(handle, inode, goal, 1, true, &vi->xattr_block, &got);
		if (err)
			return err;
		bh = vexfs_new_block(handle, inode->i_sb, vi->xattr_block, VEXFS_XATTR_MAGIC,
				     inode->i_ino, inode->i_generation);
		if (IS_ERR(bh))
			return PTR_ERR(bh);
	}
	if (!err) {
		((struct vexfs_header *)bh->b_data)->h_count = cpu_to_le16(count);
		memcpy(bh->b_data + sizeof(struct vexfs_header), image, VEXFS_XATTR_SPACE);
		err = vexfs_dirty(handle, inode->i_sb, bh);
	}
	brelse(bh);
	return err;
}

static int vexfs_set_xattr(handle_t *handle, struct inode *inode, int index, const char *name,
			   const void *value, size_t size, int flags)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct buffer_head *bh;
	bool exists;
	char *image;
	int err;

	if (strlen(name) > VEXFS_NAME_MAX)
		return -ERANGE;
	if (size > VEXFS_XATTR_SPACE)
		return -ENOSPC;
	image = kzalloc(VEXFS_XATTR_SPACE, GFP_NOFS);
	if (!image)
		return -ENOMEM;
	down_write(&vi->xattr_lock);
	bh = vexfs_read_xattrs(inode);
	if (IS_ERR(bh)) {
		err = PTR_ERR(bh);
		bh = NULL;
		goto out;
	}
	exists = bh && vexfs_find_xattr(bh, index, name);
	err = -EEXIST;
	if (exists && (flags & XATTR_CREATE))
		goto out;
	err = -ENODATA;
	if (!exists && ((flags & XATTR_REPLACE) || !value))
		goto out;
	err = vexfs_build_xattrs(image, bh, index, name, value, size);
	if (err >= 0)
		err = vexfs_write_xattrs(handle, inode, bh, image, err);
	if (!err) {
		inode_set_ctime_current(inode);
		err = vexfs_update_inode(handle, inode);
	}
out:
	up_write(&vi->xattr_lock);
	brelse(bh);
	kfree(image);
	return err;
}

static int vexfs_xattr_get(const struct xattr_handler *handler, struct dentry *unused,
			   struct inode *inode, const char *name, void *value, size_t size)
{
	return vexfs_get_xattr(inode, handler->flags, name, value, size);
}

static int vexfs_xattr_set(const struct xattr_handler *handler, struct mnt_idmap *idmap,
			   struct dentry *unused, struct inode *inode, const char *name,
			   const void *value, size_t size, int flags)
{
	int err, retries = 0;
	handle_t *handle;

	do {
		handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_XATTR + VEXFS_CREDITS_INODE);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		err = vexfs_set_xattr(handle, inode, handler->flags, name, value, size, flags);
		err = vexfs_end(handle, err);
	} while (vexfs_retry_alloc(inode->i_sb, err, &retries));
	return err;
}

static bool vexfs_trusted_list(struct dentry *dentry)
{
	return capable(CAP_SYS_ADMIN);
}

static const struct xattr_handler vexfs_user_handler = {
	.prefix	= XATTR_USER_PREFIX,
	.flags	= VEXFS_XATTR_USER,
	.get	= vexfs_xattr_get,
	.set	= vexfs_xattr_set,
};

static const struct xattr_handler vexfs_trusted_handler = {
	.prefix	= XATTR_TRUSTED_PREFIX,
	.flags	= VEXFS_XATTR_TRUSTED,
	.list	= vexfs_trusted_list,
	.get	= vexfs_xattr_get,
	.set	= vexfs_xattr_set,
};

static const struct xattr_handler vexfs_security_handler = {
	.prefix	= XATTR_SECURITY_PREFIX,
	.flags	= VEXFS_XATTR_SECURITY,
	.get	= vexfs_xattr_get,
	.set	= vexfs_xattr_set,
};

const struct xattr_handler *vexfs_xattr_handlers[] = {
	&vexfs_user_handler,
	&vexfs_trusted_handler,
	&vexfs_security_handler,
	NULL
};

static const struct xattr_handler *vexfs_handler_of(int index)
{
	int i;

	for (i = 0; vexfs_xattr_handlers[i]; i++)
		if (vexfs_xattr_handlers[i]->flags == index)
			return vexfs_xattr_handlers[i];
	return NULL;
}

ssize_t vexfs_listxattr(struct dentry *dentry, char *list, size_t size)
{
	struct inode *inode = d_inode(dentry);
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct buffer_head *bh;
	struct vexfs_xattr *x;
	ssize_t used = 0;
	unsigned int n;

	down_read(&vi->xattr_lock);
	bh = vexfs_read_xattrs(inode);
	if (IS_ERR_OR_NULL(bh)) {
		used = PTR_ERR(bh);	/* 0: none */
		goto unlock;
	}
	x = vexfs_first_xattr(bh);
	for (n = vexfs_xattr_count(bh); n && used >= 0; n--, x = vexfs_next_xattr(x)) {
		const struct xattr_handler *handler = vexfs_handler_of(x->x_index);
		size_t prefix, len;

		if (!handler || (handler->list && !handler->list(dentry)))
			continue;
		prefix = strlen(handler->prefix);
		len = prefix + x->x_name_len + 1;
		if (list && used + len > size) {
			used = -ERANGE;
			break;
		}
		if (list) {
			memcpy(list + used, handler->prefix, prefix);
			memcpy(list + used + prefix, x->x_data, x->x_name_len);
			list[used + len - 1] = '\0';
		}
		used += len;
	}
	brelse(bh);
unlock:
	up_read(&vi->xattr_lock);
	return used;
}

static int vexfs_init_xattrs(struct inode *inode, const struct xattr *xattrs, void *handle)
{
	const struct xattr *xattr;
	int err = 0;

	for (xattr = xattrs; xattr->name && !err; xattr++)
		err = vexfs_set_xattr(handle, inode, VEXFS_XATTR_SECURITY, xattr->name,
				      xattr->value, xattr->value_len, XATTR_CREATE);
	return err;
}

/* The labels a security module gives a new inode, in the transaction that makes it. */
int vexfs_init_security(handle_t *handle, struct inode *inode, struct inode *dir,
			const struct qstr *name)
{
	return security_inode_init_security(inode, dir, name, vexfs_init_xattrs, handle);
}

/* The inode is being deleted: its attribute block and its vector go too. */
int vexfs_free_attributes(handle_t *handle, struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err = 0;

	if (vi->xattr_block)
		err = vexfs_free_blocks(handle, inode, vi->xattr_block, 1, true);
	vi->xattr_block = 0;
	return err ? err : vexfs_free_vector(handle, inode);
}
