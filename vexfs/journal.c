// SPDX-License-Identifier: GPL-2.0
/*
 * Transactions, and the one way to read and change a metadata block.
 *
 * Checksums are computed once per commit, by a jbd2 trigger when a block goes to the journal, and
 * verified once, when a block comes from the disk (the Sound bit). In between the checksum
 * field of a block in memory is stale and nobody looks at it.
 */
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include "vexfs.h"

#define VEXFS_REVOKES	32	/* metadata blocks one handle may free before it is refilled */

enum { BH_Sound = BH_JBDPrivateStart };
BUFFER_FNS(Sound, sound)

static u32 vexfs_crc(u32 seed, const void *data, size_t len)
{
	return __crc32c_le(seed, data, len);
}

/* The sum of a record of @len bytes whose own checksum field, at @field, counts as zero. */
static __le32 vexfs_checksum(u32 seed, const void *data, size_t len, size_t field)
{
	static const __le32 zero;
	u32 crc = vexfs_crc(seed, data, field);

	crc = vexfs_crc(crc, &zero, sizeof(zero));
	field += sizeof(zero);
	return cpu_to_le32(vexfs_crc(crc, data + field, len - field));
}

__le32 vexfs_super_checksum(const struct vexfs_super_block *super)
{
	return vexfs_checksum(~0, super, sizeof(*super),
			      offsetof(struct vexfs_super_block, s_checksum));
}

static __le32 vexfs_block_checksum(struct super_block *sb, const void *data)
{
	return vexfs_checksum(VEXFS_SB(sb)->seed, data, VEXFS_BLOCK_SIZE,
			      offsetof(struct vexfs_header, h_checksum));
}

static __le32 vexfs_inode_checksum(struct super_block *sb, const struct vexfs_inode *raw, u32 ino)
{
	__le32 number = cpu_to_le32(ino);
	u32 seed = vexfs_crc(VEXFS_SB(sb)->seed, &number, sizeof(number));

	return vexfs_checksum(seed, raw, sizeof(*raw), offsetof(struct vexfs_inode, i_checksum));
}

/* A slot is good when its sum fits, or when it was never used or given back: all zero. */
bool vexfs_inode_valid(struct super_block *sb, const struct vexfs_inode *raw, u32 ino)
{
	if (!raw->i_mode)
		return !memchr_inv(raw, 0, sizeof(*raw));
	return raw->i_checksum == vexfs_inode_checksum(sb, raw, ino);
}

static void vexfs_seal_block(struct jbd2_buffer_trigger_type *type, struct buffer_head *bh,
			     void *data, size_t size)
{
	struct vexfs_trigger *trigger = container_of(type, struct vexfs_trigger, type);
	struct vexfs_header *h = data;

	h->h_checksum = vexfs_block_checksum(trigger->sb, data);
}

static u32 vexfs_table_first_ino(struct super_block *sb, u64 block)
{
	u32 group = div_u64(block, VEXFS_GROUP_BLOCKS);

	return group * VEXFS_SB(sb)->group_inodes + 1 +
	       (u32)(block - vexfs_group_first(group) - 2) * VEXFS_INODES_PER_BLOCK;
}

static void vexfs_seal_table(struct jbd2_buffer_trigger_type *type, struct buffer_head *bh,
			     void *data, size_t size)
{
	struct vexfs_trigger *trigger = container_of(type, struct vexfs_trigger, type);
	u32 ino = vexfs_table_first_ino(trigger->sb, bh->b_blocknr);
	struct vexfs_inode *raw = data;
	int i;

	for (i = 0; i < VEXFS_INODES_PER_BLOCK; i++, raw++)
		if (raw->i_mode)
			raw->i_checksum = vexfs_inode_checksum(trigger->sb, raw, ino + i);
}

static int vexfs_journal_bmap(journal_t *journal, sector_t *block)
{
	struct vexfs_super_block *super = VEXFS_SB(journal->j_private)->super;

	if (*block >= le32_to_cpu(super->s_journal_blocks))
		return -EIO;
	*block += le64_to_cpu(super->s_journal_start);
	return 0;
}

/*
 * A journal with something in it must be replayed, which a write-protected device forbids. And jbd2
 * of 6.1 leaves a journal half set up, to divide by zero later, whose superblock is still in memory
 * and known as good (journal_get_superblock(): "if (buffer_verified(bh)) return 0"), as it can be
 * although vexfs_read_super() drops what nobody uses.
 */
static int vexfs_journal_usable(struct super_block *sb)
{
	struct buffer_head *bh;
	bool empty;

	bh = sb_bread(sb, le64_to_cpu(VEXFS_SB(sb)->super->s_journal_start));
	if (!bh)
		return -EIO;
	clear_buffer_verified(bh);
	empty = !((journal_superblock_t *)bh->b_data)->s_start;
	brelse(bh);
	if (empty)
		return 0;
	if (bdev_read_only(sb->s_bdev))
		return -EROFS;
	pr_info("vexfs (%s): not unmounted in order, replaying the journal\n", sb->s_id);
	return 0;
}

int vexfs_journal_open(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	journal_t *journal;
	int err = vexfs_journal_usable(sb);

	if (err)
		return err;
	journal = jbd2_journal_init_dev(sb->s_bdev, sb->s_bdev,
					le64_to_cpu(sbi->super->s_journal_start),
					le32_to_cpu(sbi->super->s_journal_blocks),
					VEXFS_BLOCK_SIZE);
	if (IS_ERR_OR_NULL(journal))
		return journal ? PTR_ERR(journal) : -EINVAL;
	journal->j_private = sb;
	journal->j_bmap = vexfs_journal_bmap;
	journal->j_commit_callback = vexfs_committed;
	sbi->block_trigger = (struct vexfs_trigger){ { .t_frozen = vexfs_seal_block }, sb };
	sbi->inode_trigger = (struct vexfs_trigger){ { .t_frozen = vexfs_seal_table }, sb };
	write_lock(&journal->j_state_lock);
	journal->j_flags |= JBD2_BARRIER;
	write_unlock(&journal->j_state_lock);
	err = jbd2_journal_load(journal);
	if (!err && !jbd2_journal_set_features(journal, 0, 0, JBD2_FEATURE_INCOMPAT_CSUM_V3))
		err = -EINVAL;
	if (err) {
		jbd2_journal_destroy(journal);
		return err;
	}
	sbi->journal = journal;
	return 0;
}

void vexfs_journal_close(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	bool aborted = sbi->journal && is_journal_aborted(sbi->journal);

	if (sbi->journal && jbd2_journal_destroy(sbi->journal) < 0 && !aborted)
		vexfs_error(sb, 0, "the journal could not be closed in order");
	sbi->journal = NULL;
}

handle_t *vexfs_begin(struct super_block *sb, int credits)
{
	if (sb_rdonly(sb) && !VEXFS_SB(sb)->recovering)
		return ERR_PTR(-EROFS);
	return jbd2__journal_start(VEXFS_SB(sb)->journal, credits, 0, VEXFS_REVOKES, GFP_NOFS, 0,
				   0);
}

/* Ends a handle and hands on the first error. */
int vexfs_end(handle_t *handle, int err)
{
	int stopped = jbd2_journal_stop(handle);

	return err ? err : stopped;
}

/*
 * Makes sure a long operation has @credits left, if need be in a new transaction: what was done so
 * far must be consistent and no lock below the handle may be held.
 */
int vexfs_refill(handle_t *handle, int credits)
{
	int err;

	if (jbd2_handle_buffer_credits(handle) >= credits &&
	    handle->h_revoke_credits >= VEXFS_REVOKES / 2)
		return 0;
	err = jbd2_journal_extend(handle, credits, VEXFS_REVOKES);
	if (err > 0)
		err = jbd2__journal_restart(handle, credits, VEXFS_REVOKES, GFP_NOFS);
	return err;
}

static int vexfs_accessed(int err, struct buffer_head *bh, struct vexfs_trigger *trigger)
{
	if (!err)
		jbd2_journal_set_triggers(bh, &trigger->type);
	return err;
}

/* Before changing a block with a header. */
int vexfs_access(handle_t *handle, struct super_block *sb, struct buffer_head *bh)
{
	return vexfs_accessed(jbd2_journal_get_write_access(handle, bh), bh,
			      &VEXFS_SB(sb)->block_trigger);
}

/* Before changing an inode table block. A damaged slot must not get a fresh checksum with ours. */
int vexfs_access_table(handle_t *handle, struct super_block *sb, struct buffer_head *bh)
{
	if (!buffer_sound(bh))
		return -EUCLEAN;
	return vexfs_accessed(jbd2_journal_get_write_access(handle, bh), bh,
			      &VEXFS_SB(sb)->inode_trigger);
}

int vexfs_dirty(handle_t *handle, struct super_block *sb, struct buffer_head *bh)
{
	int err = jbd2_journal_dirty_metadata(handle, bh);

	if (err)
		vexfs_error(sb, bh->b_blocknr, "the journal refused a block (%d)", err);
	return err;
}

static struct buffer_head *vexfs_blank_block(handle_t *handle, struct super_block *sb, u64 block,
					     struct vexfs_trigger *trigger)
{
	struct buffer_head *bh = sb_getblk(sb, block);
	int err;

	if (!bh)
		return ERR_PTR(-ENOMEM);
	lock_buffer(bh);
	err = vexfs_accessed(jbd2_journal_get_create_access(handle, bh), bh, trigger);
	if (err) {
		unlock_buffer(bh);
		brelse(bh);
		return ERR_PTR(err);
	}
	memset(bh->b_data, 0, VEXFS_BLOCK_SIZE);
	set_buffer_uptodate(bh);
	set_buffer_sound(bh);
	unlock_buffer(bh);
	return bh;
}

/* A block that was just allocated, with its header; the caller fills it and calls vexfs_dirty(). */
struct buffer_head *vexfs_new_block(handle_t *handle, struct super_block *sb, u64 block,
				    u32 magic, u32 owner, u32 generation)
{
	struct buffer_head *bh = vexfs_blank_block(handle, sb, block,
						   &VEXFS_SB(sb)->block_trigger);
	struct vexfs_header *h;

	if (IS_ERR(bh))
		return bh;
	h = (struct vexfs_header *)bh->b_data;
	h->h_magic = cpu_to_le32(magic);
	h->h_block = cpu_to_le64(block);
	h->h_owner = cpu_to_le32(owner);
	h->h_generation = cpu_to_le32(generation);
	return bh;
}

/* The first use of an inode table block. */
struct buffer_head *vexfs_new_table_block(handle_t *handle, struct super_block *sb, u64 block)
{
	return vexfs_blank_block(handle, sb, block, &VEXFS_SB(sb)->inode_trigger);
}

/*
 * Whether a block is still to be verified; then it is locked. Of two that read it at the same time
 * the second must not look at checksums when the first has gone on to change what they are of.
 */
static bool vexfs_verify_begin(struct buffer_head *bh)
{
	if (buffer_sound(bh))
		return false;
	lock_buffer(bh);
	if (!buffer_sound(bh))
		return true;
	unlock_buffer(bh);
	return false;
}

/* Ends it; what is wrong, or NULL. */
static const char *vexfs_verify_end(struct buffer_head *bh, bool good)
{
	if (good)
		set_buffer_sound(bh);
	unlock_buffer(bh);
	return good ? NULL : "has a wrong checksum";
}

/* Reads a block with a header and checks that it is what the caller was told it is. */
struct buffer_head *vexfs_read_block(struct super_block *sb, u64 block, u32 magic, u32 owner,
				     u32 generation)
{
	struct buffer_head *bh;
	struct vexfs_header *h;
	const char *wrong = NULL;

	if (block >= VEXFS_SB(sb)->blocks) {
		vexfs_error(sb, block, "inode or group %u names a block beyond the end", owner);
		return ERR_PTR(-EUCLEAN);
	}
	bh = sb_bread(sb, block);
	if (!bh) {
		vexfs_error(sb, block, "cannot be read");
		return ERR_PTR(-EIO);
	}
	h = (struct vexfs_header *)bh->b_data;
	if (le32_to_cpu(h->h_magic) != magic || le64_to_cpu(h->h_block) != block)
		wrong = "is not the kind of block it should be";
	else if (le32_to_cpu(h->h_owner) != owner || le32_to_cpu(h->h_generation) != generation)
		wrong = "belongs to another owner";
	else if (vexfs_verify_begin(bh))
		wrong = vexfs_verify_end(bh, h->h_checksum == vexfs_block_checksum(sb, bh->b_data));
	if (wrong) {
		vexfs_error(sb, block, "%s (owner %u)", wrong, owner);
		brelse(bh);
		return ERR_PTR(-EUCLEAN);
	}
	return bh;
}

/*
 * Reads an inode table block. One damaged slot does not take its neighbours away: the caller
 * checks its own slot when vexfs_table_trusted() says no, and such a block is never written.
 */
struct buffer_head *vexfs_read_table(struct super_block *sb, u64 block, u32 first_ino)
{
	struct buffer_head *bh = sb_bread(sb, block);
	struct vexfs_inode *raw;
	const char *wrong;
	int i;

	if (!bh) {
		vexfs_error(sb, block, "inode table cannot be read");
		return ERR_PTR(-EIO);
	}
	if (!vexfs_verify_begin(bh))
		return bh;
	raw = (struct vexfs_inode *)bh->b_data;
	for (i = 0; i < VEXFS_INODES_PER_BLOCK; i++)
		if (!vexfs_inode_valid(sb, raw + i, first_ino + i))
			break;
	wrong = vexfs_verify_end(bh, i == VEXFS_INODES_PER_BLOCK);
	if (wrong)
		vexfs_error(sb, block, "inode %u %s", first_ino + i, wrong);
	return bh;
}

bool vexfs_table_trusted(struct buffer_head *bh)
{
	return buffer_sound(bh);
}

/* fsync(2): the data is out; wait for the transaction that holds the inode, and for the disk. */
int vexfs_sync_journal(struct inode *inode, bool datasync)
{
	journal_t *journal = VEXFS_SB(inode->i_sb)->journal;
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	tid_t tid = datasync ? vi->datasync_tid : vi->sync_tid;
	bool flush = !jbd2_trans_will_send_data_barrier(journal, tid);
	int err = jbd2_complete_transaction(journal, tid);

	if (flush && !err)
		err = blkdev_issue_flush(inode->i_sb->s_bdev);
	return err;
}
