// SPDX-License-Identifier: GPL-2.0
/*
 * Changing the extent tree: runs are added, marked written, and cut off at the end.
 *
 * It is a B+ tree edited from the top down: before a leaf is changed, every full node on the way
 * is split, so that a change never has to climb back and, once begun, cannot run out of space.
 * Callers hold extent_lock for writing; the inode itself is written with each change.
 */
#include "extent.h"

static int vexfs_node_access(handle_t *handle, struct inode *inode, struct vexfs_node *node)
{
	return node->bh ? vexfs_access(handle, inode->i_sb, node->bh) : 0;
}

static int vexfs_node_dirty(handle_t *handle, struct inode *inode, struct vexfs_node *node)
{
	return node->bh ? vexfs_dirty(handle, inode->i_sb, node->bh) : 0;
}

static void vexfs_set_count(struct inode *inode, struct vexfs_node *node, int count)
{
	node->count = count;
	if (node->bh)
		((struct vexfs_header *)node->bh->b_data)->h_count = cpu_to_le16(count);
	else
		VEXFS_I(inode)->extent_count = count;
}

static void vexfs_open_slot(struct inode *inode, struct vexfs_node *node, int at)
{
	memmove(node->e + at + 1, node->e + at, (node->count - at) * sizeof(*node->e));
	vexfs_set_count(inode, node, node->count + 1);
}

static void vexfs_close_slot(struct inode *inode, struct vexfs_node *node, int at)
{
	vexfs_set_count(inode, node, node->count - 1);
	memmove(node->e + at, node->e + at + 1, (node->count - at) * sizeof(*node->e));
}

static void vexfs_set_run(struct vexfs_extent *e, u32 block, u32 length, u64 start, bool unwritten)
{
	e->e_block = cpu_to_le32(block);
	e->e_length = cpu_to_le32(length | (unwritten ? VEXFS_EXTENT_UNWRITTEN : 0));
	e->e_start = cpu_to_le64(start);
}

/* A node of @level holding @count entries from @e. */
static struct buffer_head *vexfs_make_node(handle_t *handle, struct inode *inode, u64 goal,
					   u32 level, const struct vexfs_extent *e, int count)
{
	struct buffer_head *bh;
	struct vexfs_header *h;
	u64 block;
	u32 got;
	int err = vexfs_alloc_blocks(handle, inode, goal, 1, true, &block, &got);

	if (err)
		return ERR_PTR(err);
	bh = vexfs_new_block(handle, inode->i_sb, block, VEXFS_EXTENT_MAGIC, inode->i_ino,
			     inode->i_generation);
	if (IS_ERR(bh))
		return bh;
	h = (struct vexfs_header *)bh->b_data;
	h->h_level = cpu_to_le16(level);
	h->h_count = cpu_to_le16(count);
	memcpy(h + 1, e, count * sizeof(*e));
	err = vexfs_dirty(handle, inode->i_sb, bh);
	if (!err)
		return bh;
	brelse(bh);
	return ERR_PTR(err);
}

/* The root is full: its entries move to a new node, which becomes its only child. */
static int vexfs_grow(handle_t *handle, struct inode *inode)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct buffer_head *bh;

	if (vi->extent_level >= VEXFS_MAX_LEVEL)
		return -EFBIG;
	bh = vexfs_make_node(handle, inode, le64_to_cpu(vi->root[0].e_start), vi->extent_level,
			     vi->root, vi->extent_count);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	vexfs_set_run(vi->root, le32_to_cpu(vi->root[0].e_block), 0, bh->b_blocknr, false);
	vi->extent_count = 1;
	vi->extent_level++;
	brelse(bh);
	return 0;
}

/* Splits a full node; its parent has room. A file that grows leaves its full nodes full. */
static int vexfs_split(handle_t *handle, struct inode *inode, struct vexfs_path *path, int d)
{
	struct vexfs_node *node = &path->node[d], *parent = node - 1;
	int keep = node->pos == node->count - 1 ? node->count - 1 : node->count / 2;
	struct buffer_head *bh;
	int err = vexfs_node_access(handle, inode, parent);

	if (!err)
		err = vexfs_node_access(handle, inode, node);
	if (err)
		return err;
	bh = vexfs_make_node(handle, inode, node->bh->b_blocknr, path->depth - d, node->e + keep,
			     node->count - keep);
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	vexfs_open_slot(inode, parent, parent->pos + 1);
	vexfs_set_run(&parent->e[parent->pos + 1], le32_to_cpu(node->e[keep].e_block), 0,
		      bh->b_blocknr, false);
	vexfs_set_count(inode, node, keep);
	brelse(bh);
	err = vexfs_node_dirty(handle, inode, parent);
	return err ? err : vexfs_node_dirty(handle, inode, node);
}

/* A path to @block whose leaf has room for @need more entries and may be changed. */
static int vexfs_make_room(handle_t *handle, struct inode *inode, u32 block, int need,
			   struct vexfs_path *path)
{
	int d, err;

again:
	err = vexfs_walk(inode, block, path);
	if (err)
		return err;
	for (d = 0; d <= path->depth; d++) {
		struct vexfs_node *node = &path->node[d];

		if (node->max - node->count >= (d == path->depth ? need : 1))
			continue;
		err = d ? vexfs_split(handle, inode, path, d) : vexfs_grow(handle, inode);
		vexfs_release(path);
		if (err)
			return err;
		goto again;
	}
	err = vexfs_node_access(handle, inode, &path->node[path->depth]);
	if (err)
		vexfs_release(path);
	return err;
}

/* Joins entry @at with the one after it where they adjoin in the file and on the disk. */
static bool vexfs_join(struct inode *inode, struct vexfs_node *leaf, int at)
{
	struct vexfs_extent *a, *b;
	u32 len;

	if (at < 0 || at + 1 >= leaf->count)
		return false;
	a = &leaf->e[at];
	b = a + 1;
	len = vexfs_run_length(a);
	if (le32_to_cpu(a->e_block) + len != le32_to_cpu(b->e_block) ||
	    le64_to_cpu(a->e_start) + len != le64_to_cpu(b->e_start) ||
	    vexfs_run_unwritten(a) != vexfs_run_unwritten(b))
		return false;
	le32_add_cpu(&a->e_length, vexfs_run_length(b));
	vexfs_close_slot(inode, leaf, at + 1);
	return true;
}

/* Adds a run where the path's place is a hole. */
static int vexfs_insert(handle_t *handle, struct inode *inode, struct vexfs_path *path,
			const struct vexfs_map *map)
{
	struct vexfs_node *leaf = &path->node[path->depth];
	int at = leaf->pos + 1, d, err;

	/* A run before all others: the nodes above must know where they begin now. */
	for (d = 0; d < path->depth; d++) {
		struct vexfs_node *node = &path->node[d];

		if (le32_to_cpu(node->e[node->pos].e_block) <= map->block)
			continue;
		err = vexfs_node_access(handle, inode, node);
		if (err)
			return err;
		node->e[node->pos].e_block = cpu_to_le32(map->block);
		err = vexfs_node_dirty(handle, inode, node);
		if (err)
			return err;
	}
	vexfs_open_slot(inode, leaf, at);
	vexfs_set_run(&leaf->e[at], map->block, map->length, map->start, map->unwritten);
	vexfs_join(inode, leaf, at);
	vexfs_join(inode, leaf, at - 1);
	return vexfs_node_dirty(handle, inode, leaf);
}

static u64 vexfs_goal(struct inode *inode, const struct vexfs_path *path, u32 block)
{
	const struct vexfs_node *leaf = &path->node[path->depth];
	const struct vexfs_extent *e = &leaf->e[leaf->pos];

	if (leaf->pos < 0)
		return vexfs_group_first(vexfs_group_of_ino(VEXFS_SB(inode->i_sb), inode->i_ino));
	return le64_to_cpu(e->e_start) + (block - le32_to_cpu(e->e_block));
}

/*
 * As vexfs_lookup_run(), and gives a hole blocks: as many of @length as adjoin. File data is asked
 * for unwritten, so that a crash shows zeroes and never what the blocks held before.
 */
int vexfs_map_run(handle_t *handle, struct inode *inode, u32 block, u32 length, bool unwritten,
		  struct vexfs_map *map)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_path path;
	u64 goal;
	int err;

	down_write(&vi->extent_lock);
	err = vexfs_lookup_locked(inode, &path, block, length, map);
	if (err)
		goto unlock;
	goal = vexfs_goal(inode, &path, block);
	vexfs_release(&path);
	if (map->start)
		goto unlock;
	err = vexfs_make_room(handle, inode, block, 1, &path);
	if (err)
		goto update;
	err = vexfs_alloc_blocks(handle, inode, goal, map->length, !unwritten, &map->start,
				 &map->length);
	if (!err) {
		map->unwritten = unwritten;
		map->fresh = true;
		vi->extent_seq++;
		err = vexfs_insert(handle, inode, &path, map);
	}
	vexfs_release(&path);
update:
	if (!err || err == -ENOSPC) {
		int failed = vexfs_update_inode_locked(handle, inode);

		err = err ? err : failed;
	}
unlock:
	map->seq = vi->extent_seq;
	up_write(&vi->extent_lock);
	return err;
}

/* Marks the part of one unwritten run that lies in [block, end) as written. */
static int vexfs_convert_one(handle_t *handle, struct inode *inode, u32 block, u32 end, u32 *done)
{
	struct vexfs_path path;
	struct vexfs_node *leaf;
	struct vexfs_extent old;
	struct vexfs_map map;
	u32 first, length, tail;
	int at, err;

	err = vexfs_lookup_locked(inode, &path, block, end - block, &map);
	if (err)
		return err;
	vexfs_release(&path);
	*done = map.length;
	if (!map.start || !map.unwritten)
		return 0;
	err = vexfs_make_room(handle, inode, block, 2, &path);
	if (err)
		return err;
	leaf = &path.node[path.depth];
	at = leaf->pos;
	old = leaf->e[at];
	first = le32_to_cpu(old.e_block);
	length = vexfs_run_length(&old);
	tail = first + length - (block + map.length);
	if (tail) {
		vexfs_open_slot(inode, leaf, at + 1);
		vexfs_set_run(&leaf->e[at + 1], block + map.length, tail, map.start + map.length,
			      true);
	}
	if (block > first) {
		vexfs_set_run(&leaf->e[at], first, block - first, le64_to_cpu(old.e_start), true);
		vexfs_open_slot(inode, leaf, ++at);
	}
	vexfs_set_run(&leaf->e[at], block, map.length, map.start, false);
	vexfs_join(inode, leaf, at);
	vexfs_join(inode, leaf, at - 1);
	err = vexfs_node_dirty(handle, inode, leaf);
	vexfs_release(&path);
	VEXFS_I(inode)->extent_seq++;
	return err;
}

/* Marks blocks as written after their data reached the disk. Holes, cut meanwhile, are skipped. */
int vexfs_convert_run(handle_t *handle, struct inode *inode, u32 block, u32 length)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	u32 end = block + length, done;
	int err = 0;

	while (block < end && !err) {
		err = vexfs_refill(handle, VEXFS_CREDITS_MAP);
		if (err)
			break;
		down_write(&vi->extent_lock);
		err = vexfs_convert_one(handle, inode, block, end, &done);
		if (!err)
			err = vexfs_update_inode_locked(handle, inode);
		up_write(&vi->extent_lock);
		block += done;
	}
	return err;
}

/* Takes the emptied nodes off the right edge, up to the root. */
static int vexfs_prune(handle_t *handle, struct inode *inode, struct vexfs_path *path)
{
	int d, err = 0;

	for (d = path->depth; d > 0 && !path->node[d].count && !err; d--) {
		struct vexfs_node *parent = &path->node[d - 1];

		err = vexfs_node_access(handle, inode, parent);
		if (err)
			break;
		vexfs_set_count(inode, parent, parent->count - 1);
		err = vexfs_node_dirty(handle, inode, parent);
		if (!err)
			err = vexfs_free_blocks(handle, inode, path->node[d].bh->b_blocknr, 1,
						true);
	}
	if (!VEXFS_I(inode)->extent_count)
		VEXFS_I(inode)->extent_level = 0;
	return err;
}

/* Frees the last run, or the part of it from @from on. Returns 1 if there may be more to do. */
static int vexfs_cut_one(handle_t *handle, struct inode *inode, u32 from)
{
	bool metadata = !S_ISREG(inode->i_mode);
	struct vexfs_path path;
	struct vexfs_node *leaf;
	struct vexfs_extent *last;
	u32 first, length, keep;
	int err = vexfs_walk(inode, U32_MAX, &path);

	if (err)
		return err;
	leaf = &path.node[path.depth];
	if (!leaf->count)
		goto out;
	last = &leaf->e[leaf->count - 1];
	first = le32_to_cpu(last->e_block);
	length = vexfs_run_length(last);
	if (first + length <= from)
		goto out;
	keep = first < from ? from - first : 0;
	err = vexfs_node_access(handle, inode, leaf);
	if (err)
		goto out;
	if (metadata)	/* every block needs a revoke record, of which a handle has few */
		keep = max(keep, length > 8 ? length - 8 : 0);
	err = vexfs_free_blocks(handle, inode, le64_to_cpu(last->e_start) + keep, length - keep,
				metadata);
	if (err)
		goto out;
	if (keep)
		vexfs_set_run(last, first, keep, le64_to_cpu(last->e_start),
			      vexfs_run_unwritten(last));
	else
		vexfs_set_count(inode, leaf, leaf->count - 1);
	VEXFS_I(inode)->extent_seq++;
	err = vexfs_node_dirty(handle, inode, leaf);
	if (!err)
		err = vexfs_prune(handle, inode, &path);
	if (!err)
		err = vexfs_update_inode_locked(handle, inode);
	if (!err)
		err = 1;
out:
	vexfs_release(&path);
	return err;
}

/* Frees every block from @from on, in as many transactions as it takes. */
int vexfs_cut_runs(handle_t *handle, struct inode *inode, u32 from)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	int err;

	do {
		err = vexfs_refill(handle, VEXFS_CREDITS_TRUNCATE);
		if (err)
			break;
		down_write(&vi->extent_lock);
		err = vexfs_cut_one(handle, inode, from);
		up_write(&vi->extent_lock);
	} while (err > 0);
	return err;
}
