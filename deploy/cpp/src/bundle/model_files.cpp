// SPDX-License-Identifier: Apache-2.0
#include "bundle/model_files.hpp"

#include <set>

#include "bundle/names.hpp"
#include "bundle/protobuf.hpp"
#include "bundle/sidecar.hpp"
#include "errors.hpp"
#include "system/digests.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

// The numbers of the fields in onnx.proto that lead to tensors, and so to files of weights.
constexpr int graph_field = 7, function_field = 25, function_node = 7;   // of Model-, FunctionProto
constexpr int node_field = 1, initializer_field = 5, sparse_field = 15;  // of GraphProto
constexpr int op_type = 4, attribute_field = 5;                          // of NodeProto
constexpr int tensor_value = 5, tensors = 10, graph_value = 6, graphs = 11, sparse_value = 22,
              sparses = 23;  // of AttributeProto
constexpr int data_type = 2, external_data = 13, entry_key = 1, entry_value = 2;  // of TensorProto
constexpr int most_depth = 32;                           // graphs within graphs
constexpr std::uint64_t fp16_type = 10, bf16_type = 16;  // of TensorProto.DataType
// What quantizing operators have in their names.
constexpr const char* quantizing[] = {"QuantizeLinear", "QLinear", "MatMulInteger", "ConvInteger"};

[[noreturn]] void refuse(const fs::path& onnx, const std::string& why) {
  throw BundleError(onnx.string() + " is not a readable ONNX model (" + why + "); make it again");
}

// Gathers the names of the files of weights.
class Locations {
 public:
  explicit Locations(const Message& model) {
    for (const auto& field : model.fields()) {
      if (!field.is_part) continue;
      if (field.number == graph_field) of_graph(field.part, 0);
      if (field.number == function_field)
        for (const Message& node : field.part.parts(function_node)) of_node(node, 0);
    }
  }
  const std::set<std::string>& found() const { return found_; }

 private:
  void of_graph(const Message& graph, int depth) {
    if (depth > most_depth)
      throw std::runtime_error("it has more than 32 graphs within each other");
    for (const auto& field : graph.fields()) {
      if (!field.is_part) continue;
      if (field.number == node_field) of_node(field.part, depth);
      if (field.number == initializer_field) of_tensor(field.part);
      if (field.number == sparse_field) of_sparse(field.part);
    }
  }
  void of_node(const Message& node, int depth) {
    for (const Message& attribute : node.parts(attribute_field))
      for (const auto& field : attribute.fields()) {
        if (!field.is_part) continue;
        if (field.number == tensor_value || field.number == tensors) of_tensor(field.part);
        if (field.number == graph_value || field.number == graphs) of_graph(field.part, depth + 1);
        if (field.number == sparse_value || field.number == sparses) of_sparse(field.part);
      }
  }
  void of_sparse(const Message& sparse) {
    for (const int number : {1, 2})  // of SparseTensorProto
      for (const Message& tensor : sparse.parts(number)) of_tensor(tensor);
  }
  void of_tensor(const Message& tensor) {
    for (const Message& entry : tensor.parts(external_data)) {
      const auto keys = entry.parts(entry_key), values = entry.parts(entry_value);
      if (!keys.empty() && !values.empty() && keys.back().text() == "location")
        found_.insert(values.back().text());
    }
  }
  std::set<std::string> found_;
};

std::vector<fs::path> external_files(const fs::path& onnx) {
  const MappedFile file(onnx);
  std::vector<fs::path> found;
  try {
    const Locations locations({file.begin(), file.end()});
    for (const std::string& location : locations.found()) {
      const fs::path relative(location);
      bool outside = relative.is_absolute();
      for (const fs::path& part : relative) outside = outside || part == "..";
      if (outside)
        throw BundleError(onnx.string() + " names weights outside of its folder (" +
                          repr(location) +
                          "); put them beside it, and save it with a name relative to itself");
      const fs::path place = onnx.parent_path() / relative;
      if (!fs::is_regular_file(place))
        throw BundleError(onnx.string() + " keeps weights in " + place.string() +
                          ", which does not exist; copy both files");
      found.push_back(place);
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    refuse(onnx, error.what());
  }
  return found;
}

void add_halves(const std::vector<Message>& all, std::set<std::string>& kinds) {
  for (const Message& tensor : all)
    for (const std::uint64_t type : tensor.numbers(data_type)) {
      if (type == fp16_type) kinds.insert("fp16");
      if (type == bf16_type) kinds.insert("bf16");
    }
}

}  // namespace

std::vector<fs::path> model_files(const fs::path& artifact) {
  std::vector<fs::path> files{artifact};
  const auto suffix = artifact.extension();
  fs::path beside = artifact;
  if (suffix == ".onnx") {
    for (const fs::path& path : external_files(artifact)) files.push_back(path);
    return files;
  }
  if (suffix == ".json" || suffix == ".pdmodel") beside.replace_extension(".pdiparams");
  if (suffix == ".xml" || suffix == ".param") beside.replace_extension(".bin");
  if (beside != artifact && fs::is_regular_file(beside)) files.push_back(beside);
  return files;
}

std::string model_digest(const fs::path& artifact) {
  std::vector<std::string> digests;
  for (const fs::path& path : model_files(artifact)) digests.push_back(file_sha256(path));
  return combined_digest(digests);
}

std::string onnx_precision(const fs::path& onnx) {
  const nlohmann::json facts = read_sidecar(onnx);
  if (const auto made = facts.find("precision"); made != facts.end() && made->is_string())
    return made->get<std::string>();
  const MappedFile file(onnx);
  std::set<std::string> kinds;
  try {
    for (const Message& graph : Message{file.begin(), file.end()}.parts(graph_field)) {
      for (const Message& node : graph.parts(node_field)) {
        const auto names = node.parts(op_type);
        const std::string op = names.empty() ? "" : names[0].text();
        for (const char* name : quantizing)
          if (op.find(name) != std::string::npos) kinds.insert("int8");
        if (op == "Constant")
          for (const Message& attribute : node.parts(attribute_field))
            add_halves(attribute.parts(tensor_value), kinds);
      }
      add_halves(graph.parts(initializer_field), kinds);
    }
  } catch (const NoProtobuf& error) {
    refuse(onnx, error.what());
  }
  for (const char* kind : {"int8", "fp16", "bf16"})
    if (kinds.count(kind) != 0) return kind;
  return "fp32";
}

}  // namespace hgdeploy
