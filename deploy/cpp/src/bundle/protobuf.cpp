// SPDX-License-Identifier: Apache-2.0
#include "bundle/protobuf.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t most_text = std::size_t{1} << 16;
enum Kind : std::uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::uint64_t next_varint(const std::uint8_t*& at, const std::uint8_t* end) {
  std::uint64_t value = 0;
  for (int shift = 0; at < end && shift <= 63; shift += 7) {
    const std::uint8_t byte = *at++;
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  throw NoProtobuf();
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto failed = [&] {
    return BundleError(path.string() + " cannot be read: " + std::strerror(errno));
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw failed();
  struct stat found {};
  void* data = nullptr;
  if (::fstat(file, &found) == 0 && found.st_size > 0)
    data =
        ::mmap(nullptr, static_cast<std::size_t>(found.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  const BundleError error = failed();
  ::close(file);
  if (found.st_size == 0) return;
  if (data == MAP_FAILED || data == nullptr) throw error;
  data_ = static_cast<const std::uint8_t*>(data);
  size_ = static_cast<std::size_t>(found.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

std::vector<Message::Field> Message::fields() const {
  std::vector<Field> found;
  for (const std::uint8_t* at = begin; at < end;) {
    const std::uint64_t key = next_varint(at, end);
    Field field;
    field.number = key >> 3;
    const std::uint64_t kind = key & 7;
    if (kind == Kind::varint) {
      field.value = next_varint(at, end);
    } else if (kind == Kind::bytes || kind == Kind::fixed64 || kind == Kind::fixed32) {
      const std::uint64_t length = kind == Kind::bytes     ? next_varint(at, end)
                                   : kind == Kind::fixed64 ? 8
                                                           : 4;
      if (length > static_cast<std::uint64_t>(end - at)) throw NoProtobuf();
      field.is_part = kind == Kind::bytes;
      field.part = {at, at + length};
      at += length;
    } else {
      throw NoProtobuf();
    }
    if (field.number == 0) throw NoProtobuf();
    found.push_back(field);
  }
  return found;
}

std::vector<Message> Message::parts(std::uint64_t number) const {
  std::vector<Message> found;
  for (const Field& field : fields())
    if (field.number == number && field.is_part) found.push_back(field.part);
  return found;
}

std::vector<std::uint64_t> Message::numbers(std::uint64_t number) const {
  std::vector<std::uint64_t> found;
  for (const Field& field : fields()) {
    if (field.number != number) continue;
    if (!field.is_part) found.push_back(field.value);
    for (const std::uint8_t* at = field.part.begin; field.is_part && at < field.part.end;)
      found.push_back(next_varint(at, field.part.end));
  }
  return found;
}

std::string Message::text() const {
  if (static_cast<std::size_t>(end - begin) > most_text) throw NoProtobuf();
  return {reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end)};
}

}  // namespace hgdeploy
