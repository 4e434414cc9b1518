/* A small library that speaks the ABI of NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 * What it answers is read from the text file named by FAKE_NVML_STATE, and read again whenever that file changes:
 * replace it by rename while a program runs, and the "hardware" changes under it. One thing per line, `#` comments:
 *
 *   session 1                           another number: calls answer UNINITIALIZED until NVML is opened again
 *   driver 615.71.09                    its version; 580.65.06 unless said
 *   gpu uuid=GPU-a name=NVIDIA_H200 memory=150754820096 used=0 reserved=0 cc=9.0 cores=16896
 *       util=0 power_mw=70000 energy_mj=1000 mig=0 noperm=0 lost=0 numa=0 mode=0 virtual=0      (one line; `_` in a name is a space;
 *       noperm=1 refuses the memory of the GPU; unified=1 has none of its own (GB10); nolist=1 lists no processes (WSL); lost=15 makes every call on it answer 15; energy_mj=-1: no counter)
 *   mig gpu=0 uuid=MIG-a gi=1 ci=0 slot=0 slices=1 cslices=1 memory_mb=16384 sms=16 used=0 profile=1g.18gb jpeg=0 gpm_ms=0
 *   shape gpu=0 profile=0 id=19 name=MIG_1g.18gb slices=1 memory_mb=16384 sms=16 starts=0:1:2:3:4:5:6 size=1 jpeg=0
 *       (a GPU instance that may be made; its compute instance has id 100 + slices)
 *   gi gpu=0 id=1 shape=19 start=6 size=1    a GPU instance that is there; its `mig` line is the compute instance in it.
 *       Making and destroying instances writes these two kinds of lines back to the file.
 *   gpu ... gpm_ms=40000                GPM: how long SMs have worked so far, in ms x percent; without it, no GPM
 *   now 5000                            GPM's clock in ms: activity is what gpm_ms moved by over what this moved by
 *   process gpu=0 pid=123 memory=1048576 type=C|G|M gi=1 sm=35 sm_age_ms=0 hidden=0 name=/usr/bin/python3_train.py
 *       (C compute, G graphics, M a client of MPS, whose work the driver counts as its server's: it has no sample, whatever
 *       sm says; memory=-1 is "not available"; sm without a value: no sample; with sm_age_ms it is the last sample of a process
 *       that did nothing since, which the driver hands out whatever time it is asked about; hidden=1 is a process of a PID
 *       namespace that is not the caller's, which the open kernel modules list nowhere, while `used` counts its memory)
 *   gpu ... remap=0:1:1:0 ecc=0:2 retire=1 recovery=1 clocks=64 temp=40 events=8 slowdown=92 shutdown=95 margin=50:-2:-8
 *       default_mw=700000 limit_mw=700000 enforced_mw=700000
 *       health: rows remapped for corrected and uncorrected errors, pending, failed; corrected and uncorrected errors since the
 *       last reset; a page waits to be retired; the recovery asked for; what holds the clocks down; which events it reports.
 *       Without remap, ecc, retire or recovery the GPU has none of that. Where its hardware slows it down and switches it off, in
 *       degrees Celsius, or (Ada and later) how much hotter it may get, and the two limits of that; its power limits
 *   xid gpu=0 code=79                   an Xid error: sets of events that exist when this line is added report it once; with
 *       type=2 an error of its memory. Who waits for events when NVML is closed is ended: the real one reads freed memory
 *   link a=0 b=1                        these two GPUs reach each other by NVLink
 *   (limits of memory are kept as the kernel keeps them, in the files dmem.max and dmem.min of the control group)
 *   fail nvmlDeviceGetPowerUsage 3      that function answers that code; `fail nvmlInit 9` refuses to open
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef size_t Handle; /* GPU i is i + 1, MIG line j is MIG_BASE + j; the driver's are opaque pointers */
enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, TOO_SMALL, UNKNOWN = 999, BAD_VERSION = 25, IN_USE = 19, NO_ROOM = 23 };
enum { MIG_BASE = 1000, GI_BASE = 2000, CI_BASE = 3000, PART_ID = 100, MAX_LINES = 512, LINE = 512, NO_INSTANCE = -1, NVLINK = 2, NO_LINK = 5 };
#define EXPORT __attribute__((visibility("default"))) int

typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { u32 gpu, memory; } Utilization;
typedef struct { u32 pid; u64 memory; u32 gi, ci; } Process;
typedef struct { u32 pid; u64 at; u32 sm, mem, enc, dec; } Sample;
typedef struct { u32 sms, copy, decoders, encoders, jpeg, ofa, slices, cslices; u64 memory_mb; } Attributes;
typedef struct { char legacy[16]; u32 domain, bus, device, pci_id, subsystem; char bus_id[32]; } Pci;
typedef struct { u32 version, sensor; int degrees; } TemperatureV;
typedef struct { const char *group; u64 soft, hard; } SetLimits;
typedef struct { const char *group; u64 soft, hard, used; } GetLimits;
typedef struct { u32 start, size; } Span;
typedef struct { u32 id, p2p, slices, most, sms, copy, decoders, encoders, jpeg, ofa; u64 memory_mb; } ShapeV1;
typedef struct { u32 version, id, p2p, slices, most, sms, copy, decoders, encoders, jpeg, ofa; u64 memory_mb; char name[96]; } ShapeV2;
typedef struct { Handle device; u32 id, shape; Span span; } InstanceInfo;
typedef struct { u32 version, id, slices, most, sms, copy, decoders, encoders, jpeg, ofa; char name[96]; } PartV2;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char lines[MAX_LINES][LINE];
static int line_count, open_count, calls, sessions, waiting, waits;
static long long session_opened;
static struct stat last_seen;

/* No thread of the parent waits in a forked child. */
static void begin_child(void) { waiting = 0; pthread_mutex_init(&lock, NULL); }
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, begin_child); }

static void read_state(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now)) { line_count = 0; return; }
    if (line_count && now.st_ino == last_seen.st_ino && now.st_size == last_seen.st_size &&
        now.st_mtim.tv_sec == last_seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == last_seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) { line_count = 0; return; }
    for (line_count = 0; line_count < MAX_LINES && fgets(lines[line_count], LINE, file);) {
        lines[line_count][strcspn(lines[line_count], "\r\n")] = 0;
        line_count += lines[line_count][0] && lines[line_count][0] != '#';
    }
    fclose(file);
    last_seen = now;
}

static int is_kind(const char *line, const char *kind) {
    size_t length = strlen(kind);
    return !strncmp(line, kind, length) && line[length] == ' ';
}

static int text_of(const char *line, const char *key, char *out, size_t size) { /* 1 when the line has key=value */
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %s=", key);
    const char *at = strstr(line, wanted);
    if (size) out[0] = 0;
    if (!at) return 0;
    at += strlen(wanted);
    snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
    return out[0] != 0;
}

static long long number_of(const char *line, const char *key, long long fallback) {
    char value[64];
    return text_of(line, key, value, sizeof value) ? strtoll(value, NULL, 0) : fallback;
}

static const char *nth(const char *kind, int wanted) {
    for (int i = 0; i < line_count; i++)
        if (is_kind(lines[i], kind) && wanted-- == 0) return lines[i];
    return NULL;
}

static int count_of(const char *kind) {
    int count = 0;
    while (nth(kind, count)) count++;
    return count;
}

static long long session(void) {
    const char *line = nth("session", 0);
    return line ? atoll(line + 8) : 0;
}

static int injected(const char *function) { /* the code of a `fail FUNCTION CODE` line */
    char name[96];
    int code;
    for (int i = 0; i < line_count; i++)
        if (sscanf(lines[i], "fail %95s %d", name, &code) == 2 && !strcmp(name, function)) return code;
    return OK;
}

static int is_mig(Handle h) { return h >= MIG_BASE; }
static const char *mig_line(Handle h) { return is_mig(h) ? nth("mig", (int)(h - MIG_BASE)) : NULL; }
static int gpu_index(Handle h) { return is_mig(h) ? (int)(mig_line(h) ? number_of(mig_line(h), "gpu", 0) : -1) : (int)h - 1; }
static const char *gpu_line(Handle h) { return gpu_index(h) < 0 ? NULL : nth("gpu", gpu_index(h)); }
static const char *own_line(Handle h) { return is_mig(h) ? mig_line(h) : gpu_line(h); }

static int begin(const char *function) {
    pthread_mutex_lock(&lock);
    calls++;
    read_state();
    if (!open_count || session() != session_opened) return UNINITIALIZED;
    return injected(function);
}

static int begin_device(const char *function, Handle h) {
    int code = begin(function);
    if (code) return code;
    if (!own_line(h) || !gpu_line(h)) return INVALID;
    return (int)number_of(gpu_line(h), "lost", 0);
}

static int end(int code) { pthread_mutex_unlock(&lock); return code; }

static int put_text(char *out, u32 size, const char *text) {
    if (strlen(text) >= size) return TOO_SMALL;
    strcpy(out, text);
    return OK;
}

static int spaced(char *text) { for (; *text; text++) if (*text == '_') *text = ' '; return OK; }

#define DEVICE_CALL(name, params, ...) EXPORT name params { int code = begin_device(#name, h); if (code == OK) { __VA_ARGS__ } return end(code); }
#define SYSTEM_CALL(name, params, ...) EXPORT name params { int code = begin(#name); if (code == OK) { __VA_ARGS__ } return end(code); }
#define WHOLE_ONLY if (is_mig(h)) return end(NOT_SUPPORTED);

EXPORT nvmlInitWithFlags(u32 flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    read_state();
    int code = injected("nvmlInit");
    if (!code) { if (session() != session_opened) open_count = 0; if (!open_count++) sessions++; session_opened = session(); }
    return end(code);
}
EXPORT nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlInit(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    int code = open_count ? OK : UNINITIALIZED;
    if (open_count && !--open_count && waiting) abort();
    return end(code);
}
EXPORT fakeCalls(void) { return calls; } /* how often this process has asked the driver anything */
__attribute__((visibility("default"))) const char *nvmlErrorString(int code) {
    static char text[40];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}

SYSTEM_CALL(nvmlSystemGetDriverVersion, (char *out, u32 size),
    const char *line = nth("driver", 0);
    code = put_text(out, size, line ? line + 7 : "580.65.06");)
SYSTEM_CALL(nvmlSystemGetNVMLVersion, (char *out, u32 size), code = put_text(out, size, "13.580.65.06");)
SYSTEM_CALL(nvmlSystemGetCudaDriverVersion, (int *out), *out = 13000;)
SYSTEM_CALL(nvmlSystemGetCudaDriverVersion_v2, (int *out), *out = 13000;)
SYSTEM_CALL(nvmlSystemGetProcessName, (u32 pid, char *out, u32 size),
    code = NOT_FOUND;
    for (int i = 0; code && nth("process", i); i++)
        if ((u32)number_of(nth("process", i), "pid", 0) == pid && text_of(nth("process", i), "name", out, size)) code = spaced(out);)
SYSTEM_CALL(nvmlDeviceGetCount_v2, (u32 *out), *out = (u32)count_of("gpu");)
EXPORT nvmlDeviceGetCount(u32 *out) { return nvmlDeviceGetCount_v2(out); }
SYSTEM_CALL(nvmlDeviceGetHandleByIndex_v2, (u32 i, Handle *out),
    if (!nth("gpu", (int)i)) return end(INVALID);
    *out = i + 1;
    code = (int)number_of(nth("gpu", (int)i), "lost", 0);)
SYSTEM_CALL(nvmlDeviceGetHandleByUUID, (const char *uuid, Handle *out),
    char value[96];
    code = NOT_FOUND;
    for (int i = 0; nth("gpu", i); i++)
        if (text_of(nth("gpu", i), "uuid", value, sizeof value) && !strcmp(value, uuid)) { *out = (Handle)i + 1; code = (int)number_of(nth("gpu", i), "lost", 0); }
    for (int j = 0; nth("mig", j); j++)
        if (text_of(nth("mig", j), "uuid", value, sizeof value) && !strcmp(value, uuid)) { *out = MIG_BASE + (Handle)j; code = (int)number_of(gpu_line(*out), "lost", 0); })
SYSTEM_CALL(nvmlDeviceGetHandleByPciBusId_v2, (const char *id, Handle *out),
    u32 domain, bus;
    if (sscanf(id, "%x:%x", &domain, &bus) != 2 || !bus || !nth("gpu", (int)bus - 1)) return end(NOT_FOUND);
    *out = bus;)

DEVICE_CALL(nvmlDeviceGetUUID, (Handle h, char *out, u32 size), if (!text_of(own_line(h), "uuid", out, size)) code = UNKNOWN;)
DEVICE_CALL(nvmlDeviceGetName, (Handle h, char *out, u32 size),
    if (!text_of(gpu_line(h), "name", out, size)) code = put_text(out, size, "Fake GPU");
    spaced(out);
    if (is_mig(h)) {
        char profile[32];
        text_of(mig_line(h), "profile", profile, sizeof profile);
        snprintf(out + strlen(out), size - strlen(out), " MIG %s", profile);
    })
DEVICE_CALL(nvmlDeviceGetIndex, (Handle h, u32 *out), *out = (u32)gpu_index(h);)
DEVICE_CALL(nvmlDeviceGetMinorNumber, (Handle h, u32 *out), *out = (u32)gpu_index(h);)
DEVICE_CALL(nvmlDeviceGetCudaComputeCapability, (Handle h, int *major, int *minor),
    char value[16];
    *major = 9; *minor = 0;
    if (text_of(gpu_line(h), "cc", value, sizeof value)) sscanf(value, "%d.%d", major, minor);)
DEVICE_CALL(nvmlDeviceGetNumGpuCores, (Handle h, u32 *out),
    WHOLE_ONLY
    *out = (u32)number_of(gpu_line(h), "cores", 0);
    if (!*out) code = NOT_SUPPORTED;)

static int memory_of(Handle h, u64 *total, u64 *used, u64 *reserved) {
    if (!is_mig(h) && number_of(gpu_line(h), "noperm", 0)) return NO_PERMISSION;
    if (!is_mig(h) && number_of(gpu_line(h), "unified", 0)) return NOT_SUPPORTED;
    *total = is_mig(h) ? (u64)number_of(mig_line(h), "memory_mb", 0) << 20 : (u64)number_of(gpu_line(h), "memory", 0);
    *used = (u64)number_of(own_line(h), "used", 0);
    *reserved = (u64)number_of(own_line(h), "reserved", 0);
    return OK;
}
DEVICE_CALL(nvmlDeviceGetMemoryInfo, (Handle h, Memory *out),
    u64 reserved;
    code = memory_of(h, &out->total, &out->used, &reserved);
    if (!code) { out->used += reserved; out->free = out->total - out->used; })
DEVICE_CALL(nvmlDeviceGetMemoryInfo_v2, (Handle h, MemoryV2 *out),
    if (out->version != 0x02000028) return end(BAD_VERSION);
    code = memory_of(h, &out->total, &out->used, &out->reserved);
    if (!code) out->free = out->total - out->used - out->reserved;)
DEVICE_CALL(nvmlDeviceGetUtilizationRates, (Handle h, Utilization *out),
    if (is_mig(h) || number_of(gpu_line(h), "mig", 0)) return end(NOT_SUPPORTED);
    out->gpu = (u32)number_of(gpu_line(h), "util", 0);
    out->memory = out->gpu / 2;)
DEVICE_CALL(nvmlDeviceGetPowerUsage, (Handle h, u32 *out), WHOLE_ONLY *out = (u32)number_of(gpu_line(h), "power_mw", 70000);)
DEVICE_CALL(nvmlDeviceGetEnforcedPowerLimit, (Handle h, u32 *out), WHOLE_ONLY *out = (u32)number_of(gpu_line(h), "enforced_mw", 700000);)
DEVICE_CALL(nvmlDeviceGetPowerManagementLimit, (Handle h, u32 *out), WHOLE_ONLY *out = (u32)number_of(gpu_line(h), "limit_mw", 700000);)
DEVICE_CALL(nvmlDeviceGetPowerManagementDefaultLimit, (Handle h, u32 *out), WHOLE_ONLY *out = (u32)number_of(gpu_line(h), "default_mw", 700000);)
DEVICE_CALL(nvmlDeviceGetTemperatureThreshold, (Handle h, u32 kind, u32 *out), WHOLE_ONLY
    char value[16];
    const char *key = kind == 0 ? "shutdown" : kind == 1 ? "slowdown" : "none";
    *out = (u32)number_of(gpu_line(h), key, 0);
    if (!text_of(gpu_line(h), key, value, sizeof value)) code = NOT_SUPPORTED;)
DEVICE_CALL(nvmlDeviceGetTotalEnergyConsumption, (Handle h, u64 *out), WHOLE_ONLY
    char value[64];
    if (number_of(gpu_line(h), "energy_mj", 0) < 0) return end(NOT_SUPPORTED);
    *out = text_of(gpu_line(h), "energy_mj", value, sizeof value) ? strtoull(value, NULL, 0) : 0;)
DEVICE_CALL(nvmlDeviceGetTemperature, (Handle h, u32 sensor, u32 *out), WHOLE_ONLY (void)sensor; *out = (u32)number_of(gpu_line(h), "temp", 40);)
DEVICE_CALL(nvmlDeviceGetTemperatureV, (Handle h, TemperatureV *out),
    WHOLE_ONLY
    if (out->version != 0x100000C) return end(BAD_VERSION);
    out->degrees = 40;)
DEVICE_CALL(nvmlDeviceGetCpuAffinity, (Handle h, u32 words, unsigned long *out), memset(out, 0, words * sizeof *out); if (words) out[0] = 1;)
DEVICE_CALL(nvmlDeviceGetMemoryAffinity, (Handle h, u32 words, u64 *out, u32 scope),
    long long node = number_of(gpu_line(h), "numa", -1);
    if (node < 0 || scope) return end(NOT_SUPPORTED);
    if ((u32)node / 64 >= words) return end(TOO_SMALL);
    memset(out, 0, words * sizeof *out);
    out[node / 64] = 1ull << (node % 64);)
DEVICE_CALL(nvmlDeviceGetP2PStatus, (Handle h, Handle other, int index, int *out),
    if (!gpu_line(other)) return end(INVALID);
    *out = NO_LINK;
    for (int i = 0; index == NVLINK && nth("link", i); i++) {
        long long a = number_of(nth("link", i), "a", -1), b = number_of(nth("link", i), "b", -1);
        if ((a == gpu_index(h) && b == gpu_index(other)) || (b == gpu_index(h) && a == gpu_index(other))) *out = OK;
    })
DEVICE_CALL(nvmlDeviceGetPciInfo_v3, (Handle h, Pci *out),
    memset(out, 0, sizeof *out);
    out->bus = (u32)gpu_index(h) + 1;
    snprintf(out->legacy, sizeof out->legacy, "0000:%02X:00.0", out->bus & 0xff);
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus & 0xff);)

/* Fills `out` with the processes of that handle and type; the first call, with room for none, learns the number. */
static int processes(Handle h, char type, u32 *count, Process *out) {
    u32 found = 0;
    char kind[8];
    if (number_of(gpu_line(h), "nolist", 0)) return NOT_SUPPORTED;
    for (int i = 0; nth("process", i); i++) {
        const char *line = nth("process", i);
        if (!text_of(line, "type", kind, sizeof kind)) strcpy(kind, "C");
        long long gi = number_of(line, "gi", NO_INSTANCE);
        if (kind[0] != type || number_of(line, "gpu", 0) != gpu_index(h) || number_of(line, "hidden", 0)) continue;
        if (is_mig(h) && gi != number_of(mig_line(h), "gi", 0)) continue;
        if (out && found < *count)
            out[found] = (Process){(u32)number_of(line, "pid", 0), (u64)number_of(line, "memory", 0), (u32)gi, (u32)(gi < 0 ? -1 : 0)};
        found++;
    }
    int fits = found <= *count;
    *count = found;
    return fits ? OK : TOO_SMALL;
}
DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses_v3, (Handle h, u32 *count, Process *out), code = processes(h, 'C', count, out);)
DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses_v2, (Handle h, u32 *count, Process *out), code = processes(h, 'C', count, out);)
DEVICE_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, (Handle h, u32 *count, Process *out), code = processes(h, 'G', count, out);)
DEVICE_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3, (Handle h, u32 *count, Process *out), code = processes(h, 'M', count, out);)
DEVICE_CALL(nvmlDeviceGetProcessUtilization, (Handle h, Sample *out, u32 *count, u64 since),
    if (is_mig(h) || number_of(gpu_line(h), "mig", 0)) return end(NOT_SUPPORTED);
    struct timeval now;
    u32 found = 0;
    gettimeofday(&now, NULL);
    u64 taken = (u64)now.tv_sec * 1000000 + (u64)now.tv_usec;
    for (int i = 0; nth("process", i); i++) {
        const char *line = nth("process", i);
        char kind[8];
        long long sm = number_of(line, "sm", -1), age_ms = number_of(line, "sm_age_ms", 0);
        u64 at = taken - (u64)age_ms * 1000;
        if (text_of(line, "type", kind, sizeof kind) && kind[0] == 'M') continue;
        if (sm < 0 || (!age_ms && at <= since) || number_of(line, "gpu", 0) != gpu_index(h) || number_of(line, "hidden", 0)) continue;
        if (out && found < *count) out[found] = (Sample){(u32)number_of(line, "pid", 0), at, (u32)sm, 0, 0, 0};
        found++;
    }
    code = !found ? NOT_FOUND : out && found <= *count ? OK : TOO_SMALL;
    *count = found;)

DEVICE_CALL(nvmlDeviceGetMigMode, (Handle h, u32 *now, u32 *next), WHOLE_ONLY *now = *next = (u32)number_of(gpu_line(h), "mig", 0);)
DEVICE_CALL(nvmlDeviceIsMigDeviceHandle, (Handle h, u32 *out), *out = (u32)is_mig(h);)
DEVICE_CALL(nvmlDeviceGetMaxMigDeviceCount, (Handle h, u32 *out), *out = number_of(gpu_line(h), "mig", 0) ? 7 : 0;)
DEVICE_CALL(nvmlDeviceGetMigDeviceHandleByIndex, (Handle h, u32 slot, Handle *out),
    code = NOT_FOUND; /* the walk has holes, as the driver's has */
    for (int j = 0; nth("mig", j); j++)
        if (number_of(nth("mig", j), "gpu", 0) == gpu_index(h) && number_of(nth("mig", j), "slot", -1) == (long long)slot) { *out = MIG_BASE + (Handle)j; code = OK; })
DEVICE_CALL(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (Handle h, Handle *out), if (is_mig(h)) *out = (Handle)gpu_index(h) + 1; else code = INVALID;)
DEVICE_CALL(nvmlDeviceGetGpuInstanceId, (Handle h, u32 *out), if (is_mig(h)) *out = (u32)number_of(mig_line(h), "gi", 0); else code = NOT_SUPPORTED;)
DEVICE_CALL(nvmlDeviceGetComputeInstanceId, (Handle h, u32 *out), if (is_mig(h)) *out = (u32)number_of(mig_line(h), "ci", 0); else code = NOT_SUPPORTED;)
DEVICE_CALL(nvmlDeviceGetAttributes_v2, (Handle h, Attributes *out),
    if (!is_mig(h)) return end(NOT_SUPPORTED); /* "only supports MIG device handles" */
    memset(out, 0, sizeof *out);
    out->sms = (u32)number_of(mig_line(h), "sms", 0);
    out->slices = (u32)number_of(mig_line(h), "slices", 1);
    out->cslices = (u32)number_of(mig_line(h), "cslices", out->slices);
    out->jpeg = (u32)number_of(mig_line(h), "jpeg", 0);
    out->memory_mb = (u64)number_of(mig_line(h), "memory_mb", 0);)

DEVICE_CALL(nvmlDeviceGetVirtualizationMode, (Handle h, u32 *out), WHOLE_ONLY *out = (u32)number_of(gpu_line(h), "virtual", 0);)
DEVICE_CALL(nvmlDeviceGetComputeMode, (Handle h, int *out), WHOLE_ONLY *out = (int)number_of(gpu_line(h), "mode", 0);)

/* A file of a control group, of which this GPU has a line. -1 for a file that is not there; "max" is all there is. */
static const u64 ALL = ~0ull;
static int has_line(const char *group, const char *file, const char *word) {
    char path[4096], line[LINE];
    snprintf(path, sizeof path, "%s/%s", group, file);
    FILE *opened = fopen(path, "r");
    int found = opened ? 0 : -1;
    while (opened && fgets(line, sizeof line, opened)) found |= strstr(line, word) != NULL;
    if (opened) fclose(opened);
    return found;
}
static u64 limit_of(const char *group, const char *file, Handle h, u64 fallback) {
    char path[4096], line[LINE], key[64];
    u64 found = fallback;
    snprintf(path, sizeof path, "%s/%s", group, file);
    snprintf(key, sizeof key, "nvidia/00000000:%02X:00.0/vidmem ", (u32)gpu_index(h) + 1);
    FILE *opened = fopen(path, "r");
    while (opened && fgets(line, sizeof line, opened))
        if (!strncmp(line, key, strlen(key))) found = strncmp(line + strlen(key), "max", 3) ? strtoull(line + strlen(key), NULL, 0) : ALL;
    if (opened) fclose(opened);
    return found;
}
static int put_limit(const char *group, const char *file, Handle h, u64 limit) { /* one GPU's line is kept: the last */
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", group, file);
    FILE *opened = fopen(path, "w");
    if (!opened) return UNKNOWN;
    fprintf(opened, "nvidia/00000000:%02X:00.0/vidmem ", (u32)gpu_index(h) + 1);
    if (limit == ALL) fprintf(opened, "max\n"); else fprintf(opened, "%llu\n", limit);
    fclose(opened);
    return OK;
}
DEVICE_CALL(nvmlDeviceSetMemoryLimits_v1, (Handle h, SetLimits *in),
    WHOLE_ONLY
    char parent[4096];
    snprintf(parent, sizeof parent, "%s/..", in->group);
    /* the kernel gives a group its dmem files when the group above has the controller on for its children */
    if (has_line(parent, "cgroup.subtree_control", "dmem") != 1) return end(NOT_FOUND);
    code = put_limit(in->group, "dmem.max", h, in->hard);
    if (!code) code = put_limit(in->group, "dmem.min", h, in->soft);)
DEVICE_CALL(nvmlDeviceGetMemoryLimits_v1, (Handle h, GetLimits *out),
    WHOLE_ONLY
    if (has_line(out->group, "dmem.max", "") < 0) return end(NOT_FOUND);
    out->hard = limit_of(out->group, "dmem.max", h, ALL);
    out->soft = limit_of(out->group, "dmem.min", h, 0);
    out->used = limit_of(out->group, "dmem.current", h, 0);)
/* -- cutting a GPU: a handle of a GPU instance is GI_BASE + its `gi` line, of a compute instance CI_BASE + its `mig` line */

static void write_state(void) {
    char path[512];
    snprintf(path, sizeof path, "%s.cut", getenv("FAKE_NVML_STATE"));
    FILE *file = fopen(path, "w");
    for (int i = 0; file && i < line_count; i++) fprintf(file, "%s\n", lines[i]);
    if (file) { fclose(file); rename(path, getenv("FAKE_NVML_STATE")); }
}
static void add_line(const char *line) { snprintf(lines[line_count++], LINE, "%s", line); write_state(); }
static void drop_line(const char *line) {
    int at = (int)((line - lines[0]) / LINE);
    memmove(lines[at], lines[at + 1], (size_t)(--line_count - at) * LINE);
    write_state();
}
static const char *shape_of(int gpu, const char *key, long long wanted) {
    for (int i = 0; nth("shape", i); i++)
        if (number_of(nth("shape", i), "gpu", 0) == gpu && number_of(nth("shape", i), key, -1) == wanted) return nth("shape", i);
    return NULL;
}
static int start_at(const char *shape, int wanted) { /* the nth of starts=0:2:4; -1 when there is none */
    char starts[64];
    text_of(shape, "starts", starts, sizeof starts);
    char *token = strtok(starts, ":");
    for (; token && wanted--; token = strtok(NULL, ":")) ;
    return token ? atoi(token) : -1;
}
static int overlaps(int gpu, long long start, long long size) {
    for (int i = 0; nth("gi", i); i++) {
        long long other = number_of(nth("gi", i), "start", 0);
        if (number_of(nth("gi", i), "gpu", 0) == gpu && start < other + number_of(nth("gi", i), "size", 1) && other < start + size) return 1;
    }
    return 0;
}
static const char *part_in(const char *gi) { /* the `mig` line of a GPU instance */
    for (int j = 0; nth("mig", j); j++)
        if (number_of(nth("mig", j), "gpu", 0) == number_of(gi, "gpu", 0) && number_of(nth("mig", j), "gi", -1) == number_of(gi, "id", 0)) return nth("mig", j);
    return NULL;
}
static int is_busy(const char *gi) {
    for (int i = 0; nth("process", i); i++)
        if (number_of(nth("process", i), "gpu", 0) == number_of(gi, "gpu", 0) && number_of(nth("process", i), "gi", -1) == number_of(gi, "id", 0)) return 1;
    return 0;
}
static void fill_shape(const char *line, ShapeV2 *out) {
    out->id = (u32)number_of(line, "id", 0);
    out->slices = (u32)number_of(line, "slices", 1);
    out->sms = (u32)number_of(line, "sms", 0);
    out->jpeg = (u32)number_of(line, "jpeg", 0);
    out->memory_mb = (u64)number_of(line, "memory_mb", 0);
    text_of(line, "name", out->name, sizeof out->name);
    spaced(out->name);
    for (out->most = 0; start_at(line, (int)out->most) >= 0; out->most++) ;
}
DEVICE_CALL(nvmlDeviceGetGpuInstanceProfileInfoV, (Handle h, u32 profile, ShapeV2 *out),
    if (out->version != 0x02000098) return end(BAD_VERSION);
    const char *line = shape_of(gpu_index(h), "profile", profile);
    if (line) fill_shape(line, out); else code = NOT_SUPPORTED;)
DEVICE_CALL(nvmlDeviceGetGpuInstanceProfileInfo, (Handle h, u32 profile, ShapeV1 *out),
    const char *line = shape_of(gpu_index(h), "profile", profile);
    ShapeV2 all = {0};
    if (!line) return end(NOT_SUPPORTED);
    fill_shape(line, &all);
    *out = (ShapeV1){all.id, 0, all.slices, all.most, all.sms, 0, 0, 0, all.jpeg, 0, all.memory_mb};)
DEVICE_CALL(nvmlDeviceGetGpuInstancePossiblePlacements_v2, (Handle h, u32 id, Span *out, u32 *count),
    const char *line = shape_of(gpu_index(h), "id", id);
    u32 found = 0;
    if (!line) return end(INVALID);
    for (; start_at(line, (int)found) >= 0; found++)
        if (out && found < *count) out[found] = (Span){(u32)start_at(line, (int)found), (u32)number_of(line, "size", 1)};
    code = !out || found <= *count ? OK : TOO_SMALL;
    *count = found;)
DEVICE_CALL(nvmlDeviceGetGpuInstances, (Handle h, u32 id, Handle *out, u32 *count),
    *count = 0;
    for (int i = 0; nth("gi", i); i++)
        if (number_of(nth("gi", i), "gpu", 0) == gpu_index(h) && number_of(nth("gi", i), "shape", -1) == (long long)id) out[(*count)++] = GI_BASE + (Handle)i;)
DEVICE_CALL(nvmlDeviceGetGpuInstanceById, (Handle h, u32 id, Handle *out),
    code = NOT_FOUND;
    for (int i = 0; nth("gi", i); i++)
        if (number_of(nth("gi", i), "gpu", 0) == gpu_index(h) && number_of(nth("gi", i), "id", -1) == (long long)id) { *out = GI_BASE + (Handle)i; code = OK; })
SYSTEM_CALL(nvmlGpuInstanceGetInfo, (Handle g, InstanceInfo *out),
    const char *line = nth("gi", (int)(g - GI_BASE));
    if (!line) return end(INVALID);
    *out = (InstanceInfo){(Handle)number_of(line, "gpu", 0) + 1, (u32)number_of(line, "id", 0), (u32)number_of(line, "shape", 0),
        {(u32)number_of(line, "start", 0), (u32)number_of(line, "size", 1)}};)
DEVICE_CALL(nvmlDeviceCreateGpuInstanceWithPlacement, (Handle h, u32 id, const Span *span, Handle *out),
    const char *line = shape_of(gpu_index(h), "id", id);
    char made[LINE];
    int fits = 0;
    for (int i = 0; line && start_at(line, i) >= 0; i++) fits |= start_at(line, i) == (int)span->start;
    if (!fits) return end(INVALID);
    if (overlaps(gpu_index(h), span->start, span->size)) return end(NO_ROOM);
    snprintf(made, sizeof made, "gi gpu=%d id=%u shape=%u start=%u size=%u", gpu_index(h), 20 + span->start, id, span->start, span->size);
    add_line(made);
    *out = GI_BASE + (Handle)count_of("gi") - 1;)
SYSTEM_CALL(nvmlGpuInstanceDestroy, (Handle g),
    const char *line = nth("gi", (int)(g - GI_BASE));
    if (!line) return end(INVALID);
    if (part_in(line) || is_busy(line)) return end(IN_USE);
    drop_line(line);)
SYSTEM_CALL(nvmlGpuInstanceGetComputeInstanceProfileInfoV, (Handle g, u32 profile, u32 engine, PartV2 *out),
    (void)engine;
    static const u32 slices[] = {1, 2, 3, 4, 7};
    if (!nth("gi", (int)(g - GI_BASE))) return end(INVALID);
    if (profile > 4) return end(NOT_SUPPORTED);
    out->slices = slices[profile];
    out->id = PART_ID + out->slices;)
SYSTEM_CALL(nvmlGpuInstanceCreateComputeInstance, (Handle g, u32 id, Handle *out),
    const char *line = nth("gi", (int)(g - GI_BASE));
    if (!line) return end(INVALID);
    const char *shape = shape_of((int)number_of(line, "gpu", 0), "id", number_of(line, "shape", 0));
    long long gi = number_of(line, "id", 0), gpu = number_of(line, "gpu", 0);
    char made[LINE];
    if (part_in(line)) return end(NO_ROOM);
    snprintf(made, sizeof made, "mig gpu=%lld uuid=MIG-new-%lld-%lld gi=%lld slot=%lld slices=%lld cslices=%u memory_mb=%lld sms=%lld",
        gpu, gpu, gi, gi, number_of(line, "start", 0), number_of(shape, "slices", 1), id - PART_ID, number_of(shape, "memory_mb", 0), number_of(shape, "sms", 0));
    add_line(made);
    *out = CI_BASE + (Handle)count_of("mig") - 1;)
SYSTEM_CALL(nvmlGpuInstanceGetComputeInstances, (Handle g, u32 id, Handle *out, u32 *count),
    const char *line = nth("gi", (int)(g - GI_BASE));
    *count = 0;
    if (!line) return end(INVALID);
    for (int j = 0; nth("mig", j); j++)
        if (nth("mig", j) == part_in(line) && PART_ID + number_of(nth("mig", j), "cslices", number_of(nth("mig", j), "slices", 1)) == (long long)id) out[(*count)++] = CI_BASE + (Handle)j;)
SYSTEM_CALL(nvmlComputeInstanceDestroy, (Handle c),
    const char *line = nth("mig", (int)(c - CI_BASE));
    if (!line) return end(INVALID);
    drop_line(line);)
/* GPM: a sample notes how long the SMs have worked and when; two of them make a metric. Samples are plain memory. */
typedef struct { u32 metric; int code; double value; const char *names[3]; } GpmMetric;
typedef struct { long long busy, at; int is_taken; } GpmSample;
typedef struct { u32 version, count; GpmSample *first, *second; GpmMetric metrics[]; } GpmMetrics;
enum { SM_UTIL = 2 };

SYSTEM_CALL(nvmlGpmSampleAlloc, (GpmSample **out), *out = calloc(1, sizeof **out); if (!*out) code = UNKNOWN;)
EXPORT nvmlGpmSampleFree(GpmSample *sample) { free(sample); return OK; }
DEVICE_CALL(nvmlGpmQueryDeviceSupport, (Handle h, u32 *out),
    if (out[0] != 1) return end(BAD_VERSION);
    out[1] = number_of(gpu_line(h), "gpm_ms", -1) >= 0;)

static int take(GpmSample *sample, const char *line) {
    long long busy = number_of(line, "gpm_ms", -1);
    if (busy < 0) return NOT_SUPPORTED;
    *sample = (GpmSample){busy, nth("now", 0) ? atoll(nth("now", 0) + 4) : 0, 1};
    return OK;
}
DEVICE_CALL(nvmlGpmSampleGet, (Handle h, GpmSample *sample), WHOLE_ONLY code = take(sample, gpu_line(h));)
DEVICE_CALL(nvmlGpmMigSampleGet, (Handle h, u32 gi, GpmSample *sample),
    WHOLE_ONLY
    code = NOT_FOUND;
    for (int j = 0; nth("mig", j); j++)
        if (number_of(nth("mig", j), "gpu", 0) == gpu_index(h) && number_of(nth("mig", j), "gi", 0) == gi) code = take(sample, nth("mig", j));)
SYSTEM_CALL(nvmlGpmMetricsGet, (GpmMetrics *asked),
    if (asked->version != 1) return end(BAD_VERSION);
    if (!asked->first->is_taken || !asked->second->is_taken) return end(INVALID);
    long long passed = asked->second->at - asked->first->at;
    for (u32 i = 0; i < asked->count; i++) {
        GpmMetric *metric = &asked->metrics[i];
        metric->code = metric->metric == SM_UTIL && passed > 0 ? OK : NOT_SUPPORTED;
        if (!metric->code) metric->value = (double)(asked->second->busy - asked->first->busy) / (double)passed;
    })

/* Health: error counters, and events. A set of events is freed with the session that it was made in; whoever uses it later
   reads freed memory, which ends the process here. */
typedef struct { int session, seen; u64 gpus, kinds; } EventSet;
typedef struct { Handle device; unsigned long type, data; u32 gi, ci; } EventData;
typedef struct { u32 field, scope; long long at, latency; u32 type; int code; union { u32 number; u64 wide; double real; } value; } FieldValue;
typedef struct { u32 version; int degrees; } Margin;
enum { TIMEOUT = 10, XID_EVENT = 8, SHUTDOWN_LIMIT = 193, SLOWDOWN_LIMIT = 194, RECOVERY_ACTION = 230, UNCORRECTED = 1 };

static int part_of(const char *line, const char *key, int wanted, long long *out) { /* the nth of key=a:b:c */
    char text[64];
    if (!text_of(line, key, text, sizeof text)) return NOT_SUPPORTED;
    char *token = strtok(text, ":");
    while (token && wanted--) token = strtok(NULL, ":");
    *out = token ? strtoll(token, NULL, 0) : 0;
    return OK;
}
DEVICE_CALL(nvmlDeviceGetRemappedRows, (Handle h, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed), WHOLE_ONLY
    u32 *out[] = {corrected, uncorrected, pending, failed};
    long long number = 0;
    for (int i = 0; i < 4 && !(code = part_of(gpu_line(h), "remap", i, &number)); i++) *out[i] = (u32)number;)
DEVICE_CALL(nvmlDeviceGetTotalEccErrors, (Handle h, int kind, int counter, u64 *out), WHOLE_ONLY
    (void)counter;
    long long number = 0;
    code = part_of(gpu_line(h), "ecc", kind == UNCORRECTED, &number);
    *out = (u64)number;)
DEVICE_CALL(nvmlDeviceGetRetiredPagesPendingStatus, (Handle h, int *out), WHOLE_ONLY
    long long number = 0;
    code = part_of(gpu_line(h), "retire", 0, &number);
    *out = (int)number;)
DEVICE_CALL(nvmlDeviceGetCurrentClocksEventReasons, (Handle h, u64 *out), WHOLE_ONLY
    *out = (u64)number_of(gpu_line(h), "clocks", 0);)
EXPORT nvmlDeviceGetCurrentClocksThrottleReasons(Handle h, u64 *out) { return nvmlDeviceGetCurrentClocksEventReasons(h, out); }
DEVICE_CALL(nvmlDeviceGetFieldValues, (Handle h, int count, FieldValue *out),
    for (int i = 0; i < count; i++) {
        long long number = 0;
        out[i].code = out[i].field == RECOVERY_ACTION  ? part_of(gpu_line(h), "recovery", 0, &number)
                      : out[i].field == SLOWDOWN_LIMIT ? part_of(gpu_line(h), "margin", 1, &number)
                      : out[i].field == SHUTDOWN_LIMIT ? part_of(gpu_line(h), "margin", 2, &number)
                                                       : NOT_SUPPORTED;
        out[i].value.wide = (u64)number;
    })
DEVICE_CALL(nvmlDeviceGetMarginTemperature, (Handle h, Margin *out), WHOLE_ONLY
    if (out->version != 0x1000008) return end(BAD_VERSION);
    long long number = 0;
    code = part_of(gpu_line(h), "margin", 0, &number);
    out->degrees = (int)number;)
DEVICE_CALL(nvmlDeviceGetSupportedEventTypes, (Handle h, u64 *out), WHOLE_ONLY *out = (u64)number_of(gpu_line(h), "events", XID_EVENT);)
static void check_set(const EventSet *set) { if (set->session != sessions) abort(); }
SYSTEM_CALL(nvmlEventSetCreate, (EventSet **out),
    *out = calloc(1, sizeof **out);
    **out = (EventSet){sessions, count_of("xid"), 0, 0};)
DEVICE_CALL(nvmlDeviceRegisterEvents, (Handle h, u64 types, EventSet *set), WHOLE_ONLY
    check_set(set);
    if (types & ~(u64)number_of(gpu_line(h), "events", XID_EVENT)) return end(NOT_SUPPORTED);
    set->gpus |= 1ull << gpu_index(h);
    set->kinds |= types;)
static int next_event(EventSet *set, EventData *out) {
    for (; nth("xid", set->seen); set->seen++) {
        const char *line = nth("xid", set->seen);
        long long gpu = number_of(line, "gpu", 0), kind = number_of(line, "type", XID_EVENT);
        if (!(set->gpus >> gpu & 1) || !(set->kinds & (u64)kind)) continue;
        *out = (EventData){(Handle)gpu + 1, (unsigned long)kind, (unsigned long)number_of(line, "code", 0), (u32)-1, (u32)-1};
        set->seen++;
        return OK;
    }
    return TIMEOUT;
}
EXPORT nvmlEventSetWait_v2(EventSet *set, EventData *out, u32 timeout_ms) { /* it waits beside all other calls */
    int code = begin("nvmlEventSetWait_v2");
    calls--;
    waits++;
    if (code) return end(code);
    waiting++;
    for (u32 waited = 0;; waited += 2) {
        check_set(set);
        code = next_event(set, out);
        if (code == OK || waited >= timeout_ms) break;
        pthread_mutex_unlock(&lock);
        usleep(2000);
        pthread_mutex_lock(&lock);
        read_state();
        if (session() != session_opened) { code = UNINITIALIZED; break; }
    }
    waiting--;
    return end(code);
}
EXPORT fakeWaits(void) { return waits; } /* how often this process has waited for events */
