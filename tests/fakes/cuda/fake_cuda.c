/* A CUDA driver of two devices, for tests. FAKE_CUDA: "ok", "none" (no device), "broken" (999), "hangs".
 * FAKE_CUDA_COUNT: how many of the two it shows, whatever CUDA_VISIBLE_DEVICES says.
 *
 * Each device has 66 multiprocessors and 20 GiB, of which each context takes 426 MiB; a limit that leaves no room for one
 * makes the device "busy or unavailable" (46). It takes limits from MPS as the driver does: from the environment, and
 * only if CUDA_MPS_PIPE_DIRECTORY is a folder with a file "control" in it; else it gives the whole device without a
 * word. A limit of memory is known by a device's number ("0=5120M"): any other key lifts it. Multiprocessors come in
 * pairs, or FAKE_CUDA_SM_UNIT, rounded up by a daemon of protocol 2 (its pid is beside its socket), else down. A client
 * leaves a file named by its process id in there while it has a context. FAKE_MPS_IGNORES: "memory" or "sms" is a server
 * that does not limit it; "clients" one that never hears of the process. FAKE_CUDA_NOT_READY names a file: the first
 * client to start while it exists removes it and gets CUDA_ERROR_MPS_SERVER_NOT_READY (807), as often as it asks.
 *
 * Its memory is the host's. FAKE_CUDA_BAD names a file: once that exists, what is read back is not what was written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMS = 66 };
static const size_t TOTAL = 20ul << 30;
static const size_t CONTEXT = 426ul << 20; /* torch 2.10 with CUDA 13 on an RTX 6000 Ada (unsloth-zoo PR#1053) */
static size_t held[2]; /* by the context on each device */
static int current;

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
static const char *limit(const char *variable, const char *what) { /* NULL for none */
  const char *text = getenv(variable);
  return text && *text && in_pipe("") && !is("FAKE_MPS_IGNORES", what) ? text : NULL;
}
static size_t memory(void) { /* what one process may have of a device, in bytes */
  const char *text = limit("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "memory");
  size_t least = TOTAL >> 20, mib;
  for (char *end; text; text = *end ? end + 1 : NULL) {
    strtol(text, &end, 10);
    if (end == text || *end != '=') return TOTAL; /* one key that is no number, and no limit holds */
    mib = strtoul(end + 1, &end, 10);
    if (mib < least) least = mib;
    end += strcspn(end, ",");
  }
  return least << 20;
}
static int multiprocessors(void) {
  const char *text = limit("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "sms"), *unit_text = getenv("FAKE_CUDA_SM_UNIT");
  const char *daemon = in_pipe("nvidia-cuda-mps-control.pid");
  int unit = unit_text ? atoi(unit_text) : 2, hundredths = SMS * (text ? atoi(text) : 100);
  int rounds_up = daemon && !access(daemon, F_OK);
  int share = (hundredths + (rounds_up ? 100 * unit - 1 : 0)) / (100 * unit) * unit;
  return share > SMS ? SMS : share;
}

int cuInit(unsigned flags) {
  static int result = -1; /* a process that failed to start goes on failing */
  const char *not_ready = getenv("FAKE_CUDA_NOT_READY");
  if (mode("hangs")) for (;;) pause();
  if (result < 0) result = not_ready && in_pipe("") && !unlink(not_ready) ? 807 : mode("none") ? 100 : mode("broken") ? 999 : 0;
  return result;
}
int cuDeviceGetCount(int *count) {
  const char *shown = getenv("FAKE_CUDA_COUNT");
  *count = shown ? atoi(shown) : 2;
  return 0;
}
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 16 ? multiprocessors() : -1;
  return 0;
}
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device ? 0xab : 0x11, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (memory() < CONTEXT) return 46;
  held[device] = CONTEXT;
  const char *file = own_file();
  FILE *left = file ? fopen(file, "w") : NULL;
  if (left) fclose(left);
  *context = (void *)(long)(device + 1);
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  const char *file = own_file();
  if (file) unlink(file);
  held[device] = 0;
  return 0;
}
int cuCtxSetCurrent(void *context) {
  current = (long)context - 1;
  return context ? 0 : 201;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = memory() - held[current];
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
