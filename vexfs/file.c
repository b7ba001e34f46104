// SPDX-License-Identifier: GPL-2.0
/* Regular files: read, write, map, seek, preallocate, sync. */
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/mm.h>
#include <linux/uio.h>
#include "vexfs.h"

static ssize_t vexfs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	if (!iov_iter_count(to))
		return 0;
	if (!(iocb->ki_flags & IOCB_DIRECT))
		return generic_file_read_iter(iocb, to);
	if (iocb->ki_flags & IOCB_NOWAIT) {
		if (!inode_trylock_shared(inode))
			return -EAGAIN;
	} else {
		inode_lock_shared(inode);
	}
	ret = iomap_dio_rw(iocb, to, &vexfs_iomap_ops, NULL, 0, NULL, 0);
	inode_unlock_shared(inode);
	file_accessed(iocb->ki_filp);
	return ret;
}

/* Checks a write; the inode is locked. A gap left behind the old end must read as zeroes. */
static ssize_t vexfs_write_checks(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	loff_t size = i_size_read(inode);
	ssize_t ret = generic_write_checks(iocb, from);

	if (ret <= 0)
		return ret;
	if (iocb->ki_pos > size) {
		filemap_invalidate_lock(inode->i_mapping);
		ret = iomap_zero_range(inode, size, iocb->ki_pos - size, NULL, &vexfs_iomap_ops);
		filemap_invalidate_unlock(inode->i_mapping);
		if (ret)
			return ret;
	}
	ret = kiocb_modified(iocb);
	return ret ? ret : iov_iter_count(from);
}

/* Whether a direct write needs the inode to itself: it grows the file or shares a block. */
static bool vexfs_dio_exclusive(struct inode *inode, struct kiocb *iocb, struct iov_iter *from)
{
	return iocb->ki_pos + iov_iter_count(from) > i_size_read(inode) ||
	       ((iocb->ki_pos | iov_iter_count(from)) & (VEXFS_BLOCK_SIZE - 1)) ||
	       (iocb->ki_flags & IOCB_APPEND);
}

/* A direct write; -ENOTBLK asks for the page cache, because pages could not be dropped. */
static ssize_t vexfs_dio_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	bool exclusive = vexfs_dio_exclusive(inode, iocb, from);
	ssize_t ret;

	if (iocb->ki_flags & IOCB_NOWAIT)
		return -EAGAIN;
again:
	exclusive ? inode_lock(inode) : inode_lock_shared(inode);
	if (!exclusive && vexfs_dio_exclusive(inode, iocb, from)) {
		inode_unlock_shared(inode);
		exclusive = true;
		goto again;
	}
	ret = vexfs_write_checks(iocb, from);
	if (ret > 0) {
		if (exclusive)
			inode_dio_wait(inode);
		ret = iomap_dio_rw(iocb, from, &vexfs_iomap_ops, &vexfs_dio_ops,
				   exclusive ? IOMAP_DIO_FORCE_WAIT : 0, NULL, 0);
	}
	exclusive ? inode_unlock(inode) : inode_unlock_shared(inode);
	return ret;
}

static ssize_t vexfs_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	if (iocb->ki_flags & IOCB_DIRECT) {
		ret = vexfs_dio_write(iocb, from);
		if (ret != -ENOTBLK)
			return ret;
	}
	if (iocb->ki_flags & IOCB_NOWAIT)
		return -EAGAIN;
	inode_lock(inode);
	ret = vexfs_write_checks(iocb, from);
	if (ret > 0)
		ret = vexfs_buffered_write(iocb, from, &vexfs_iomap_ops);
	inode_unlock(inode);
	return ret > 0 ? generic_write_sync(iocb, ret) : ret;
}

static vm_fault_t vexfs_page_mkwrite(struct vm_fault *vmf)
{
	struct inode *inode = file_inode(vmf->vma->vm_file);
	vm_fault_t ret;

	sb_start_pagefault(inode->i_sb);
	file_update_time(vmf->vma->vm_file);
	filemap_invalidate_lock_shared(inode->i_mapping);
	ret = iomap_page_mkwrite(vmf, &vexfs_iomap_ops);
	filemap_invalidate_unlock_shared(inode->i_mapping);
	sb_end_pagefault(inode->i_sb);
	return ret;
}

static const struct vm_operations_struct vexfs_vm_ops = {
	.fault		= filemap_fault,
	.map_pages	= filemap_map_pages,
	.page_mkwrite	= vexfs_page_mkwrite,
};

static int vexfs_mmap(struct file *file, struct vm_area_struct *vma)
{
	file_accessed(file);
	vma->vm_ops = &vexfs_vm_ops;
	return 0;
}

static int vexfs_open(struct inode *inode, struct file *file)
{
	file->f_mode |= FMODE_CAN_ODIRECT;
	return generic_file_open(inode, file);
}

/* The last writer closes: what was allocated ahead of a growing file goes back. */
static int vexfs_release_file(struct inode *inode, struct file *file)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);

	if (!(file->f_mode & FMODE_WRITE) || !READ_ONCE(vi->prealloc) ||
	    atomic_read(&inode->i_writecount) != 1 || !inode->i_nlink)
		return 0;
	inode_lock(inode);
	filemap_invalidate_lock(inode->i_mapping);
	if (vi->prealloc)
		vexfs_drop_prealloc(inode);
	filemap_invalidate_unlock(inode->i_mapping);
	inode_unlock(inode);
	return 0;
}

static loff_t vexfs_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);

	if (whence != SEEK_HOLE && whence != SEEK_DATA)
		return generic_file_llseek(file, offset, whence);
	inode_lock_shared(inode);
	if (whence == SEEK_HOLE)
		offset = iomap_seek_hole(inode, offset, &vexfs_iomap_ops);
	else
		offset = iomap_seek_data(inode, offset, &vexfs_iomap_ops);
	inode_unlock_shared(inode);
	return offset < 0 ? offset : vfs_setpos(file, offset, inode->i_sb->s_maxbytes);
}

static int vexfs_preallocate(struct inode *inode, loff_t offset, loff_t len)
{
	u32 block = offset >> VEXFS_BLOCK_BITS;
	u32 end = (offset + len + VEXFS_BLOCK_SIZE - 1) >> VEXFS_BLOCK_BITS;
	struct vexfs_map map;
	int err = 0, retries = 0;
	handle_t *handle;

	while (block < end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_MAP);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		err = vexfs_map_run(handle, inode, block, end - block, true, &map);
		err = vexfs_end(handle, err);
		if (!err)
			block += map.length;
		else if (!vexfs_retry_alloc(inode->i_sb, err, &retries))
			return err;
	}
	return 0;
}

static long vexfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct inode *inode = file_inode(file);
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	loff_t end = offset + len, old;
	int err;

	if (mode & ~FALLOC_FL_KEEP_SIZE)
		return -EOPNOTSUPP;
	inode_lock(inode);
	inode_dio_wait(inode);
	err = inode_newsize_ok(inode, end);
	if (!err)
		err = file_modified(file);
	if (err)
		goto unlock;
	old = i_size_read(inode);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > old) {
		filemap_invalidate_lock(inode->i_mapping);
		err = iomap_zero_range(inode, old, end - old, NULL, &vexfs_iomap_ops);
		filemap_invalidate_unlock(inode->i_mapping);
		if (!err && end > vi->disk_size)
			err = filemap_write_and_wait_range(inode->i_mapping, vi->disk_size,
							   end - 1);
	}
	if (!err)
		err = vexfs_preallocate(inode, offset, len);
	if (err)
		goto unlock;
	if (mode & FALLOC_FL_KEEP_SIZE) {
		vi->flags |= VEXFS_KEEP_FL;	/* asked for: not dropped at the last close */
		mark_inode_dirty(inode);
	} else if (end > old) {
		truncate_setsize(inode, end);
		vi->disk_size = max(vi->disk_size, end);
		err = vexfs_log_inode(inode);
	}
	if (!err && (file->f_flags & O_DSYNC))
		err = vexfs_sync_journal(inode, false);
unlock:
	inode_unlock(inode);
	return err;
}

int vexfs_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct inode *inode = file_inode(file);
	int err = file_write_and_wait_range(file, start, end);

	if (err)
		return err;
	if (is_journal_aborted(VEXFS_SB(inode->i_sb)->journal))
		return -EIO;
	return sb_rdonly(inode->i_sb) ? 0 : vexfs_sync_journal(inode, datasync);
}

static int vexfs_fiemap(struct inode *inode, struct fiemap_extent_info *info, u64 start, u64 len)
{
	int err;

	inode_lock_shared(inode);
	err = iomap_fiemap(inode, info, start, len, &vexfs_iomap_ops);
	inode_unlock_shared(inode);
	return err;
}

const struct file_operations vexfs_file_ops = {
	.open		= vexfs_open,
	.release	= vexfs_release_file,
	.llseek		= vexfs_llseek,
	.read_iter	= vexfs_read_iter,
	.write_iter	= vexfs_write_iter,
	.mmap		= vexfs_mmap,
	.fsync		= vexfs_fsync,
	.unlocked_ioctl	= vexfs_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.splice_read	= filemap_splice_read,
	.splice_write	= iter_file_splice_write,
	.fallocate	= vexfs_fallocate,
};

const struct inode_operations vexfs_file_iops = {
	.setattr	= vexfs_setattr,
	.getattr	= vexfs_getattr,
	.listxattr	= vexfs_listxattr,
	.fiemap		= vexfs_fiemap,
};
