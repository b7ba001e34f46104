/* SPDX-License-Identifier: GPL-2.0 */
/* Vectors inside the module. Numbers travel as their bits; only vector_math.c looks into them. */
#ifndef VEXFS_VECTOR_H
#define VEXFS_VECTOR_H

#include "uapi/vexfs.h"
#include "vexfs.h"

#define VEXFS_NO_NORM	U64_MAX	/* no length: a NaN */

struct vexfs_cached {
	refcount_t refs;
	struct list_head lru;
	u32 ino;
	u32 generation;
	u32 dims;
	u64 norm;		/* bits of its length; VEXFS_NO_NORM: not asked for yet */
	u32 data[];
};

/* vector_math.c; call between kernel_fpu_begin() and kernel_fpu_end() */
u64 vexfs_norm(const u32 *a, u32 dims);
u64 vexfs_score(u32 metric, const u32 *a, u64 norm_a, const u32 *b, u64 norm_b, u32 dims);

/* vector.c */
int vexfs_read_vector(struct inode *inode, u32 *data);
int vexfs_free_vector(handle_t *handle, struct inode *inode);

/* vector_cache.c */
void vexfs_cache_init(struct vexfs_vector_cache *cache);
void vexfs_cache_trim(struct vexfs_vector_cache *cache, u64 size);
struct vexfs_cached *vexfs_cache_get(struct inode *inode, u32 dims);
void vexfs_cache_put(struct vexfs_cached *entry);
void vexfs_cache_forget(struct inode *inode);

/* search.c */
int vexfs_search_ioctl(struct file *file, struct vexfs_search_arg __user *user);

#endif
