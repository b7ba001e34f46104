// SPDX-License-Identifier: GPL-2.0
/*
 * Where file data lives, for iomap, which does the reading and writing.
 *
 * Blocks are allocated when a page is dirtied, as unwritten: they read as zeroes. When their data
 * has reached the disk they are marked written and the size on the disk follows, in a transaction
 * after the data. So a crash shows old data, new data or zeroes, and never another file's.
 */
#include <linux/writeback.h>
#include "vexfs.h"

#define VEXFS_PREALLOC_MAX	1024	/* blocks kept ahead of a growing file */

static bool vexfs_iomap_valid(struct inode *inode, const struct iomap *iomap)
{
	return iomap->validity_cookie == READ_ONCE(VEXFS_I(inode)->extent_seq);
}

static const struct iomap_folio_ops vexfs_folio_ops = {
	.iomap_valid	= vexfs_iomap_valid,
};

static void vexfs_to_iomap(struct inode *inode, const struct vexfs_map *map, struct iomap *iomap)
{
	iomap->bdev = inode->i_sb->s_bdev;
	iomap->offset = (u64)map->block << VEXFS_BLOCK_BITS;
	iomap->length = (u64)map->length << VEXFS_BLOCK_BITS;
	iomap->flags = map->fresh ? IOMAP_F_NEW : 0;
	iomap->validity_cookie = map->seq;
	if (map->start) {
		iomap->type = map->unwritten ? IOMAP_UNWRITTEN : IOMAP_MAPPED;
		iomap->addr = map->start << VEXFS_BLOCK_BITS;
	} else {
		iomap->type = IOMAP_HOLE;
		iomap->addr = IOMAP_NULL_ADDR;
	}
}

static int vexfs_fill_hole(struct inode *inode, u32 block, u32 count, struct vexfs_map *map)
{
	int err, retries = 0;
	handle_t *handle;

	do {
		handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_MAP);
		if (IS_ERR(handle))
			return PTR_ERR(handle);
		err = vexfs_map_run(handle, inode, block, count, true, map);
		err = vexfs_end(handle, err);
	} while (vexfs_retry_alloc(inode->i_sb, err, &retries));
	return err;
}

static int vexfs_iomap_begin(struct inode *inode, loff_t pos, loff_t length, unsigned int flags,
			     struct iomap *iomap, struct iomap *srcmap)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u32 block = pos >> VEXFS_BLOCK_BITS, count, ahead;
	struct vexfs_map map;
	int err;

	count = min_t(u64, ((pos + length - 1) >> VEXFS_BLOCK_BITS) - block + 1, U32_MAX - block);
	err = vexfs_lookup_run(inode, block, count, &map);
	if (err)
		return err;
	if ((flags & IOMAP_WRITE) && !map.start) {
		if (flags & IOMAP_NOWAIT)
			return -EAGAIN;
		count = map.length;
		/* A file that grows is given more than it asked for, so that it stays in one piece. */
		if (!(flags & (IOMAP_DIRECT | IOMAP_FAULT)) && !(vi->flags & VEXFS_KEEP_FL) &&
		    pos + length > i_size_read(inode)) {
			ahead = min_t(u64, i_size_read(inode) >> VEXFS_BLOCK_BITS,
				      VEXFS_PREALLOC_MAX);
			count = min(count + ahead, U32_MAX - block);
			vi->prealloc |= ahead;
		}
		err = vexfs_fill_hole(inode, block, count, &map);
		if (err)
			return err;
	}
	vexfs_to_iomap(inode, &map, iomap);
	if (flags & IOMAP_WRITE) {
		iomap->folio_ops = &vexfs_folio_ops;
		if (!jbd2_transaction_committed(VEXFS_SB(inode->i_sb)->journal, vi->datasync_tid))
			iomap->flags |= IOMAP_F_DIRTY;
	}
	return 0;
}

const struct iomap_ops vexfs_iomap_ops = {
	.iomap_begin	= vexfs_iomap_begin,
};

/* Data has reached the disk: its blocks count as written and the size may grow over it. */
int vexfs_written(struct inode *inode, loff_t offset, loff_t size, bool unwritten)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u32 first = offset >> VEXFS_BLOCK_BITS;
	u32 end = (offset + size + VEXFS_BLOCK_SIZE - 1) >> VEXFS_BLOCK_BITS;
	loff_t reached = min(offset + size, i_size_read(inode));
	handle_t *handle;
	int err = 0;

	if (!unwritten && reached <= vi->disk_size)
		return 0;
	handle = vexfs_begin(inode->i_sb, VEXFS_CREDITS_MAP + VEXFS_CREDITS_INODE);
	if (IS_ERR(handle))
		return PTR_ERR(handle);
	if (unwritten)
		err = vexfs_convert_run(handle, inode, first, end - first);
	if (!err && reached > vi->disk_size) {
		err = vexfs_refill(handle, VEXFS_CREDITS_INODE);
		if (!err) {
			down_write(&vi->extent_lock);
			vi->disk_size = max(vi->disk_size, reached);
			err = vexfs_update_inode_locked(handle, inode);
			up_write(&vi->extent_lock);
		}
	}
	return vexfs_end(handle, err);
}

void vexfs_end_io_work(struct work_struct *work)
{
	struct vexfs_inode_info *vi = container_of(work, struct vexfs_inode_info, ioend_work);
	struct iomap_ioend *ioend;
	unsigned long flags;
	LIST_HEAD(list);
	int err;

	spin_lock_irqsave(&vi->ioend_lock, flags);
	list_replace_init(&vi->ioend_list, &list);
	spin_unlock_irqrestore(&vi->ioend_lock, flags);
	iomap_sort_ioends(&list);
	while ((ioend = list_first_entry_or_null(&list, struct iomap_ioend, io_list))) {
		list_del_init(&ioend->io_list);
		iomap_ioend_try_merge(ioend, &list);
		err = blk_status_to_errno(vexfs_ioend_bio(ioend)->bi_status);
		if (!err)
			err = vexfs_written(ioend->io_inode, ioend->io_offset, ioend->io_size,
					    ioend->io_type == IOMAP_UNWRITTEN);
		iomap_finish_ioends(ioend, err);
		cond_resched();
	}
}

/* In interrupt context: a worker will open the transaction. */
static void vexfs_end_bio(struct bio *bio)
{
	struct iomap_ioend *ioend = vexfs_ioend_of_bio(bio);
	struct vexfs_inode_info *vi = VEXFS_I(ioend->io_inode);
	unsigned long flags;

	spin_lock_irqsave(&vi->ioend_lock, flags);
	if (list_empty(&vi->ioend_list))
		queue_work(VEXFS_SB(ioend->io_inode->i_sb)->end_io_wq, &vi->ioend_work);
	list_add_tail(&ioend->io_list, &vi->ioend_list);
	spin_unlock_irqrestore(&vi->ioend_lock, flags);
}

static int vexfs_prepare_ioend(struct iomap_ioend *ioend, int status)
{
	if (!status && (ioend->io_type == IOMAP_UNWRITTEN ||
			ioend->io_offset + ioend->io_size > VEXFS_I(ioend->io_inode)->disk_size))
		vexfs_ioend_bio(ioend)->bi_end_io = vexfs_end_bio;
	return status;
}

static int vexfs_map_blocks(VEXFS_MAP_BLOCKS_ARGS)
{
	u32 block = offset >> VEXFS_BLOCK_BITS;
	struct vexfs_map map;
	int err;

	if (wpc->iomap.length && offset >= wpc->iomap.offset &&
	    offset < wpc->iomap.offset + wpc->iomap.length &&
	    vexfs_iomap_valid(inode, &wpc->iomap))
		return 0;
	err = vexfs_lookup_run(inode, block, U32_MAX - block, &map);
	if (!err)
		vexfs_to_iomap(inode, &map, &wpc->iomap);
	return err;
}

static const struct iomap_writeback_ops vexfs_writeback_ops = {
	.map_blocks	= vexfs_map_blocks,
	.prepare_ioend	= vexfs_prepare_ioend,
};

static int vexfs_writepages(struct address_space *mapping, struct writeback_control *wbc)
{
	struct iomap_writepage_ctx wpc = { };

	return iomap_writepages(mapping, wbc, &wpc, &vexfs_writeback_ops);
}

static int vexfs_read_folio(struct file *file, struct folio *folio)
{
	return iomap_read_folio(folio, &vexfs_iomap_ops);
}

static void vexfs_readahead(struct readahead_control *rac)
{
	iomap_readahead(rac, &vexfs_iomap_ops);
}

static sector_t vexfs_bmap(struct address_space *mapping, sector_t block)
{
	return iomap_bmap(mapping, block, &vexfs_iomap_ops);
}

const struct address_space_operations vexfs_aops = {
	.read_folio		= vexfs_read_folio,
	.readahead		= vexfs_readahead,
	.writepages		= vexfs_writepages,
	.dirty_folio		= iomap_dirty_folio,
	.release_folio		= iomap_release_folio,
	.invalidate_folio	= iomap_invalidate_folio,
	.is_partially_uptodate	= iomap_is_partially_uptodate,
	.migrate_folio		= filemap_migrate_folio,
	.bmap			= vexfs_bmap,
};

static int vexfs_dio_end(struct kiocb *iocb, ssize_t size, int error, unsigned int flags)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	loff_t end = iocb->ki_pos + size;

	if (error || size <= 0)
		return error;
	if (end > i_size_read(inode))	/* the writer holds the inode alone */
		i_size_write(inode, end);
	return vexfs_written(inode, iocb->ki_pos, size, flags & IOMAP_DIO_UNWRITTEN);
}

const struct iomap_dio_ops vexfs_dio_ops = {
	.end_io		= vexfs_dio_end,
};
