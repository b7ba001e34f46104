// SPDX-License-Identifier: GPL-2.0
/*
 * The nearest vectors below a directory: every one is compared, so the answer is exact.
 *
 * Scores are binary64 computed in the order the UAPI header gives; ranked by score, then inode
 * number.
 */
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <asm/fpu/api.h>
#include "vector.h"

struct vexfs_search {
	struct mnt_idmap *idmap;
	u32 metric;
	u32 dims;
	u32 k;
	const u32 *query;
	u64 norm;			/* of the query */
	struct vexfs_hit *hits;		/* sorted, best first */
	u32 found;
	u64 scanned;
	u32 *dirs;			/* still to be visited */
	u32 dirs_used;
	u32 dirs_max;
};

/* An integer that orders as the number does; there are no NaNs. */
static u64 vexfs_rank(u64 score)
{
	return score >> 63 ? ~score : score | 1ull << 63;
}

static bool vexfs_before(const struct vexfs_hit *a, const struct vexfs_hit *b)
{
	u64 ra = vexfs_rank(a->score), rb = vexfs_rank(b->score);

	return ra != rb ? ra < rb : a->ino < b->ino;
}

/* Puts a hit in its place, unless k better ones are there or it came under another name. */
static void vexfs_offer(struct vexfs_search *s, const struct vexfs_hit *hit)
{
	u32 low = 0, high = s->found;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (vexfs_before(&s->hits[mid], hit))
			low = mid + 1;
		else
			high = mid;
	}
	if (low == s->k || (low < s->found && s->hits[low].ino == hit->ino))
		return;
	if (s->found < s->k)
		s->found++;
	memmove(&s->hits[low + 1], &s->hits[low], (s->found - low - 1) * sizeof(*hit));
	s->hits[low] = *hit;
}

static int vexfs_compare(struct vexfs_search *s, struct inode *inode, u32 parent)
{
	struct vexfs_hit hit = { .ino = inode->i_ino, .generation = inode->i_generation,
				 .parent = parent };
	struct vexfs_cached *entry;
	u64 norm;

	if (VEXFS_I(inode)->vector_dims != s->dims ||
	    inode_permission(s->idmap, inode, MAY_READ))
		return 0;
	entry = vexfs_cache_get(inode, s->dims);
	if (IS_ERR_OR_NULL(entry))
		return PTR_ERR_OR_ZERO(entry);
	kernel_fpu_begin();
	norm = READ_ONCE(entry->norm);
	if (s->metric == VEXFS_METRIC_COSINE && norm == VEXFS_NO_NORM) {
		norm = vexfs_norm(entry->data, s->dims);
		WRITE_ONCE(entry->norm, norm);	/* whoever computes it gets the same */
	}
	hit.score = vexfs_score(s->metric, s->query, s->norm, entry->data, norm, s->dims);
	kernel_fpu_end();
	vexfs_cache_put(entry);
	s->scanned++;
	vexfs_offer(s, &hit);
	return 0;
}

static int vexfs_visit_later(struct vexfs_search *s, u32 ino)
{
	if (s->dirs_used == s->dirs_max) {
		u32 more = max(64u, s->dirs_max * 2), *wider;

		wider = kvmalloc_array(more, sizeof(*wider), GFP_KERNEL);
		if (!wider)
			return -ENOMEM;
		if (s->dirs_used)
			memcpy(wider, s->dirs, s->dirs_used * sizeof(*wider));
		kvfree(s->dirs);
		s->dirs = wider;
		s->dirs_max = more;
	}
	s->dirs[s->dirs_used++] = ino;
	return 0;
}

static int vexfs_search_entry(struct vexfs_search *s, struct inode *dir,
			      const struct vexfs_dirent *de)
{
	u32 ino = le32_to_cpu(de->d_ino);
	struct inode *inode;
	int err;

	if (ino && de->d_type == DT_DIR)
		return vexfs_visit_later(s, ino);
	if (!ino || de->d_type != DT_REG)
		return 0;
	inode = vexfs_iget(dir->i_sb, ino);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	err = vexfs_compare(s, inode, dir->i_ino);
	iput(inode);
	return err;
}

static int vexfs_search_block(struct vexfs_search *s, struct inode *dir, u32 block)
{
	struct buffer_head *bh = vexfs_dir_block(dir, block);
	struct vexfs_dirent *de;
	unsigned int next;
	int err = 0;

	if (IS_ERR(bh))
		return PTR_ERR(bh);
	vexfs_for_each_entry(de, dir, bh, next) {
		err = vexfs_search_entry(s, dir, de);
		if (err)
			break;
	}
	brelse(bh);
	return err ? err : PTR_ERR_OR_ZERO(de);
}

static int vexfs_search_dir(struct vexfs_search *s, struct inode *dir)
{
	u32 block;
	int err = 0;

	if (!S_ISDIR(dir->i_mode) || inode_permission(s->idmap, dir, MAY_READ | MAY_EXEC))
		return 0;
	inode_lock_shared(dir);
	for (block = 0; block < i_size_read(dir) >> VEXFS_BLOCK_BITS && !err; block++) {
		err = vexfs_search_block(s, dir, block);
		if (fatal_signal_pending(current))
			err = -EINTR;
		cond_resched();
	}
	inode_unlock_shared(dir);
	return err;
}

static int vexfs_search(struct vexfs_search *s, struct inode *top)
{
	int err = vexfs_search_dir(s, top);

	while (!err && s->dirs_used) {
		struct inode *dir = vexfs_iget(top->i_sb, s->dirs[--s->dirs_used]);

		if (IS_ERR(dir))
			return PTR_ERR(dir);
		/* It may have been removed, and its number used again, since we saw its name. */
		err = dir->i_nlink ? vexfs_search_dir(s, dir) : 0;
		iput(dir);
	}
	return err;
}

int vexfs_search_ioctl(struct file *file, struct vexfs_search_arg __user *user)
{
	struct vexfs_search s = { .idmap = file_mnt_idmap(file) };
	struct vexfs_search_arg arg;
	u32 *query;
	int err;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.flags || arg.reserved || arg.reserved2[0] || arg.reserved2[1] ||
	    arg.metric > VEXFS_METRIC_INNER || !arg.k || arg.k > VEXFS_SEARCH_MAX)
		return -EINVAL;
	query = vexfs_user_vector(arg.query, arg.dims);
	if (IS_ERR(query))
		return PTR_ERR(query);
	s.metric = arg.metric;
	s.dims = arg.dims;
	s.k = arg.k;
	s.query = query;
	kernel_fpu_begin();
	s.norm = vexfs_norm(query, s.dims);
	kernel_fpu_end();
	s.hits = kvcalloc(arg.k, sizeof(*s.hits), GFP_KERNEL);
	err = s.hits ? vexfs_search(&s, file_inode(file)) : -ENOMEM;
	if (!err) {
		arg.found = s.found;
		arg.scanned = s.scanned;
		if (copy_to_user(u64_to_user_ptr(arg.hits), s.hits, s.found * sizeof(*s.hits)) ||
		    copy_to_user(user, &arg, sizeof(arg)))
			err = -EFAULT;
	}
	kvfree(s.dirs);
	kvfree(s.hits);
	kvfree(query);
	return err;
}
