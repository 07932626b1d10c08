// SPDX-License-Identifier: Apache-2.0
// SHA-256 digests of files and texts: deploy/python/hgdeploy/system/digests.py.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace hgdeploy {

// The hexadecimal SHA-256 digest of a text.
std::string sha256(std::string_view text);

// The digest of a file. Within a process a file is read once, as long as its inode, size and times
// stay the same. Throws BundleError: it cannot be read.
std::string file_sha256(const std::filesystem::path& path);

// The digest that stands for files with these: their own if one, else that of all.
std::string combined_digest(const std::vector<std::string>& digests);

}  // namespace hgdeploy
