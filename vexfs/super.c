// SPDX-License-Identifier: GPL-2.0
/* The file system as a whole: mounted, synced, frozen, unmounted; and what happens on damage. */
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/module.h>
#include <linux/statfs.h>
#include "vexfs.h"
#include "super.h"
#include "vector.h"

static struct kmem_cache *vexfs_inode_cache;

/* Damage was found: note it in the superblock, then do as errors= says. */
void vexfs_error(struct super_block *sb, u64 block, const char *fmt, ...)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct va_format vaf;
	va_list args;

	va_start(args, fmt);
	vaf.fmt = fmt;
	vaf.va = &args;
	pr_err_ratelimited("vexfs (%s): error at block %llu: %pV\n", sb->s_id, block, &vaf);
	va_end(args);
	atomic_inc(&sbi->error_count);
	sbi->error_block = block;
	if (sbi->errors == VEXFS_ERRORS_PANIC)
		panic("vexfs (%s): mounted with errors=panic", sb->s_id);
	if (!sb_rdonly(sb)) {
		queue_work(system_unbound_wq, &sbi->error_work);
		if (sbi->errors == VEXFS_ERRORS_RO) {
			pr_crit("vexfs (%s): made read-only\n", sb->s_id);
			if (sbi->journal)
				jbd2_journal_abort(sbi->journal, -EIO);
			sb->s_flags |= SB_RDONLY;
		}
	}
}

/* The superblock is not journaled: each of its writes fits one sector's worth of changed facts. */
int vexfs_write_super(struct super_block *sb, bool wait)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_super_block *super = sbi->super;
	int errors = atomic_xchg(&sbi->error_count, 0);

	mutex_lock(&sbi->super_lock);
	lock_buffer(sbi->super_bh);
	if (errors) {
		le32_add_cpu(&super->s_error_count, errors);
		super->s_state |= cpu_to_le32(VEXFS_STATE_ERRORS);
		super->s_error_time = cpu_to_le64(ktime_get_real_seconds());
		super->s_error_block = cpu_to_le64(sbi->error_block);
	}
	super->s_write_time = cpu_to_le64(ktime_get_real_seconds());
	super->s_checksum = vexfs_super_checksum(super);
	unlock_buffer(sbi->super_bh);
	mark_buffer_dirty(sbi->super_bh);
	mutex_unlock(&sbi->super_lock);
	return wait ? sync_dirty_buffer(sbi->super_bh) : 0;
}

static void vexfs_error_work(struct work_struct *work)
{
	struct vexfs_sb_info *sbi = container_of(work, struct vexfs_sb_info, error_work);

	vexfs_write_super(sbi->sb, true);
}

static void vexfs_set_clean(struct super_block *sb, bool clean)
{
	struct vexfs_super_block *super = VEXFS_SB(sb)->super;

	if (clean)
		super->s_state |= cpu_to_le32(VEXFS_STATE_CLEAN);
	else
		super->s_state &= ~cpu_to_le32(VEXFS_STATE_CLEAN);
	vexfs_write_super(sb, true);
}

static struct inode *vexfs_alloc_inode(struct super_block *sb)
{
	struct vexfs_inode_info *vi = alloc_inode_sb(sb, vexfs_inode_cache, GFP_NOFS);

	if (!vi)
		return NULL;
	memset(vi, 0, offsetof(struct vexfs_inode_info, extent_lock));
	return &vi->vfs_inode;
}

static void vexfs_free_in_core(struct inode *inode)
{
	kmem_cache_free(vexfs_inode_cache, VEXFS_I(inode));
}

static void vexfs_init_once(void *object)
{
	struct vexfs_inode_info *vi = object;

	init_rwsem(&vi->extent_lock);
	init_rwsem(&vi->xattr_lock);
	mutex_init(&vi->hash_lock);
	spin_lock_init(&vi->raw_lock);
	spin_lock_init(&vi->ioend_lock);
	INIT_LIST_HEAD(&vi->ioend_list);
	INIT_WORK(&vi->ioend_work, vexfs_end_io_work);
	inode_init_once(&vi->vfs_inode);
}

static int vexfs_sync_fs(struct super_block *sb, int wait)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	int err = 0;
	tid_t tid;

	if (sb_rdonly(sb))
		return 0;
	flush_workqueue(sbi->end_io_wq);
	if (jbd2_journal_start_commit(sbi->journal, &tid)) {
		if (wait)
			err = jbd2_log_wait_commit(sbi->journal, tid);
	} else if (wait) {
		err = blkdev_issue_flush(sb->s_bdev);
	}
	return err;
}

/*
 * Everything home and the journal empty: for read-only mounts, and so that a copy of a frozen disk
 * needs no replay.
 */
int vexfs_make_quiet(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	int err;

	if (sb_rdonly(sb))
		return 0;
	flush_workqueue(sbi->end_io_wq);
	jbd2_journal_lock_updates(sbi->journal);
	err = jbd2_journal_flush(sbi->journal, 0);
	jbd2_journal_unlock_updates(sbi->journal);
	if (!err)
		vexfs_set_clean(sb, true);
	return err;
}

static int vexfs_unfreeze(struct super_block *sb)
{
	if (!sb_rdonly(sb))
		vexfs_set_clean(sb, false);
	return 0;
}

static int vexfs_statfs(struct dentry *dentry, struct kstatfs *st)
{
	struct super_block *sb = dentry->d_sb;
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	u64 fixed = (u64)sbi->groups * (2 + sbi->table_blocks) + 1 +
		    le32_to_cpu(sbi->super->s_journal_blocks);

	st->f_type = VEXFS_SUPER_MAGIC;
	st->f_bsize = VEXFS_BLOCK_SIZE;
	st->f_frsize = VEXFS_BLOCK_SIZE;
	st->f_blocks = sbi->blocks - fixed;
	st->f_bfree = percpu_counter_sum_positive(&sbi->free_blocks);
	st->f_bavail = st->f_bfree > sbi->reserved_blocks ? st->f_bfree - sbi->reserved_blocks : 0;
	st->f_files = (u64)sbi->groups * sbi->group_inodes;
	st->f_ffree = percpu_counter_sum_positive(&sbi->free_inodes);
	st->f_namelen = VEXFS_NAME_MAX;
	st->f_fsid = uuid_to_fsid(sbi->super->s_uuid);
	return 0;
}

void vexfs_free_sbi(struct vexfs_sb_info *sbi)
{
	u32 group;

	if (!sbi)
		return;
	for (group = 0; sbi->group && group < sbi->groups; group++) {
		kfree(sbi->group[group].pending[0]);	/* left by an aborted journal */
		kfree(sbi->group[group].pending[1]);
	}
	if (sbi->end_io_wq)
		destroy_workqueue(sbi->end_io_wq);
	brelse(sbi->super_bh);
	percpu_counter_destroy(&sbi->free_blocks);
	percpu_counter_destroy(&sbi->free_inodes);
	kvfree(sbi->group);
	kfree(sbi);
}

static void vexfs_put_super(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);

	vexfs_sysfs_remove(sbi);
	vexfs_cache_trim(&sbi->vector_cache, 0);
	flush_workqueue(sbi->end_io_wq);
	vexfs_journal_close(sb);
	flush_work(&sbi->error_work);
	if (!sb_rdonly(sb))
		vexfs_set_clean(sb, true);
	else if (atomic_read(&sbi->error_count) && !bdev_read_only(sb->s_bdev))
		vexfs_write_super(sb, true);
	sb->s_fs_info = NULL;
	vexfs_free_sbi(sbi);
}

const struct super_operations vexfs_super_ops = {
	.alloc_inode	= vexfs_alloc_inode,
	.free_inode	= vexfs_free_in_core,
	.dirty_inode	= vexfs_dirty_inode,
	.write_inode	= vexfs_write_inode,
	.evict_inode	= vexfs_evict_inode,
	.put_super	= vexfs_put_super,
	.sync_fs	= vexfs_sync_fs,
	.freeze_fs	= vexfs_make_quiet,
	.unfreeze_fs	= vexfs_unfreeze,
	.statfs		= vexfs_statfs,
	.show_options	= vexfs_show_options,
};

/* At mount and at remount. */
int vexfs_make_writable(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);
	struct vexfs_super_block *super = sbi->super;

	if (le32_to_cpu(super->s_ro_compat) & ~VEXFS_RO_COMPAT_KNOWN) {
		pr_err("vexfs (%s): unknown features 0x%x allow only a read-only mount\n",
		       sb->s_id, le32_to_cpu(super->s_ro_compat) & ~VEXFS_RO_COMPAT_KNOWN);
		return -EROFS;
	}
	if (is_journal_aborted(sbi->journal)) {
		pr_err("vexfs (%s): cannot be made writable after an error: unmount, then fsck.vexfs\n",
		       sb->s_id);
		return -EROFS;
	}
	if (le32_to_cpu(super->s_state) & VEXFS_STATE_ERRORS)
		pr_warn("vexfs (%s): has seen errors: running fsck.vexfs is recommended\n",
			sb->s_id);
	sbi->recovering = true;
	vexfs_recover_orphans(sb);
	sbi->recovering = false;
	le32_add_cpu(&super->s_mount_count, 1);
	super->s_mount_time = cpu_to_le64(ktime_get_real_seconds());
	vexfs_set_clean(sb, false);
	return 0;
}

struct vexfs_sb_info *vexfs_alloc_sbi(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = kzalloc(sizeof(*sbi), GFP_KERNEL);

	if (!sbi)
		return NULL;
	sbi->sb = sb;
	mutex_init(&sbi->super_lock);
	mutex_init(&sbi->table_lock);
	vexfs_cache_init(&sbi->vector_cache);
	spin_lock_init(&sbi->pending_lock);
	INIT_LIST_HEAD(&sbi->pending[0]);
	INIT_LIST_HEAD(&sbi->pending[1]);
	INIT_WORK(&sbi->error_work, vexfs_error_work);
	sbi->end_io_wq = alloc_workqueue("vexfs-end-io/%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0,
					 sb->s_id);
	if (sbi->end_io_wq && !percpu_counter_init(&sbi->free_blocks, 0, GFP_KERNEL) &&
	    !percpu_counter_init(&sbi->free_inodes, 0, GFP_KERNEL))
		return sbi;
	vexfs_free_sbi(sbi);
	return NULL;
}

static struct file_system_type vexfs_type = {
	.owner		= THIS_MODULE,
	.name		= "vexfs",
	.fs_flags	= FS_REQUIRES_DEV,
	.kill_sb	= kill_block_super,
	.init_fs_context = vexfs_init_fs_context,
	.parameters	= vexfs_parameters,
};

static void __init vexfs_check_layout(void)
{
	BUILD_BUG_ON(sizeof(struct vexfs_super_block) != 1024);
	BUILD_BUG_ON(sizeof(struct vexfs_header) != 32);
	BUILD_BUG_ON(sizeof(struct vexfs_group) != VEXFS_BLOCK_SIZE);
	BUILD_BUG_ON(offsetof(struct vexfs_group, g_block_map) != 1024);
	BUILD_BUG_ON(sizeof(struct vexfs_extent) != 16);
	BUILD_BUG_ON(sizeof(struct vexfs_inode) != VEXFS_INODE_SIZE);
	BUILD_BUG_ON(offsetof(struct vexfs_inode, i_root) != 112);
	BUILD_BUG_ON(sizeof(struct vexfs_dirent) != 8);
	BUILD_BUG_ON(sizeof(struct vexfs_xattr) != 4);
	BUILD_BUG_ON(sizeof(struct vexfs_vector) != VEXFS_BLOCK_SIZE);
	BUILD_BUG_ON(sizeof(struct vexfs_header) + VEXFS_NODE_EXTENTS * 16 != VEXFS_BLOCK_SIZE);
}

static int __init vexfs_init(void)
{
	int err;

	vexfs_check_layout();
	/* User space reads short symlinks straight out of the root. */
	vexfs_inode_cache = kmem_cache_create_usercopy("vexfs_inode",
				sizeof(struct vexfs_inode_info), 0,
				SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
				offsetof(struct vexfs_inode_info, root),
				sizeof_field(struct vexfs_inode_info, root), vexfs_init_once);
	if (!vexfs_inode_cache)
		return -ENOMEM;
	err = vexfs_sysfs_init();
	if (err)
		goto fail_cache;
	err = register_filesystem(&vexfs_type);
	if (err)
		goto fail_sysfs;
	pr_info("vexfs: version %s loaded\n", VEXFS_VERSION);
	return 0;

fail_sysfs:
	vexfs_sysfs_exit();
fail_cache:
	kmem_cache_destroy(vexfs_inode_cache);
	return err;
}

static void __exit vexfs_exit(void)
{
	unregister_filesystem(&vexfs_type);
	vexfs_sysfs_exit();
	rcu_barrier();	/* inodes are freed after a grace period */
	kmem_cache_destroy(vexfs_inode_cache);
}

module_init(vexfs_init);
module_exit(vexfs_exit);

MODULE_AUTHOR("The VexFS image project");
MODULE_DESCRIPTION("VexFS: a small journaled file system whose files carry vectors");
MODULE_LICENSE("GPL");
MODULE_VERSION(VEXFS_VERSION);
MODULE_ALIAS_FS("vexfs");
