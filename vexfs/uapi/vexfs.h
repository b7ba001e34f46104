/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * VexFS ioctls: a vector on a file, and search for the nearest ones below a directory.
 *
 * A vector is 1 to 4096 IEEE 754 binary32 numbers, none infinite or NaN. Every flag and reserved
 * field must be zero, or the call fails with EINVAL. Layouts are the same for 32 and 64 bits.
 */
#ifndef _UAPI_VEXFS_H
#define _UAPI_VEXFS_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VEXFS_DIMS_MAX		4096
#define VEXFS_SEARCH_MAX	1024		/* most hits one search can return */

struct vexfs_vector_arg {
	__u32	flags;
	__u32	dims;		/* SET: numbers in data. GET: room in data; out: numbers there are */
	__u64	data;		/* address of the numbers */
	__u64	reserved[2];
};

/* How far two vectors are apart; a smaller score is nearer. All sums are in binary64. */
#define VEXFS_METRIC_COSINE	0	/* 1 - a.b / (|a| |b|); 1 if either is all zero */
#define VEXFS_METRIC_EUCLIDEAN	1	/* |a - b| */
#define VEXFS_METRIC_INNER	2	/* - a.b */

struct vexfs_hit {
	__u64	ino;
	__u64	score;		/* the bits of a binary64 */
	__u32	generation;
	__u32	parent;		/* a directory that names it */
};

struct vexfs_search_arg {
	__u32	flags;
	__u32	metric;
	__u32	dims;		/* of the query; files with vectors of other lengths are passed over */
	__u32	k;		/* hits wished for, 1 to VEXFS_SEARCH_MAX */
	__u64	query;		/* address of the numbers */
	__u64	hits;		/* address of room for k hits; best first, equal ones by inode number */
	__u32	found;		/* out: hits written */
	__u32	reserved;
	__u64	scanned;	/* out: vectors compared */
	__u64	reserved2[2];
};

#define VEXFS_IOC_MAGIC		0xf6
/* On a regular file. SET and REMOVE need it open for writing, GET for reading. */
#define VEXFS_IOC_SET_VECTOR	_IOW(VEXFS_IOC_MAGIC, 1, struct vexfs_vector_arg)
#define VEXFS_IOC_GET_VECTOR	_IOWR(VEXFS_IOC_MAGIC, 2, struct vexfs_vector_arg)
#define VEXFS_IOC_REMOVE_VECTOR	_IO(VEXFS_IOC_MAGIC, 3)
/*
 * On a directory. Only what the caller may read is searched: directories with read and search
 * permission, files with read permission.
 */
#define VEXFS_IOC_SEARCH	_IOWR(VEXFS_IOC_MAGIC, 4, struct vexfs_search_arg)

/*
 * GET: ENODATA if there is no vector; ERANGE if data is too small, with dims set, so dims 0 asks for
 * the length.
 *
 * Sums run in four lanes: lane i % 4 adds term i, in order, and the sum is
 * (lane 0 + lane 1) + (lane 2 + lane 3). Whoever computes so gets the same bits.
 */

#endif
