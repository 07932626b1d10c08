// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include "bundle/model_bundle.hpp"
#include "bundle/model_files.hpp"
#include "bundle/paddle_params.hpp"
#include "bundle/sidecar.hpp"
#include "check.hpp"
#include "errors.hpp"
#include "system/digests.hpp"
#include "system/documents.hpp"

namespace {

namespace fs = std::filesystem;
using namespace hgdeploy;

void test_documents(const Folder& folder) {
  const auto refused = [&](const std::string& text) {
    folder.write("x.yml", text);
    return said<BundleError>([&] { read_yaml(folder.path / "x.yml", "description"); });
  };
  CHECK(contains(refused(std::string(100'000, '[')), "is not valid YAML"));
  CHECK(contains(
      refused("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
              "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
              "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"),
      "1,000,000 values"));
  CHECK(contains(refused("a: &a [*a]\n"), "is not valid YAML"));
  CHECK(contains(refused("a: 1\nb: 2\na: 3\n"), "the key 'a' stands twice, in lines 1 and 3"));
  CHECK(contains(refused("- 1\n"), "has no keys"));
  CHECK(contains(refused(""), "has no keys"));
  CHECK(contains(refused("a: 1\n---\nb: 2\n"), "a second document"));
  CHECK(contains(refused("a: 1\nb: caf\xE9\n"), "a byte in line 2 is not UTF-8"));
  CHECK(contains(refused("a: x\x07y\n"), "not allowed: a control character"));
  CHECK(contains(refused("a: x\xC2\x85y\n"), "ends the line in YAML 1.1"));
  CHECK(contains(refused(std::string("\xFF\xFE" "a\0:\0 \0" "1\0", 10)), "is not UTF-8"));
  CHECK(contains(refused(std::string((4 << 20) + 1, ' ')), "larger than 4 MiB"));
  CHECK(contains(said<BundleError>([&] { read_yaml(folder.path, "x"); }), "directory"));
  CHECK(contains(said<BundleError>([&] { read_yaml("/dev/zero", "x"); }), "larger than 4 MiB"));
  folder.write("x.json", std::string(100'000, '['));
  CHECK(read_json(folder.path / "x.json").is_discarded());
  CHECK(read_json("/dev/null/x").is_discarded());
}

void test_digests(const Folder& folder) {
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  folder.write("abc", "abc");
  CHECK(file_sha256(folder.path / "abc") == sha256("abc"));
  folder.write("abc", "abd");
  CHECK(file_sha256(folder.path / "abc") == sha256("abd"));
  CHECK(combined_digest({"a"}) == "a");
  CHECK(combined_digest({"a", "b"}) == sha256("a\nb"));
}

void test_params(const Folder& folder) {
  const fs::path program = folder.path / "inference.pdmodel",
                 params = folder.path / "inference.pdiparams";
  check_params(program);
  const auto size = fs::file_size(params);
  for (const std::uintmax_t kept : {size - 1, size / 2, std::uintmax_t{3}, std::uintmax_t{0}}) {
    fs::resize_file(params, kept);
    const std::string text = said<BundleError>([&] { check_params(program); });
    CHECK(contains(text, "is damaged or truncated") || contains(text, "is empty") ||
          contains(text, "is not of"));
  }
}

void test_sidecars(const Folder& folder) {
  const fs::path onnx = folder.path / "inference.onnx", program = folder.path / "inference.pdmodel";
  check_artifact(onnx);  // an artifact without a sidecar is used as it is
  const auto describe = [&](const std::string& source, const std::string& own) {
    folder.write("inference.onnx.meta.json", R"({"source": {"inference.pdmodel": ")" + source +
                                                 R"("}, "sha256": ")" + own + "\"}");
  };
  describe(file_sha256(program), file_sha256(onnx));
  check_artifact(onnx);
  describe(sha256("another"), file_sha256(onnx));
  CHECK(contains(said<BundleError>([&] { check_artifact(onnx); }),
                 "is stale: inference.pdmodel has changed since it was made"));
  describe(file_sha256(program), sha256("another"));
  CHECK(contains(said<BundleError>([&] { check_artifact(onnx); }),
                 "it is not the file that inference.onnx.meta.json describes"));
  fs::remove(folder.path / "inference.onnx.meta.json");
  folder.write("inference.meta.json", R"({"files": {"inference.onnx": "0"}})");
  CHECK(
      contains(said<BundleError>([&] { check_artifact(onnx); }), "inference.meta.json describes"));
  fs::remove(folder.path / "inference.meta.json");
  CHECK(onnx_precision(onnx) == "fp32");
  CHECK(model_files(onnx).size() == 1);
  CHECK(model_files(program).size() == 2);
  folder.write("broken.onnx", "this is no model");
  CHECK(contains(said<BundleError>([&] { model_files(folder.path / "broken.onnx"); }),
                 "is not a readable ONNX model"));
}

}  // namespace

void test_bundle(const fs::path& data, const fs::path&) {
  const Folder folder;
  make_bundle(folder, data);
  CHECK(open_bundle(folder.path).model_name == "pphgnet_mini");
  CHECK(contains(said<BundleError>([&] { open_bundle(folder.path / "none"); }), "does not exist"));
  CHECK(contains(said<BundleError>([&] { open_bundle(folder.path / "inference.onnx"); }),
                 "is a file"));
  CHECK(contains(said<BundleError>([&] { open_bundle(folder.path).find({"inference.mnn"}); }),
                 "it has inference.onnx, inference.pdiparams, inference.pdmodel"));
  test_documents(folder);
  test_digests(folder);
  test_sidecars(folder);
  test_params(folder);
  fs::remove(folder.path / "inference.yml");
  CHECK(contains(said<ConfigError>([&] { open_bundle(folder.path); }), "nothing says how"));
}
