/* SPDX-License-Identifier: GPL-2.0 */
/* Between super.c (a file system's life) and mount.c (its birth). */
#ifndef VEXFS_SUPER_H
#define VEXFS_SUPER_H

#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/seq_file.h>

extern const struct super_operations vexfs_super_ops;
extern const struct fs_parameter_spec vexfs_parameters[];
extern const struct export_operations vexfs_export_ops;
extern const struct xattr_handler *vexfs_xattr_handlers[];

int vexfs_init_fs_context(struct fs_context *fc);
int vexfs_show_options(struct seq_file *seq, struct dentry *root);
struct vexfs_sb_info *vexfs_alloc_sbi(struct super_block *sb);
void vexfs_free_sbi(struct vexfs_sb_info *sbi);
int vexfs_make_writable(struct super_block *sb);
int vexfs_make_quiet(struct super_block *sb);

#endif
