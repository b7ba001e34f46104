/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VexFS on-disk format, version 1. FORMAT.md tells it in words; vexctl/src/ondisk.rs mirrors it.
 *
 * All integers are little-endian. A block is 4096 bytes. The disk is cut into groups of
 * VEXFS_GROUP_BLOCKS blocks; block 0 of a group is left for the superblock, block 1 is the group
 * block (both bitmaps and the counts), then comes the group's share of the inode table.
 */
#ifndef VEXFS_FORMAT_H
#define VEXFS_FORMAT_H

#include <linux/types.h>

#define VEXFS_SUPER_MAGIC	0x56455846	/* statfs f_type: "VEXF" */
#define VEXFS_BLOCK_BITS	12
#define VEXFS_BLOCK_SIZE	4096
#define VEXFS_SUPER_OFFSET	1024		/* of the superblock in block 0 and in the last block */

#define VEXFS_GROUP_BLOCKS	24576		/* 96 MiB */
#define VEXFS_GROUP_INODES_MAX	7680
#define VEXFS_INODE_SIZE	256
#define VEXFS_INODES_PER_BLOCK	16
#define VEXFS_ROOT_INO		2
#define VEXFS_FIRST_INO		17		/* the first 16 numbers are kept for the format */

#define VEXFS_NAME_MAX		255
#define VEXFS_LABEL_LEN		32
#define VEXFS_LINK_MAX		65000

/*
 * Feature bits. An unknown compat bit is ignored, an unknown ro_compat bit allows only a read-only
 * mount, an unknown incompat bit refuses the mount.
 */
#define VEXFS_COMPAT_XATTR		0x1
#define VEXFS_RO_COMPAT_VECTORS		0x1
#define VEXFS_INCOMPAT_JOURNAL		0x1
#define VEXFS_COMPAT_KNOWN		VEXFS_COMPAT_XATTR
#define VEXFS_RO_COMPAT_KNOWN		VEXFS_RO_COMPAT_VECTORS
#define VEXFS_INCOMPAT_KNOWN		VEXFS_INCOMPAT_JOURNAL

#define VEXFS_STATE_CLEAN		0x1	/* unmounted in order */
#define VEXFS_STATE_ERRORS		0x2	/* damage was seen: fsck is due */

struct vexfs_super_block {
	char	s_magic[8];		/* "VexFS" and three NULs */
	__le32	s_checksum;		/* crc32c of the 1024 bytes with this field zero */
	__le32	s_version;		/* 1 */
	__le32	s_compat;
	__le32	s_ro_compat;
	__le32	s_incompat;
	__le32	s_block_bits;		/* 12 */
	__u8	s_uuid[16];
	char	s_label[VEXFS_LABEL_LEN];
	__le64	s_blocks;		/* size of the file system in blocks */
	__le32	s_groups;
	__le32	s_group_blocks;		/* VEXFS_GROUP_BLOCKS */
	__le32	s_group_inodes;		/* inodes in each group, a multiple of 16 */
	__le32	s_inode_size;		/* VEXFS_INODE_SIZE */
	__le64	s_journal_start;	/* first block of the jbd2 journal; all of it in one group */
	__le32	s_journal_blocks;
	__le32	s_state;
	__le64	s_mkfs_time;		/* seconds since 1970 */
	__le64	s_mount_time;
	__le64	s_write_time;
	__le32	s_mount_count;
	__le32	s_error_count;
	__le64	s_error_time;		/* of the last error */
	__le64	s_error_block;		/* where it was, 0 if not known */
	__le32	s_reserved_blocks;	/* kept back for metadata when the disk is full */
	__u8	s_reserved[1024 - 172];	/* zero; room to grow */
} __attribute__((packed));

/* What every metadata block except the superblock and the inode table begins with. */
struct vexfs_header {
	__le32	h_magic;		/* VEXFS_*_MAGIC: what kind of block */
	__le32	h_checksum;		/* crc32c seeded with the UUID, with this field zero */
	__le64	h_block;		/* its own number: a misplaced write is seen */
	__le32	h_owner;		/* inode number, or group number */
	__le32	h_generation;		/* of the owning inode; 0 for a group */
	__le16	h_count;		/* entries in use (tree nodes, xattrs) */
	__le16	h_level;		/* height in the extent tree, or position in a vector */
	__le32	h_reserved;
} __attribute__((packed));

#define VEXFS_GROUP_MAGIC	0x50524756	/* "VGRP" */
#define VEXFS_EXTENT_MAGIC	0x54584556	/* "VEXT" */
#define VEXFS_DIR_MAGIC		0x52494456	/* "VDIR" */
#define VEXFS_LINK_MAGIC	0x4b4e4c56	/* "VLNK" */
#define VEXFS_XATTR_MAGIC	0x52544156	/* "VATR" */
#define VEXFS_VECTOR_MAGIC	0x43455656	/* "VVEC" */

/* One block says all about a group, so that making a file touches few blocks. */
struct vexfs_group {
	struct vexfs_header h;
	__le32	g_free_blocks;
	__le32	g_free_inodes;
	__le32	g_directories;
	__le32	g_orphans;		/* inodes here with VEXFS_ORPHAN_FL */
	__le32	g_inodes_ready;		/* inodes whose table blocks were ever written */
	__le32	g_vectors;		/* inodes here that carry a vector */
	__le32	g_reserved[2];
	__u8	g_inode_map[VEXFS_GROUP_INODES_MAX / 8];
	__u8	g_block_map[VEXFS_GROUP_BLOCKS / 8];
} __attribute__((packed));

/*
 * Both a run of blocks (in a leaf or in the inode) and a child of a tree node (where e_length is
 * zero and e_start is the child's block).
 */
struct vexfs_extent {
	__le32	e_block;		/* first block in the file */
	__le32	e_length;		/* blocks; the top bit: allocated but never written, reads zero */
	__le64	e_start;		/* first block on the disk */
} __attribute__((packed));

#define VEXFS_EXTENT_UNWRITTEN	0x80000000u
#define VEXFS_ROOT_EXTENTS	7
#define VEXFS_NODE_EXTENTS	254
#define VEXFS_MAX_LEVEL		5
#define VEXFS_INLINE_LINK	(VEXFS_ROOT_EXTENTS * 16 - 1)	/* longest symlink kept in the inode */

/* i_flags */
#define VEXFS_ORPHAN_FL		0x1	/* to be deleted (no links) or cut to i_size after a crash */
#define VEXFS_KEEP_FL		0x2	/* blocks beyond i_size were asked for by fallocate(2) */

struct vexfs_inode {
	__le16	i_mode;
	__le16	i_extent_count;		/* entries in i_root */
	__le32	i_links;
	__le32	i_uid;
	__le32	i_gid;
	__le64	i_size;
	__le64	i_blocks;		/* file system blocks held, tree and attributes included */
	__le64	i_atime;
	__le64	i_mtime;
	__le64	i_ctime;
	__le64	i_btime;
	__le32	i_atime_nsec;
	__le32	i_mtime_nsec;
	__le32	i_ctime_nsec;
	__le32	i_btime_nsec;
	__le32	i_generation;
	__le32	i_flags;
	__le32	i_rdev;			/* new_encode_dev() form, device nodes only */
	__le32	i_parent;		/* directories only */
	__le64	i_xattr_block;		/* 0 if none */
	__le64	i_vector_block;		/* 0 if none */
	union {
		struct vexfs_extent i_root[VEXFS_ROOT_EXTENTS];
		char i_link[VEXFS_INLINE_LINK + 1];
	};
	__le16	i_extent_level;		/* 0: i_root holds the runs themselves */
	__le16	i_vector_dims;
	__le32	i_reserved[6];
	__le32	i_checksum;		/* crc32c seeded with UUID and inode number, this field zero */
} __attribute__((packed));

/* Entries fill a directory block from its header to its end; the last one owns the slack. */
struct vexfs_dirent {
	__le32	d_ino;			/* 0: unused */
	__le16	d_rec_len;		/* bytes to the next entry, a multiple of 8 */
	__u8	d_name_len;
	__u8	d_type;			/* DT_* of <dirent.h> */
	char	d_name[];
} __attribute__((packed));

#define VEXFS_DIRENT_LEN(name_len)	(((name_len) + 8 + 7) & ~7)
#define VEXFS_DIR_SPACE		(VEXFS_BLOCK_SIZE - 32)

/* Entries follow the header one after the other, each padded to 4 bytes; h_count of them. */
struct vexfs_xattr {
	__u8	x_index;		/* VEXFS_XATTR_USER and so on: the prefix */
	__u8	x_name_len;
	__le16	x_value_len;
	char	x_data[];		/* name, then value */
} __attribute__((packed));

#define VEXFS_XATTR_USER	1
#define VEXFS_XATTR_TRUSTED	2
#define VEXFS_XATTR_SECURITY	3
#define VEXFS_XATTR_LEN(name_len, value_len)	(((name_len) + (value_len) + 4 + 3) & ~3)
#define VEXFS_XATTR_SPACE	(VEXFS_BLOCK_SIZE - 32)

/*
 * A vector of up to 4096 floats in one to five blocks. The first block names all of them; h_level
 * is the block's place in the row.
 */
#define VEXFS_VECTOR_DIMS_MAX	4096
#define VEXFS_VECTOR_BLOCKS	5
#define VEXFS_VECTOR_FLOATS	1010	/* in one block */

struct vexfs_vector {
	struct vexfs_header h;
	__le32	v_dims;
	__le32	v_reserved;
	__le32	v_blocks[VEXFS_VECTOR_BLOCKS - 1];	/* the blocks after this one */
	__le32	v_data[VEXFS_VECTOR_FLOATS];	/* IEEE 754 binary32 */
} __attribute__((packed));

#endif
