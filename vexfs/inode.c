// SPDX-License-Identifier: GPL-2.0
/* Inodes between the table on the disk and the VFS: read, written, cut, deleted. */
#include <linux/blkdev.h>
#include <linux/writeback.h>
#include "vexfs.h"

#define VEXFS_TABLE_AHEAD	16u	/* blocks: 256 inodes */

static struct timespec64 vexfs_time(__le64 sec, __le32 nsec)
{
	return (struct timespec64){ le64_to_cpu(sec), min_t(u32, le32_to_cpu(nsec), 999999999) };
}

static void vexfs_put_time(__le64 *sec, __le32 *nsec, struct timespec64 time)
{
	*sec = cpu_to_le64(time.tv_sec);
	*nsec = cpu_to_le32(time.tv_nsec);
}

static u64 vexfs_table_block(struct super_block *sb, u32 ino, u32 *slot)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 index = (ino - 1) % sbi->group_inodes;

	*slot = index % VEXFS_INODES_PER_BLOCK;
	return vexfs_group_first(vexfs_group_of_ino(sbi, ino)) + 2 +
	       index / VEXFS_INODES_PER_BLOCK;
}

/*
 * Inodes are mostly wanted in a row, as by a walk, so their neighbours in the table are read along.
 * What was never written there is never looked at.
 */
static void vexfs_table_ahead(struct super_block *sb, u32 ino, u64 block)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u64 first = vexfs_group_first(vexfs_group_of_ino(sbi, ino)) + 2;
	u64 from = first + round_down(block - first, VEXFS_TABLE_AHEAD);
	u64 to = min(from + VEXFS_TABLE_AHEAD, first + sbi->table_blocks);
	struct buffer_head *bh = sb_find_get_block(sb, block);
	bool here = bh && buffer_uptodate(bh);
	struct blk_plug plug;

	brelse(bh);
	if (here)
		return;
	blk_start_plug(&plug);
	for (; from < to; from++)
		sb_breadahead(sb, from);
	blk_finish_plug(&plug);
}

/* What the checksum cannot say: values that make sense. */
static const char *vexfs_inode_flaw(struct super_block *sb, const struct vexfs_inode *raw)
{
	umode_t mode = le16_to_cpu(raw->i_mode);
	u64 xattr = le64_to_cpu(raw->i_xattr_block), vector = le64_to_cpu(raw->i_vector_block);
	u64 size = le64_to_cpu(raw->i_size);

	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode) && !S_ISCHR(mode) &&
	    !S_ISBLK(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
		return "an unknown file type";
	if (!raw->i_links && !(le32_to_cpu(raw->i_flags) & VEXFS_ORPHAN_FL))
		return "no links";
	if (size > sb->s_maxbytes || (S_ISLNK(mode) && (!size || size >= PATH_MAX)) ||
	    (S_ISDIR(mode) && (size % VEXFS_BLOCK_SIZE || size >> 44)))
		return "an impossible size";
	if (!S_ISLNK(mode) || size > VEXFS_INLINE_LINK)
		if (le16_to_cpu(raw->i_extent_count) > VEXFS_ROOT_EXTENTS ||
		    le16_to_cpu(raw->i_extent_level) > VEXFS_MAX_LEVEL ||
		    (raw->i_extent_level && !raw->i_extent_count))
			return "a bad extent root";
	if ((xattr && !vexfs_valid_run(sb, xattr, 1)) ||
	    (vector && !vexfs_valid_run(sb, vector, 1)) ||
	    !vector != !raw->i_vector_dims ||
	    le16_to_cpu(raw->i_vector_dims) > VEXFS_VECTOR_DIMS_MAX)
		return "a bad attribute block";
	return NULL;
}

static void vexfs_fill_inode(struct inode *inode, const struct vexfs_inode *raw)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);

	inode->i_mode = le16_to_cpu(raw->i_mode);
	i_uid_write(inode, le32_to_cpu(raw->i_uid));
	i_gid_write(inode, le32_to_cpu(raw->i_gid));
	set_nlink(inode, le32_to_cpu(raw->i_links));
	inode->i_size = le64_to_cpu(raw->i_size);
	inode->i_blocks = le64_to_cpu(raw->i_blocks) << (VEXFS_BLOCK_BITS - 9);
	inode->i_generation = le32_to_cpu(raw->i_generation);
	inode_set_atime_to_ts(inode, vexfs_time(raw->i_atime, raw->i_atime_nsec));
	inode_set_mtime_to_ts(inode, vexfs_time(raw->i_mtime, raw->i_mtime_nsec));
	inode_set_ctime_to_ts(inode, vexfs_time(raw->i_ctime, raw->i_ctime_nsec));
	vi->btime = vexfs_time(raw->i_btime, raw->i_btime_nsec);
	vi->disk_size = inode->i_size;
	vi->flags = le32_to_cpu(raw->i_flags);
	vi->parent = le32_to_cpu(raw->i_parent);
	vi->xattr_block = le64_to_cpu(raw->i_xattr_block);
	vi->vector_block = le64_to_cpu(raw->i_vector_block);
	vi->vector_dims = le16_to_cpu(raw->i_vector_dims);
	vi->extent_count = le16_to_cpu(raw->i_extent_count);
	vi->extent_level = le16_to_cpu(raw->i_extent_level);
	memcpy(vi->root, raw->i_root, sizeof(vi->root));
	if (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode))
		inode->i_rdev = new_decode_dev(le32_to_cpu(raw->i_rdev));
}

void vexfs_set_ops(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &vexfs_file_iops;
		inode->i_fop = &vexfs_file_ops;
		inode->i_mapping->a_ops = &vexfs_aops;
		mapping_set_large_folios(inode->i_mapping);
		break;
	case S_IFDIR:
		inode->i_op = &vexfs_dir_iops;
		inode->i_fop = &vexfs_dir_ops;
		break;
	case S_IFLNK:
		if (inode->i_size <= VEXFS_INLINE_LINK) {
			inode->i_op = &vexfs_fast_link_iops;
			inode->i_link = (char *)VEXFS_I(inode)->root;
			inode->i_link[VEXFS_INLINE_LINK] = '\0';
		} else {
			inode->i_op = &vexfs_link_iops;
		}
		break;
	default:
		inode->i_op = &vexfs_special_iops;
		init_special_inode(inode, inode->i_mode, inode->i_rdev);
	}
}

/*
 * An inode read again may have changes that are not committed yet: fsync(2) waits for the newest
 * transaction there is.
 */
static void vexfs_set_sync_tid(struct inode *inode)
{
	journal_t *journal = VEXFS_SB(inode->i_sb)->journal;
	transaction_t *transaction;
	tid_t tid;

	read_lock(&journal->j_state_lock);
	transaction = journal->j_running_transaction ? : journal->j_committing_transaction;
	tid = transaction ? transaction->t_tid : journal->j_commit_sequence;
	read_unlock(&journal->j_state_lock);
	VEXFS_I(inode)->sync_tid = tid;
	VEXFS_I(inode)->datasync_tid = tid;
}

struct inode *vexfs_iget(struct super_block *sb, u32 ino)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	const struct vexfs_inode *raw;
	const char *flaw = NULL;
	struct buffer_head *bh;
	struct inode *inode;
	u32 slot;
	u64 block;

	if (!ino || vexfs_group_of_ino(sbi, ino) >= sbi->groups) {
		vexfs_error(sb, 0, "inode number %u is out of range", ino);
		return ERR_PTR(-EUCLEAN);
	}
	inode = iget_locked(sb, ino);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (!(inode->i_state & I_NEW))
		return inode;
	block = vexfs_table_block(sb, ino, &slot);
	vexfs_table_ahead(sb, ino, block);
	bh = vexfs_read_table(sb, block, ino - slot);
	if (IS_ERR(bh)) {
		iget_failed(inode);
		return ERR_CAST(bh);
	}
	raw = (struct vexfs_inode *)bh->b_data + slot;
	if (!raw->i_mode)
		flaw = "been given back";
	else if (!vexfs_table_trusted(bh) && !vexfs_inode_valid(sb, raw, ino))
		flaw = "a wrong checksum";
	else
		flaw = vexfs_inode_flaw(sb, raw);
	if (flaw) {
		vexfs_error(sb, block, "inode %u has %s", ino, flaw);
		brelse(bh);
		iget_failed(inode);
		return ERR_PTR(-EUCLEAN);
	}
	vexfs_fill_inode(inode, raw);
	brelse(bh);
	vexfs_set_sync_tid(inode);
	vexfs_set_ops(inode);
	unlock_new_inode(inode);
	return inode;
}

/* Copies the inode to its slot; the caller holds extent_lock, or nobody else knows the inode. */
int vexfs_update_inode_locked(handle_t *handle, struct inode *inode)
{
	struct super_block *sb = inode->i_sb;
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_inode *raw;
	struct buffer_head *bh;
	u32 slot;
	u64 block = vexfs_table_block(sb, inode->i_ino, &slot);
	int err;

	bh = vexfs_read_table(sb, block, inode->i_ino - slot);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	err = vexfs_access_table(handle, sb, bh);
	if (err)
		goto out;
	raw = (struct vexfs_inode *)bh->b_data + slot;
	spin_lock(&vi->raw_lock);
	raw->i_mode = cpu_to_le16(inode->i_mode);
	raw->i_links = cpu_to_le32(inode->i_nlink);
	raw->i_uid = cpu_to_le32(i_uid_read(inode));
	raw->i_gid = cpu_to_le32(i_gid_read(inode));
	raw->i_size = cpu_to_le64(S_ISREG(inode->i_mode) ? vi->disk_size : i_size_read(inode));
	raw->i_blocks = cpu_to_le64(inode->i_blocks >> (VEXFS_BLOCK_BITS - 9));
	vexfs_put_time(&raw->i_atime, &raw->i_atime_nsec, inode_get_atime(inode));
	vexfs_put_time(&raw->i_mtime, &raw->i_mtime_nsec, inode_get_mtime(inode));
	vexfs_put_time(&raw->i_ctime, &raw->i_ctime_nsec, inode_get_ctime(inode));
	vexfs_put_time(&raw->i_btime, &raw->i_btime_nsec, vi->btime);
	raw->i_generation = cpu_to_le32(inode->i_generation);
	raw->i_flags = cpu_to_le32(vi->flags);
	if (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode))
		raw->i_rdev = cpu_to_le32(new_encode_dev(inode->i_rdev));
	raw->i_parent = cpu_to_le32(vi->parent);
	raw->i_xattr_block = cpu_to_le64(vi->xattr_block);
	raw->i_vector_block = cpu_to_le64(vi->vector_block);
	raw->i_vector_dims = cpu_to_le16(vi->vector_dims);
	raw->i_extent_count = cpu_to_le16(vi->extent_count);
	raw->i_extent_level = cpu_to_le16(vi->extent_level);
	memcpy(raw->i_root, vi->root, sizeof(vi->root));
	spin_unlock(&vi->raw_lock);
	vexfs_note_change(handle, inode, true);
	err = vexfs_dirty(handle, sb, bh);
out:
	brelse(bh);
	return err;
}

int vexfs_update_inode(handle_t *handle, struct inode *inode)
{
	int err;

	down_read(&VEXFS_I(inode)->extent_lock);
	err = vexfs_update_inode_locked(handle, inode);
	up_read(&VEXFS_I(inode)->extent_lock);
	return err;
}

/* A transaction for the inode alone. */
int vexfs_log_inode(struct inode *inode)
{
	handle_t *handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_INODE);

	if (IS_ERR(handle))
		return PTR_ERR(handle);
	return vexfs_end(handle, vexfs_update_inode(handle, inode));
}

/* The VFS changed a time or the like: it goes to the journal at once. */
void vexfs_dirty_inode(struct inode *inode, int flags)
{
	if (flags != I_DIRTY_TIME)	/* lazytime: the VFS comes again when it matters */
		vexfs_log_inode(inode);
}

/* All changes are in the journal already; sync(2) of one inode only has to wait for it. */
int vexfs_write_inode(struct inode *inode, struct writeback_control *wbc)
{
	if (wbc->sync_mode != WB_SYNC_ALL || wbc->for_sync || sb_rdonly(inode->i_sb))
		return 0;
	return jbd2_complete_transaction(VEXFS_SB(inode->i_sb)->journal, VEXFS_I(inode)->sync_tid);
}

static int vexfs_delete_inode(handle_t *handle, struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err = 0;

	if (!S_ISLNK(inode->i_mode) || inode->i_size > VEXFS_INLINE_LINK)
		err = vexfs_cut_runs(handle, inode, 0);
	if (!err)
		err = vexfs_refill(handle, VEXFS_CREDITS_VECTOR + VEXFS_CREDITS_XATTR);
	if (!err)
		err = vexfs_free_attributes(handle, inode);
	if (!err)
		err = vexfs_set_orphan(handle, inode, false);
	vi->flags = 0;
	return err ? err : vexfs_free_inode(handle, inode);
}

void vexfs_evict_inode(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;
	handle_t *handle;
	int err;

	truncate_inode_pages_final(&inode->i_data);
	if (!inode->i_nlink && !is_bad_inode(inode)) {
		sb_start_intwrite(sb);
		handle = vexfs_begin(sb, VEXFS_CREDITS_TRUNCATE);
		err = PTR_ERR_OR_ZERO(handle);
		if (!err)
			err = vexfs_end(handle, vexfs_delete_inode(handle, inode));
		if (err && err != -EROFS)
			vexfs_error(sb, 0, "inode %lu could not be deleted (%d)", inode->i_ino,
				    err);
		sb_end_intwrite(sb);
	}
	clear_inode(inode);
	vexfs_dirhash_drop(inode);
}

/* Frees what was allocated ahead of a growing file. A crash in between leaves it sound. */
void vexfs_drop_prealloc(struct inode *inode)
{
	handle_t *handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_TRUNCATE);
	int err;

	if (IS_ERR(handle))
		return;
	err = vexfs_cut_runs(handle, inode,
			     DIV_ROUND_UP_ULL(i_size_read(inode), VEXFS_BLOCK_SIZE));
	if (!vexfs_end(handle, err))
		VEXFS_I(inode)->prealloc = false;
}

/* Frees what lies beyond i_size. Safe to begin again after a crash: the orphan flag says so. */
int vexfs_truncate(struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	handle_t *handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_TRUNCATE + VEXFS_CREDITS_INODE);
	int err, failed;

	if (IS_ERR(handle))
		return PTR_ERR(handle);
	err = vexfs_set_orphan(handle, inode, true);
	if (err)
		return vexfs_end(handle, err);
	vi->disk_size = min(vi->disk_size, i_size_read(inode));
	vi->flags &= ~VEXFS_KEEP_FL;
	vi->prealloc = false;
	err = vexfs_update_inode(handle, inode);
	if (!err)
		err = vexfs_cut_runs(handle, inode,
				     DIV_ROUND_UP_ULL(i_size_read(inode), VEXFS_BLOCK_SIZE));
	failed = vexfs_refill(handle, VEXFS_CREDITS_INODE);
	if (!failed && !err && inode->i_nlink)
		failed = vexfs_set_orphan(handle, inode, false);
	if (!failed)
		failed = vexfs_update_inode(handle, inode);
	return vexfs_end(handle, err ? err : failed);
}

/* Sets a new size: what appears reads as zeroes, what goes is freed. */
static int vexfs_set_size(struct inode *inode, loff_t size)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	loff_t old = i_size_read(inode);
	int err;

	inode_dio_wait(inode);
	filemap_invalidate_lock(inode->i_mapping);
	if (size > old)
		err = iomap_zero_range(inode, old, size - old, NULL, &vexfs_iomap_ops);
	else
		err = iomap_truncate_page(inode, size, NULL, &vexfs_iomap_ops);
	/* A size on the disk must not run ahead of the data below it. */
	if (!err && size > vi->disk_size)
		err = filemap_write_and_wait_range(inode->i_mapping, vi->disk_size, size - 1);
	if (err)
		goto unlock;
	truncate_setsize(inode, size);
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
	if (size > old)
		vi->disk_size = size;
	err = size > old ? vexfs_log_inode(inode) : vexfs_truncate(inode);
unlock:
	filemap_invalidate_unlock(inode->i_mapping);
	return err;
}

int vexfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err = setattr_prepare(idmap, dentry, attr);

	if (err)
		return err;
	if (attr->ia_valid & ATTR_SIZE) {
		if (!S_ISREG(inode->i_mode))
			return -EINVAL;
		if (attr->ia_size != i_size_read(inode) || VEXFS_I(inode)->prealloc)
			err = vexfs_set_size(inode, attr->ia_size);
		if (err)
			return err;
	}
	setattr_copy(idmap, inode, attr);
	return vexfs_log_inode(inode);
}

int vexfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat, u32 mask,
		  unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);

	vexfs_fillattr(idmap, mask, inode, stat);
	stat->result_mask |= STATX_BTIME;
	stat->btime = VEXFS_I(inode)->btime;
	return 0;
}
