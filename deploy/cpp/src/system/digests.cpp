// SPDX-License-Identifier: Apache-2.0
#include "system/digests.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"

namespace hgdeploy {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{1} << 20;
// Clocks of file systems tick up to every 2 s (FAT): a file that was changed so shortly before it
// was read might be changed again and bear the same times.
constexpr long long settled_ns = 3'000'000'000;

using State = std::tuple<dev_t, ino_t, off_t, long long, long long>;

std::mutex known_lock;
std::map<State, std::string> known;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(const void* data, std::size_t size) {
    check(EVP_DigestUpdate(context_.get(), data, size) == 1);
  }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    check(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
      text += "0123456789abcdef"[digest[i] >> 4];
      text += "0123456789abcdef"[digest[i] & 15];
    }
    return text;
  }

 private:
  static void check(bool done) {
    if (!done) throw Error("OpenSSL cannot compute a SHA-256 digest here");
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

long long nanoseconds(const timespec& time) {
  return static_cast<long long>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

State state_of(int descriptor) {
  struct stat found {};
  ::fstat(descriptor, &found);
  return {found.st_dev, found.st_ino, found.st_size, nanoseconds(found.st_mtim),
          nanoseconds(found.st_ctim)};
}

struct Descriptor {
  explicit Descriptor(const std::filesystem::path& path)
      : number(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number;
};

}  // namespace

std::string sha256(std::string_view text) {
  Sha256 digest;
  digest.add(text.data(), text.size());
  return digest.hex();
}

std::string file_sha256(const std::filesystem::path& path) {
  const auto failed = [&] {
    return BundleError(path.string() + " cannot be read: " + std::strerror(errno));
  };
  const Descriptor file(path);
  if (file.number < 0) throw failed();
  const State before = state_of(file.number);
  {
    const std::lock_guard lock(known_lock);
    if (const auto found = known.find(before); found != known.end()) return found->second;
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const long long changed = std::max(std::get<3>(before), std::get<4>(before));
  Sha256 digest;
  std::vector<char> chunk(chunk_bytes);
  for (;;) {
    const ssize_t size = ::read(file.number, chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) throw failed();
    if (size == 0) break;
    digest.add(chunk.data(), static_cast<std::size_t>(size));
  }
  std::string text = digest.hex();
  if (nanoseconds(now) - changed > settled_ns && state_of(file.number) == before) {
    const std::lock_guard lock(known_lock);
    known[before] = text;
  }
  return text;
}

std::string combined_digest(const std::vector<std::string>& digests) {
  if (digests.size() == 1) return digests[0];
  std::string all;
  for (const std::string& digest : digests) all += (all.empty() ? "" : "\n") + digest;
  return sha256(all);
}

}  // namespace hgdeploy
