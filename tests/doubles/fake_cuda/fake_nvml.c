// SPDX-License-Identifier: Apache-2.0
//
// NVML without a GPU: the part of libnvidia-ml.so.1 that says how fast a GPU runs.
//
// FAKE_NVML_MHZ (1500) has the clocks that it gives one after the other, the last one for good;
// FAKE_NVML_REASONS (0) what holds the clock back. A GPU is known by its place on the PCI bus.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

EXPORT int nvmlInit_v2(void) { return OK; }

EXPORT int nvmlInitWithFlags(unsigned flags) { return flags == 0 ? OK : NOT_SUPPORTED; }

EXPORT int nvmlShutdown(void) { return OK; }

EXPORT const char *nvmlErrorString(int code) { return code == OK ? "Success" : "Not Supported"; }

EXPORT int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  snprintf(text, length, "580.65.06");
  return OK;
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *place, void **device) {
  if (strncmp(place, "0000:0", 6) != 0) return NOT_FOUND;
  *device = (void *)1;
  return OK;
}

EXPORT int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) {
  static const char *rest;
  (void)device;
  *mhz = 5001;
  if (kind != 1) return OK;  // NVML_CLOCK_SM
  if (!rest) rest = getenv("FAKE_NVML_MHZ") ? getenv("FAKE_NVML_MHZ") : "1500";
  *mhz = (unsigned)atoi(rest);
  if (strchr(rest, ',')) rest = strchr(rest, ',') + 1;
  return OK;
}

EXPORT int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
  (void)device;
  *milliwatts = 70125;
  return OK;
}

// As on a virtual GPU.
EXPORT int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
  (void)device, (void)sensor, (void)celsius;
  return NOT_SUPPORTED;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
  (void)device;
  *reasons = getenv("FAKE_NVML_REASONS") ? strtoull(getenv("FAKE_NVML_REASONS"), NULL, 0) : 0;
  return OK;
}
