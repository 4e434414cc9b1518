/* A small library that speaks the ABI of NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 * What it answers is read from the text file named by FAKE_NVML_STATE, and read again whenever that file changes:
 * replace it by rename while a program runs, and the "hardware" changes under it. One thing per line, `#` comments:
 *
 *   session 1                           another number: calls answer UNINITIALIZED until NVML is opened again
 *   gpu uuid=GPU-a name=NVIDIA_H200 memory=150754820096 used=0 reserved=0 cc=9.0 cores=16896
 *       util=0 power_mw=70000 energy_mj=1000 mig=0 noperm=0 lost=0 numa=0      (one line; `_` in a name is a space;
 *       noperm=1 refuses the memory of the GPU; lost=15 makes every call on it answer 15; energy_mj=-1: no counter)
 *   gpu ... gpm_ms=40000                GPM: how long SMs have worked so far, in ms x percent; without it, no GPM
 *   mig gpu=0 uuid=MIG-a gi=1 ci=0 slot=0 slices=1 cslices=1 memory_mb=16384 sms=16 used=0 profile=1g.18gb gpm_ms=0
 *   now 5000                            GPM's clock in ms: activity is what gpm_ms moved by over what this moved by
 *   process gpu=0 pid=123 memory=1048576 type=C|G|M gi=1 sm=35 name=/usr/bin/python3_train.py
 *       (C compute, G graphics, M a client of MPS; memory=-1 is "not available"; sm without a value: no sample)
 *   link a=0 b=1                        these two GPUs reach each other by NVLink
 *   fail nvmlDeviceGetPowerUsage 3      that function answers that code; `fail nvmlInit 9` refuses to open
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef size_t Handle; /* GPU i is i + 1, MIG line j is MIG_BASE + j; the driver's are opaque pointers */
enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, TOO_SMALL, UNKNOWN = 999, BAD_VERSION = 25 };
enum { MIG_BASE = 1000, MAX_LINES = 512, LINE = 512, NO_INSTANCE = -1, NVLINK = 2, NO_LINK = 5 };
#define EXPORT __attribute__((visibility("default"))) int

typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { u32 gpu, memory; } Utilization;
typedef struct { u32 pid; u64 memory; u32 gi, ci; } Process;
typedef struct { u32 pid; u64 at; u32 sm, mem, enc, dec; } Sample;
typedef struct { u32 sms, copy, decoders, encoders, jpeg, ofa, slices, cslices; u64 memory_mb; } Attributes;
typedef struct { char legacy[16]; u32 domain, bus, device, pci_id, subsystem; char bus_id[32]; } Pci;
typedef struct { u32 version, sensor; int degrees; } TemperatureV;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char lines[MAX_LINES][LINE];
static int line_count, open_count;
static long long session_opened;
static struct stat last_seen;

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
    if (!code) { if (session() != session_opened) open_count = 0; open_count++; session_opened = session(); }
    return end(code);
}
EXPORT nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlInit(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    int code = open_count ? OK : UNINITIALIZED;
    if (open_count) open_count--;
    return end(code);
}
__attribute__((visibility("default"))) const char *nvmlErrorString(int code) {
    static char text[40];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}

SYSTEM_CALL(nvmlSystemGetDriverVersion, (char *out, u32 size), code = put_text(out, size, "580.65.06");)
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
DEVICE_CALL(nvmlDeviceGetEnforcedPowerLimit, (Handle h, u32 *out), WHOLE_ONLY *out = 700000;)
DEVICE_CALL(nvmlDeviceGetPowerManagementLimit, (Handle h, u32 *out), WHOLE_ONLY *out = 700000;)
DEVICE_CALL(nvmlDeviceGetTotalEnergyConsumption, (Handle h, u64 *out), WHOLE_ONLY
    if (number_of(gpu_line(h), "energy_mj", 0) < 0) return end(NOT_SUPPORTED);
    *out = (u64)number_of(gpu_line(h), "energy_mj", 0);)
DEVICE_CALL(nvmlDeviceGetTemperature, (Handle h, u32 sensor, u32 *out), WHOLE_ONLY (void)sensor; *out = 40;)
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
    for (int i = 0; nth("process", i); i++) {
        const char *line = nth("process", i);
        if (!text_of(line, "type", kind, sizeof kind)) strcpy(kind, "C");
        long long gi = number_of(line, "gi", NO_INSTANCE);
        if (kind[0] != type || number_of(line, "gpu", 0) != gpu_index(h)) continue;
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
    u64 at = (u64)now.tv_sec * 1000000 + (u64)now.tv_usec;
    for (int i = 0; nth("process", i); i++) {
        long long sm = number_of(nth("process", i), "sm", -1);
        if (sm < 0 || at <= since || number_of(nth("process", i), "gpu", 0) != gpu_index(h)) continue;
        if (out && found < *count) out[found] = (Sample){(u32)number_of(nth("process", i), "pid", 0), at, (u32)sm, 0, 0, 0};
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
    out->memory_mb = (u64)number_of(mig_line(h), "memory_mb", 0);)

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
