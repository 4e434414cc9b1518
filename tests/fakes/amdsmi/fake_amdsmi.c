/* A small library that speaks the ABI of AMD's libamd_smi.so (ROCm 7.0), for tests on machines without an AMD GPU.
 *
 * What it answers is read from the text file named by FAKE_AMDSMI_STATE at every call, so that replacing the file changes
 * the "hardware". One thing per line:
 *
 *   gpu uuid=GPU-00000000000000aa serial=aa name=AMD_Instinct_MI300X memory=206158430208 used=0 cus=304 util=0
 *       power=150 energy=1000 lost=0 hip=0 render=128           (`_` in a name is a space; lost=12 makes every call on it answer 12)
 *       gtt=0 gtt_used=0 vram=4                                 (the part of the host's memory that it may map; kind of its own memory: 31 is LPDDR5)
 *       ecc=7:1 pages=2:1:0 most_pages=64 temp=60:100:105 hot=1 cap=750000000 usual=750000000
 *                                                               (corrected and uncorrected errors; bad pages in all, pending, unreservable;
 *                                                               so many are allowed; the hot spot's temperature, and its two limits; slowed down
 *                                                               by heat (2: not known); power limits in microwatts. Without one it is not supported)
 *   process gpu=0 pid=123 memory=1048576 gtt=0 name=python3
 *   fail amdsmi_get_energy_count 2             that function answers that code; `fail amdsmi_init 34` refuses to open
 *
 * `unknown.h`, made when this is built, has all other functions that the Python package looks for: not supported.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint64_t gtt, cpu, vram; uint32_t reserved[10]; } MemoryUse;
typedef struct { uint64_t gfx, enc; uint32_t reserved[12]; } EngineUse;
typedef struct { char name[256]; uint32_t pid; uint64_t memory; EngineUse engines; MemoryUse held; char container[256]; uint32_t occupancy, reserved[11]; } Process;
typedef struct { uint32_t gfx, umc, mm, reserved[13]; } Activity;
typedef struct { uint64_t socket; uint32_t current, average; uint64_t gfx_mv, soc_mv, mem_mv; uint32_t limit; uint64_t reserved[18]; } Power;
typedef struct { char name[256]; uint32_t vendor; char vendor_name[256]; uint32_t subvendor; uint64_t device; uint32_t revision; char serial[256]; uint32_t oam, cus; uint64_t target; uint32_t subsystem, reserved[21]; } Asic;
typedef struct { uint32_t type; char vendor[256]; uint32_t padding; uint64_t size; uint32_t width, padding_too; uint64_t bandwidth, reserved[37]; } VRAM;
typedef struct { uint32_t render, card, hsa, hip; char uuid[256]; } Enumeration;
typedef struct { uint64_t corrected, uncorrected, deferred, reserved[5]; } Errors;
typedef struct { uint64_t address, size; uint32_t status, padding; } Page;
typedef struct { uint64_t cap, usual, dpm, least, most, reserved[3]; } PowerCap;
typedef struct { uint64_t counted[15]; uint8_t prochot, power, socket, regulator, memory, host, padding[2]; uint64_t parts[8][64]; uint8_t active[4][64]; uint64_t reserved[3][64]; } Violations;
enum { HOTSPOT = 1, CURRENT = 0, CRITICAL = 5, EMERGENCY = 7, PENDING = 1, UNRESERVABLE = 2 };
enum { GTT = 2, OK = 0, NOT_SUPPORTED = 2, OUT_OF_RESOURCES = 15, NOT_FOUND = 31, NOT_INIT = 32, NO_FIGURE = 0xFFFF, MAX_LINES = 256, LINE = 512 };
#define EXPORT __attribute__((visibility("default"))) int

#include "unknown.h"

static char lines[MAX_LINES][LINE];
static int line_count, is_open;

static void read_state(void) {
    const char *path = getenv("FAKE_AMDSMI_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    for (line_count = 0; file && line_count < MAX_LINES && fgets(lines[line_count], LINE, file); line_count++)
        lines[line_count][strcspn(lines[line_count], "\n")] = 0;
    if (file) fclose(file);
}
static const char *nth(const char *kind, int wanted) {
    for (int i = 0; i < line_count; i++)
        if (!strncmp(lines[i], kind, strlen(kind)) && wanted-- == 0) return lines[i];
    return NULL;
}
static int text_of(const char *line, const char *key, char *out, size_t size) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %s=", key);
    const char *at = strstr(line, wanted);
    out[0] = 0;
    if (!at) return 0;
    at += strlen(wanted);
    snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
    for (char *c = out; *c; c++) if (*c == '_') *c = ' ';
    return 1;
}
static uint64_t number_of(const char *line, const char *key, uint64_t fallback) {
    char value[64];
    return text_of(line, key, value, sizeof value) ? strtoull(value, NULL, 0) : fallback;
}
static int begin(const char *function) {
    char name[96];
    int code;
    read_state();
    for (int i = 0; i < line_count; i++)
        if (sscanf(lines[i], "fail %95s %d", name, &code) == 2 && !strcmp(name, function)) return code;
    return is_open || !strcmp(function, "amdsmi_init") ? OK : NOT_INIT;
}
#define SYSTEM_CALL(name, params, ...) EXPORT name params { int code = begin(#name); if (code == OK) { __VA_ARGS__ } return code; }
#define DEVICE_CALL(name, params, ...) SYSTEM_CALL(name, params, \
    const char *gpu = nth("gpu ", (int)h - 1); \
    if (!gpu) return NOT_FOUND; \
    code = (int)number_of(gpu, "lost", 0); \
    if (code == OK) { __VA_ARGS__ })

SYSTEM_CALL(amdsmi_init, (uint64_t flags), (void)flags; is_open = 1;)
SYSTEM_CALL(amdsmi_shut_down, (void), is_open = 0;)
SYSTEM_CALL(amdsmi_get_socket_handles, (uint32_t *count, size_t *out),
    uint32_t found = 0;
    while (nth("gpu ", (int)found)) found++;
    for (uint32_t i = 0; out && i < *count && i < found; i++) out[i] = i + 1;
    *count = found;)
SYSTEM_CALL(amdsmi_get_processor_handles, (size_t socket, uint32_t *count, size_t *out), *count = 1; if (out) out[0] = socket;)
DEVICE_CALL(amdsmi_get_gpu_enumeration_info, (size_t h, Enumeration *out),
    memset(out, 0, sizeof *out);
    out->hip = (uint32_t)number_of(gpu, "hip", h - 1);
    out->render = (uint32_t)number_of(gpu, "render", 0);
    if (!text_of(gpu, "uuid", out->uuid, sizeof out->uuid)) code = NOT_SUPPORTED;)
DEVICE_CALL(amdsmi_get_gpu_asic_info, (size_t h, Asic *out),
    memset(out, 0, sizeof *out);
    text_of(gpu, "name", out->name, sizeof out->name);
    text_of(gpu, "serial", out->serial, sizeof out->serial);
    out->cus = (uint32_t)number_of(gpu, "cus", 0xFFFFFFFF);)
DEVICE_CALL(amdsmi_get_gpu_memory_total, (size_t h, uint32_t kind, uint64_t *out), *out = number_of(gpu, kind == GTT ? "gtt" : "memory", 0);)
DEVICE_CALL(amdsmi_get_gpu_memory_usage, (size_t h, uint32_t kind, uint64_t *out), *out = number_of(gpu, kind == GTT ? "gtt_used" : "used", 0);)
DEVICE_CALL(amdsmi_get_gpu_vram_info, (size_t h, VRAM *out), memset(out, 0, sizeof *out); out->type = (uint32_t)number_of(gpu, "vram", 4);)
DEVICE_CALL(amdsmi_get_gpu_activity, (size_t h, Activity *out), memset(out, 0, sizeof *out); out->gfx = (uint32_t)number_of(gpu, "util", NO_FIGURE);)
DEVICE_CALL(amdsmi_get_power_info, (size_t h, Power *out),
    memset(out, 0, sizeof *out);
    out->current = out->average = NO_FIGURE;
    out->socket = number_of(gpu, "power", NO_FIGURE);)
DEVICE_CALL(amdsmi_get_energy_count, (size_t h, uint64_t *out, float *micro, uint64_t *at),
    *out = number_of(gpu, "energy", 0);
    *micro = 15.25f;
    *at = 1;)
DEVICE_CALL(amdsmi_get_gpu_process_list, (size_t h, uint32_t *count, Process *out),
    uint32_t found = 0;
    for (int i = 0; nth("process ", i); i++) {
        const char *line = nth("process ", i);
        if (number_of(line, "gpu", 0) != h - 1) continue;
        if (found >= *count) return OUT_OF_RESOURCES;
        memset(&out[found], 0, sizeof *out);
        text_of(line, "name", out[found].name, sizeof out[found].name);
        out[found].pid = (uint32_t)number_of(line, "pid", 0);
        out[found].held.vram = out[found].memory = number_of(line, "memory", 0);
        out[found].held.gtt = number_of(line, "gtt", 0);
        found++;
    }
    *count = found;)

static int part_of(const char *line, const char *key, int wanted, int64_t *out) { /* the nth of key=a:b:c */
    char text[64];
    if (!text_of(line, key, text, sizeof text)) return NOT_SUPPORTED;
    char *token = strtok(text, ":");
    while (token && wanted--) token = strtok(NULL, ":");
    *out = token ? strtoll(token, NULL, 0) : 0;
    return OK;
}
DEVICE_CALL(amdsmi_get_gpu_total_ecc_count, (size_t h, Errors *out),
    int64_t corrected = 0, uncorrected = 0;
    code = part_of(gpu, "ecc", 0, &corrected);
    part_of(gpu, "ecc", 1, &uncorrected);
    memset(out, 0, sizeof *out);
    out->corrected = (uint64_t)corrected;
    out->uncorrected = (uint64_t)uncorrected;)
DEVICE_CALL(amdsmi_get_gpu_bad_page_info, (size_t h, uint32_t *count, Page *out),
    int64_t all = 0, pending = 0, lost = 0;
    code = part_of(gpu, "pages", 0, &all);
    part_of(gpu, "pages", 1, &pending);
    part_of(gpu, "pages", 2, &lost);
    for (uint32_t i = 0; out && i < *count && i < all; i++)
        out[i] = (Page){i << 12, 4096, i < pending ? PENDING : i < pending + lost ? UNRESERVABLE : 0, 0};
    *count = (uint32_t)all;)
DEVICE_CALL(amdsmi_get_gpu_bad_page_threshold, (size_t h, uint32_t *out),
    *out = (uint32_t)number_of(gpu, "most_pages", 0);
    if (!*out) code = NOT_SUPPORTED;)
DEVICE_CALL(amdsmi_get_temp_metric, (size_t h, uint32_t sensor, uint32_t metric, int64_t *out),
    *out = 0;
    if (sensor != HOTSPOT) return NOT_SUPPORTED;
    code = part_of(gpu, "temp", metric == CURRENT ? 0 : metric == CRITICAL ? 1 : metric == EMERGENCY ? 2 : 3, out);)
DEVICE_CALL(amdsmi_get_violation_status, (size_t h, Violations *out),
    char text[8];
    memset(out, 0, sizeof *out);
    if (!text_of(gpu, "hot", text, sizeof text)) return NOT_SUPPORTED;
    out->socket = text[0] == '2' ? 0xFF : text[0] == '1';)
DEVICE_CALL(amdsmi_get_power_cap_info, (size_t h, uint32_t sensor, PowerCap *out),
    (void)sensor;
    memset(out, 0, sizeof *out);
    out->cap = number_of(gpu, "cap", 0);
    out->usual = number_of(gpu, "usual", 0);
    if (!out->usual) code = NOT_SUPPORTED;)
