/* A libnvidia-ml.so.1 without a driver: what it answers is read, at every call, from the file that NVML_STUB names.
 *
 * The file is written by Driver in __init__.py. One word and its value a line; "device" begins a GPU, or with "parent" a
 * MIG instance of the GPU with that number. A value that is not given is not supported. Each call is noted as a line in
 * "<NVML_STUB>.calls".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
       FUNCTION_NOT_FOUND = 13, NO_INSTANCE = -1 };
enum { DEVICES = 64, PROCESSES = 64, XIDS = 64 };

typedef unsigned long long u64;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } process;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { void *device; u64 type, data; unsigned gpu_instance, compute_instance; } event;

enum { MEMORY_TOTAL, MEMORY_USED, UTILIZATION, POWER, ENERGY, TEMPERATURE, THROTTLED, ECC, COUNT };
static const char *const NUMBERS[COUNT] = {
    "memory_total", "memory_used", "utilization", "power", "energy", "temperature", "throttled", "ecc"};

typedef struct {
    char uuid[96], name[96];
    u64 number[COUNT];
    int has[COUNT];
    int parent, lost, gpu_instance, compute_instance, lists, mig;
    process compute[PROCESSES], graphics[PROCESSES];
    unsigned computes, graphicses;
} device;

static struct {
    char driver[80];
    int init, dead, devices, xids, fail;
    device device[DEVICES];
    struct { int device, gpu_instance; u64 number; } xid[XIDS];
} state;

static char handles[DEVICES]; /* a handle is the address of one of these */
static int begun;             /* the process that initialised us: its forked children have not */
static int begun_times, xids_told;

static void add(process *list, unsigned *count, const char *value) {
    char pid[32], memory[32];
    if (*count == PROCESSES || sscanf(value, "%31s %31s", pid, memory) != 2)
        return;
    process *one = &list[(*count)++];
    one->pid = strcmp(pid, "self") ? (unsigned)strtoul(pid, NULL, 10) : (unsigned)getpid();
    one->memory = strcmp(memory, "-") ? strtoull(memory, NULL, 10) : (u64)-1;
    one->gpu_instance = one->compute_instance = (unsigned)NO_INSTANCE;
}

static void take(const char *key, const char *value, const char *call) {
    device *d = state.devices ? &state.device[state.devices - 1] : NULL;
    char name[96];
    int code;
    if (!strcmp(key, "driver"))
        snprintf(state.driver, sizeof state.driver, "%s", value);
    else if (!strcmp(key, "init"))
        state.init = atoi(value);
    else if (!strcmp(key, "dead"))
        state.dead = atoi(value);
    else if (!strcmp(key, "fail") && sscanf(value, "%95s %d", name, &code) == 2) {
        if (!strcmp(name, call))
            state.fail = code;
    } else if (!strcmp(key, "xid") && state.xids < XIDS) {
        if (sscanf(value, "%d %d %llu", &state.xid[state.xids].device, &state.xid[state.xids].gpu_instance,
                   &state.xid[state.xids].number) == 3)
            state.xids++;
    } else if (!strcmp(key, "device") && state.devices < DEVICES) {
        d = &state.device[state.devices++];
        snprintf(d->uuid, sizeof d->uuid, "%s", value);
        d->parent = -1;
    } else if (d) {
        for (int i = 0; i < COUNT; i++)
            if (!strcmp(key, NUMBERS[i])) {
                d->number[i] = strtoull(value, NULL, 10);
                d->has[i] = 1;
            }
        if (!strcmp(key, "name"))
            snprintf(d->name, sizeof d->name, "%s", value);
        else if (!strcmp(key, "parent"))
            d->parent = atoi(value);
        else if (!strcmp(key, "mig"))
            d->mig = atoi(value);
        else if (!strcmp(key, "lost"))
            d->lost = atoi(value);
        else if (!strcmp(key, "place"))
            sscanf(value, "%d %d", &d->gpu_instance, &d->compute_instance);
        else if (!strcmp(key, "lists"))
            d->lists = 1;
        else if (!strcmp(key, "compute"))
            add(d->compute, &d->computes, value);
        else if (!strcmp(key, "graphics"))
            add(d->graphics, &d->graphicses, value);
    }
}

static void note(const char *path, const char *call) {
    char name[4096], line[128];
    snprintf(name, sizeof name, "%s.calls", path);
    int fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int length = snprintf(line, sizeof line, "%d %s\n", (int)getpid(), call);
    if (fd >= 0) {
        if (write(fd, line, (size_t)length) < 0)
            perror("NVML_STUB");
        close(fd);
    }
}

/* Reads the state; the error code that this call is to give, whatever it asks. */
static int enter(const char *call) {
    const char *path = getenv("NVML_STUB");
    memset(&state, 0, sizeof state);
    if (!path)
        return 9; /* driver not loaded */
    note(path, call);
    FILE *file = fopen(path, "re");
    if (!file)
        return 9;
    char line[512], key[64];
    int used;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        used = 0;
        if (sscanf(line, "%63s %n", key, &used) == 1)
            take(key, line + used, call);
    }
    fclose(file);
    if (!strncmp(call, "nvmlInit", 8))
        return state.init ? state.init : state.fail;
    if (begun != getpid() || begun_times == 0)
        return UNINITIALIZED;
    return state.dead ? state.dead : state.fail;
}

static int enter_device(const char *call, void *handle, device **d) {
    int code = enter(call);
    if (code)
        return code;
    long at = (char *)handle - handles;
    if (at < 0 || at >= state.devices)
        return INVALID_ARGUMENT;
    *d = &state.device[at];
    return (*d)->lost;
}

static int number(const char *call, void *handle, int which, u64 *value) {
    device *d;
    int code = enter_device(call, handle, &d);
    if (code)
        return code;
    *value = d->number[which];
    return d->has[which] ? OK : NOT_SUPPORTED;
}

#define ENTER()                                \
    do {                                       \
        int code_ = enter(__func__);           \
        if (code_)                             \
            return code_;                      \
    } while (0)
#define ENTER_DEVICE()                                    \
    device *d;                                            \
    do {                                                  \
        int code_ = enter_device(__func__, handle, &d);   \
        if (code_)                                        \
            return code_;                                 \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER();
    if (begun != getpid())
        begun_times = 0;
    begun = getpid();
    begun_times++;
    return OK;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    int code = enter(__func__);
    if (code == UNINITIALIZED)
        return code;
    begun_times--;
    return OK;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the stub's";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    ENTER();
    snprintf(version, length, "%s", state.driver);
    return OK;
}

/* -- devices */

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER();
    *count = 0;
    for (int i = 0; i < state.devices; i++)
        *count += state.device[i].parent < 0;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ENTER();
    for (int i = 0; i < state.devices; i++)
        if (state.device[i].parent < 0 && index-- == 0) {
            *handle = &handles[i];
            return state.device[i].lost;
        }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    ENTER_DEVICE();
    snprintf(uuid, length, "%s", d->uuid);
    return OK;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    ENTER_DEVICE();
    snprintf(name, length, "%s", d->name);
    return OK;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    ENTER_DEVICE();
    *current = *pending = (unsigned)d->mig;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    ENTER_DEVICE();
    *count = d->mig ? 7 : 0;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    ENTER_DEVICE();
    int gpu = 0;
    for (int i = 0; &state.device[i] != d; i++)
        gpu += state.device[i].parent < 0;
    for (int i = 0; i < state.devices; i++)
        if (state.device[i].parent == gpu && index-- == 0) {
            *instance = &handles[i];
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) {
    ENTER_DEVICE();
    *id = (unsigned)d->gpu_instance;
    return d->parent < 0 ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *id) {
    ENTER_DEVICE();
    *id = (unsigned)d->compute_instance;
    return d->parent < 0 ? NOT_SUPPORTED : OK;
}

/* -- numbers */

int nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *memory) {
    ENTER_DEVICE();
    u64 reserved = d->number[MEMORY_TOTAL] / 128;
    memory->total = d->number[MEMORY_TOTAL];
    memory->used = d->number[MEMORY_USED] + reserved; /* as the real one does */
    memory->free = memory->total - memory->used;
    return d->has[MEMORY_USED] && d->has[MEMORY_TOTAL] ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *memory) {
    ENTER_DEVICE();
    if (memory->version != (sizeof(memory_v2) | 2 << 24))
        return 25; /* argument version mismatch */
    memory->total = d->number[MEMORY_TOTAL];
    memory->reserved = memory->total / 128;
    memory->used = d->number[MEMORY_USED];
    memory->free = memory->total - memory->used - memory->reserved;
    return d->has[MEMORY_USED] && d->has[MEMORY_TOTAL] ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetUtilizationRates(void *handle, rates *found) {
    u64 value = 0;
    int code = number(__func__, handle, UTILIZATION, &value);
    found->gpu = (unsigned)value;
    found->memory = (unsigned)value / 2;
    return code;
}

static int narrow(const char *call, void *handle, int which, unsigned *found) {
    u64 value = 0;
    int code = number(call, handle, which, &value);
    *found = (unsigned)value;
    return code;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    return narrow(__func__, handle, POWER, milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, u64 *millijoules) {
    return number(__func__, handle, ENERGY, millijoules);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    return sensor ? INVALID_ARGUMENT : narrow(__func__, handle, TEMPERATURE, celsius);
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, u64 *reasons) {
    return number(__func__, handle, THROTTLED, reasons);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, u64 *reasons) {
    return number(__func__, handle, THROTTLED, reasons);
}

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, u64 *count) {
    return type != 1 || counter != 0 ? INVALID_ARGUMENT : number(__func__, handle, ECC, count);
}

/* -- processes */

static int list(const device *d, const process *from, unsigned has, unsigned *count, process *to) {
    if (!d->lists)
        return NOT_SUPPORTED;
    unsigned room = *count;
    *count = has;
    if (has > room)
        return INSUFFICIENT_SIZE;
    if (has)
        memcpy(to, from, has * sizeof *to);
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process *to) {
    ENTER_DEVICE();
    return list(d, d->compute, d->computes, count, to);
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, process *to) {
    ENTER_DEVICE();
    return list(d, d->compute, d->computes, count, to);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process *to) {
    ENTER_DEVICE();
    return list(d, d->graphics, d->graphicses, count, to);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(void *handle, unsigned *count, process *to) {
    ENTER_DEVICE();
    return list(d, d->graphics, d->graphicses, count, to);
}

/* -- events */

int nvmlEventSetCreate(void **set) {
    ENTER();
    *set = &xids_told;
    return OK;
}

int nvmlDeviceRegisterEvents(void *handle, u64 types, void *set) {
    ENTER_DEVICE();
    (void)types;
    (void)set;
    return d->parent < 0 ? OK : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, event *found, unsigned timeout) {
    ENTER();
    (void)set;
    (void)timeout;
    if (xids_told >= state.xids)
        return TIMEOUT;
    found->device = NULL;
    int gpu = state.xid[xids_told].device;
    for (int i = 0; i < state.devices; i++)
        if (state.device[i].parent < 0 && gpu-- == 0)
            found->device = &handles[i];
    found->type = 8;
    found->data = state.xid[xids_told].number;
    found->gpu_instance = found->compute_instance = (unsigned)state.xid[xids_told].gpu_instance;
    xids_told++;
    return OK;
}

int nvmlEventSetFree(void *set) {
    ENTER();
    (void)set;
    return OK;
}
