// SPDX-License-Identifier: Apache-2.0
//
// A CUDA driver without a GPU: the part of libcuda.so.1 that an inference engine uses, in host
// memory, strict where a real driver is lenient or undefined.
//
// - "Device memory" is host memory between red zones, filled with 0xCD; so is pinned memory.
// - A stream queues and runs nothing before it, or an event in it, is waited for: whoever reads too
//   early, or queues in the wrong order, gets wrong bytes.
// - Handles and ranges are looked up when an operation is queued, and ranges again when it runs.
//   What a real program would only learn by a crash is counted as a violation, with its reason.
// - A captured stream keeps kernels only; anything else in it ends the capture.
//
// Built by the tests: cc -shared -fPIC -pthread -Wl,-soname,libcuda.so.1 -o libcuda.so.1 fake_cuda.c
// FAKE_CUDA_DEVICES (1), FAKE_CUDA_CAPABILITY (8.9) and FAKE_CUDA_VERSION (13000, of CUDA 13.0)
// choose what is there. fake_cuda_* at the end
// is for the tests: kernels, counters, failures on demand.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name, target) EXPORT extern __typeof__(target) name __attribute__((alias(#target)))

typedef int CUresult;
typedef unsigned long long Address;

enum {
  OK = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_WRONG_THREAD = 908,
};

static const struct {
  CUresult code;
  const char *name, *text;
} ERRORS[] = {
    {OK, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

// ---- what there is ------------------------------------------------------------------------------

typedef int (*Kernel)(void *argument);

typedef enum { CONTEXT, STREAM, EVENT, GRAPH, EXEC, DEVICE_MEMORY, PINNED_MEMORY, KINDS } Kind;

typedef enum { HOST_TO_DEVICE, DEVICE_TO_HOST, RECORD, LAUNCH_KERNEL, LAUNCH_GRAPH } What;

typedef struct Object Object;

typedef struct Operation {
  What what;
  char *to, *from;
  size_t size;
  Object *object;  // the event to record, or the graph to launch
  Kernel kernel;
  void *argument;
  struct Operation *next;
} Operation;

struct Object {
  Kind kind;
  Object *next;
  Operation *first, *last;  // a stream's queue; a graph's kernels
  int device, retained;     // a context
  int capturing, broken;    // a stream
  pthread_t thread;         // that began the capture
  CUresult failed;          // a stream's first error, reported by its next synchronisation
  int recorded;             // an event: 0 never, 1 queued, 2 done
  long long nanoseconds;
  char *data;  // memory
  size_t size;
};

enum { RED = 64, DEEPEST = 64, DEVICES = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Object *objects;
static int initialised;
static long long live[KINDS], bytes[KINDS], retains, pushed, violations, launches, kernels, syncs, ahead, now;
static char first_violation[256];
static char fail_name[64];
static CUresult fail_code;
static int fail_after;

static __thread Object *stack[DEEPEST];
static __thread int depth;
static __thread Object *capture;

static void violation(const char *reason) {
  if (violations++ == 0) snprintf(first_violation, sizeof first_violation, "%s", reason);
}

static Object *create(Kind kind) {
  Object *object = calloc(1, sizeof *object);
  object->kind = kind;
  object->next = objects;
  objects = object;
  live[kind]++;
  return object;
}

static int exists(const void *handle, Kind kind) {
  for (Object *object = objects; object; object = object->next)
    if (object == handle) return object->kind == kind;
  return 0;
}

static void drop_operations(Object *object) {
  while (object->first) {
    Operation *operation = object->first;
    object->first = operation->next;
    free(operation);
  }
  object->last = NULL;
}

static void destroy(Object *object) {
  for (Object **link = &objects; *link; link = &(*link)->next)
    if (*link == object) {
      *link = object->next;
      break;
    }
  live[object->kind]--;
  drop_operations(object);
  free(object);
}

static void append(Object *object, const Operation *operation) {
  Operation *copy = malloc(sizeof *copy);
  *copy = *operation;
  copy->next = NULL;
  if (object->last)
    object->last->next = copy;
  else
    object->first = copy;
  object->last = copy;
}

static Object *memory_of(const char *address, size_t size, Kind kind) {
  for (Object *object = objects; object; object = object->next)
    if (object->kind == kind && address >= object->data &&
        address + size <= object->data + object->size)
      return object;
  return NULL;
}

static CUresult failure(const char *function) {
  if (!fail_code || strcmp(function, fail_name) != 0 || fail_after-- > 0) return OK;
  CUresult code = fail_code;
  fail_code = 0;
  return code;
}

// Called first in every function: a failure that a test asked for, or what is always needed.
static CUresult enter(const char *function, int needs_context) {
  pthread_mutex_lock(&lock);
  CUresult code = failure(function);
  if (code != OK) return code;
  if (!initialised) return NOT_INITIALIZED;
  return needs_context && depth == 0 ? INVALID_CONTEXT : OK;
}

static CUresult leave(CUresult code) {
  pthread_mutex_unlock(&lock);
  return code;
}

#define ENTER(needs_context)                            \
  do {                                                  \
    CUresult entered = enter(__func__, needs_context);  \
    if (entered != OK) return leave(entered);           \
  } while (0)

// A function that frees something reports an earlier failure, and still frees.
#define ENTER_TO_FREE(valid)                                              \
  pthread_mutex_lock(&lock);                                              \
  CUresult earlier = failure(__func__);                                   \
  if (depth == 0) return leave(INVALID_CONTEXT);                          \
  if (!(valid)) return leave(INVALID_HANDLE)

// ---- initialisation, devices, contexts ----------------------------------------------------------

static int device_count(void) {
  const char *text = getenv("FAKE_CUDA_DEVICES");
  return text ? atoi(text) : 1;
}

EXPORT CUresult cuInit(unsigned flags) {
  (void)flags;
  initialised = 1;
  CUresult entered = enter(__func__, 0);
  return leave(entered);
}

EXPORT CUresult cuDriverGetVersion(int *version) {
  const char *text = getenv("FAKE_CUDA_VERSION");
  *version = text ? atoi(text) : 13000;
  return OK;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
  ENTER(0);
  *count = device_count();
  return leave(OK);
}

EXPORT CUresult cuDeviceGet(int *device, int ordinal) {
  ENTER(0);
  if (ordinal < 0 || ordinal >= device_count() || ordinal >= DEVICES) return leave(INVALID_DEVICE);
  *device = ordinal;
  return leave(OK);
}

EXPORT CUresult cuDeviceGetPCIBusId(char *text, int length, int device) {
  ENTER(0);
  snprintf(text, (size_t)length, "0000:%02X:00.0", device + 1);
  return leave(OK);
}

EXPORT CUresult cuDeviceGetName(char *name, int length, int device) {
  ENTER(0);
  snprintf(name, (size_t)length, "Fake GPU %d", device);
  return leave(OK);
}

static void capability(int *major, int *minor) {
  const char *text = getenv("FAKE_CUDA_CAPABILITY");
  if (!text || sscanf(text, "%d.%d", major, minor) != 2) *major = 8, *minor = 9;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  ENTER(0);
  int major, minor;
  capability(&major, &minor);
  *value = attribute == 75 ? major : attribute == 76 ? minor : 0;
  return leave(attribute == 75 || attribute == 76 ? OK : INVALID_VALUE);
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, int device) {
  (void)device;
  ENTER(0);
  capability(major, minor);
  return leave(OK);
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *size, int device) {
  (void)device;
  ENTER(0);
  *size = (size_t)16 << 30;
  return leave(OK);
}

static Object *primary(int device) {
  for (Object *object = objects; object; object = object->next)
    if (object->kind == CONTEXT && object->device == device) return object;
  return NULL;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(Object **context, int device) {
  ENTER(0);
  *context = primary(device);
  if (!*context) {
    *context = create(CONTEXT);
    (*context)->device = device;
  }
  (*context)->retained++;
  retains++;
  return leave(OK);
}

EXPORT CUresult cuDevicePrimaryCtxRelease(int device) {
  ENTER(0);
  Object *context = primary(device);
  if (!context) return leave(INVALID_CONTEXT);
  if (--context->retained > 0) return leave(OK);
  for (int kind = STREAM; kind < KINDS; kind++)
    if (live[kind]) violation("the context was released before what lies in it");
  destroy(context);
  return leave(OK);
}

EXPORT CUresult cuCtxPushCurrent(Object *context) {
  ENTER(0);
  if (!exists(context, CONTEXT) || depth == DEEPEST) return leave(INVALID_CONTEXT);
  stack[depth++] = context;
  pushed++;
  return leave(OK);
}

EXPORT CUresult cuCtxPopCurrent(Object **context) {
  ENTER(1);
  Object *top = stack[--depth];
  pushed--;
  if (context) *context = top;
  return leave(OK);
}

EXPORT CUresult cuCtxGetCurrent(Object **context) {
  ENTER(0);
  *context = depth ? stack[depth - 1] : NULL;
  return leave(OK);
}

EXPORT CUresult cuCtxGetDevice(int *device) {
  ENTER(1);
  *device = stack[depth - 1]->device;
  return leave(OK);
}

// ---- memory -------------------------------------------------------------------------------------

static CUresult not_while_capturing(void) {
  if (!capture) return OK;
  capture->broken = 1;
  return CAPTURE_UNSUPPORTED;
}

static CUresult allocate(char **address, size_t size, Kind kind) {
  CUresult captured = not_while_capturing();
  if (captured != OK) return captured;
  if (size == 0) return INVALID_VALUE;
  Object *memory = create(kind);
  memory->data = malloc(size + 2 * RED);
  memory->data += RED;
  memory->size = size;
  memset(memory->data - RED, 0xFE, RED);
  memset(memory->data, 0xCD, size);
  memset(memory->data + size, 0xFE, RED);
  bytes[kind] += (long long)size;
  *address = memory->data;
  return OK;
}

static CUresult release(char *address, Kind kind) {
  Object *memory = memory_of(address, 0, kind);
  if (!memory || memory->data != address) return INVALID_VALUE;
  for (int i = 0; i < RED; i++)
    if ((unsigned char)address[-RED + i] != 0xFE ||
        (unsigned char)address[memory->size + (size_t)i] != 0xFE) {
      violation("something wrote beside an allocation");
      break;
    }
  memset(address - RED, 0xDD, memory->size + 2 * RED);
  bytes[kind] -= (long long)memory->size;
  free(address - RED);
  destroy(memory);
  return OK;
}

EXPORT CUresult cuMemAlloc(Address *address, size_t size) {
  ENTER(1);
  char *data = NULL;
  CUresult code = allocate(&data, size, DEVICE_MEMORY);
  *address = (Address)(uintptr_t)data;
  return leave(code);
}

EXPORT CUresult cuMemFree(Address address) {
  ENTER_TO_FREE(1);
  CUresult code = release((char *)(uintptr_t)address, DEVICE_MEMORY);
  return leave(code != OK ? code : earlier);
}

EXPORT CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
  (void)flags;
  ENTER(1);
  return leave(allocate((char **)address, size, PINNED_MEMORY));
}

EXPORT CUresult cuMemAllocHost(void **address, size_t size) {
  ENTER(1);
  return leave(allocate((char **)address, size, PINNED_MEMORY));
}

EXPORT CUresult cuMemFreeHost(void *address) {
  ENTER_TO_FREE(1);
  CUresult code = release(address, PINNED_MEMORY);
  return leave(code != OK ? code : earlier);
}

// ---- streams ------------------------------------------------------------------------------------

EXPORT CUresult cuStreamCreate(Object **stream, unsigned flags) {
  ENTER(1);
  if (flags != 1) return leave(INVALID_VALUE);  // TensorRT wants CU_STREAM_NON_BLOCKING
  *stream = create(STREAM);
  return leave(OK);
}

EXPORT CUresult cuStreamDestroy(Object *stream) {
  ENTER_TO_FREE(exists(stream, STREAM));
  if (stream->first) violation("a stream was destroyed with work in it");
  if (capture == stream) capture = NULL;
  destroy(stream);
  return leave(earlier);
}

// Adds an operation to a stream, or to the graph that it captures.
static CUresult enqueue(Object *stream, const Operation *operation) {
  if (!exists(stream, STREAM)) return INVALID_HANDLE;
  if (stream->capturing && operation->what != LAUNCH_KERNEL) {
    stream->broken = 1;
    return CAPTURE_UNSUPPORTED;
  }
  append(stream, operation);
  return OK;
}

static CUresult copy(Object *stream, What what, void *to, const void *from, size_t size) {
  Kind to_kind = what == HOST_TO_DEVICE ? DEVICE_MEMORY : PINNED_MEMORY;
  Kind from_kind = what == HOST_TO_DEVICE ? PINNED_MEMORY : DEVICE_MEMORY;
  if (!memory_of(to, size, to_kind) || !memory_of(from, size, from_kind)) return INVALID_VALUE;
  Operation operation = {.what = what, .to = to, .from = (char *)(uintptr_t)from, .size = size};
  return enqueue(stream, &operation);
}

EXPORT CUresult cuMemcpyHtoDAsync(Address to, const void *from, size_t size, Object *stream) {
  ENTER(1);
  return leave(copy(stream, HOST_TO_DEVICE, (void *)(uintptr_t)to, from, size));
}

EXPORT CUresult cuMemcpyDtoHAsync(void *to, Address from, size_t size, Object *stream) {
  ENTER(1);
  return leave(copy(stream, DEVICE_TO_HOST, to, (void *)(uintptr_t)from, size));
}

static long long clock_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  long long read = time.tv_sec * 1000000000LL + time.tv_nsec;
  now = read > now ? read : now + 1;
  return now;
}

// A kernel is a test's own code and may call back into Python: never under the lock.
static CUresult run_kernel(const Operation *operation) {
  pthread_mutex_unlock(&lock);
  int failed = operation->kernel(operation->argument);
  pthread_mutex_lock(&lock);
  kernels++;
  return failed ? ILLEGAL_ADDRESS : OK;
}

static CUresult run(const Operation *operation) {
  switch (operation->what) {
    case RECORD:
      if (exists(operation->object, EVENT)) {
        operation->object->recorded = 2;
        operation->object->nanoseconds = clock_ns();
        return OK;
      }
      violation("an event was destroyed before it was recorded");
      return INVALID_HANDLE;
    case LAUNCH_KERNEL:
      return run_kernel(operation);
    case LAUNCH_GRAPH:
      if (!exists(operation->object, EXEC)) {
        violation("a graph was destroyed before it ran");
        return INVALID_HANDLE;
      }
      for (Operation *node = operation->object->first; node; node = node->next) {
        CUresult code = run_kernel(node);
        if (code != OK) return code;
      }
      return OK;
    default: {
      Kind to = operation->what == HOST_TO_DEVICE ? DEVICE_MEMORY : PINNED_MEMORY;
      Kind from = operation->what == HOST_TO_DEVICE ? PINNED_MEMORY : DEVICE_MEMORY;
      if (!memory_of(operation->to, operation->size, to) ||
          !memory_of(operation->from, operation->size, from)) {
        violation("memory was freed before it was copied");
        return ILLEGAL_ADDRESS;
      }
      memcpy(operation->to, operation->from, operation->size);
      clock_ns();
      return OK;
    }
  }
}

static void run_first(Object *stream) {
  Operation *operation = stream->first;
  stream->first = operation->next;
  if (!stream->first) stream->last = NULL;
  if (stream->failed == OK) stream->failed = run(operation);
  free(operation);
}

EXPORT CUresult cuStreamSynchronize(Object *stream) {
  ENTER(1);
  if (!exists(stream, STREAM)) return leave(INVALID_HANDLE);
  if (stream->capturing) {
    stream->broken = 1;
    return leave(CAPTURE_UNSUPPORTED);
  }
  syncs++;
  while (stream->first) run_first(stream);
  CUresult code = stream->failed;
  stream->failed = OK;
  return leave(code);
}

// ---- events -------------------------------------------------------------------------------------

EXPORT CUresult cuEventCreate(Object **event, unsigned flags) {
  ENTER(1);
  if (flags & 2) return leave(INVALID_VALUE);  // CU_EVENT_DISABLE_TIMING: nothing to measure
  *event = create(EVENT);
  return leave(OK);
}

EXPORT CUresult cuEventDestroy(Object *event) {
  ENTER_TO_FREE(exists(event, EVENT));
  destroy(event);
  return leave(earlier);
}

EXPORT CUresult cuEventRecord(Object *event, Object *stream) {
  ENTER(1);
  if (!exists(event, EVENT)) return leave(INVALID_HANDLE);
  Operation operation = {.what = RECORD, .object = event};
  CUresult code = enqueue(stream, &operation);
  if (code == OK) event->recorded = 1;
  return leave(code);
}

// Runs the event's stream as far as its record, and counts how much is queued behind that.
EXPORT CUresult cuEventSynchronize(Object *event) {
  ENTER(1);
  if (!exists(event, EVENT)) return leave(INVALID_HANDLE);
  for (Object *stream = objects; stream && event->recorded == 1; stream = stream->next) {
    if (stream->kind != STREAM || stream->capturing) continue;
    int holds = 0;
    for (Operation *queued = stream->first; queued; queued = queued->next)
      holds |= queued->what == RECORD && queued->object == event;
    if (!holds) continue;
    while (stream->first && event->recorded == 1) run_first(stream);
    if (stream->first) ahead++;
    CUresult code = stream->failed;
    if (code != OK) event->recorded = 0;
    stream->failed = OK;
    return leave(code);
  }
  return leave(event->recorded ? OK : INVALID_HANDLE);
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, Object *start, Object *end) {
  ENTER(1);
  if (!exists(start, EVENT) || !exists(end, EVENT)) return leave(INVALID_HANDLE);
  if (!start->recorded || !end->recorded) return leave(INVALID_HANDLE);
  if (start->recorded < 2 || end->recorded < 2) return leave(NOT_READY);
  *milliseconds = (float)((double)(end->nanoseconds - start->nanoseconds) / 1e6);
  return leave(OK);
}

// ---- graphs -------------------------------------------------------------------------------------

EXPORT CUresult cuStreamBeginCapture(Object *stream, int mode) {
  (void)mode;
  ENTER(1);
  if (!exists(stream, STREAM)) return leave(INVALID_HANDLE);
  // A real stream may have work before the capture; the fake keeps one queue, so it may not.
  if (stream->capturing || stream->first) return leave(CAPTURE_UNSUPPORTED);
  stream->capturing = 1;
  stream->broken = 0;
  stream->thread = pthread_self();
  capture = stream;
  return leave(OK);
}

EXPORT CUresult cuStreamEndCapture(Object *stream, Object **graph) {
  ENTER(1);
  *graph = NULL;
  if (!exists(stream, STREAM)) return leave(INVALID_HANDLE);
  if (!stream->capturing) return leave(INVALID_VALUE);
  if (!pthread_equal(stream->thread, pthread_self())) return leave(CAPTURE_WRONG_THREAD);
  stream->capturing = 0;
  capture = NULL;
  if (stream->broken) {
    stream->broken = 0;
    drop_operations(stream);
    return leave(CAPTURE_INVALIDATED);
  }
  *graph = create(GRAPH);
  (*graph)->first = stream->first;
  (*graph)->last = stream->last;
  stream->first = stream->last = NULL;
  return leave(OK);
}

EXPORT CUresult cuStreamIsCapturing(Object *stream, int *status) {
  ENTER(1);
  if (!exists(stream, STREAM)) return leave(INVALID_HANDLE);
  *status = stream->broken ? 2 : stream->capturing;
  return leave(OK);
}

EXPORT CUresult cuGraphInstantiateWithFlags(Object **exec, Object *graph, unsigned long long flags) {
  (void)flags;
  ENTER(1);
  if (!exists(graph, GRAPH)) return leave(INVALID_VALUE);
  *exec = create(EXEC);
  for (Operation *node = graph->first; node; node = node->next) append(*exec, node);
  return leave(OK);
}

EXPORT CUresult cuGraphDestroy(Object *graph) {
  ENTER_TO_FREE(exists(graph, GRAPH));
  destroy(graph);
  return leave(earlier);
}

EXPORT CUresult cuGraphExecDestroy(Object *exec) {
  ENTER_TO_FREE(exists(exec, EXEC));
  destroy(exec);
  return leave(earlier);
}

EXPORT CUresult cuGraphLaunch(Object *exec, Object *stream) {
  ENTER(1);
  if (!exists(exec, EXEC)) return leave(INVALID_VALUE);
  Operation operation = {.what = LAUNCH_GRAPH, .object = exec};
  launches++;
  return leave(enqueue(stream, &operation));
}

// ---- errors and symbols -------------------------------------------------------------------------

EXPORT CUresult cuGetErrorName(CUresult code, const char **text) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (ERRORS[i].code == code) return *text = ERRORS[i].name, OK;
  *text = NULL;
  return INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult code, const char **text) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (ERRORS[i].code == code) return *text = ERRORS[i].text, OK;
  *text = NULL;
  return INVALID_VALUE;
}

// The names that programs are linked to; cuda.h renames the functions to these.
ALIAS(cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRelease);
ALIAS(cuCtxPushCurrent_v2, cuCtxPushCurrent);
ALIAS(cuCtxPopCurrent_v2, cuCtxPopCurrent);
ALIAS(cuMemAlloc_v2, cuMemAlloc);
ALIAS(cuMemFree_v2, cuMemFree);
ALIAS(cuMemAllocHost_v2, cuMemAllocHost);
ALIAS(cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync);
ALIAS(cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync);
ALIAS(cuStreamDestroy_v2, cuStreamDestroy);
ALIAS(cuEventDestroy_v2, cuEventDestroy);
ALIAS(cuEventElapsedTime_v2, cuEventElapsedTime);
ALIAS(cuStreamBeginCapture_v2, cuStreamBeginCapture);

#define SYMBOL(name) {#name, (void *)name}
static const struct {
  const char *name;
  void *function;
} SYMBOLS[] = {
    SYMBOL(cuInit),
    SYMBOL(cuDriverGetVersion),
    SYMBOL(cuDeviceGetCount),
    SYMBOL(cuDeviceGet),
    SYMBOL(cuDeviceGetName),
    SYMBOL(cuDeviceGetAttribute),
    SYMBOL(cuDeviceComputeCapability),
    SYMBOL(cuDevicePrimaryCtxRetain),
    SYMBOL(cuDevicePrimaryCtxRelease),
    SYMBOL(cuCtxPushCurrent),
    SYMBOL(cuCtxPopCurrent),
    SYMBOL(cuCtxGetCurrent),
    SYMBOL(cuCtxGetDevice),
    SYMBOL(cuMemAlloc),
    SYMBOL(cuMemFree),
    SYMBOL(cuMemHostAlloc),
    SYMBOL(cuMemAllocHost),
    SYMBOL(cuMemFreeHost),
    SYMBOL(cuStreamCreate),
    SYMBOL(cuStreamDestroy),
    SYMBOL(cuStreamSynchronize),
    SYMBOL(cuMemcpyHtoDAsync),
    SYMBOL(cuMemcpyDtoHAsync),
    SYMBOL(cuEventCreate),
    SYMBOL(cuEventDestroy),
    SYMBOL(cuEventRecord),
    SYMBOL(cuEventElapsedTime),
    SYMBOL(cuEventSynchronize),
    SYMBOL(cuStreamBeginCapture),
    SYMBOL(cuStreamEndCapture),
    SYMBOL(cuStreamIsCapturing),
    {"cuGraphInstantiate", (void *)cuGraphInstantiateWithFlags},
    SYMBOL(cuGraphInstantiateWithFlags),
    SYMBOL(cuGraphDestroy),
    SYMBOL(cuGraphExecDestroy),
    SYMBOL(cuGraphLaunch),
    SYMBOL(cuGetErrorName),
    SYMBOL(cuGetErrorString),
};

EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version,
                                    unsigned long long flags, int *status) {
  (void)version, (void)flags;
  *function = NULL;
  if (strcmp(name, "cuGetProcAddress") == 0) *function = (void *)cuGetProcAddress_v2;
  for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++)
    if (strcmp(SYMBOLS[i].name, name) == 0) *function = SYMBOLS[i].function;
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}

// ---- for the tests ------------------------------------------------------------------------------

// Queues a test's own function as a kernel; a stream of 0 would be the default stream.
EXPORT CUresult fake_cuda_launch(Object *stream, Kernel kernel, void *argument) {
  ENTER(1);
  Operation operation = {.what = LAUNCH_KERNEL, .kernel = kernel, .argument = argument};
  return leave(enqueue(stream, &operation));
}

// Makes the call of `function` after the next `after` ones answer with `code`, once.
EXPORT void fake_cuda_fail(const char *function, CUresult code, int after) {
  pthread_mutex_lock(&lock);
  snprintf(fail_name, sizeof fail_name, "%s", function);
  fail_code = code;
  fail_after = after;
  pthread_mutex_unlock(&lock);
}

// Returns whether [address, address + size) lies in one live device allocation.
EXPORT int fake_cuda_on_device(const char *address, size_t size) {
  pthread_mutex_lock(&lock);
  int found = memory_of(address, size, DEVICE_MEMORY) != NULL;
  pthread_mutex_unlock(&lock);
  return found;
}

// Adds what a test's own code found wrong to the violations.
EXPORT void fake_cuda_violation(const char *reason) {
  pthread_mutex_lock(&lock);
  violation(reason);
  pthread_mutex_unlock(&lock);
}

// The end of a process that has done what a real GPU would punish is told; nobody else is there.
__attribute__((destructor)) static void report(void) {
  if (violations) fprintf(stderr, "fake CUDA: violation: %s\n", first_violation);
}

EXPORT const char *fake_cuda_first_violation(void) { return first_violation; }

EXPORT long long fake_cuda_count(const char *name) {
  const struct {
    const char *name;
    long long value;
  } counters[] = {
      {"contexts", live[CONTEXT]},          {"streams", live[STREAM]},
      {"events", live[EVENT]},              {"graphs", live[GRAPH] + live[EXEC]},
      {"device bytes", bytes[DEVICE_MEMORY]}, {"pinned bytes", bytes[PINNED_MEMORY]},
      {"pushed", pushed},                   {"violations", violations},
      {"graph launches", launches},         {"kernels", kernels},
      {"synchronisations", syncs},         {"waits with work behind them", ahead},          {"retains", retains},
  };
  for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
    if (strcmp(counters[i].name, name) == 0) return counters[i].value;
  return -1;
}
