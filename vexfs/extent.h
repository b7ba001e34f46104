/* SPDX-License-Identifier: GPL-2.0 */
/* The extent tree from within: a path from the root in the inode to one place in a leaf. */
#ifndef VEXFS_EXTENT_H
#define VEXFS_EXTENT_H

#include "vexfs.h"

struct vexfs_node {
	struct buffer_head *bh;		/* NULL for the root, which lives in the inode */
	struct vexfs_extent *e;
	int count;
	int max;
	int pos;			/* last entry that begins at or before the block; -1: none */
};

struct vexfs_path {
	struct vexfs_node node[VEXFS_MAX_LEVEL + 1];
	int depth;			/* node[depth] is the leaf */
};

int vexfs_walk(struct inode *inode, u32 block, struct vexfs_path *path);
void vexfs_release(struct vexfs_path *path);
int vexfs_lookup_locked(struct inode *inode, struct vexfs_path *path, u32 block, u32 length,
			struct vexfs_map *map);

static inline u32 vexfs_run_length(const struct vexfs_extent *e)
{
	return le32_to_cpu(e->e_length) & ~VEXFS_EXTENT_UNWRITTEN;
}

static inline bool vexfs_run_unwritten(const struct vexfs_extent *e)
{
	return le32_to_cpu(e->e_length) & VEXFS_EXTENT_UNWRITTEN;
}

#endif
