// SPDX-License-Identifier: Apache-2.0
#include "bundle/paddle_params.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "bundle/protobuf.hpp"
#include "errors.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

// Bytes an element takes, by framework.proto's VarType.Type: bool, int16, int32, int64, fp16, fp32,
// fp64, uint8, int8, bf16, complex64, complex128.
const std::map<std::int64_t, std::uint64_t> item_bytes{{0, 1},  {1, 2},  {2, 4},  {3, 8},
                                                       {4, 2},  {5, 4},  {6, 8},  {20, 1},
                                                       {21, 1}, {22, 2}, {23, 8}, {24, 16}};
const std::map<std::int64_t, const char*> floats{{4, "f16"}, {5, "f32"}, {6, "f64"}, {22, "bf16"}};
constexpr std::int32_t max_description_bytes = 1 << 16;
constexpr const char* mixed = "check that both files come from one export";
constexpr const char* ends_inside = "it ends inside a tensor";
constexpr const char* no_params = "it is no Paddle parameters file";

// The numbers of fields and types in framework.proto.
constexpr int block_field = 1, variable_field = 3;  // of ProgramDesc, of BlockDesc
constexpr int name_field = 1, type_field = 2, persistable_field = 3;  // of VarDesc
constexpr int kind_field = 1, tensor_field = 3,
              description_field = 1;            // of VarType, its dense tensor
constexpr int dtype_field = 1, dims_field = 2;  // of TensorDesc
constexpr std::uint64_t dense_tensor = 7;

struct Param {
  std::string name;
  std::int64_t dtype = -1;
  std::vector<std::int64_t> shape;
};

std::string shown(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string shown(const Param& param) {
  const auto found = floats.find(param.dtype);
  return std::string(found == floats.end() ? "not float " : std::string(found->second) + " ") +
         shown(param.shape);
}

std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t size = 1;
  for (const std::int64_t side : shape)
    if (__builtin_mul_overflow(size, side, &size)) throw std::runtime_error(ends_inside);
  return size;
}

// Walks over the bytes of a parameters file.
class Walk {
 public:
  explicit Walk(const MappedFile& file) : at_(file.begin()), end_(file.end()) {}
  bool at_end() const { return at_ == end_; }

  Param next() {
    version();
    const auto levels = read<std::uint64_t>();
    if (levels > 8) throw std::runtime_error(no_params);
    for (std::uint64_t i = 0; i < levels; ++i) skip(read<std::uint64_t>());
    version();
    const auto length = read<std::int32_t>();
    if (length <= 0 || length > max_description_bytes) throw std::runtime_error(no_params);
    const std::uint8_t* start = at_;
    skip(static_cast<std::uint64_t>(length));
    const Message description{start, at_};
    Param param;
    for (const std::uint64_t dtype : description.numbers(dtype_field))
      param.dtype = static_cast<std::int64_t>(dtype);
    for (const std::uint64_t size : description.numbers(dims_field))
      param.shape.push_back(static_cast<std::int64_t>(size));
    const auto item = item_bytes.find(param.dtype);
    if (item == item_bytes.end())
      throw std::runtime_error("a tensor has the unknown element type " +
                               std::to_string(param.dtype));
    const std::int64_t size = product(param.shape);
    if (size < 0) throw std::runtime_error(no_params);
    const std::int64_t bytes = product({size, static_cast<std::int64_t>(item->second)});
    if (bytes > end_ - at_)
      throw std::runtime_error("a tensor of shape " + shown(param.shape) + " ends " +
                               std::to_string(bytes - (end_ - at_)) + " bytes after it");
    skip(static_cast<std::uint64_t>(bytes));
    return param;
  }

 private:
  template <typename T>
  T read() {
    T value{};
    const std::uint8_t* start = at_;
    skip(sizeof value);
    std::memcpy(&value, start, sizeof value);
    return value;
  }
  void version() {
    if (read<std::uint32_t>() != 0) throw std::runtime_error(no_params);
  }
  void skip(std::uint64_t size) {
    if (size > static_cast<std::uint64_t>(end_ - at_)) throw std::runtime_error(ends_inside);
    at_ += size;
  }
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

std::vector<Param> stored_params(const fs::path& path) {
  const MappedFile file(path);
  std::vector<Param> found;
  try {
    for (Walk walk(file); !walk.at_end();) found.push_back(walk.next());
  } catch (const std::exception& error) {
    throw BundleError(path.string() + " is damaged or truncated (" + error.what() + "; it has " +
                      std::to_string(file.size()) +
                      " bytes); copy it again, or export the model again");
  }
  if (found.empty())
    throw BundleError(path.string() + " is empty; copy it again, or export the model again");
  return found;
}

// The parameters of a program in the order of their names, as Paddle stores them.
std::vector<Param> declared_params(const fs::path& program) {
  const MappedFile file(program);
  const auto first = [](const auto& all) {
    if (all.empty()) throw NoProtobuf();
    return all.front();
  };
  std::vector<Param> found;
  try {
    const Message block = first(Message{file.begin(), file.end()}.parts(block_field));
    for (const Message& variable : block.parts(variable_field)) {
      const Message kind = first(variable.parts(type_field));
      const auto persistable = variable.numbers(persistable_field),
                 kinds = kind.numbers(kind_field);
      if (persistable.empty() || persistable.back() == 0) continue;
      if (std::find(kinds.begin(), kinds.end(), dense_tensor) == kinds.end()) continue;
      const Message tensor = first(first(kind.parts(tensor_field)).parts(description_field));
      Param param{first(variable.parts(name_field)).text(),
                  static_cast<std::int64_t>(first(tensor.numbers(dtype_field))),
                  {}};
      for (const std::uint64_t size : tensor.numbers(dims_field))
        param.shape.push_back(static_cast<std::int64_t>(size));
      found.push_back(std::move(param));
    }
  } catch (const NoProtobuf&) {
    throw BundleError(program.string() +
                      " is not a readable Paddle program; export or copy it again");
  }
  std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.name < b.name; });
  return found;
}

// A scalar is [] or [1], and -1 any size. PaddleSlim stores weights as int8 that it declares fp32.
bool fits(const Param& declared, const Param& stored) {
  if (floats.count(declared.dtype) && floats.count(stored.dtype) && declared.dtype != stored.dtype)
    return false;
  if (product(declared.shape) == 1 && product(stored.shape) == 1) return true;
  return std::equal(declared.shape.begin(), declared.shape.end(), stored.shape.begin(),
                    stored.shape.end(),
                    [](auto want, auto size) { return want == -1 || want == size; });
}

}  // namespace

void check_params(const fs::path& program) {
  const fs::path params = fs::path(program).replace_extension(".pdiparams");
  const std::vector<Param> stored = stored_params(params), declared = declared_params(program);
  const std::string not_of = params.string() + " is not of " + program.filename().string() + ": ";
  for (std::size_t i = 0; i < std::min(stored.size(), declared.size()); ++i)
    if (!fits(declared[i], stored[i]))
      throw BundleError(not_of + declared[i].name + " is " + shown(declared[i]) +
                        " in the program and " + shown(stored[i]) + " in the parameters; " + mixed);
  if (stored.size() != declared.size())
    throw BundleError(not_of + "the program has " + std::to_string(declared.size()) +
                      " parameters, the file " + std::to_string(stored.size()) + "; " + mixed);
}

}  // namespace hgdeploy
