// SPDX-License-Identifier: GPL-2.0
/* Inode numbers: taken from and given back to the groups' maps; and the inodes a crash orphaned. */
#include <linux/random.h>
#include "vexfs.h"

/* A directory below the root starts in a group of its own, others stay near their parent. */
static u32 vexfs_first_group(struct vexfs_sb_info *sbi, struct inode *dir, umode_t mode)
{
	u32 group, best = vexfs_group_of_ino(sbi, dir->i_ino);

	if (!S_ISDIR(mode) || dir->i_ino != VEXFS_ROOT_INO)
		return best;
	for (group = 0; group < sbi->groups; group++) {
		struct vexfs_group_info *gi = &sbi->group[group], *bi = &sbi->group[best];

		if (gi->free_inodes && gi->free_blocks > bi->free_blocks / 2 &&
		    (gi->directories < bi->directories || !bi->free_inodes))
			best = group;
	}
	return best;
}

/* Makes table block @ready / 16 of a group usable, unless another has done so meanwhile. */
static int vexfs_extend_table(handle_t *handle, struct super_block *sb, u32 group,
			      struct vexfs_group *g, u32 ready)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct buffer_head *table;
	int err = 0;

	mutex_lock(&sbi->table_lock);
	if (le32_to_cpu(g->g_inodes_ready) == ready) {
		table = vexfs_new_table_block(handle, sb, vexfs_group_first(group) + 2 +
					      ready / VEXFS_INODES_PER_BLOCK);
		err = PTR_ERR_OR_ZERO(table);
		if (!err) {
			err = vexfs_dirty(handle, sb, table);
			brelse(table);
		}
		/* Only now may others see that the block is there. */
		if (!err) {
			spin_lock(&sbi->group[group].lock);
			le32_add_cpu(&g->g_inodes_ready, VEXFS_INODES_PER_BLOCK);
			spin_unlock(&sbi->group[group].lock);
		}
	}
	mutex_unlock(&sbi->table_lock);
	return err;
}

/* Takes the first free number if it is below @ready; returns what it is in either case. */
static u32 vexfs_claim_ino(struct vexfs_sb_info *sbi, struct vexfs_group_info *gi,
			   struct vexfs_group *g, u32 ready, umode_t mode)
{
	u32 bit;

	spin_lock(&gi->lock);
	bit = find_next_zero_bit_le(g->g_inode_map, sbi->group_inodes, 0);
	if (bit < ready) {
		__set_bit_le(bit, g->g_inode_map);
		g->g_free_inodes = cpu_to_le32(--gi->free_inodes);
		if (S_ISDIR(mode))
			g->g_directories = cpu_to_le32(++gi->directories);
	}
	spin_unlock(&gi->lock);
	return bit;
}

/* Takes the first free number of a group. Returns 1 if there was one. */
static int vexfs_take_ino(handle_t *handle, struct super_block *sb, u32 group, umode_t mode,
			  u32 *ino)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_group_info *gi = &sbi->group[group];
	struct buffer_head *bh;
	struct vexfs_group *g;
	u32 bit, ready;
	int err = 0;

	if (!gi->free_inodes)
		return 0;
	bh = vexfs_change_group(handle, sb, group);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	g = (struct vexfs_group *)bh->b_data;
	for (;;) {
		ready = le32_to_cpu(READ_ONCE(g->g_inodes_ready));
		bit = vexfs_claim_ino(sbi, gi, g, ready, mode);
		if (bit < ready)
			break;
		if (bit >= sbi->group_inodes)
			goto out;
		err = vexfs_extend_table(handle, sb, group, g, ready);
		if (err)
			goto out;
	}
	percpu_counter_dec(&sbi->free_inodes);
	*ino = group * sbi->group_inodes + bit + 1;
	err = vexfs_dirty(handle, sb, bh);
	if (!err)
		err = 1;
out:
	brelse(bh);
	return err;
}

/* A new inode, hashed, locked and with one link (a directory has two), not yet on the disk. */
struct inode *vexfs_new_inode(handle_t *handle, struct mnt_idmap *idmap, struct inode *dir,
			      umode_t mode)
{
	struct super_block *sb = dir->i_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 first = vexfs_first_group(sbi, dir, mode), ino = 0, i;
	struct vexfs_inode_info *vi;
	struct inode *inode = new_inode(sb);
	int taken = 0;

	if (!inode)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < sbi->groups && !taken; i++)
		taken = vexfs_take_ino(handle, sb, (first + i) % sbi->groups, mode, &ino);
	if (taken <= 0) {
		make_bad_inode(inode);
		iput(inode);
		return ERR_PTR(taken ? taken : -ENOSPC);
	}
	inode->i_ino = ino;
	inode_init_owner(idmap, inode, dir, mode);
	inode->i_generation = get_random_u32();
	set_nlink(inode, S_ISDIR(mode) ? 2 : 1);
	vi = VEXFS_I(inode);
	vi->btime = simple_inode_init_ts(inode);
	vi->parent = S_ISDIR(mode) ? dir->i_ino : 0;
	if (insert_inode_locked(inode) < 0) {
		vexfs_error(sb, 0, "inode %u is free on the disk and yet in use", ino);
		make_bad_inode(inode);
		iput(inode);
		return ERR_PTR(-EUCLEAN);
	}
	return inode;
}

/* Gives the number back and wipes the slot. */
int vexfs_free_inode(handle_t *handle, struct inode *inode)
{
	struct super_block *sb = inode->i_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 group = vexfs_group_of_ino(sbi, inode->i_ino);
	u32 bit = (inode->i_ino - 1) % sbi->group_inodes;
	struct vexfs_group_info *gi = &sbi->group[group];
	struct buffer_head *bh, *table;
	struct vexfs_group *g;
	int err;

	table = vexfs_read_table(sb, vexfs_group_first(group) + 2 + bit / VEXFS_INODES_PER_BLOCK,
				 inode->i_ino - bit % VEXFS_INODES_PER_BLOCK);
	if (IS_ERR(table))
		return PTR_ERR(table);
	err = vexfs_access_table(handle, sb, table);
	if (!err) {
		memset((struct vexfs_inode *)table->b_data + bit % VEXFS_INODES_PER_BLOCK, 0,
		       VEXFS_INODE_SIZE);
		err = vexfs_dirty(handle, sb, table);
	}
	brelse(table);
	if (err)
		return err;
	bh = vexfs_change_group(handle, sb, group);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	g = (struct vexfs_group *)bh->b_data;
	spin_lock(&gi->lock);
	if (__test_and_clear_bit_le(bit, g->g_inode_map)) {
		g->g_free_inodes = cpu_to_le32(++gi->free_inodes);
		percpu_counter_inc(&sbi->free_inodes);
		if (S_ISDIR(inode->i_mode))
			g->g_directories = cpu_to_le32(--gi->directories);
	}
	spin_unlock(&gi->lock);
	err = vexfs_dirty(handle, sb, bh);
	brelse(bh);
	return err;
}

/*
 * Marks an inode that a crash would leave half gone: unlinked but open, or being cut. The group
 * counts them, so that recovery looks only where there are some.
 */
int vexfs_set_orphan(handle_t *handle, struct inode *inode, bool orphan)
{
	struct super_block *sb = inode->i_sb;
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_group_info *gi;
	struct buffer_head *bh;
	u32 group = vexfs_group_of_ino(VEXFS_SB(sb), inode->i_ino);
	int err;

	if (orphan == !!(vi->flags & VEXFS_ORPHAN_FL))
		return 0;
	bh = vexfs_change_group(handle, sb, group);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	gi = &VEXFS_SB(sb)->group[group];
	spin_lock(&gi->lock);
	gi->orphans += orphan ? 1 : -1;
	((struct vexfs_group *)bh->b_data)->g_orphans = cpu_to_le32(gi->orphans);
	spin_unlock(&gi->lock);
	vi->flags ^= VEXFS_ORPHAN_FL;
	err = vexfs_dirty(handle, sb, bh);
	brelse(bh);
	return err;
}

static void vexfs_recover_inode(struct super_block *sb, u32 ino)
{
	struct inode *inode = vexfs_iget(sb, ino);

	if (IS_ERR(inode))
		return;
	if ((VEXFS_I(inode)->flags & VEXFS_ORPHAN_FL) && inode->i_nlink) {
		inode_lock(inode);
		if (vexfs_truncate(inode))
			vexfs_error(sb, 0, "inode %u could not be cut to its size", ino);
		inode_unlock(inode);
	}
	iput(inode);	/* deletes it if it has no links */
}

/* After the journal was replayed: finish what the crash interrupted. */
void vexfs_recover_orphans(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u32 group, bit;

	for (group = 0; group < sbi->groups; group++) {
		for (bit = 0; sbi->group[group].orphans && bit < sbi->group_inodes; bit++) {
			struct buffer_head *bh = vexfs_read_group(sb, group);
			struct vexfs_group *g;

			if (IS_ERR(bh))
				return;
			g = (struct vexfs_group *)bh->b_data;
			bit = find_next_bit_le(g->g_inode_map, le32_to_cpu(g->g_inodes_ready), bit);
			if (bit >= le32_to_cpu(g->g_inodes_ready))
				bit = sbi->group_inodes;
			brelse(bh);
			if (bit < sbi->group_inodes && (group || bit + 1 >= VEXFS_FIRST_INO))
				vexfs_recover_inode(sb, group * sbi->group_inodes + bit + 1);
		}
		if (sbi->group[group].orphans)
			vexfs_error(sb, vexfs_group_first(group) + 1,
				    "group %u counts orphans that are not there", group);
	}
}
