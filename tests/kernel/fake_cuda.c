/* A CUDA driver of two devices, for tests. FAKE_CUDA: "ok", "none" (no device), "broken" (999), "hangs".
 * FAKE_CUDA_COUNT: how many of the two it shows, whatever CUDA_VISIBLE_DEVICES says. */
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
int cuGetErrorString(int error, const char **text) { *text = "unknown error"; return 0; }
