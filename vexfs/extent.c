// SPDX-License-Identifier: GPL-2.0
/* Reading the extent tree: which disk blocks hold which part of a file. */
#include "extent.h"

static void vexfs_seek(struct vexfs_node *node, u32 block)
{
	int low = 0, high = node->count;

	while (low < high) {
		int mid = (low + high) / 2;

		if (le32_to_cpu(node->e[mid].e_block) <= block)
			low = mid + 1;
		else
			high = mid;
	}
	node->pos = low - 1;
}

static int vexfs_load_node(struct inode *inode, u64 block, u32 level, struct vexfs_node *node)
{
	struct buffer_head *bh = vexfs_read_block(inode->i_sb, block, VEXFS_EXTENT_MAGIC,
						  inode->i_ino, inode->i_generation);
	struct vexfs_header *h;

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	h = (struct vexfs_header *)bh->b_data;
	node->bh = bh;
	node->e = (struct vexfs_extent *)(h + 1);
	node->count = le16_to_cpu(h->h_count);
	node->max = VEXFS_NODE_EXTENTS;
	if (!node->count || node->count > node->max || le16_to_cpu(h->h_level) != level) {
		vexfs_error(inode->i_sb, block, "extent node of inode %lu has a bad shape",
			    inode->i_ino);
		return -EUCLEAN;
	}
	return 0;
}

void vexfs_release(struct vexfs_path *path)
{
	int d;

	for (d = 1; d <= path->depth; d++)
		brelse(path->node[d].bh);
	path->depth = 0;
}

/* Finds the leaf and the place in it for @block. The caller holds extent_lock and releases. */
int vexfs_walk(struct inode *inode, u32 block, struct vexfs_path *path)
{
	struct vexfs_inode_info *vi = VEXFS_I(inode);
	struct vexfs_node *node = path->node;
	int level, err;

	memset(path, 0, sizeof(*path));
	node->e = vi->root;
	node->count = vi->extent_count;
	node->max = VEXFS_ROOT_EXTENTS;
	vexfs_seek(node, block);
	for (level = vi->extent_level; level > 0; level--) {
		node->pos = max(node->pos, 0);
		path->depth++;
		err = vexfs_load_node(inode, le64_to_cpu(node->e[node->pos].e_start), level - 1,
				      node + 1);
		if (err) {
			vexfs_release(path);
			return err;
		}
		node++;
		vexfs_seek(node, block);
	}
	return 0;
}

/* Where the first run after the path's place begins; the end of all files if there is none. */
static u32 vexfs_next_run(const struct vexfs_path *path)
{
	int d;

	for (d = path->depth; d >= 0; d--) {
		const struct vexfs_node *node = &path->node[d];

		if (node->pos + 1 < node->count)
			return le32_to_cpu(node->e[node->pos + 1].e_block);
	}
	return U32_MAX;
}

int vexfs_lookup_locked(struct inode *inode, struct vexfs_path *path, u32 block, u32 length,
			struct vexfs_map *map)
{
	struct vexfs_node *leaf;
	u32 next;
	int err = vexfs_walk(inode, block, path);

	if (err)
		return err;
	leaf = &path->node[path->depth];
	*map = (struct vexfs_map){ .block = block, .length = length };
	if (leaf->pos >= 0) {
		const struct vexfs_extent *e = &leaf->e[leaf->pos];
		u32 skip = block - le32_to_cpu(e->e_block), len = vexfs_run_length(e);

		if (skip < len) {
			map->start = le64_to_cpu(e->e_start) + skip;
			map->length = min(length, len - skip);
			map->unwritten = vexfs_run_unwritten(e);
			if (vexfs_valid_run(inode->i_sb, map->start, map->length))
				return 0;
			vexfs_error(inode->i_sb, map->start,
				    "inode %lu maps a block it cannot own", inode->i_ino);
			vexfs_release(path);
			return -EUCLEAN;
		}
	}
	next = vexfs_next_run(path);
	if (next > block)	/* always, in a sound tree */
		map->length = min(length, next - block);
	return 0;
}

/* What holds @block, and how far it reaches, up to @length blocks. */
int vexfs_lookup_run(struct inode *inode, u32 block, u32 length, struct vexfs_map *map)
{
	struct vexfs_path path;
	int err;

	down_read(&VEXFS_I(inode)->extent_lock);
	err = vexfs_lookup_locked(inode, &path, block, length, map);
	if (!err)
		vexfs_release(&path);
	map->seq = VEXFS_I(inode)->extent_seq;
	up_read(&VEXFS_I(inode)->extent_lock);
	return err;
}
