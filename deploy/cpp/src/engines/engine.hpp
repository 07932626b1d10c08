// SPDX-License-Identifier: Apache-2.0
// The contract that every engine satisfies: deploy/python/hgdeploy/engines/base.py. An engine that
// cannot do what was asked throws an EngineError that says what it can do.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace hgdeploy {

// The sizes of a tensor's axes; -1 where a model leaves one open.
using Shape = std::vector<long>;

// `[1, 3, 224, 224]`.
std::string shown(const Shape& shape);

// Name, element type (NumPy's name of it) and shape of one input or output.
struct TensorSpec {
  std::string name;
  std::string dtype;
  Shape shape;
};

// What actually runs, which may say more than what was asked for.
struct RuntimeInfo {
  std::string engine;
  std::string library;
  std::string version;
  std::string device;
  std::string precision;
  int threads = 0;
};

struct EngineOptions {
  std::string device = "cpu";
  std::string precision = "fp32";
  int threads = 1;                  // CPU threads of one inference
  int streams = 1;                  // inferences that are meant to run at once, each with `threads`
  std::string output_name;          // the output that has the scores, of a model that has several
  std::filesystem::path cache_dir;  // where compiled models are kept; empty to keep none
};

// Scores as a model gives them.
struct Scores {
  Shape shape;
  std::vector<float> values;
};

// A loaded model of one image input and one output of scores. Many threads may call `infer` at
// once.
class Engine {
 public:
  virtual ~Engine() = default;

  const TensorSpec& input() const { return input_; }
  const TensorSpec& output() const { return output_; }
  const RuntimeInfo& runtime() const { return runtime_; }
  // How many `infer` calls may run at once; further ones wait their turn.
  int concurrency() const { return concurrency_; }

  // Runs the model once. `rows` are contiguous, of the input's type. Throws TensorError: the shape
  // does not fit; EngineError: the library failed.
  Scores infer(const void* rows, const Shape& shape);

 protected:
  Engine(TensorSpec input, TensorSpec output, RuntimeInfo runtime, int concurrency);
  virtual Scores run(const void* rows, const Shape& shape) = 0;

 private:
  TensorSpec input_, output_;
  RuntimeInfo runtime_;
  int concurrency_;
};

// One kind of engine, as it was compiled in or left out.
struct EngineKind {
  using Names = std::vector<std::string> (*)(const std::string& precision);
  using Load = std::unique_ptr<Engine> (*)(const std::filesystem::path&, const EngineOptions&);

  const char* name;
  Names artifact_names;  // the files of a bundle it can read for a precision, best first
  Load load;             // null where this build has it not
};

// All kinds that Python has, those of this build first.
const std::vector<EngineKind>& engine_kinds();
// The names of those that this build has.
std::vector<std::string> built_engines();

}  // namespace hgdeploy
