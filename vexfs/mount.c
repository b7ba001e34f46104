// SPDX-License-Identifier: GPL-2.0
/* Mounting: options, the superblock's checks, and the way to the root directory. */
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include "super.h"
#include "vector.h"

struct vexfs_options {
	enum vexfs_errors_mode errors;
	u64 vector_cache;
	bool errors_given;
	bool vector_cache_given;
};

enum { Opt_errors, Opt_vector_cache };

static const struct constant_table vexfs_errors_modes[] = {
	{ "remount-ro",	VEXFS_ERRORS_RO },
	{ "continue",	VEXFS_ERRORS_CONTINUE },
	{ "panic",	VEXFS_ERRORS_PANIC },
	{ }
};

const struct fs_parameter_spec vexfs_parameters[] = {
	fsparam_enum("errors", Opt_errors, vexfs_errors_modes),
	fsparam_string("vector_cache", Opt_vector_cache),
	{ }
};

static int vexfs_parse_size(struct fs_context *fc, const char *text, u64 *size)
{
	char *end;

	if (!strcmp(text, "off")) {
		*size = 0;
		return 0;
	}
	*size = memparse(text, &end);
	if (end == text || *end || *size > VEXFS_VECTOR_CACHE_MAX)
		return invalf(fc, "vexfs: vector_cache=%s is neither a size up to 64G nor 'off'",
			      text);
	return 0;
}

static int vexfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct vexfs_options *options = fc->fs_private;
	struct fs_parse_result result;
	int opt = fs_parse(fc, vexfs_parameters, param, &result);

	switch (opt) {
	case Opt_errors:
		options->errors = result.uint_32;
		options->errors_given = true;
		return 0;
	case Opt_vector_cache:
		options->vector_cache_given = true;
		return vexfs_parse_size(fc, param->string, &options->vector_cache);
	}
	return opt;
}

int vexfs_show_options(struct seq_file *seq, struct dentry *root)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(root->d_sb);

	seq_printf(seq, ",errors=%s", vexfs_errors_modes[sbi->errors].name);
	if (sbi->vector_cache_size)
		seq_printf(seq, ",vector_cache=%lluK", sbi->vector_cache_size >> 10);
	else
		seq_puts(seq, ",vector_cache=off");
	return 0;
}

/* Why a superblock cannot be used, or NULL. */
static const char *vexfs_super_flaw(struct super_block *sb, const struct vexfs_super_block *super)
{
	u64 blocks = le64_to_cpu(super->s_blocks), start = le64_to_cpu(super->s_journal_start);
	u32 inodes = le32_to_cpu(super->s_group_inodes), groups = le32_to_cpu(super->s_groups);
	u32 journal = le32_to_cpu(super->s_journal_blocks), bit;

	if (super->s_checksum != vexfs_super_checksum(super))
		return "has a wrong checksum";
	if (le32_to_cpu(super->s_version) != 1 || le32_to_cpu(super->s_incompat) &
	    ~VEXFS_INCOMPAT_KNOWN)
		return "is of a version or has features this module does not know";
	if (le32_to_cpu(super->s_block_bits) != VEXFS_BLOCK_BITS ||
	    le32_to_cpu(super->s_group_blocks) != VEXFS_GROUP_BLOCKS ||
	    le32_to_cpu(super->s_inode_size) != VEXFS_INODE_SIZE)
		return "has sizes this module does not know";
	if (!inodes || inodes > VEXFS_GROUP_INODES_MAX || inodes % VEXFS_INODES_PER_BLOCK ||
	    !groups || blocks > (1ull << 32) ||
	    groups != DIV_ROUND_UP_ULL(blocks - 1, VEXFS_GROUP_BLOCKS) ||
	    (u64)groups * inodes > U32_MAX)
		return "has an impossible shape";
	if (blocks > bdev_nr_bytes(sb->s_bdev) >> VEXFS_BLOCK_BITS)
		return "is larger than its device";
	if (!start || start >= blocks)
		return "has no journal where it should be";
	div_u64_rem(start, VEXFS_GROUP_BLOCKS, &bit);
	if (bit < 2 + inodes / VEXFS_INODES_PER_BLOCK || journal < JBD2_MIN_JOURNAL_BLOCKS ||
	    bit + journal > VEXFS_GROUP_BLOCKS || start + journal >= blocks)
		return "has no journal where it should be";
	return NULL;
}

static int vexfs_read_super(struct super_block *sb, bool silent)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_super_block *super;
	const char *flaw;

	if (!sb_set_blocksize(sb, VEXFS_BLOCK_SIZE)) {
		pr_err("vexfs (%s): the device's sectors are larger than 4096 bytes\n", sb->s_id);
		return -EINVAL;
	}
	/*
	 * While somebody (udev, say) holds the device open, an earlier mount's buffers live on, and
	 * with them the word that they were verified; meanwhile anybody may have written to the device.
	 */
	sync_blockdev(sb->s_bdev);
	invalidate_bdev(sb->s_bdev);
	sbi->super_bh = sb_bread(sb, 0);
	if (!sbi->super_bh) {
		pr_err("vexfs (%s): the superblock cannot be read\n", sb->s_id);
		return -EIO;
	}
	super = (struct vexfs_super_block *)(sbi->super_bh->b_data + VEXFS_SUPER_OFFSET);
	sbi->super = super;
	if (memcmp(super->s_magic, "VexFS\0\0", 8)) {
		if (!silent)
			pr_err("vexfs (%s): no VexFS here\n", sb->s_id);
		return -EINVAL;
	}
	flaw = vexfs_super_flaw(sb, super);
	if (flaw) {
		pr_err("vexfs (%s): the superblock %s: try fsck.vexfs\n", sb->s_id, flaw);
		return -EUCLEAN;
	}
	sbi->blocks = le64_to_cpu(super->s_blocks);
	sbi->groups = le32_to_cpu(super->s_groups);
	sbi->group_inodes = le32_to_cpu(super->s_group_inodes);
	sbi->table_blocks = sbi->group_inodes / VEXFS_INODES_PER_BLOCK;
	sbi->reserved_blocks = min_t(u64, le32_to_cpu(super->s_reserved_blocks), sbi->blocks / 4);
	sbi->seed = __crc32c_le(~0, super->s_uuid, sizeof(super->s_uuid));
	return 0;
}

static int vexfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct vexfs_options *options = fc->fs_private;
	struct vexfs_sb_info *sbi = vexfs_alloc_sbi(sb);
	struct inode *root;
	int err = -ENOMEM;

	if (!sbi)
		return -ENOMEM;
	sb->s_fs_info = sbi;
	sbi->errors = options->errors;
	sbi->vector_cache_size = options->vector_cache;
	err = vexfs_read_super(sb, fc->sb_flags & SB_SILENT);
	if (err)
		goto fail;
	sb->s_magic = VEXFS_SUPER_MAGIC;
	sb->s_maxbytes = ((loff_t)U32_MAX - 1) << VEXFS_BLOCK_BITS;
	sb->s_max_links = VEXFS_LINK_MAX;
	sb->s_time_gran = 1;
	sb->s_time_min = S64_MIN;
	sb->s_time_max = S64_MAX;
	sb->s_op = &vexfs_super_ops;
	sb->s_xattr = vexfs_xattr_handlers;
	sb->s_export_op = &vexfs_export_ops;
	memcpy(&sb->s_uuid, sbi->super->s_uuid, sizeof(sb->s_uuid));

	err = -ENOMEM;
	sbi->group = kvcalloc(sbi->groups, sizeof(*sbi->group), GFP_KERNEL);
	if (!sbi->group)
		goto fail;
	err = vexfs_journal_open(sb);
	if (err) {
		pr_err("vexfs (%s): the journal cannot be opened or replayed (%d)\n", sb->s_id,
		       err);
		goto fail;
	}
	err = vexfs_load_groups(sb);
	if (err)
		goto fail_journal;
	root = vexfs_iget(sb, VEXFS_ROOT_INO);
	err = PTR_ERR_OR_ZERO(root);
	if (!err && !S_ISDIR(root->i_mode)) {
		pr_err("vexfs (%s): the root is not a directory\n", sb->s_id);
		iput(root);
		err = -EUCLEAN;
	}
	if (err)
		goto fail_journal;
	sb->s_root = d_make_root(root);
	if (!sb->s_root) {
		err = -ENOMEM;
		goto fail_journal;
	}
	vexfs_sysfs_add(sb);
	if (!sb_rdonly(sb))
		err = vexfs_make_writable(sb);
	return err;		/* with s_root set, put_super cleans up */

fail_journal:
	vexfs_journal_close(sb);
fail:
	flush_work(&sbi->error_work);
	sb->s_fs_info = NULL;
	vexfs_free_sbi(sbi);
	return err;
}

static int vexfs_get_tree(struct fs_context *fc)
{
	return get_tree_bdev(fc, vexfs_fill_super);
}

static int vexfs_reconfigure(struct fs_context *fc)
{
	struct vexfs_options *options = fc->fs_private;
	struct super_block *sb = fc->root->d_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	bool readonly = fc->sb_flags & SB_RDONLY;
	int err = 0;

	sync_filesystem(sb);
	if (readonly != sb_rdonly(sb))
		err = readonly ? vexfs_make_quiet(sb) : vexfs_make_writable(sb);
	if (err)
		return err;
	if (options->errors_given)
		sbi->errors = options->errors;
	if (options->vector_cache_given) {
		WRITE_ONCE(sbi->vector_cache_size, options->vector_cache);
		vexfs_cache_trim(&sbi->vector_cache, options->vector_cache);
	}
	return 0;
}

static void vexfs_free_fc(struct fs_context *fc)
{
	kfree(fc->fs_private);
}

static const struct fs_context_operations vexfs_context_ops = {
	.free		= vexfs_free_fc,
	.parse_param	= vexfs_parse_param,
	.get_tree	= vexfs_get_tree,
	.reconfigure	= vexfs_reconfigure,
};

int vexfs_init_fs_context(struct fs_context *fc)
{
	struct vexfs_options *options = kzalloc(sizeof(*options), GFP_KERNEL);

	if (!options)
		return -ENOMEM;
	options->vector_cache = VEXFS_VECTOR_CACHE_DEFAULT;
	fc->fs_private = options;
	fc->ops = &vexfs_context_ops;
	return 0;
}
