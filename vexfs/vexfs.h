/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VexFS in memory.
 *
 * Lock order, outermost first: i_rwsem, mapping invalidate lock, folio lock, jbd2 handle,
 * xattr_lock, extent_lock, group lock. So nothing that locks a folio may run inside a handle.
 */
#ifndef VEXFS_H
#define VEXFS_H

#include <linux/buffer_head.h>
#include <linux/fs.h>
#include <linux/jbd2.h>
#include <linux/percpu_counter.h>
#include <linux/rwsem.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "compat.h"
#include "vexfs_format.h"

#define VEXFS_VERSION	"1.0.0"

/* Journal credits: how many metadata blocks an operation may touch at most. */
#define VEXFS_CREDITS_INODE	2	/* inode table block, and the group's for the orphan count */
#define VEXFS_CREDITS_MAP	32	/* a run added: two blocks and a group each level, and the data */
#define VEXFS_CREDITS_NAME	(VEXFS_CREDITS_MAP + 4)	/* a name added to or taken from a directory */
#define VEXFS_CREDITS_XATTR	6	/* attribute block, its group, inode */
#define VEXFS_CREDITS_VECTOR	24	/* five blocks, the groups of these and of the old five, inode */
#define VEXFS_CREDITS_CREATE	(VEXFS_CREDITS_NAME + VEXFS_CREDITS_XATTR + 8)
#define VEXFS_CREDITS_TRUNCATE	16	/* one run or one tree node freed */

#define VEXFS_VECTOR_CACHE_DEFAULT	(64ull << 20)
#define VEXFS_VECTOR_CACHE_MAX		(64ull << 30)

enum vexfs_errors_mode { VEXFS_ERRORS_RO, VEXFS_ERRORS_CONTINUE, VEXFS_ERRORS_PANIC };

struct vexfs_group_info {
	spinlock_t lock;		/* the maps in the group block, and what follows */
	u32 free_blocks;
	u32 free_inodes;
	u32 directories;
	u32 orphans;
	u32 longest;			/* no free run is longer: spares futile searches */
	u8 *pending[2];			/* freed, but not yet committed; by transaction */
	struct list_head pending_link[2];
};

struct vexfs_trigger {
	struct jbd2_buffer_trigger_type type;
	struct super_block *sb;
};

struct vexfs_vector_cache {
	struct mutex lock;
	struct xarray entries;		/* by inode number */
	struct list_head lru;
	u64 bytes;
	u64 count;
	u64 hits;
	u64 misses;
};

struct vexfs_sb_info {
	struct super_block *sb;
	struct buffer_head *super_bh;
	struct vexfs_super_block *super;	/* inside super_bh */
	struct mutex super_lock;
	struct mutex table_lock;		/* making an inode table block usable */
	journal_t *journal;
	struct vexfs_trigger block_trigger;	/* checksum of a block with a header, at commit */
	struct vexfs_trigger inode_trigger;	/* checksums of an inode table block */
	u32 seed;				/* crc32c of the UUID */
	u32 groups;
	u32 group_inodes;
	u64 blocks;
	u32 table_blocks;			/* of the inode table in each group */
	u32 reserved_blocks;
	struct vexfs_group_info *group;
	spinlock_t pending_lock;
	struct list_head pending[2];		/* groups with something pending */
	struct percpu_counter free_blocks;
	struct percpu_counter free_inodes;
	struct workqueue_struct *end_io_wq;
	enum vexfs_errors_mode errors;
	atomic_t error_count;			/* not yet in the superblock */
	u64 error_block;
	struct work_struct error_work;
	u64 vector_cache_size;			/* bytes; 0: off */
	struct vexfs_vector_cache vector_cache;
	atomic64_t vectors;
	struct kobject kobj;			/* /sys/fs/vexfs/<device> */
	struct completion kobj_gone;
	bool kobj_added;
	bool recovering;		/* orphans are put right below a read-only mount */
};

struct vexfs_dirhash;

/* Every entry of a directory block, used or not; ends with @de NULL, or an error at damage. */
#define vexfs_for_each_entry(de, dir, bh, offset)				\
	for ((offset) = 0, (de) = vexfs_next_entry(dir, bh, &(offset));		\
	     !IS_ERR_OR_NULL(de); (de) = vexfs_next_entry(dir, bh, &(offset)))

/* What comes before extent_lock is zeroed for each new inode; the rest is set up once. */
struct vexfs_inode_info {
	struct vexfs_extent root[VEXFS_ROOT_EXTENTS];
	u16 extent_count;
	u16 extent_level;
	u32 extent_seq;			/* changes with every change of the mapping */
	loff_t disk_size;		/* size as the journal has it: never beyond written data */
	u32 flags;
	u32 parent;
	u64 xattr_block;
	u64 vector_block;
	u16 vector_dims;
	bool prealloc;			/* runs beyond the end to be dropped at the last close */
	struct timespec64 btime;
	tid_t sync_tid;			/* last transaction that changed the inode at all */
	tid_t datasync_tid;		/* ... that fdatasync(2) must wait for */
	struct vexfs_dirhash *hash;	/* directories: where each name is; made on first use */

	struct rw_semaphore extent_lock;	/* root, level, count, and the tree below */
	struct rw_semaphore xattr_lock;	/* attribute block and vector */
	struct mutex hash_lock;
	spinlock_t raw_lock;		/* the order in which copies go to the inode table */
	spinlock_t ioend_lock;
	struct list_head ioend_list;
	struct work_struct ioend_work;
	struct inode vfs_inode;
};

static inline struct vexfs_sb_info *VEXFS_SB(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static inline struct vexfs_inode_info *VEXFS_I(const struct inode *inode)
{
	return container_of(inode, struct vexfs_inode_info, vfs_inode);
}

static inline u32 vexfs_group_of_ino(struct vexfs_sb_info *sbi, u32 ino)
{
	return (ino - 1) / sbi->group_inodes;
}

static inline u64 vexfs_group_first(u32 group)
{
	return (u64)group * VEXFS_GROUP_BLOCKS;
}

/* A run that maps part of a file; start 0 is a hole (block 0 is never data). */
struct vexfs_map {
	u32 block;
	u32 length;
	u64 start;
	bool unwritten;
	bool fresh;		/* allocated by this call */
	u32 seq;		/* extent_seq when this was true */
};

/* super.c */
__printf(3, 4) void vexfs_error(struct super_block *sb, u64 block, const char *fmt, ...);
int vexfs_write_super(struct super_block *sb, bool wait);

/* journal.c: transactions, and the checks every metadata block passes */
__le32 vexfs_super_checksum(const struct vexfs_super_block *super);
int vexfs_journal_open(struct super_block *sb);
void vexfs_journal_close(struct super_block *sb);
handle_t *vexfs_begin(struct super_block *sb, int credits);
int vexfs_end(handle_t *handle, int err);
int vexfs_refill(handle_t *handle, int credits);
int vexfs_access(handle_t *handle, struct super_block *sb, struct buffer_head *bh);
int vexfs_access_table(handle_t *handle, struct super_block *sb, struct buffer_head *bh);
int vexfs_dirty(handle_t *handle, struct super_block *sb, struct buffer_head *bh);
struct buffer_head *vexfs_new_block(handle_t *handle, struct super_block *sb, u64 block,
				    u32 magic, u32 owner, u32 generation);
struct buffer_head *vexfs_new_table_block(handle_t *handle, struct super_block *sb, u64 block);
struct buffer_head *vexfs_read_block(struct super_block *sb, u64 block, u32 magic, u32 owner,
				     u32 generation);
struct buffer_head *vexfs_read_table(struct super_block *sb, u64 block, u32 first_ino);
bool vexfs_table_trusted(struct buffer_head *bh);
bool vexfs_inode_valid(struct super_block *sb, const struct vexfs_inode *raw, u32 ino);
int vexfs_sync_journal(struct inode *inode, bool datasync);

/* balloc.c */
int vexfs_alloc_blocks(handle_t *handle, struct inode *inode, u64 goal, u32 want, bool metadata,
		       u64 *start, u32 *got);
int vexfs_free_blocks(handle_t *handle, struct inode *inode, u64 start, u32 count, bool metadata);
bool vexfs_valid_run(struct super_block *sb, u64 start, u64 count);
void vexfs_committed(journal_t *journal, transaction_t *transaction);
int vexfs_load_groups(struct super_block *sb);
struct buffer_head *vexfs_read_group(struct super_block *sb, u32 group);
struct buffer_head *vexfs_change_group(handle_t *handle, struct super_block *sb, u32 group);
bool vexfs_retry_alloc(struct super_block *sb, int err, int *retries);

/* ialloc.c */
struct inode *vexfs_new_inode(handle_t *handle, struct mnt_idmap *idmap, struct inode *dir,
			      umode_t mode);
int vexfs_free_inode(handle_t *handle, struct inode *inode);
int vexfs_set_orphan(handle_t *handle, struct inode *inode, bool orphan);
void vexfs_recover_orphans(struct super_block *sb);

/* extent.c, extent_edit.c */
int vexfs_lookup_run(struct inode *inode, u32 block, u32 length, struct vexfs_map *map);
int vexfs_map_run(handle_t *handle, struct inode *inode, u32 block, u32 length, bool unwritten,
		  struct vexfs_map *map);
int vexfs_convert_run(handle_t *handle, struct inode *inode, u32 block, u32 length);
int vexfs_cut_runs(handle_t *handle, struct inode *inode, u32 from);

/* inode.c */
struct inode *vexfs_iget(struct super_block *sb, u32 ino);
void vexfs_set_ops(struct inode *inode);
int vexfs_update_inode(handle_t *handle, struct inode *inode);
int vexfs_update_inode_locked(handle_t *handle, struct inode *inode);
int vexfs_log_inode(struct inode *inode);
void vexfs_dirty_inode(struct inode *inode, int flags);
int vexfs_write_inode(struct inode *inode, struct writeback_control *wbc);
void vexfs_evict_inode(struct inode *inode);
int vexfs_truncate(struct inode *inode);
void vexfs_drop_prealloc(struct inode *inode);
int vexfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr);
int vexfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat, u32 mask,
		  unsigned int flags);

/* iomap.c, file.c */
extern const struct address_space_operations vexfs_aops;
extern const struct iomap_ops vexfs_iomap_ops;
extern const struct iomap_dio_ops vexfs_dio_ops;
extern const struct file_operations vexfs_file_ops;
extern const struct inode_operations vexfs_file_iops;
void vexfs_end_io_work(struct work_struct *work);
int vexfs_written(struct inode *inode, loff_t offset, loff_t size, bool unwritten);
int vexfs_fsync(struct file *file, loff_t start, loff_t end, int datasync);

/* dir.c, dirhash.c */
extern const struct file_operations vexfs_dir_ops;
struct buffer_head *vexfs_dir_block(struct inode *dir, u32 block);
struct vexfs_dirent *vexfs_find_entry(struct inode *dir, const struct qstr *name,
				      struct buffer_head **bh);
int vexfs_add_entry(handle_t *handle, struct inode *dir, const struct qstr *name,
		    struct inode *inode);
int vexfs_dir_room(struct inode *dir, struct buffer_head *bh);
int vexfs_set_entry(handle_t *handle, struct inode *dir, struct buffer_head *bh,
		    struct vexfs_dirent *de, struct inode *inode);
int vexfs_remove_entry(handle_t *handle, struct inode *dir, const struct qstr *name);
bool vexfs_dir_empty(struct inode *dir);
struct vexfs_dirent *vexfs_next_entry(struct inode *dir, struct buffer_head *bh,
				      unsigned int *offset);
u32 vexfs_name_hash(const char *name, unsigned int len);
struct vexfs_dirhash *vexfs_dirhash_get(struct inode *dir);
void vexfs_dirhash_drop(struct inode *dir);
void vexfs_dirhash_add(struct inode *dir, u32 hash, u32 block);
void vexfs_dirhash_del(struct inode *dir, u32 hash, u32 block);
void vexfs_dirhash_room(struct inode *dir, struct buffer_head *bh, u32 block);
bool vexfs_dirhash_next(struct vexfs_dirhash *dh, u32 hash, u32 *slot, u32 *block);
int vexfs_dirhash_find_room(struct vexfs_dirhash *dh, unsigned int need);

/* xattr.c */
ssize_t vexfs_listxattr(struct dentry *dentry, char *list, size_t size);
int vexfs_free_attributes(handle_t *handle, struct inode *inode);
int vexfs_init_security(handle_t *handle, struct inode *inode, struct inode *dir,
			const struct qstr *name);

/* vector.c */
long vexfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
u32 *vexfs_user_vector(u64 address, u32 dims);

/* sysfs.c */
void vexfs_sysfs_add(struct super_block *sb);
void vexfs_sysfs_remove(struct vexfs_sb_info *sbi);
int vexfs_sysfs_init(void);
void vexfs_sysfs_exit(void);

/* namei.c, symlink.c */
int vexfs_write_link(handle_t *handle, struct inode *inode, const char *target, unsigned int len);
extern const struct inode_operations vexfs_dir_iops;
extern const struct inode_operations vexfs_special_iops;
extern const struct inode_operations vexfs_link_iops;
extern const struct inode_operations vexfs_fast_link_iops;

static inline void vexfs_note_change(handle_t *handle, struct inode *inode, bool data)
{
	tid_t tid = handle->h_transaction->t_tid;

	VEXFS_I(inode)->sync_tid = tid;
	if (data)
		VEXFS_I(inode)->datasync_tid = tid;
}

#endif
