/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A slowdown for the gate to find: where a file's blocks are is looked up PLANTED times more than
 * needed. Included by the compiler's -include in iomap.c alone (see tests/cli/perf.rs).
 */
#include "vexfs.h"

#define vexfs_lookup_run(inode, block, count, map)					\
({											\
	int planted_left;								\
											\
	for (planted_left = PLANTED; planted_left; planted_left--)			\
		(vexfs_lookup_run)(inode, block, count, map);				\
	(vexfs_lookup_run)(inode, block, count, map);					\
})
