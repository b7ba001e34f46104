// SPDX-License-Identifier: GPL-2.0
/* Takes memory until somebody stops it; in huge pages, of which few faults make much. */
#include <sys/mman.h>

int main(void)
{
	enum { PAGE = 4096, STEP = 64 << 20 };

	for (;;) {
		volatile char *more = mmap(0, STEP, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (more == MAP_FAILED)
			continue;
		madvise((void *)more, STEP, MADV_HUGEPAGE);
		for (long at = 0; at < STEP; at += PAGE)
			more[at] = 1;
	}
}
