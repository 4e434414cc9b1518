/* A CUDA driver of two devices, for tests. FAKE_CUDA: "ok", "none" (no device), "broken" (999), "hangs".
 * FAKE_CUDA_COUNT: how many of the two it shows, whatever CUDA_VISIBLE_DEVICES says.
 *
 * Each device has 66 multiprocessors and 20 GiB. It takes limits from MPS as the driver does: from the environment, and
 * only if CUDA_MPS_PIPE_DIRECTORY is a folder with a file "control" in it; else it gives the whole device without a
 * word. A client leaves a file named by its process id in there while it has a context. FAKE_MPS_IGNORES: "memory" or
 * "sms" is a server that does not limit it; "clients" one that never hears of the process.
 *
 * Its memory is the host's. FAKE_CUDA_BAD names a file: once that exists, what is read back is not what was written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMS = 66 };
static const size_t TOTAL = 20ul << 30;

static int is(const char *variable, const char *value) {
  const char *found = getenv(variable);
  return found && !strcmp(found, value);
}
static int mode(const char *name) { return is("FAKE_CUDA", name); }

static const char *in_pipe(const char *name) { /* a path below the pipe directory; NULL without a server */
  static char path[4096];
  const char *pipe = getenv("CUDA_MPS_PIPE_DIRECTORY");
  if (!pipe) return NULL;
  snprintf(path, sizeof path, "%s/control", pipe);
  if (access(path, F_OK)) return NULL;
  snprintf(path, sizeof path, "%s/%s", pipe, name);
  return path;
}
static const char *own_file(void) {
  char pid[16];
  snprintf(pid, sizeof pid, "%d", getpid());
  return is("FAKE_MPS_IGNORES", "clients") ? NULL : in_pipe(pid);
}
static double limit(const char *variable, const char *what, double otherwise) { /* the number after any "0=" */
  const char *text = getenv(variable);
  if (!text || !in_pipe("") || is("FAKE_MPS_IGNORES", what)) return otherwise;
  return atof(strchr(text, '=') ? strchr(text, '=') + 1 : text);
}

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
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 16 ? (int)(SMS * limit("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "sms", 100) / 100) : -1;
  return 0;
}
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device ? 0xab : 0x11, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
  const char *file = own_file();
  FILE *left = file ? fopen(file, "w") : NULL;
  if (left) fclose(left);
  *context = (void *)(long)(device + 1);
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  const char *file = own_file();
  if (file) unlink(file);
  return 0;
}
int cuCtxSetCurrent(void *context) { return context ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = (size_t)limit("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "memory", TOTAL >> 20) << 20; /* it is in MiB: "0=5120M" */
  *total = TOTAL;
  return 0;
}
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
