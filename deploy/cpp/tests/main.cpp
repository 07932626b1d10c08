// SPDX-License-Identifier: Apache-2.0
// hgdeploy-tests TEST DATA IMAGES: runs one of the tests.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "check.hpp"

namespace fs = std::filesystem;

Folder::Folder() {
  std::string name = (fs::temp_directory_path() / "hgdeploy-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw Failed("no folder can be made");
  path = name;
}

Folder::~Folder() {
  std::error_code failed;
  fs::remove_all(path, failed);
}

void Folder::write(const std::string& name, const std::string& text) const {
  std::ofstream(path / name, std::ios::binary) << text;
}

void make_bundle(const Folder& folder, const fs::path& data) {
  for (const char* name : {"inference.onnx", "inference.pdmodel", "inference.pdiparams"})
    fs::copy_file(data / name, folder.path / name);
  folder.write("inference.yml", R"(Global:
  model_name: pphgnet_mini
PreProcess:
  transform_ops:
    - ResizeImage: {resize_short: 72}
    - CropImage: {size: 64}
    - NormalizeImage: {scale: 1.0/255.0, order: ''}
    - ToCHWImage:
PostProcess:
  Topk:
    topk: 5
)");
}

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(const fs::path&, const fs::path&)> tests{
      {"bundle", test_bundle}, {"classifier", test_classifier}, {"parallel", test_parallel}};
  if (argc != 4 || tests.count(argv[1]) == 0) {
    std::fprintf(stderr, "usage: hgdeploy-tests TEST DATA IMAGES\n");
    return 2;
  }
  try {
    tests.at(argv[1])(argv[2], argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
