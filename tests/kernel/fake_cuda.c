/* A CUDA driver of two devices, for tests. FAKE_CUDA: "ok", "none" (no device), "broken" (999), "hangs".
 * Its memory is the host's. FAKE_CUDA_BAD names a file: once that exists, what is read back is not what was written.
 * FAKE_CUDA_COUNT: how many of the two it shows, whatever CUDA_VISIBLE_DEVICES says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int mode(const char *name) { const char *m = getenv("FAKE_CUDA"); return m && !strcmp(m, name); }

int cuInit(unsigned flags) {
  if (mode("hangs")) for (;;) pause();
  return mode("none") ? 100 : mode("broken") ? 999 : 0;
}
int cuDeviceGetCount(int *count) {
  const char *shown = getenv("FAKE_CUDA_COUNT");
  *count = shown ? atoi(shown) : 2;
  return 0;
}
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 16 ? 66 : -1; return 0; }
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device ? 0xab : 0x11, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(long)(device + 1); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return context ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 1; *total = 20ul << 30; return 0; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
  *address = (unsigned long long)(size_t)malloc(size);
  return *address ? 0 : 2;
}
int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t size) {
  memcpy((void *)(size_t)to, from, size);
  return 0;
}
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t size) {
  const char *bad = getenv("FAKE_CUDA_BAD");
  memcpy(to, (void *)(size_t)from, size);
  if (bad && !access(bad, F_OK)) ((char *)to)[size / 2] ^= 1;
  return 0;
}
int cuCtxSynchronize(void) { return 0; }
int cuGetErrorString(int error, const char **text) { *text = "unknown error"; return 0; }
