// SPDX-License-Identifier: GPL-2.0
/*
 * Vectors kept ready for search, up to vector_cache= bytes, the least recently used go first.
 *
 * An entry is put in while xattr_lock is held for reading and taken out while it is held for
 * writing, so it is never older than what the file carries.
 */
#include <linux/mm.h>
#include "vector.h"

void vexfs_cache_init(struct vexfs_vector_cache *cache)
{
	mutex_init(&cache->lock);
	xa_init(&cache->entries);
	INIT_LIST_HEAD(&cache->lru);
}

static u64 vexfs_cost(const struct vexfs_cached *entry)
{
	return struct_size(entry, data, entry->dims);
}

void vexfs_cache_put(struct vexfs_cached *entry)
{
	if (refcount_dec_and_test(&entry->refs))
		kvfree(entry);
}

static void vexfs_cache_drop(struct vexfs_vector_cache *cache, struct vexfs_cached *entry)
{
	xa_erase(&cache->entries, entry->ino);
	list_del(&entry->lru);
	cache->bytes -= vexfs_cost(entry);
	cache->count--;
	vexfs_cache_put(entry);
}

/* Makes the cache no larger than @size; 0 empties it. */
void vexfs_cache_trim(struct vexfs_vector_cache *cache, u64 size)
{
	mutex_lock(&cache->lock);
	while (cache->bytes > size)
		vexfs_cache_drop(cache, list_last_entry(&cache->lru, struct vexfs_cached, lru));
	mutex_unlock(&cache->lock);
}

void vexfs_cache_forget(struct inode *inode)
{
	struct vexfs_vector_cache *cache = &VEXFS_SB(inode->i_sb)->vector_cache;
	struct vexfs_cached *entry;

	mutex_lock(&cache->lock);
	entry = xa_load(&cache->entries, inode->i_ino);
	if (entry)
		vexfs_cache_drop(cache, entry);
	mutex_unlock(&cache->lock);
}

static void vexfs_cache_add(struct vexfs_sb_info *sbi, struct vexfs_cached *entry)
{
	struct vexfs_vector_cache *cache = &sbi->vector_cache;
	u64 size = READ_ONCE(sbi->vector_cache_size), cost = vexfs_cost(entry);

	if (cost > size)
		return;
	mutex_lock(&cache->lock);
	if (!xa_load(&cache->entries, entry->ino)) {
		while (cache->bytes + cost > size)
			vexfs_cache_drop(cache, list_last_entry(&cache->lru, struct vexfs_cached,
								lru));
		if (!xa_err(xa_store(&cache->entries, entry->ino, entry, GFP_NOFS))) {
			refcount_inc(&entry->refs);
			list_add(&entry->lru, &cache->lru);
			cache->bytes += cost;
			cache->count++;
		}
	}
	mutex_unlock(&cache->lock);
}

/* The vector of an inode, if it has one of @dims numbers; NULL if not. To be put back. */
struct vexfs_cached *vexfs_cache_get(struct inode *inode, u32 dims)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(inode->i_sb);
	struct vexfs_vector_cache *cache = &sbi->vector_cache;
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_cached *entry;
	int err = 0;

	mutex_lock(&cache->lock);
	entry = xa_load(&cache->entries, inode->i_ino);
	if (entry && entry->generation == inode->i_generation && entry->dims == dims) {
		list_move(&entry->lru, &cache->lru);
		refcount_inc(&entry->refs);
		cache->hits++;
		mutex_unlock(&cache->lock);
		return entry;
	}
	cache->misses++;
	mutex_unlock(&cache->lock);

	entry = kvmalloc(struct_size(entry, data, dims), GFP_KERNEL);
	if (!entry)
		return ERR_PTR(-ENOMEM);
	refcount_set(&entry->refs, 1);
	entry->ino = inode->i_ino;
	entry->generation = inode->i_generation;
	entry->dims = dims;
	entry->norm = VEXFS_NO_NORM;
	down_read(&vi->xattr_lock);
	if (vi->vector_dims == dims) {
		err = vexfs_read_vector(inode, entry->data);
		if (!err)
			vexfs_cache_add(sbi, entry);
	} else {
		err = -ENODATA;
	}
	up_read(&vi->xattr_lock);
	if (!err)
		return entry;
	vexfs_cache_put(entry);
	return err == -ENODATA ? NULL : ERR_PTR(err);
}
