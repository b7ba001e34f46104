// SPDX-License-Identifier: GPL-2.0
/*
 * Where each name of a directory is, in memory only: made on first use by reading the directory,
 * kept while its inode is. On the disk a directory stays a plain row of blocks. (FreeBSD's UFS
 * does the same: Dowse and Malone, "Recent Filesystem Optimisations in FreeBSD", 2002.)
 *
 * Lookups run side by side under the shared directory lock; changes hold it exclusively.
 */
#include <linux/mm.h>
#include "vexfs.h"

#define VEXFS_SLOT_FREE		0
#define VEXFS_SLOT_DELETED	U32_MAX

struct vexfs_slot {
	u32 hash;
	u32 block;		/* plus one; or VEXFS_SLOT_FREE, VEXFS_SLOT_DELETED */
};

struct vexfs_dirhash {
	struct vexfs_slot *slots;
	u32 size;		/* a power of two */
	u32 filled;		/* slots not free, deleted ones too */
	u32 names;
	u16 *room;		/* the longest entry each block can take */
	u32 blocks;
	u32 blocks_max;
	u32 first_room;		/* no block before this one has room for a short name */
};

u32 vexfs_name_hash(const char *name, unsigned int len)
{
	u32 hash = 2166136261u;		/* FNV-1a */

	while (len--)
		hash = (hash ^ (u8)*name++) * 16777619u;
	return hash ^ hash >> 15;
}

static void vexfs_dirhash_free(struct vexfs_dirhash *dh)
{
	kvfree(dh->slots);
	kvfree(dh->room);
	kfree(dh);
}

void vexfs_dirhash_drop(struct inode *dir)
{
	if (VEXFS_I(dir)->hash)
		vexfs_dirhash_free(VEXFS_I(dir)->hash);
	VEXFS_I(dir)->hash = NULL;
}

static void vexfs_place(struct vexfs_dirhash *dh, u32 hash, u32 block)
{
	u32 at = hash & (dh->size - 1);

	while (dh->slots[at].block != VEXFS_SLOT_FREE && dh->slots[at].block != VEXFS_SLOT_DELETED)
		at = (at + 1) & (dh->size - 1);
	if (dh->slots[at].block == VEXFS_SLOT_FREE)
		dh->filled++;
	dh->slots[at] = (struct vexfs_slot){ hash, block + 1 };
	dh->names++;
}

/* Makes a table at most a quarter full and moves the names over. */
static int vexfs_rehash(struct vexfs_dirhash *dh)
{
	u32 size = max_t(u32, 64, roundup_pow_of_two((dh->names + 1) * 4)), old_size = dh->size, i;
	struct vexfs_slot *old = dh->slots;
	struct vexfs_slot *slots = kvcalloc(size, sizeof(*slots), GFP_NOFS);

	if (!slots)
		return -ENOMEM;
	dh->slots = slots;
	dh->size = size;
	dh->filled = dh->names = 0;
	for (i = 0; i < old_size; i++)
		if (old[i].block != VEXFS_SLOT_FREE && old[i].block != VEXFS_SLOT_DELETED)
			vexfs_place(dh, old[i].hash, old[i].block - 1);
	kvfree(old);
	return 0;
}

static int vexfs_hash_name(struct vexfs_dirhash *dh, u32 hash, u32 block)
{
	int err = dh->filled * 2 >= dh->size ? vexfs_rehash(dh) : 0;

	if (!err)
		vexfs_place(dh, hash, block);
	return err;
}

static int vexfs_set_room(struct vexfs_dirhash *dh, u32 block, unsigned int room)
{
	if (block >= dh->blocks_max) {
		u32 blocks_max = max(block + 16, dh->blocks_max * 2);
		u16 *wider = kvcalloc(blocks_max, sizeof(*wider), GFP_NOFS);

		if (!wider)
			return -ENOMEM;
		memcpy(wider, dh->room, dh->blocks * sizeof(*wider));
		kvfree(dh->room);
		dh->room = wider;
		dh->blocks_max = blocks_max;
	}
	dh->room[block] = room;
	dh->blocks = max(dh->blocks, block + 1);
	if (room && block < dh->first_room)
		dh->first_room = block;
	return 0;
}

static int vexfs_hash_block(struct inode *dir, struct vexfs_dirhash *dh, u32 block)
{
	struct buffer_head *bh = vexfs_dir_block(dir, block);
	struct vexfs_dirent *de;
	unsigned int next;
	int err = 0;

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	vexfs_for_each_entry(de, dir, bh, next) {
		if (de->d_ino)
			err = vexfs_hash_name(dh, vexfs_name_hash(de->d_name, de->d_name_len),
					      block);
		if (err)
			break;
	}
	if (!err)
		err = PTR_ERR_OR_ZERO(de);
	if (!err)
		err = vexfs_set_room(dh, block, vexfs_dir_room(dir, bh));
	brelse(bh);
	return err;
}

static struct vexfs_dirhash *vexfs_dirhash_make(struct inode *dir)
{
	struct vexfs_dirhash *dh = kzalloc(sizeof(*dh), GFP_NOFS);
	u32 blocks = i_size_read(dir) >> VEXFS_BLOCK_BITS, block, i;
	struct vexfs_map map = { };
	int err;

	if (!dh)
		return ERR_PTR(-ENOMEM);
	err = vexfs_rehash(dh);
	for (block = 0; block < blocks && !err; block++) {
		if (block >= map.block + map.length) {	/* ask for the whole run at once */
			err = vexfs_lookup_run(dir, block, min(blocks - block, 64u), &map);
			for (i = 0; i < map.length && !err && map.start; i++)
				sb_breadahead(dir->i_sb, map.start + i);
		}
		if (!err)
			err = vexfs_hash_block(dir, dh, block);
	}
	if (!err)
		return dh;
	vexfs_dirhash_free(dh);
	return ERR_PTR(err);
}

/* The directory's hash; its lock is held, shared or not. */
struct vexfs_dirhash *vexfs_dirhash_get(struct inode *dir)
{
	struct vexfs_inode_info *vi = VEXFS_I(dir);
	struct vexfs_dirhash *dh = smp_load_acquire(&vi->hash);

	if (dh)
		return dh;
	mutex_lock(&vi->hash_lock);
	dh = vi->hash;
	if (!dh) {
		dh = vexfs_dirhash_make(dir);
		if (!IS_ERR(dh))
			smp_store_release(&vi->hash, dh);
	}
	mutex_unlock(&vi->hash_lock);
	return dh;
}

/* A name was added. Without memory the hash is dropped, to be made again when needed. */
void vexfs_dirhash_add(struct inode *dir, u32 hash, u32 block)
{
	struct vexfs_dirhash *dh = VEXFS_I(dir)->hash;

	if (dh && vexfs_hash_name(dh, hash, block))
		vexfs_dirhash_drop(dir);
}

void vexfs_dirhash_del(struct inode *dir, u32 hash, u32 block)
{
	struct vexfs_dirhash *dh = VEXFS_I(dir)->hash;
	u32 at;

	if (!dh)
		return;
	for (at = hash & (dh->size - 1); dh->slots[at].block != VEXFS_SLOT_FREE;
	     at = (at + 1) & (dh->size - 1)) {
		if (dh->slots[at].hash != hash || dh->slots[at].block != block + 1)
			continue;
		dh->slots[at].block = VEXFS_SLOT_DELETED;
		dh->names--;
		return;
	}
}

/* A block was changed. */
void vexfs_dirhash_room(struct inode *dir, struct buffer_head *bh, u32 block)
{
	struct vexfs_dirhash *dh = VEXFS_I(dir)->hash;

	if (dh && vexfs_set_room(dh, block, vexfs_dir_room(dir, bh)))
		vexfs_dirhash_drop(dir);
}

/* The next block that may hold a name of this hash; begin with *@slot = hash. */
bool vexfs_dirhash_next(struct vexfs_dirhash *dh, u32 hash, u32 *slot, u32 *block)
{
	u32 at;

	for (at = *slot & (dh->size - 1); dh->slots[at].block != VEXFS_SLOT_FREE;
	     at = (at + 1) & (dh->size - 1)) {
		if (dh->slots[at].hash != hash || dh->slots[at].block == VEXFS_SLOT_DELETED)
			continue;
		*block = dh->slots[at].block - 1;
		*slot = at + 1;
		return true;
	}
	return false;
}

/* A block with room for an entry of @need bytes, or -1. */
int vexfs_dirhash_find_room(struct vexfs_dirhash *dh, unsigned int need)
{
	u32 block;

	while (dh->first_room < dh->blocks && !dh->room[dh->first_room])
		dh->first_room++;
	for (block = dh->first_room; block < dh->blocks; block++)
		if (dh->room[block] >= need)
			return block;
	return -1;
}
