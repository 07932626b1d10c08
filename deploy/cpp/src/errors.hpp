// SPDX-License-Identifier: Apache-2.0
// Every error HGDeploy raises on purpose, and the exit code each one ends a program with: the table
// of deploy/python/hgdeploy/errors.py. A message is one line: what, where, what was allowed, how to
// fix it.
#pragma once

#include <stdexcept>
#include <string>

namespace hgdeploy {

inline constexpr int exit_ok = 0;
inline constexpr int exit_some_images_failed = 3;
inline constexpr int exit_interrupted = 130;
inline constexpr int exit_terminated = 143;

// Base of all errors raised on purpose.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = 1)
      : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

// A wrong argument, config file, key or value.
struct ConfigError : Error {
  explicit ConfigError(const std::string& message) : Error(message, 2) {}
};

// One image cannot be read, decoded or preprocessed; the message is the reason.
struct ImageError : Error {
  explicit ImageError(const std::string& message) : Error(message, exit_some_images_failed) {}
};

// There is nothing to classify at the given place.
struct InputError : Error {
  explicit InputError(const std::string& message) : Error(message, 4) {}
};

// Model files are missing, unreadable, or do not fit their own description.
struct BundleError : Error {
  explicit BundleError(const std::string& message) : Error(message, 5) {}
};

// A library, device or precision that was asked for is not available here.
struct EngineError : Error {
  explicit EngineError(const std::string& message, int exit_code = 6) : Error(message, exit_code) {}
};

// Feeds do not fit the model's inputs: name, shape or type.
struct TensorError : EngineError {
  explicit TensorError(const std::string& message) : EngineError(message, 7) {}
};

// A file or folder cannot be written.
struct OutputError : Error {
  explicit OutputError(const std::string& message) : Error(message, 10) {}
};

// The system does not give this process the memory, threads or open files that it needs.
struct ResourceError : Error {
  explicit ResourceError(const std::string& message) : Error(message, 12) {}
};

}  // namespace hgdeploy
