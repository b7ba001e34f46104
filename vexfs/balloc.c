// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks: found in the group blocks' maps and given back to them.
 *
 * A block freed in a transaction must not be used again before that transaction is on the disk,
 * or a crash would give the old file somebody else's data. Such blocks are remembered, for each
 * group and for each of the two transactions that can be open, until jbd2 reports the commit.
 */
#include <linux/blkdev.h>
#include "vexfs.h"

struct buffer_head *vexfs_read_group(struct super_block *sb, u32 group)
{
	return vexfs_read_block(sb, vexfs_group_first(group) + 1, VEXFS_GROUP_MAGIC, group, 0);
}

/* The group block, to be changed in a transaction. */
struct buffer_head *vexfs_change_group(handle_t *handle, struct super_block *sb, u32 group)
{
	struct buffer_head *bh = vexfs_read_group(sb, group);
	int err;

	if (IS_ERR(bh))
		return bh;
	err = vexfs_access(handle, sb, bh);
	if (!err)
		return bh;
	brelse(bh);
	return ERR_PTR(err);
}

/* Blocks in @group: all groups are full but the last, whose last block is the spare superblock. */
static u32 vexfs_group_size(struct vexfs_sb_info *sbi, u32 group)
{
	return min_t(u64, VEXFS_GROUP_BLOCKS, sbi->blocks - 1 - vexfs_group_first(group));
}

/* True if files may own these blocks: in one group, and neither maps, tables nor journal. */
bool vexfs_valid_run(struct super_block *sb, u64 start, u64 count)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u64 journal = le64_to_cpu(sbi->super->s_journal_start);
	u32 group, bit;

	if (!count || start >= sbi->blocks || count > VEXFS_GROUP_BLOCKS)
		return false;
	group = div_u64_rem(start, VEXFS_GROUP_BLOCKS, &bit);
	if (bit < 2 + sbi->table_blocks || bit + count > vexfs_group_size(sbi, group))
		return false;
	return start + count <= journal ||
	       start >= journal + le32_to_cpu(sbi->super->s_journal_blocks);
}

static u32 vexfs_next_free(const u8 *map, const struct vexfs_group_info *gi, u32 size, u32 from)
{
	u32 bit = find_next_zero_bit_le(map, size, from), before;

	do {
		before = bit;
		if (gi->pending[0])
			bit = find_next_zero_bit_le(gi->pending[0], size, bit);
		if (gi->pending[1])
			bit = find_next_zero_bit_le(gi->pending[1], size, bit);
		bit = find_next_zero_bit_le(map, size, bit);
	} while (bit != before);
	return bit;
}

/* The first run of at least @least free blocks at or after @from, up to @want long; 0 if none. */
static u32 vexfs_find_run(const u8 *map, const struct vexfs_group_info *gi, u32 size, u32 from,
			  u32 want, u32 least, u32 *bit)
{
	u32 at, end;

	for (at = vexfs_next_free(map, gi, size, from); at < size;
	     at = vexfs_next_free(map, gi, size, end)) {
		end = find_next_bit_le(map, min(size, at + want), at);
		if (gi->pending[0])
			end = find_next_bit_le(gi->pending[0], end, at);
		if (gi->pending[1])
			end = find_next_bit_le(gi->pending[1], end, at);
		if (end - at >= least) {
			*bit = at;
			return end - at;
		}
	}
	return 0;
}

static u32 vexfs_search(struct buffer_head *bh, const struct vexfs_group_info *gi, u32 size,
			u32 goal, u32 want, u32 least, u32 *bit)
{
	const struct vexfs_group *g = (struct vexfs_group *)bh->b_data;
	u32 got = vexfs_find_run(g->g_block_map, gi, size, goal, want, least, bit);

	if (!got && goal)
		got = vexfs_find_run(g->g_block_map, gi, size, 0, want, least, bit);
	return got;
}

/* Blocks freed in the transaction of @handle stay untouched until it is committed. */
static void vexfs_hold_back(handle_t *handle, struct vexfs_sb_info *sbi,
			    struct vexfs_group_info *gi, u8 *fresh, u32 bit, u32 count)
{
	int slot = handle->h_transaction->t_tid & 1;

	if (!gi->pending[slot]) {
		gi->pending[slot] = fresh;
		spin_lock(&sbi->pending_lock);
		list_add(&gi->pending_link[slot], &sbi->pending[slot]);
		spin_unlock(&sbi->pending_lock);
	} else {
		kfree(fresh);
	}
	while (count--)
		__set_bit_le(bit++, gi->pending[slot]);
}

/*
 * jbd2 has committed a transaction: what was freed in it may be used. At most one transaction is
 * committing and one is running, so the last bit of its number tells them apart.
 */
void vexfs_committed(journal_t *journal, transaction_t *transaction)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(journal->j_private);
	int slot = transaction->t_tid & 1;
	struct vexfs_group_info *gi;
	u8 *map;

	for (;;) {
		spin_lock(&sbi->pending_lock);
		gi = list_first_entry_or_null(&sbi->pending[slot], struct vexfs_group_info,
					      pending_link[slot]);
		if (gi)
			list_del_init(&gi->pending_link[slot]);
		spin_unlock(&sbi->pending_lock);
		if (!gi)
			return;
		spin_lock(&gi->lock);
		map = gi->pending[slot];
		gi->pending[slot] = NULL;
		gi->longest = VEXFS_GROUP_BLOCKS;
		spin_unlock(&gi->lock);
		kfree(map);
	}
}

static void vexfs_count_blocks(struct vexfs_sb_info *sbi, struct vexfs_group_info *gi,
			       struct vexfs_group *g, s32 change)
{
	gi->free_blocks += change;
	g->g_free_blocks = cpu_to_le32(gi->free_blocks);
	percpu_counter_add(&sbi->free_blocks, change);
}

/* Takes a run from one group. Returns its length, 0 if there is none, or an error. */
static int vexfs_take_run(handle_t *handle, struct super_block *sb, u32 group, u32 goal, u32 want,
			  u32 least, u64 *start)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_group_info *gi = &sbi->group[group];
	u32 size = vexfs_group_size(sbi, group), got, bit = 0, i;
	struct vexfs_group *g;
	struct buffer_head *bh;
	int err;

	if (gi->free_blocks < least || gi->longest < least)
		return 0;
	bh = vexfs_read_group(sb, group);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	g = (struct vexfs_group *)bh->b_data;

	/* Look before asking for write access, which costs a journal credit. */
	spin_lock(&gi->lock);
	got = vexfs_search(bh, gi, size, goal, want, least, &bit);
	if (!got)
		gi->longest = least - 1;
	spin_unlock(&gi->lock);
	if (!got)
		goto none;
	err = vexfs_access(handle, sb, bh);
	if (err) {
		brelse(bh);
		return err;
	}
	spin_lock(&gi->lock);
	got = vexfs_search(bh, gi, size, goal, want, least, &bit);
	for (i = 0; i < got; i++)
		__set_bit_le(bit + i, g->g_block_map);
	vexfs_count_blocks(sbi, gi, g, -(s32)got);
	spin_unlock(&gi->lock);
	if (!got)
		goto none;
	err = vexfs_dirty(handle, sb, bh);
	brelse(bh);
	if (err)
		return err;
	*start = vexfs_group_first(group) + bit;
	if (!vexfs_valid_run(sb, *start, got)) {
		vexfs_error(sb, *start, "the map of group %u shows fixed blocks as free", group);
		return -EUCLEAN;
	}
	return got;
none:
	brelse(bh);
	return 0;
}

/* Cuts *@want to what may be taken: file data leaves a reserve for metadata. */
static bool vexfs_may_take(struct vexfs_sb_info *sbi, u32 *want, bool metadata)
{
	s64 keep = metadata ? 0 : sbi->reserved_blocks;
	s64 free = percpu_counter_read_positive(&sbi->free_blocks);

	if (free < keep + *want + 4096)
		free = percpu_counter_sum_positive(&sbi->free_blocks);
	if (free <= keep)
		return false;
	*want = min_t(s64, *want, free - keep);
	return true;
}

/*
 * Allocates up to @want adjoining blocks, best at or after @goal. Long runs are preferred, then
 * shorter ones, so that a full disk still serves.
 */
int vexfs_alloc_blocks(handle_t *handle, struct inode *inode, u64 goal, u32 want, bool metadata,
		       u64 *start, u32 *got)
{
	struct super_block *sb = inode->i_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 first, bit, least, i;
	int n;

	if (!vexfs_may_take(sbi, &want, metadata))
		return -ENOSPC;
	want = min_t(u32, want, VEXFS_GROUP_BLOCKS / 2);
	if (goal >= sbi->blocks - 1)
		goal = 0;
	first = div_u64_rem(goal, VEXFS_GROUP_BLOCKS, &bit);
	for (least = want;; least = least > 8 ? least / 8 : 1) {
		for (i = 0; i < sbi->groups; i++) {
			u32 group = (first + i) % sbi->groups;

			n = vexfs_take_run(handle, sb, group, i ? 0 : bit, want, least, start);
			if (n < 0)
				return n;
			if (!n)
				continue;
			if (!metadata)
				clean_bdev_aliases(sb->s_bdev, *start, n);
			inode_add_bytes(inode, (loff_t)n << VEXFS_BLOCK_BITS);
			*got = n;
			return 0;
		}
		if (least == 1)
			return -ENOSPC;
	}
}

/* Metadata also gets a revoke record: an old copy in the journal must not be replayed over it. */
static int vexfs_revoke(handle_t *handle, struct super_block *sb, u64 start, u32 count)
{
	int err = 0;

	while (count-- && !err) {
		struct buffer_head *bh = sb_find_get_block(sb, start);

		err = jbd2_journal_revoke(handle, start++, bh);
	}
	return err;
}

int vexfs_free_blocks(handle_t *handle, struct inode *inode, u64 start, u32 count, bool metadata)
{
	struct super_block *sb = inode->i_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_group_info *gi;
	struct vexfs_group *g;
	struct buffer_head *bh;
	u32 group, bit, i;
	u8 *fresh;
	int err;

	if (!vexfs_valid_run(sb, start, count)) {
		vexfs_error(sb, start, "inode %lu gives back blocks it cannot own", inode->i_ino);
		return -EUCLEAN;
	}
	if (metadata) {
		err = vexfs_revoke(handle, sb, start, count);
		if (err)
			return err;
	}
	group = div_u64_rem(start, VEXFS_GROUP_BLOCKS, &bit);
	gi = &sbi->group[group];
	bh = vexfs_change_group(handle, sb, group);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	g = (struct vexfs_group *)bh->b_data;
	fresh = kzalloc(VEXFS_GROUP_BLOCKS / 8, GFP_NOFS | __GFP_NOFAIL);
	spin_lock(&gi->lock);
	if (find_next_zero_bit_le(g->g_block_map, bit + count, bit) < bit + count) {
		spin_unlock(&gi->lock);
		kfree(fresh);
		vexfs_error(sb, start, "inode %lu gives back a block that is free", inode->i_ino);
		err = -EUCLEAN;
		goto out;
	}
	for (i = bit; i < bit + count; i++)
		__clear_bit_le(i, g->g_block_map);
	vexfs_hold_back(handle, sbi, gi, fresh, bit, count);
	vexfs_count_blocks(sbi, gi, g, count);
	spin_unlock(&gi->lock);
	inode_sub_bytes(inode, (loff_t)count << VEXFS_BLOCK_BITS);
	err = vexfs_dirty(handle, sb, bh);
out:
	brelse(bh);
	return err;
}

/* After ENOSPC, outside any handle: blocks freed but not yet committed may be waiting. */
bool vexfs_retry_alloc(struct super_block *sb, int err, int *retries)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);

	if (err != -ENOSPC || (*retries)++ >= 2 ||
	    percpu_counter_sum_positive(&sbi->free_blocks) <= sbi->reserved_blocks)
		return false;
	return !jbd2_journal_force_commit(sbi->journal);
}

static int vexfs_load_group(struct super_block *sb, u32 group)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_group_info *gi = &sbi->group[group];
	struct buffer_head *bh = vexfs_read_group(sb, group);
	struct vexfs_group *g;
	int err = 0;

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	g = (struct vexfs_group *)bh->b_data;
	spin_lock_init(&gi->lock);
	gi->longest = VEXFS_GROUP_BLOCKS;
	INIT_LIST_HEAD(&gi->pending_link[0]);
	INIT_LIST_HEAD(&gi->pending_link[1]);
	gi->free_blocks = le32_to_cpu(g->g_free_blocks);
	gi->free_inodes = le32_to_cpu(g->g_free_inodes);
	gi->directories = le32_to_cpu(g->g_directories);
	gi->orphans = le32_to_cpu(g->g_orphans);
	atomic64_add(le32_to_cpu(g->g_vectors), &sbi->vectors);
	if (gi->free_blocks != VEXFS_GROUP_BLOCKS - memweight(g->g_block_map,
							      sizeof(g->g_block_map)) ||
	    gi->free_inodes != VEXFS_GROUP_INODES_MAX - memweight(g->g_inode_map,
								  sizeof(g->g_inode_map)) ||
	    le32_to_cpu(g->g_inodes_ready) > sbi->group_inodes ||
	    le32_to_cpu(g->g_inodes_ready) % VEXFS_INODES_PER_BLOCK) {
		vexfs_error(sb, bh->b_blocknr, "counts and maps of group %u disagree", group);
		err = -EUCLEAN;
	}
	percpu_counter_add(&sbi->free_blocks, gi->free_blocks);
	percpu_counter_add(&sbi->free_inodes, gi->free_inodes);
	brelse(bh);
	return err;
}

/* Reads every group block once, for the counts; the sums are kept in memory from then on. */
int vexfs_load_groups(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 group, ahead = 0;
	int err = 0;

	for (group = 0; group < sbi->groups && !err; group++) {
		for (; ahead < sbi->groups && ahead < group + 64; ahead++)
			sb_breadahead(sb, vexfs_group_first(ahead) + 1);
		err = vexfs_load_group(sb, group);
	}
	return err;
}
