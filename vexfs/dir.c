// SPDX-License-Identifier: GPL-2.0
/* Directories: rows of blocks, each a row of entries that never move while they live. */
#include "vexfs.h"

static unsigned int vexfs_used(const struct vexfs_dirent *de)
{
	return de->d_ino ? VEXFS_DIRENT_LEN(de->d_name_len) : 0;
}

struct buffer_head *vexfs_dir_block(struct inode *dir, u32 block)
{
	struct vexfs_map map;
	int err = vexfs_lookup_run(dir, block, 1, &map);

	if (err)
		return ERR_PTR(err);
	if (!map.start) {
		vexfs_error(dir->i_sb, 0, "directory %lu has a hole", dir->i_ino);
		return ERR_PTR(-EUCLEAN);
	}
	return vexfs_read_block(dir->i_sb, map.start, VEXFS_DIR_MAGIC, dir->i_ino,
				dir->i_generation);
}

/*
 * The entry at *@next (0: the first), which moves on; NULL after the last. Every entry is checked
 * before it is used: its bounds, its name's, and the inode number.
 */
struct vexfs_dirent *vexfs_next_entry(struct inode *dir, struct buffer_head *bh,
				      unsigned int *next)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(dir->i_sb);
	unsigned int offset = *next ? : sizeof(struct vexfs_header), rec_len;
	struct vexfs_dirent *de = (struct vexfs_dirent *)(bh->b_data + offset);

	if (offset == VEXFS_BLOCK_SIZE)
		return NULL;
	if (offset + VEXFS_DIRENT_LEN(1) > VEXFS_BLOCK_SIZE)
		goto bad;
	rec_len = le16_to_cpu(de->d_rec_len);
	if (rec_len < VEXFS_DIRENT_LEN(1) || rec_len % 8 || offset + rec_len > VEXFS_BLOCK_SIZE ||
	    vexfs_used(de) > rec_len)
		goto bad;
	if (de->d_ino && (!de->d_name_len ||
			  vexfs_group_of_ino(sbi, le32_to_cpu(de->d_ino)) >= sbi->groups))
		goto bad;
	*next = offset + rec_len;
	return de;
bad:
	vexfs_error(dir->i_sb, bh->b_blocknr, "directory %lu has a bad entry at byte %u",
		    dir->i_ino, offset);
	return ERR_PTR(-EUCLEAN);
}

/* The longest entry a block can take; 0 if it is damaged. */
int vexfs_dir_room(struct inode *dir, struct buffer_head *bh)
{
	unsigned int next, room = 0;
	struct vexfs_dirent *de;

	vexfs_for_each_entry(de, dir, bh, next)
		room = max(room, le16_to_cpu(de->d_rec_len) - vexfs_used(de));
	return IS_ERR(de) || room < VEXFS_DIRENT_LEN(1) ? 0 : room;
}

/* Looks for a name in one block; *@before is the entry before it, for removal. */
static struct vexfs_dirent *vexfs_find_in_block(struct inode *dir, struct buffer_head *bh,
						const struct qstr *name,
						struct vexfs_dirent **before)
{
	struct vexfs_dirent *de, *last = NULL;
	unsigned int next;

	vexfs_for_each_entry(de, dir, bh, next) {
		if (de->d_ino && de->d_name_len == name->len &&
		    !memcmp(de->d_name, name->name, name->len)) {
			if (before)
				*before = last;
			return de;
		}
		last = de;
	}
	return de;
}

static struct vexfs_dirent *vexfs_locate(struct inode *dir, const struct qstr *name,
					 struct buffer_head **bh, u32 *block,
					 struct vexfs_dirent **before)
{
	u32 hash = vexfs_name_hash(name->name, name->len), slot = hash;
	struct vexfs_dirhash *dh = vexfs_dirhash_get(dir);
	struct vexfs_dirent *de;

	if (IS_ERR(dh))
		return ERR_CAST(dh);
	while (vexfs_dirhash_next(dh, hash, &slot, block)) {
		*bh = vexfs_dir_block(dir, *block);
		if (IS_ERR(*bh))
			return ERR_CAST(*bh);
		de = vexfs_find_in_block(dir, *bh, name, before);
		if (de && !IS_ERR(de))
			return de;
		brelse(*bh);
		if (de)
			return de;
	}
	return NULL;
}

/* The entry of a name, NULL, or an error. With an entry comes its block, to be released. */
struct vexfs_dirent *vexfs_find_entry(struct inode *dir, const struct qstr *name,
				      struct buffer_head **bh)
{
	u32 block;

	return vexfs_locate(dir, name, bh, &block, NULL);
}

static void vexfs_fill_entry(struct vexfs_dirent *de, struct inode *inode)
{
	de->d_ino = cpu_to_le32(inode->i_ino);
	de->d_type = fs_umode_to_dtype(inode->i_mode);
}

static int vexfs_dir_changed(handle_t *handle, struct inode *dir)
{
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
	return vexfs_update_inode(handle, dir);
}

/* Puts an entry into the slack of the first one that has enough; write access is given. */
static int vexfs_put_entry(struct inode *dir, struct buffer_head *bh, const struct qstr *name,
			   struct inode *inode)
{
	unsigned int need = VEXFS_DIRENT_LEN(name->len), next, used, rec_len;
	struct vexfs_dirent *de;

	vexfs_for_each_entry(de, dir, bh, next) {
		rec_len = le16_to_cpu(de->d_rec_len);
		used = vexfs_used(de);
		if (rec_len - used < need)
			continue;
		if (used) {
			de->d_rec_len = cpu_to_le16(used);
			de = (struct vexfs_dirent *)((char *)de + used);
			de->d_rec_len = cpu_to_le16(rec_len - used);
		}
		vexfs_fill_entry(de, inode);
		de->d_name_len = name->len;
		memcpy(de->d_name, name->name, name->len);
		return 0;
	}
	return -EUCLEAN;	/* the hash promised room */
}

/* A new block at the end of the directory, one unused entry. */
static struct buffer_head *vexfs_grow_dir(handle_t *handle, struct inode *dir, u32 block)
{
	struct vexfs_dirent *de;
	struct buffer_head *bh;
	struct vexfs_map map;
	int err = vexfs_map_run(handle, dir, block, 1, false, &map);

	if (err)
		return ERR_PTR(err);
	bh = vexfs_new_block(handle, dir->i_sb, map.start, VEXFS_DIR_MAGIC, dir->i_ino,
			     dir->i_generation);
	if (IS_ERR(bh))
		return bh;
	de = (struct vexfs_dirent *)(bh->b_data + sizeof(struct vexfs_header));
	de->d_rec_len = cpu_to_le16(VEXFS_DIR_SPACE);
	i_size_write(dir, (loff_t)(block + 1) << VEXFS_BLOCK_BITS);
	return bh;
}

/* Adds a name; the caller knows that it is not there. */
int vexfs_add_entry(handle_t *handle, struct inode *dir, const struct qstr *name,
		    struct inode *inode)
{
	struct vexfs_dirhash *dh = vexfs_dirhash_get(dir);
	struct buffer_head *bh;
	int block, err = 0;

	if (IS_ERR(dh))
		return PTR_ERR(dh);
	block = vexfs_dirhash_find_room(dh, VEXFS_DIRENT_LEN(name->len));
	if (block < 0) {
		block = i_size_read(dir) >> VEXFS_BLOCK_BITS;
		bh = vexfs_grow_dir(handle, dir, block);
	} else {
		bh = vexfs_dir_block(dir, block);
		if (!IS_ERR(bh))
			err = vexfs_access(handle, dir->i_sb, bh);
	}
	if (IS_ERR(bh))
		return PTR_ERR(bh);
	if (!err)
		err = vexfs_put_entry(dir, bh, name, inode);
	if (!err)
		err = vexfs_dirty(handle, dir->i_sb, bh);
	if (!err) {
		vexfs_dirhash_add(dir, vexfs_name_hash(name->name, name->len), block);
		vexfs_dirhash_room(dir, bh, block);
		err = vexfs_dir_changed(handle, dir);
	}
	brelse(bh);
	return err;
}

/* Points an entry at another inode. */
int vexfs_set_entry(handle_t *handle, struct inode *dir, struct buffer_head *bh,
		    struct vexfs_dirent *de, struct inode *inode)
{
	int err = vexfs_access(handle, dir->i_sb, bh);

	if (err)
		return err;
	vexfs_fill_entry(de, inode);
	err = vexfs_dirty(handle, dir->i_sb, bh);
	return err ? err : vexfs_dir_changed(handle, dir);
}

/* Takes a name away; its space goes to the entry before it. */
int vexfs_remove_entry(handle_t *handle, struct inode *dir, const struct qstr *name)
{
	struct vexfs_dirent *de, *before;
	struct buffer_head *bh;
	u32 block;
	int err;

	de = vexfs_locate(dir, name, &bh, &block, &before);
	if (IS_ERR_OR_NULL(de))
		return de ? PTR_ERR(de) : -ENOENT;
	err = vexfs_access(handle, dir->i_sb, bh);
	if (err)
		goto out;
	if (before)
		le16_add_cpu(&before->d_rec_len, le16_to_cpu(de->d_rec_len));
	de->d_ino = 0;
	err = vexfs_dirty(handle, dir->i_sb, bh);
	if (err)
		goto out;
	vexfs_dirhash_del(dir, vexfs_name_hash(name->name, name->len), block);
	vexfs_dirhash_room(dir, bh, block);
	err = vexfs_dir_changed(handle, dir);
out:
	brelse(bh);
	return err;
}

bool vexfs_dir_empty(struct inode *dir)
{
	u32 blocks = i_size_read(dir) >> VEXFS_BLOCK_BITS, block;
	struct vexfs_dirent *de = NULL;
	struct buffer_head *bh;
	unsigned int next;

	for (block = 0; block < blocks && !de; block++) {
		bh = vexfs_dir_block(dir, block);
		if (IS_ERR(bh))
			return false;
		vexfs_for_each_entry(de, dir, bh, next)
			if (de->d_ino)
				break;
		brelse(bh);
	}
	return !de;
}

/*
 * A position is the entry's byte in the directory; 0 and 1 are "." and "..". Entries may have been
 * joined since it was given out, so a block is always walked from its beginning.
 */
static int vexfs_readdir(struct file *file, struct dir_context *ctx)
{
	struct inode *dir = file_inode(file);
	struct vexfs_dirent *de;
	struct buffer_head *bh;
	unsigned int next;
	loff_t base, at;

	if (!dir_emit_dots(file, ctx))
		return 0;
	while (ctx->pos < i_size_read(dir)) {
		base = ctx->pos & ~(loff_t)(VEXFS_BLOCK_SIZE - 1);
		bh = vexfs_dir_block(dir, base >> VEXFS_BLOCK_BITS);
		if (IS_ERR(bh))
			return PTR_ERR(bh);
		vexfs_for_each_entry(de, dir, bh, next) {
			at = base + ((char *)de - bh->b_data);
			if (at < ctx->pos || !de->d_ino)
				continue;
			ctx->pos = at;
			if (!dir_emit(ctx, de->d_name, de->d_name_len, le32_to_cpu(de->d_ino),
				      de->d_type))
				break;
			ctx->pos++;
		}
		brelse(bh);
		if (de)		/* the reader has enough, or damage */
			return PTR_ERR_OR_ZERO(de);
		ctx->pos = base + VEXFS_BLOCK_SIZE;
	}
	return 0;
}

const struct file_operations vexfs_dir_ops = {
	.llseek		= generic_file_llseek,
	.read		= generic_read_dir,
	.iterate_shared	= vexfs_readdir,
	.fsync		= vexfs_fsync,
	.unlocked_ioctl	= vexfs_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};
