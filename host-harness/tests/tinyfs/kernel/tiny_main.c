// SPDX-License-Identifier: GPL-2.0
/*
 * tinyfs: a file system for the tests of the image builder, as unlike VexFS to
 * build and to use as its source configuration can say. On the device there is
 * a magic number and a label; files are in the page cache and go with the
 * mount. For Linux 6.1.
 */
#include <linux/backing-dev.h>
#include <linux/buffer_head.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "tiny_version.h"

#define TINY_MAGIC 0x594e4954 /* "TINY" */
#define TINY_LABEL 16
#define TINY_BLOCK 4096

struct tiny_on_disk {
	__le32 magic;
	char label[TINY_LABEL];
};

static const struct inode_operations tiny_dir_inode_operations;

static const struct file_operations tiny_file_operations = {
	.llseek = generic_file_llseek,
	.read_iter = generic_file_read_iter,
	.write_iter = generic_file_write_iter,
	.mmap = generic_file_mmap,
	.fsync = noop_fsync,
	.splice_read = generic_file_splice_read,
	.splice_write = iter_file_splice_write,
};

static const struct inode_operations tiny_file_inode_operations = {
	.setattr = simple_setattr,
	.getattr = simple_getattr,
};

static struct inode *tiny_inode(struct super_block *sb, struct inode *dir,
				umode_t mode, dev_t dev)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	inode->i_ino = get_next_ino();
	inode_init_owner(&init_user_ns, inode, dir, mode);
	inode->i_mapping->a_ops = &ram_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	mapping_set_unevictable(inode->i_mapping);
	inode->i_atime = inode->i_mtime = inode->i_ctime = current_time(inode);
	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &tiny_file_inode_operations;
		inode->i_fop = &tiny_file_operations;
		break;
	case S_IFDIR:
		inode->i_op = &tiny_dir_inode_operations;
		inode->i_fop = &simple_dir_operations;
		inc_nlink(inode);
		break;
	case S_IFLNK:
		inode->i_op = &page_symlink_inode_operations;
		inode_nohighmem(inode);
		break;
	default:
		init_special_inode(inode, mode, dev);
	}
	return inode;
}

/* The name stays in the dentry cache for as long as the file system is mounted. */
static void tiny_pin(struct inode *dir, struct dentry *dentry, struct inode *inode)
{
	d_instantiate(dentry, inode);
	dget(dentry);
	dir->i_mtime = dir->i_ctime = current_time(dir);
}

static int tiny_mknod(struct user_namespace *ns, struct inode *dir,
		      struct dentry *dentry, umode_t mode, dev_t dev)
{
	struct inode *inode = tiny_inode(dir->i_sb, dir, mode, dev);

	if (!inode)
		return -ENOSPC;
	tiny_pin(dir, dentry, inode);
	return 0;
}

static int tiny_create(struct user_namespace *ns, struct inode *dir,
		       struct dentry *dentry, umode_t mode, bool excl)
{
	return tiny_mknod(ns, dir, dentry, mode | S_IFREG, 0);
}

static int tiny_mkdir(struct user_namespace *ns, struct inode *dir,
		      struct dentry *dentry, umode_t mode)
{
	int err = tiny_mknod(ns, dir, dentry, mode | S_IFDIR, 0);

	if (!err)
		inc_nlink(dir);
	return err;
}

static int tiny_symlink(struct user_namespace *ns, struct inode *dir,
			struct dentry *dentry, const char *target)
{
	struct inode *inode = tiny_inode(dir->i_sb, dir, S_IFLNK | 0777, 0);
	int err;

	if (!inode)
		return -ENOSPC;
	err = page_symlink(inode, target, strlen(target) + 1);
	if (err) {
		iput(inode);
		return err;
	}
	tiny_pin(dir, dentry, inode);
	return 0;
}

static const struct inode_operations tiny_dir_inode_operations = {
	.create = tiny_create,
	.lookup = simple_lookup,
	.link = simple_link,
	.unlink = simple_unlink,
	.symlink = tiny_symlink,
	.mkdir = tiny_mkdir,
	.rmdir = simple_rmdir,
	.mknod = tiny_mknod,
	.rename = simple_rename,
	.getattr = simple_getattr,
	.setattr = simple_setattr,
};

static int tiny_show_options(struct seq_file *m, struct dentry *root)
{
	seq_show_option(m, "label", root->d_sb->s_fs_info);
	return 0;
}

static const struct super_operations tiny_super_operations = {
	.statfs = simple_statfs,
	.drop_inode = generic_delete_inode,
	.show_options = tiny_show_options,
};

static int tiny_fill_super(struct super_block *sb, struct fs_context *fc)
{
	const struct tiny_on_disk *disk;
	struct buffer_head *bh;
	struct inode *root;
	bool ours;

	if (!sb_set_blocksize(sb, TINY_BLOCK))
		return invalf(fc, "tinyfs: the device cannot do blocks of %d bytes", TINY_BLOCK);
	bh = sb_bread(sb, 0);
	if (!bh)
		return -EIO;
	disk = (const struct tiny_on_disk *)bh->b_data;
	if (le32_to_cpu(disk->magic) != TINY_MAGIC) {
		brelse(bh);
		return invalf(fc, "tinyfs: no tinyfs on this device");
	}
	ours = strnlen(disk->label, TINY_LABEL) == strlen(sb->s_fs_info) &&
	       !strncmp(disk->label, sb->s_fs_info, TINY_LABEL);
	brelse(bh);
	if (!ours)
		return invalf(fc, "tinyfs: the label of the device is another one");
	/* Nothing is ever written back, though there is a device below. */
	bdi_put(sb->s_bdi);
	sb->s_bdi = &noop_backing_dev_info;
	sb->s_magic = TINY_MAGIC;
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_op = &tiny_super_operations;
	sb->s_time_gran = 1;
	root = tiny_inode(sb, NULL, S_IFDIR | 0755, 0);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

enum { opt_label };

static const struct fs_parameter_spec tiny_parameters[] = {
	fsparam_string("label", opt_label),
	{}
};

static int tiny_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct fs_parse_result result;
	int opt = fs_parse(fc, tiny_parameters, param, &result);

	if (opt < 0)
		return opt;
	kfree(fc->s_fs_info);
	fc->s_fs_info = param->string;
	param->string = NULL;
	return 0;
}

static int tiny_get_tree(struct fs_context *fc)
{
	if (!fc->s_fs_info)
		return invalf(fc, "tinyfs: no label given: mount with -o label=NAME");
	return get_tree_bdev(fc, tiny_fill_super);
}

static void tiny_free_fc(struct fs_context *fc)
{
	kfree(fc->s_fs_info);
}

static const struct fs_context_operations tiny_context_operations = {
	.parse_param = tiny_parse_param,
	.get_tree = tiny_get_tree,
	.free = tiny_free_fc,
};

static int tiny_init_fs_context(struct fs_context *fc)
{
	fc->ops = &tiny_context_operations;
	return 0;
}

static void tiny_kill_sb(struct super_block *sb)
{
	if (sb->s_root)
		d_genocide(sb->s_root);
	kill_block_super(sb);
	kfree(sb->s_fs_info);
}

static struct file_system_type tiny_type = {
	.owner = THIS_MODULE,
	.name = "tinyfs",
	.init_fs_context = tiny_init_fs_context,
	.parameters = tiny_parameters,
	.kill_sb = tiny_kill_sb,
	.fs_flags = FS_REQUIRES_DEV,
};
MODULE_ALIAS_FS("tinyfs");

static int __init tiny_init(void)
{
	return register_filesystem(&tiny_type);
}

static void __exit tiny_exit(void)
{
	unregister_filesystem(&tiny_type);
	rcu_barrier();
}

module_init(tiny_init);
module_exit(tiny_exit);
MODULE_DESCRIPTION("tinyfs, for the tests of the image builder");
MODULE_LICENSE("GPL");
MODULE_VERSION(TINY_VERSION_STRING);
