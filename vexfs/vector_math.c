// SPDX-License-Identifier: GPL-2.0
/*
 * The only floating point in the module, compiled with SSE2 allowed (Kbuild). Nothing here may be
 * called outside kernel_fpu_begin(), and no floating point passes in or out but as bits.
 */
#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/types.h>
#include "uapi/vexfs.h"

typedef float vexfs_f4 __attribute__((vector_size(16)));
typedef double vexfs_d4 __attribute__((vector_size(32)));

u64 vexfs_score(u32 metric, const u32 *a, const u32 *b, u32 dims);

static double vexfs_sum(const vexfs_d4 *lanes)
{
	return ((*lanes)[0] + (*lanes)[1]) + ((*lanes)[2] + (*lanes)[3]);
}

/* The next four numbers as binary64; beyond the end they count as zero, which changes no sum. */
static inline void vexfs_load(vexfs_d4 *to, const u32 *from, u32 left)
{
	vexfs_f4 four = { 0 };

	memcpy(&four, from, min(left, 4u) * sizeof(*from));
	*to = __builtin_convertvector(four, vexfs_d4);
}

u64 vexfs_score(u32 metric, const u32 *a, const u32 *b, u32 dims)
{
	vexfs_d4 dot = { 0 }, aa = { 0 }, bb = { 0 }, x, y;
	double score, norm;
	u64 bits;
	u32 i;

	for (i = 0; i < dims; i += 4) {
		vexfs_load(&x, a + i, dims - i);
		vexfs_load(&y, b + i, dims - i);
		if (metric == VEXFS_METRIC_EUCLIDEAN) {
			x -= y;
			aa += x * x;
			continue;
		}
		dot += x * y;
		if (metric == VEXFS_METRIC_COSINE) {
			aa += x * x;
			bb += y * y;
		}
	}
	switch (metric) {
	case VEXFS_METRIC_EUCLIDEAN:
		score = __builtin_sqrt(vexfs_sum(&aa));
		break;
	case VEXFS_METRIC_COSINE:
		norm = __builtin_sqrt(vexfs_sum(&aa)) * __builtin_sqrt(vexfs_sum(&bb));
		score = norm > 0 ? 1 - vexfs_sum(&dot) / norm : 1;
		break;
	default:
		score = -vexfs_sum(&dot);
	}
	score += 0.0;		/* no negative zero: equal scores have equal bits */
	memcpy(&bits, &score, sizeof(bits));
	return bits;
}
