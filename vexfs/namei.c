// SPDX-License-Identifier: GPL-2.0
/* Names: looked up, made, linked, removed, renamed. */
#include "vexfs.h"

static struct dentry *vexfs_lookup(struct inode *dir, struct dentry *dentry, unsigned int flags)
{
	struct inode *inode = NULL;
	struct vexfs_dirent *de;
	struct buffer_head *bh;
	u32 ino;

	if (dentry->d_name.len > VEXFS_NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	de = vexfs_find_entry(dir, &dentry->d_name, &bh);
	if (IS_ERR(de))
		return ERR_CAST(de);
	if (de) {
		ino = le32_to_cpu(de->d_ino);
		brelse(bh);
		inode = vexfs_iget(dir->i_sb, ino);
		if (!IS_ERR(inode) && !inode->i_nlink) {
			vexfs_error(dir->i_sb, 0, "directory %lu names inode %u, which is deleted",
				    dir->i_ino, ino);
			iput(inode);
			return ERR_PTR(-EUCLEAN);
		}
	}
	return d_splice_alias(inode, dentry);
}

/* Makes an inode of any kind and its name, in one transaction. */
static int vexfs_make(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		      umode_t mode, dev_t rdev, const char *target)
{
	struct inode *inode;
	handle_t *handle;
	int err, retries = 0;

	if (S_ISDIR(mode) && dir->i_nlink >= VEXFS_LINK_MAX)
		return -EMLINK;
again:
	handle = vexfs_begin(dir->i_sb, VEXFS_CREDITS_CREATE +
			     (target ? 2 * VEXFS_CREDITS_MAP : 0));
	if (IS_ERR(handle))
		return PTR_ERR(handle);
	inode = vexfs_new_inode(handle, idmap, dir, mode);
	if (IS_ERR(inode)) {
		err = vexfs_end(handle, PTR_ERR(inode));
		goto retry;
	}
	inode->i_rdev = rdev;
	err = target ? vexfs_write_link(handle, inode, target, strlen(target)) : 0;
	if (!err) {
		vexfs_set_ops(inode);
		err = vexfs_init_security(handle, inode, dir, &dentry->d_name);
	}
	if (!err)
		err = vexfs_update_inode(handle, inode);
	if (!err)
		err = vexfs_add_entry(handle, dir, &dentry->d_name, inode);
	if (!err && S_ISDIR(mode)) {
		inc_nlink(dir);
		err = vexfs_update_inode(handle, dir);
	}
	if (err) {
		/* Nobody knows it yet: it is deleted when let go, or by recovery after a crash. */
		clear_nlink(inode);
		if (!vexfs_set_orphan(handle, inode, true))
			vexfs_update_inode(handle, inode);
		unlock_new_inode(inode);
		vexfs_end(handle, err);
		iput(inode);
		goto retry;
	}
	d_instantiate_new(dentry, inode);
	if (IS_DIRSYNC(dir))
		handle->h_sync = 1;
	return vexfs_end(handle, 0);
retry:
	if (vexfs_retry_alloc(dir->i_sb, err, &retries))
		goto again;
	return err;
}

static int vexfs_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			umode_t mode, bool excl)
{
	return vexfs_make(idmap, dir, dentry, mode, 0, NULL);
}

static int vexfs_mknod(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       umode_t mode, dev_t rdev)
{
	return vexfs_make(idmap, dir, dentry, mode, rdev, NULL);
}

static int vexfs_mkdir(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       umode_t mode)
{
	return vexfs_make(idmap, dir, dentry, S_IFDIR | mode, 0, NULL);
}

static int vexfs_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			 const char *target)
{
	if (strlen(target) >= PATH_MAX)
		return -ENAMETOOLONG;
	return vexfs_make(idmap, dir, dentry, S_IFLNK | 0777, 0, target);
}

static int vexfs_link(struct dentry *old, struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(old);
	int err, retries = 0;
	handle_t *handle;

	if (inode->i_nlink >= VEXFS_LINK_MAX)
		return -EMLINK;
	do {
		handle = vexfs_begin(dir->i_sb, VEXFS_CREDITS_NAME + VEXFS_CREDITS_INODE);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		err = vexfs_add_entry(handle, dir, &dentry->d_name, inode);
		if (!err) {
			inode_set_ctime_current(inode);
			inc_nlink(inode);
			err = vexfs_update_inode(handle, inode);
			ihold(inode);
			d_instantiate(dentry, inode);
		}
		err = vexfs_end(handle, err);
	} while (vexfs_retry_alloc(dir->i_sb, err, &retries));
	return err;
}

/* Takes away one link, or all of a directory's; the last makes it an orphan until it is closed. */
static int vexfs_drop_link(handle_t *handle, struct inode *dir, struct inode *inode)
{
	int err = 0;

	inode_set_ctime_to_ts(inode, inode_get_ctime(dir));
	if (S_ISDIR(inode->i_mode)) {
		clear_nlink(inode);
		drop_nlink(dir);
		err = vexfs_update_inode(handle, dir);
	} else {
		drop_nlink(inode);
	}
	if (!err && !inode->i_nlink)
		err = vexfs_set_orphan(handle, inode, true);
	return err ? err : vexfs_update_inode(handle, inode);
}

static int vexfs_unlink(struct inode *dir, struct dentry *dentry)
{
	handle_t *handle = vexfs_begin(dir->i_sb, VEXFS_CREDITS_NAME + VEXFS_CREDITS_INODE);
	int err;

	if (IS_ERR(handle))
		return PTR_ERR(handle);
	err = vexfs_remove_entry(handle, dir, &dentry->d_name);
	if (!err)
		err = vexfs_drop_link(handle, dir, d_inode(dentry));
	if (IS_DIRSYNC(dir))
		handle->h_sync = 1;
	return vexfs_end(handle, err);
}

static int vexfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	return vexfs_dir_empty(d_inode(dentry)) ? vexfs_unlink(dir, dentry) : -ENOTEMPTY;
}

/* A directory that moved has a new parent, and so have the link counts. */
static int vexfs_reparent(handle_t *handle, struct inode *inode, struct inode *from,
			  struct inode *to)
{
	int err;

	if (!S_ISDIR(inode->i_mode) || from == to)
		return 0;
	VEXFS_I(inode)->parent = to->i_ino;
	drop_nlink(from);
	inc_nlink(to);
	err = vexfs_update_inode(handle, from);
	return err ? err : vexfs_update_inode(handle, to);
}

static int vexfs_exchange(handle_t *handle, struct inode *old_dir, struct dentry *old_dentry,
			  struct inode *new_dir, struct dentry *new_dentry)
{
	struct inode *old = d_inode(old_dentry), *new = d_inode(new_dentry);
	struct buffer_head *old_bh = NULL, *new_bh = NULL;
	struct vexfs_dirent *old_de, *new_de;
	int err = -ENOENT;

	old_de = vexfs_find_entry(old_dir, &old_dentry->d_name, &old_bh);
	if (IS_ERR_OR_NULL(old_de))
		return old_de ? PTR_ERR(old_de) : -ENOENT;
	new_de = vexfs_find_entry(new_dir, &new_dentry->d_name, &new_bh);
	if (IS_ERR_OR_NULL(new_de)) {
		brelse(old_bh);
		return new_de ? PTR_ERR(new_de) : -ENOENT;
	}
	err = vexfs_set_entry(handle, old_dir, old_bh, old_de, new);
	if (!err)
		err = vexfs_set_entry(handle, new_dir, new_bh, new_de, old);
	if (!err)
		err = vexfs_reparent(handle, old, old_dir, new_dir);
	if (!err)
		err = vexfs_reparent(handle, new, new_dir, old_dir);
	inode_set_ctime_current(new);
	if (!err)
		err = vexfs_update_inode(handle, new);
	brelse(old_bh);
	brelse(new_bh);
	return err;
}

static int vexfs_move(handle_t *handle, struct inode *old_dir, struct dentry *old_dentry,
		      struct inode *new_dir, struct dentry *new_dentry)
{
	struct inode *old = d_inode(old_dentry), *new = d_inode(new_dentry);
	struct buffer_head *bh;
	struct vexfs_dirent *de;
	int err;

	if (new) {
		de = vexfs_find_entry(new_dir, &new_dentry->d_name, &bh);
		if (IS_ERR_OR_NULL(de))
			return de ? PTR_ERR(de) : -ENOENT;
		err = vexfs_set_entry(handle, new_dir, bh, de, old);
		brelse(bh);
		if (!err)
			err = vexfs_drop_link(handle, new_dir, new);
	} else {
		err = vexfs_add_entry(handle, new_dir, &new_dentry->d_name, old);
	}
	if (!err)
		err = vexfs_remove_entry(handle, old_dir, &old_dentry->d_name);
	return err ? err : vexfs_reparent(handle, old, old_dir, new_dir);
}

static int vexfs_rename(struct mnt_idmap *idmap, struct inode *old_dir, struct dentry *old_dentry,
			struct inode *new_dir, struct dentry *new_dentry, unsigned int flags)
{
	struct inode *old = d_inode(old_dentry), *new = d_inode(new_dentry);
	int err, retries = 0;
	handle_t *handle;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (new && !(flags & RENAME_EXCHANGE)) {
		if (S_ISDIR(new->i_mode) && !vexfs_dir_empty(new))
			return -ENOTEMPTY;
		/* Programs that write, rename and do not sync still expect one version or the other. */
		if (S_ISREG(old->i_mode))
			filemap_flush(old->i_mapping);
	}
	if (S_ISDIR(old->i_mode) && old_dir != new_dir && !(new && S_ISDIR(new->i_mode)) &&
	    new_dir->i_nlink >= VEXFS_LINK_MAX)
		return -EMLINK;
	do {
		handle = vexfs_begin(old_dir->i_sb, 2 * VEXFS_CREDITS_NAME +
				     2 * VEXFS_CREDITS_INODE);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		if (flags & RENAME_EXCHANGE)
			err = vexfs_exchange(handle, old_dir, old_dentry, new_dir, new_dentry);
		else
			err = vexfs_move(handle, old_dir, old_dentry, new_dir, new_dentry);
		inode_set_ctime_current(old);
		if (!err)
			err = vexfs_update_inode(handle, old);
		if (IS_DIRSYNC(old_dir) || IS_DIRSYNC(new_dir))
			handle->h_sync = 1;
		err = vexfs_end(handle, err);
	} while (vexfs_retry_alloc(old_dir->i_sb, err, &retries));
	return err;
}

const struct inode_operations vexfs_dir_iops = {
	.lookup		= vexfs_lookup,
	.create		= vexfs_create,
	.link		= vexfs_link,
	.unlink		= vexfs_unlink,
	.symlink	= vexfs_symlink,
	.mkdir		= vexfs_mkdir,
	.rmdir		= vexfs_rmdir,
	.mknod		= vexfs_mknod,
	.rename		= vexfs_rename,
	.setattr	= vexfs_setattr,
	.getattr	= vexfs_getattr,
	.listxattr	= vexfs_listxattr,
};

const struct inode_operations vexfs_special_iops = {
	.setattr	= vexfs_setattr,
	.getattr	= vexfs_getattr,
	.listxattr	= vexfs_listxattr,
};
