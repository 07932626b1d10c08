// SPDX-License-Identifier: Apache-2.0
#include "engines/openvino/engine.hpp"

#include <algorithm>
#include <map>
#include <new>
#include <sstream>

#include <openvino/openvino.hpp>

#include "bundle/model_files.hpp"
#include "bundle/names.hpp"
#include "bundle/paddle_params.hpp"
#include "bundle/sidecar.hpp"
#include "engines/fit.hpp"
#include "engines/openvino/cache.hpp"
#include "engines/openvino/probe.hpp"
#include "engines/pool.hpp"
#include "errors.hpp"
#include "system/machine.hpp"
#include "system/text.hpp"

namespace hgdeploy {
namespace {

namespace fs = std::filesystem;

struct Precision {
  const char* name;
  const char* hint;        // OpenVINO's name
  const char* capability;  // what a device must list for it
};
// The precision of an int8 model is in its own quantize nodes; the rest of it runs in fp32.
constexpr Precision precisions[] = {{"fp32", "f32", "FP32"},
                                    {"fp16", "f16", "FP16"},
                                    {"bf16", "bf16", "BF16"},
                                    {"int8", "f32", "INT8"}};
constexpr double most_int8_error = 0.01;  // of the probe's network, where it is computed correctly
// Two requests for each inference at once: OpenVINO runs an inference on a thread of its own, which
// would otherwise wait for its caller to bring the next.
constexpr int requests_per_stream = 2;

std::string one_line(const std::exception& error) {
  std::istringstream lines(error.what());
  std::vector<std::string> useful;
  for (std::string line; std::getline(lines, line);)
    if (const std::string text = strip(line); !text.empty()) useful.push_back(text);
  return join(useful, " ").substr(0, 400);
}

std::string hint_of(const std::string& precision) {
  for (const Precision& one : precisions)
    if (precision == one.name) return one.hint;
  return "";
}

// Turns OpenVINO's `CPU`, `GPU`, `GPU.1`, `NPU` into `cpu`, `gpu:0`, `gpu:1`, `npu`.
std::string our_name(const std::string& device) {
  const auto dot = device.find('.');
  const std::string kind = lower(device.substr(0, dot));
  if (kind != "gpu") return kind;
  return "gpu:" + (dot == std::string::npos ? std::string("0") : device.substr(dot + 1));
}

std::string device_of(ov::Core& core, const std::string& device) {
  if (device == "cpu")
    return "CPU";  // without asking every plugin for its devices, which takes 50 ms
  std::map<std::string, std::string> available;
  for (const std::string& name : core.get_available_devices()) available[our_name(name)] = name;
  if (const auto found = available.find(device); found != available.end()) return found->second;
  const bool gpu =
      device.compare(0, 4, "gpu:") == 0 && device.size() > 4 &&
      std::all_of(device.begin() + 4, device.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!gpu && device != "cpu" && device != "npu")
    throw EngineError("unknown device " + repr(device) +
                      ", expected 'cpu' or 'gpu:N' such as 'gpu:0'");
  std::vector<std::string> names;
  for (const auto& [name, own] : available) names.push_back(name);
  throw EngineError(device + " was asked for, but OpenVINO finds only " + join(names, ", ") +
                    " here; use the cpu (--device cpu)");
}

void check_int8(ov::Core& core, const std::string& device, const EngineOptions& options,
                const fs::path& source) {
  const bool quantized = options.precision == "int8" ||
                         (source.extension() == ".onnx" && onnx_precision(source) == "int8");
  if (!quantized || device != "CPU") return;
  const nlohmann::json facts = read_sidecar(source);
  const auto made = facts.find("activations");
  const std::string made_with =
      made != facts.end() && made->is_string() ? made->get<std::string>() : "";
  std::vector<std::string> wrong;
  for (const std::string kind : {"int8", "uint8"})
    if ((made_with.empty() || made_with == kind) &&
        int8_error(core, kind == "int8") >= most_int8_error)
      wrong.push_back(kind);
  if (!wrong.empty())
    throw EngineError("OpenVINO computes int8 with " + join(wrong, " and ") +
                      " activations wrongly on this CPU, and " + source.filename().string() +
                      " may have them; use openvino in fp32");
}

void check_precision(ov::Core& core, const std::string& device, const EngineOptions& options) {
  const auto has = core.get_property(device, ov::device::capabilities);
  std::vector<std::string> available;
  for (const Precision& one : precisions)
    if (std::count(has.begin(), has.end(), one.capability)) available.emplace_back(one.name);
  if (std::count(available.begin(), available.end(), options.precision) == 0)
    throw EngineError("OpenVINO cannot run " + options.precision + " on this " + device +
                      ", available: " + join(available, ", "));
}

std::string py_bool(bool value) { return value ? "True" : "False"; }

// The settings, and Python's repr of the device and of them, under which the compiled model is
// kept.
std::pair<ov::AnyMap, std::string> settings_for(const std::string& device,
                                                const EngineOptions& options) {
  const std::string hint = hint_of(options.precision);
  ov::AnyMap settings{
      {"INFERENCE_PRECISION_HINT", hint}, {"PERFORMANCE_HINT", "LATENCY"}, {"PERF_COUNT", false}};
  std::string text = "('INFERENCE_PRECISION_HINT', '" + hint + "'), ";
  if (device == "CPU") {
    const int threads = options.threads * options.streams;
    // OpenVINO pins threads to the first CPUs: processes that use only some of the CPUs would all
    // be pinned to the same ones.
    const bool pinned = threads >= available_cpus();
    settings["INFERENCE_NUM_THREADS"] = threads;
    settings["NUM_STREAMS"] = options.streams;
    settings["ENABLE_CPU_PINNING"] = pinned;
    text = "('ENABLE_CPU_PINNING', " + py_bool(pinned) + "), ('INFERENCE_NUM_THREADS', " +
           std::to_string(threads) + "), " + text + "('NUM_STREAMS', " +
           std::to_string(options.streams) + "), ";
  }
  text = "('" + device + "', [" + text + "('PERFORMANCE_HINT', 'LATENCY'), ('PERF_COUNT', False)])";
  return {settings, text};
}

ov::CompiledModel compile(ov::Core& core, const fs::path& source, const std::string& device,
                          const EngineOptions& options) {
  ov::CompiledModel compiled;
  const auto [settings, text] = settings_for(device, options);
  try {
    with_cache(source, text, options.cache_dir,
               [&, own = settings](const fs::path& folder) mutable {
                 if (!folder.empty()) own["CACHE_DIR"] = folder.string();
                 // By its path: reading the model first takes most of the time that the cache
                 // saves.
                 compiled = core.compile_model(source.string(), device, own);
               });
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {  // not all of its errors are of its own class
    model_files(source);  // says so itself where weights are missing, or outside of the folder
    throw BundleError("OpenVINO cannot load " + source.string() + ": " + one_line(error));
  }
  return compiled;
}

std::string dtype_of(const ov::element::Type& type) {
  static const std::map<std::string, std::string> names{
      {"f16", "float16"}, {"f32", "float32"}, {"f64", "float64"}, {"bf16", "bfloat16"},
      {"u8", "uint8"},    {"i8", "int8"},     {"i32", "int32"},   {"i64", "int64"}};
  const auto found = names.find(type.to_string());
  return found == names.end() ? type.to_string() : found->second;
}

using Port = ov::Output<const ov::Node>;

std::vector<TensorSpec> specs_of(const std::vector<Port>& ports, const std::string& wanted = "") {
  std::vector<TensorSpec> specs;
  for (const Port& port : ports) {
    // A tensor has several names where operators between them change nothing.
    const auto& names = port.get_names();
    TensorSpec spec{
        names.count(wanted) ? wanted : port.get_any_name(), dtype_of(port.get_element_type()), {}};
    for (const ov::Dimension& size : port.get_partial_shape())
      spec.shape.push_back(size.is_dynamic() ? -1 : size.get_length());
    specs.push_back(std::move(spec));
  }
  return specs;
}

template <typename T>
std::vector<float> as_floats(const ov::Tensor& tensor) {
  const T* data = tensor.data<T>();
  return std::vector<float>(data, data + tensor.get_size());
}

class OpenVinoEngine : public Engine {
 public:
  OpenVinoEngine(ov::CompiledModel compiled, const TensorSpec& input, const TensorSpec& output,
                 RuntimeInfo runtime, int requests)
      : Engine(input, output, std::move(runtime), requests),
        compiled_(std::move(compiled)),
        input_type_(compiled_.input().get_element_type()) {
    for (int i = 0; i < requests; ++i) requests_.add(compiled_.create_infer_request());
  }

 private:
  Scores run(const void* rows, const Shape& shape) override {
    auto request = requests_.take();
    try {
      // OpenVINO only reads it.
      request->set_input_tensor(
          ov::Tensor(input_type_, ov::Shape(shape.begin(), shape.end()), const_cast<void*>(rows)));
      request->infer();
      const ov::Tensor result = request->get_tensor(output().name);
      const ov::Shape& sizes = result.get_shape();
      return {Shape(sizes.begin(), sizes.end()), values_of(result)};
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      throw EngineError("OpenVINO failed to run the model: " + one_line(error));
    }
  }

  static std::vector<float> values_of(const ov::Tensor& tensor) {
    if (tensor.get_element_type() == ov::element::f32) return as_floats<float>(tensor);
    if (tensor.get_element_type() == ov::element::f64) return as_floats<double>(tensor);
    if (tensor.get_element_type() == ov::element::f16) return as_floats<ov::float16>(tensor);
    return as_floats<ov::bfloat16>(tensor);
  }

  ov::CompiledModel compiled_;
  ov::element::Type input_type_;
  Pool<ov::InferRequest> requests_;
};

std::unique_ptr<Engine> load(const fs::path& source, const EngineOptions& options) {
  if (source.extension() == ".pdmodel") check_params(source);
  ov::Core core;
  const std::string device = device_of(core, options.device);
  check_precision(core, device, options);
  check_int8(core, device, options, source);
  ov::CompiledModel compiled = compile(core, source, device, options);
  const std::string ran = compiled.get_property(ov::hint::inference_precision).to_string();
  if (ran != hint_of(options.precision))
    throw EngineError("OpenVINO would run " + ran + " on " + device + ", but " + options.precision +
                      " was asked for");
  const TensorSpec input = image_input(specs_of(compiled.inputs()), source);
  const TensorSpec output =
      score_output(specs_of(compiled.outputs(), options.output_name), source, options.output_name);
  const int best = static_cast<int>(compiled.get_property(ov::optimal_number_of_infer_requests));
  RuntimeInfo runtime{"openvino",     "openvino",        ov::get_openvino_version().buildNumber,
                      options.device, options.precision, device == "CPU" ? options.threads : 0};
  return std::make_unique<OpenVinoEngine>(std::move(compiled), input, output, std::move(runtime),
                                          std::max(best, requests_per_stream * options.streams));
}

}  // namespace

std::vector<std::string> openvino_artifacts(const std::string& precision) {
  // For fp16 and bf16, OpenVINO itself converts the fp32 model.
  if (precision == "int8") return {"inference.int8.onnx"};
  return {onnx_file, "inference.pdmodel"};
}

std::unique_ptr<Engine> load_openvino(const fs::path& source, const EngineOptions& options) {
  try {
    return load(source, options);
  } catch (const ov::Exception& error) {  // such as of a plugin that is not there
    throw EngineError("OpenVINO cannot start: " + one_line(error));
  }
}

}  // namespace hgdeploy
