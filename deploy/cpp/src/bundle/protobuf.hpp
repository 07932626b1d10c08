// SPDX-License-Identifier: Apache-2.0
// Walks over a protobuf file without its schema: ONNX models and Paddle 2's programs. The encoding
// is described at https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace hgdeploy {

// A file in memory, of which only what is looked at is read. Throws BundleError.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::uint8_t* begin() const { return data_; }
  const std::uint8_t* end() const { return data_ + size_; }
  std::size_t size() const { return size_; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// What is wrong with a file that is no protobuf.
struct NoProtobuf : std::runtime_error {
  NoProtobuf() : std::runtime_error("it is truncated, or of another kind") {}
};

// A message, or any other field that has a length, in a file in memory.
struct Message {
  struct Field;

  const std::uint8_t* begin = nullptr;
  const std::uint8_t* end = nullptr;

  // Each field in turn. Throws NoProtobuf: this is no message, or it is truncated.
  std::vector<Field> fields() const;
  // The messages in the fields of a number.
  std::vector<Message> parts(std::uint64_t number) const;
  // The whole numbers in the fields of a number, packed or not.
  std::vector<std::uint64_t> numbers(std::uint64_t number) const;
  std::string text() const;
};

struct Message::Field {
  std::uint64_t number = 0;
  bool is_part = false;
  std::uint64_t value = 0;  // where it is no part
  Message part{};
};

}  // namespace hgdeploy
