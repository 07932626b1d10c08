// SPDX-License-Identifier: Apache-2.0
// Part of every program of a sanitized build: OpenVINO's TBB opens a library with RTLD_DEEPBIND, which
// the sanitizers end the program for.
#include <dlfcn.h>

extern "C" __attribute__((visibility("default"))) void* dlopen(const char* name, int flags) {
  using Open = void* (*)(const char*, int);
  static const Open next = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
  return next(name, flags & ~RTLD_DEEPBIND);
}
