/* SPDX-License-Identifier: GPL-2.0 */
/* What changed in the kernel between 6.1 and 6.12, so that the rest reads as for 6.12. */
#ifndef VEXFS_COMPAT_H
#define VEXFS_COMPAT_H

#include <linux/version.h>
#include <linux/fs.h>
#include <linux/iomap.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
/* The type was renamed with its meaning; only pointers to it pass through us. */
#define mnt_idmap		user_namespace
#define nop_mnt_idmap		init_user_ns
#define file_mnt_idmap(file)	file_mnt_user_ns(file)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define vexfs_fillattr(idmap, mask, inode, stat)	generic_fillattr(idmap, inode, stat)
#define iomap_dirty_folio	filemap_dirty_folio
#else
#define vexfs_fillattr(idmap, mask, inode, stat)	generic_fillattr(idmap, mask, inode, stat)
#endif

/* The plain encoding of file handles is the default up to 6.6. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define VEXFS_EXPORT_ENCODE
#else
#define VEXFS_EXPORT_ENCODE	.encode_fh = generic_encode_ino32_fh,
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define filemap_splice_read	generic_file_splice_read
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
static inline struct timespec64 inode_get_atime(const struct inode *inode)
{
	return inode->i_atime;
}

static inline struct timespec64 inode_get_mtime(const struct inode *inode)
{
	return inode->i_mtime;
}

static inline void inode_set_atime_to_ts(struct inode *inode, struct timespec64 ts)
{
	inode->i_atime = ts;
}

static inline void inode_set_mtime_to_ts(struct inode *inode, struct timespec64 ts)
{
	inode->i_mtime = ts;
}

static inline struct timespec64 simple_inode_init_ts(struct inode *inode)
{
	struct timespec64 now = inode_set_ctime_current(inode);

	inode->i_atime = now;
	inode->i_mtime = now;
	return now;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
#define vexfs_ioend_bio(ioend)		((ioend)->io_bio)
#define vexfs_ioend_of_bio(bio)		((struct iomap_ioend *)(bio)->bi_private)
#else
#define vexfs_ioend_bio(ioend)		(&(ioend)->io_bio)
#define vexfs_ioend_of_bio(bio)		iomap_ioend_from_bio(bio)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
#define VEXFS_MAP_BLOCKS_ARGS	struct iomap_writepage_ctx *wpc, struct inode *inode, loff_t offset
#else
#define VEXFS_MAP_BLOCKS_ARGS	struct iomap_writepage_ctx *wpc, struct inode *inode, \
				loff_t offset, unsigned int len
#endif

static inline ssize_t vexfs_buffered_write(struct kiocb *iocb, struct iov_iter *from,
					   const struct iomap_ops *ops)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	ssize_t ret = iomap_file_buffered_write(iocb, from, ops);

	if (ret > 0)	/* later kernels move the position themselves */
		iocb->ki_pos += ret;
	return ret;
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
	return iomap_file_buffered_write(iocb, from, ops);
#else
	return iomap_file_buffered_write(iocb, from, ops, NULL);
#endif
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define iomap_folio_ops		iomap_page_ops
#define folio_ops		page_ops
#endif

#endif
