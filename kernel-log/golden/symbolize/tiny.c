/* The code in tiny.elf: gcc -g -gdwarf-5 -O2 -c -fno-pic -mno-red-zone -fdebug-prefix-map=$PWD=/build/src */
static volatile int sink;

static inline __attribute__((always_inline)) int deepest(int *where)
{
	return *(volatile int *)where / 3; /* line 6: the fault */
}

__attribute__((noinline)) int tiny_read(int *where)
{
	sink += 1;
	return deepest(where) + sink;
}

__attribute__((noinline, section(".init.text"))) int tiny_init(int *where)
{
	int got = tiny_read(where);

	return got + 1;
}
