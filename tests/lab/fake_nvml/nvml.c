/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1) for machines without a GPU.

It knows the functions that a scheduler asks, with the names, structures and return codes of NVML's public API, and
answers from the text file that FAKE_NVML names. The file is read again at every call, so a test can change what
the devices are doing. A line is a word and what belongs to it:

    driver 550.54.15
    device UUID TOTAL USED GPU_PERCENT MEMORY_PERCENT NAME WITH SPACES
    compute PID BYTES              a process on the device above; "-" for bytes that the driver does not tell
    graphics PID BYTES
    error FUNCTION CODE            that function answers with this return code ("*": every one)

Memory is in bytes. With no file nvmlInit answers "driver not loaded" (9). */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define NOT_AVAILABLE (~0ULL)
#define MOST_DEVICES 64
#define MOST_PROCESSES 256
#define EXPORT __attribute__((visibility("default")))

typedef unsigned long long u64;
struct process { int device, graphics; unsigned pid; u64 bytes; };
struct device { char uuid[96], name[96]; u64 total, used; unsigned gpu, memory; };
struct memory { u64 total, free, used; };
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
struct utilization { unsigned gpu, memory; };
struct process_info { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; };
struct pci { char bus_id_legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; };

static struct device devices[MOST_DEVICES];
static struct process processes[MOST_PROCESSES];
static int device_count, process_count, started, wanted_error;
static char driver[80];

/* Read the file; SUCCESS, or the return code that it wants from the function of this name. */
static int look(const char *function)
{
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512], word[96], bytes[32];
    if (!file)
        return DRIVER_NOT_LOADED;
    device_count = process_count = wanted_error = 0;
    strcpy(driver, "550.54.15");
    while (fgets(line, sizeof line, file)) {
        struct device *d = &devices[device_count];
        struct process *p = &processes[process_count];
        int code, after = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "driver %79s", driver) == 1)
            continue;
        if (sscanf(line, "error %95s %d", word, &code) == 2) {
            if (!strcmp(word, "*") || !strcmp(word, function))
                wanted_error = code;
        } else if (device_count < MOST_DEVICES && sscanf(line, "device %95s %llu %llu %u %u %n", d->uuid, &d->total,
                                                         &d->used, &d->gpu, &d->memory, &after) == 5 && after) {
            snprintf(d->name, sizeof d->name, "%s", line + after);
            device_count++;
        } else if (process_count < MOST_PROCESSES && sscanf(line, "%95s %u %31s", word, &p->pid, bytes) == 3 &&
                   (!strcmp(word, "compute") || !strcmp(word, "graphics"))) {
            p->device = device_count - 1;
            p->graphics = word[0] == 'g';
            p->bytes = bytes[0] == '-' ? NOT_AVAILABLE : strtoull(bytes, NULL, 10);
            process_count++;
        } else if (line[0]) {
            fprintf(stderr, "fake NVML: a line that is none: %s\n", line);
            abort();
        }
    }
    fclose(file);
    return wanted_error;
}

static int ready(const char *function)
{
    int code = look(function);
    return code ? code : started ? SUCCESS : UNINITIALIZED;
}

/* A handle is the address of a device's place in the table. */
static int ready_for(const char *function, const struct device *d)
{
    int code = ready(function);
    if (code)
        return code;
    return d >= devices && d < devices + device_count ? SUCCESS : INVALID_ARGUMENT;
}

static int put(char *text, unsigned length, const char *value)
{
    if (strlen(value) + 1 > length)
        return INSUFFICIENT_SIZE;
    strcpy(text, value);
    return SUCCESS;
}

/* Tell the processes of a kind: too small a room is answered with their number, as NVML does. */
static int tell_processes(struct device *d, int graphics, unsigned *count, struct process_info *infos)
{
    unsigned found = 0, room = infos ? *count : 0;
    for (int i = 0; i < process_count; i++) {
        struct process *p = &processes[i];
        if (p->device != d - devices || p->graphics != graphics)
            continue;
        if (found < room)
            infos[found] = (struct process_info){p->pid, p->bytes, ~0U, ~0U};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = look("nvmlInit");
    started += !code;
    return code;
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void)
{
    int code = ready("nvmlShutdown");
    started -= !code;
    return code;
}

EXPORT const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

EXPORT int nvmlSystemGetDriverVersion(char *text, unsigned length)
{
    int code = ready("nvmlSystemGetDriverVersion");
    return code ? code : put(text, length, driver);
}

EXPORT int nvmlSystemGetNVMLVersion(char *text, unsigned length)
{
    int code = ready("nvmlSystemGetNVMLVersion");
    return code ? code : put(text, length, "12.550.54.15");
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    int code = ready("nvmlSystemGetCudaDriverVersion");
    *version = 12040;
    return code;
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = ready("nvmlDeviceGetCount");
    *count = device_count;
    return code;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **d)
{
    int code = ready("nvmlDeviceGetHandleByIndex");
    if (code)
        return code;
    if (index >= (unsigned)device_count)
        return INVALID_ARGUMENT;
    *d = &devices[index];
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **d)
{
    int code = ready("nvmlDeviceGetHandleByUUID");
    for (int i = 0; !code && i < device_count; i++)
        if (!strcmp(devices[i].uuid, uuid)) {
            *d = &devices[i];
            return SUCCESS;
        }
    return code ? code : NOT_FOUND;
}

EXPORT int nvmlDeviceGetIndex(struct device *d, unsigned *index)
{
    int code = ready_for("nvmlDeviceGetIndex", d);
    *index = code ? 0 : d - devices;
    return code;
}

EXPORT int nvmlDeviceGetMinorNumber(struct device *d, unsigned *number)
{
    int code = ready_for("nvmlDeviceGetMinorNumber", d);
    *number = code ? 0 : d - devices;
    return code;
}

EXPORT int nvmlDeviceGetUUID(struct device *d, char *text, unsigned length)
{
    int code = ready_for("nvmlDeviceGetUUID", d);
    return code ? code : put(text, length, d->uuid);
}

EXPORT int nvmlDeviceGetName(struct device *d, char *text, unsigned length)
{
    int code = ready_for("nvmlDeviceGetName", d);
    return code ? code : put(text, length, d->name);
}

EXPORT int nvmlDeviceGetMemoryInfo(struct device *d, struct memory *memory)
{
    int code = ready_for("nvmlDeviceGetMemoryInfo", d);
    if (!code)
        *memory = (struct memory){d->total, d->total - d->used, d->used};
    return code;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(struct device *d, struct memory_v2 *memory)
{
    int code = ready_for("nvmlDeviceGetMemoryInfo", d);
    if (!code)
        *memory = (struct memory_v2){memory->version, d->total, 0, d->total - d->used, d->used};
    return code;
}

EXPORT int nvmlDeviceGetUtilizationRates(struct device *d, struct utilization *rates)
{
    int code = ready_for("nvmlDeviceGetUtilizationRates", d);
    if (!code)
        *rates = (struct utilization){d->gpu, d->memory};
    return code;
}

EXPORT int nvmlDeviceGetPciInfo_v3(struct device *d, struct pci *pci)
{
    int code = ready_for("nvmlDeviceGetPciInfo", d);
    if (code)
        return code;
    memset(pci, 0, sizeof *pci);
    pci->bus = d - devices + 1;
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCudaComputeCapability(struct device *d, int *major, int *minor)
{
    int code = ready_for("nvmlDeviceGetCudaComputeCapability", d);
    *major = 9, *minor = 0;
    return code;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct device *d, unsigned *count, struct process_info *infos)
{
    int code = ready_for("nvmlDeviceGetComputeRunningProcesses", d);
    return code ? code : tell_processes(d, 0, count, infos);
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v2(struct device *d, unsigned *count, struct process_info *infos)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, infos);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(struct device *d, unsigned *count, struct process_info *infos)
{
    int code = ready_for("nvmlDeviceGetGraphicsRunningProcesses", d);
    return code ? code : tell_processes(d, 1, count, infos);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v2(struct device *d, unsigned *count, struct process_info *infos)
{
    return nvmlDeviceGetGraphicsRunningProcesses_v3(d, count, infos);
}
