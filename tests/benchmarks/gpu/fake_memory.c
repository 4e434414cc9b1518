/* As much of a CUDA driver as giving out memory takes, for tests: FAKE_CUDA_BYTES is all there is for a process. */
#include <stdlib.h>

static unsigned long long taken, sizes[1024];
static unsigned long long all(void) { const char *said = getenv("FAKE_CUDA_BYTES"); return said ? strtoull(said, 0, 10) : 0; }

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return device ? 101 : 0; }
int cuCtxSetCurrent(void *context) { return context == (void *)1 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = all() - taken; *total = 141ull << 30; return 0; }
int cuMemAlloc_v2(unsigned long long *pointer, size_t size) {
  if (taken + size > all()) return 2;
  for (int i = 1; i < 1024; i++)
    if (!sizes[i]) { sizes[i] = size; taken += size; *pointer = 0x7f0000000000ull + i; return 0; }
  return 2;
}
int cuMemFree_v2(unsigned long long pointer) {
  unsigned long long i = pointer - 0x7f0000000000ull;
  if (i >= 1024 || !sizes[i]) return 1;
  taken -= sizes[i], sizes[i] = 0;
  return 0;
}
