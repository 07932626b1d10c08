// SPDX-License-Identifier: Apache-2.0
// What the tests are written with.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#define CHECK(...)                                                                              \
  do {                                                                                          \
    if (!(__VA_ARGS__))                                                                         \
      throw Failed(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #__VA_ARGS__); \
  } while (false)

// Returns what an error of this kind says that the function throws.
template <typename Kind, typename Function>
std::string said(const Function& function) {
  try {
    function();
  } catch (const Kind& error) {
    return error.what();
  }
  throw Failed("no error was thrown");
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A folder of this test's own, which goes with all that is in it.
struct Folder {
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const;
  std::filesystem::path path;
};

// Makes the bundle of pphgnet_mini, for OpenVINO, from its files.
void make_bundle(const Folder& folder, const std::filesystem::path& data);

void test_bundle(const std::filesystem::path& data, const std::filesystem::path& images);
void test_classifier(const std::filesystem::path& data, const std::filesystem::path& images);
void test_parallel(const std::filesystem::path& data, const std::filesystem::path& images);
