// SPDX-License-Identifier: GPL-2.0
/*
 * The only floating point in the module, compiled with SSE2 allowed (Kbuild). Nothing here may be
 * called outside kernel_fpu_begin(), and no floating point passes in or out but as bits.
 */
#include <linux/string.h>
#include <linux/types.h>
#include "uapi/vexfs.h"

/* Four partial sums, as the UAPI header prescribes; the compiler keeps them in two registers. */
struct vexfs_lanes {
	double lane[4];
};

u64 vexfs_norm(const u32 *a, u32 dims);
u64 vexfs_score(u32 metric, const u32 *a, u64 norm_a, const u32 *b, u64 norm_b, u32 dims);

static double vexfs_sum(const struct vexfs_lanes *s)
{
	return (s->lane[0] + s->lane[1]) + (s->lane[2] + s->lane[3]);
}

static double vexfs_sqrt(double x)
{
	asm("sqrtsd %0, %0" : "+x" (x));
	return x;
}

static __always_inline void vexfs_products(const float *a, const float *b, u32 count, u32 at,
					   struct vexfs_lanes *sum)
{
	u32 j;

	for (j = 0; j < count; j++)
		sum->lane[j] += (double)a[at + j] * (double)b[at + j];
}

static __always_inline void vexfs_squares(const float *a, const float *b, u32 count, u32 at,
					  struct vexfs_lanes *sum)
{
	double d;
	u32 j;

	for (j = 0; j < count; j++) {
		d = (double)a[at + j] - (double)b[at + j];
		sum->lane[j] += d * d;
	}
}

static double vexfs_inner(const float *a, const float *b, u32 dims)
{
	struct vexfs_lanes sum = { };
	u32 i;

	for (i = 0; i + 4 <= dims; i += 4)
		vexfs_products(a, b, 4, i, &sum);
	vexfs_products(a, b, dims - i, i, &sum);
	return vexfs_sum(&sum);
}

static double vexfs_distance(const float *a, const float *b, u32 dims)
{
	struct vexfs_lanes sum = { };
	u32 i;

	for (i = 0; i + 4 <= dims; i += 4)
		vexfs_squares(a, b, 4, i, &sum);
	vexfs_squares(a, b, dims - i, i, &sum);
	return vexfs_sqrt(vexfs_sum(&sum));
}

static double vexfs_number(u64 bits)
{
	double number;

	memcpy(&number, &bits, sizeof(number));
	return number;
}

static u64 vexfs_bits(double number)
{
	u64 bits;

	memcpy(&bits, &number, sizeof(bits));
	return bits;
}

/* The length of a vector, which cosine needs and which stays while the vector does. */
u64 vexfs_norm(const u32 *a, u32 dims)
{
	return vexfs_bits(vexfs_sqrt(vexfs_inner((const float *)a, (const float *)a, dims)));
}

u64 vexfs_score(u32 metric, const u32 *a, u64 norm_a, const u32 *b, u64 norm_b, u32 dims)
{
	const float *x = (const float *)a, *y = (const float *)b;
	double score, norm;

	if (metric == VEXFS_METRIC_EUCLIDEAN) {
		score = vexfs_distance(x, y, dims);
	} else if (metric == VEXFS_METRIC_COSINE) {
		norm = vexfs_number(norm_a) * vexfs_number(norm_b);
		score = norm > 0 ? 1 - vexfs_inner(x, y, dims) / norm : 1;
	} else {
		score = -vexfs_inner(x, y, dims);
	}
	return vexfs_bits(score + 0.0);	/* no negative zero: equal scores have equal bits */
}
