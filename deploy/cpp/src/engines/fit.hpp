// SPDX-License-Identifier: Apache-2.0
// Checks that a model is an image classifier and fits what it will be fed, and the one door through
// which scores come out of it: deploy/python/hgdeploy/engines/fit.py and scores.py.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engines/engine.hpp"
#include "transforms/preprocess.hpp"

namespace hgdeploy {

// The one input of an image classifier, NCHW or NHWC. Throws BundleError.
TensorSpec image_input(const std::vector<TensorSpec>& inputs, const std::filesystem::path& source);

// The output that has the scores: the one called `name`, or the only one. Throws BundleError.
TensorSpec score_output(const std::vector<TensorSpec>& outputs, const std::filesystem::path& source,
                        const std::string& name);

// How many scores an output of this shape has for each image: -1 where the shape leaves it open, -2
// where it is no row of scores.
long class_count(const Shape& shape);

// Refuses a model that cannot take what the preprocessing makes. Throws BundleError.
void check_feed(const TensorSpec& spec, const std::filesystem::path& source,
                const Preprocessor& preprocessor);

// Refuses an image whose size the preprocessing leaves as it is, and the model cannot take. Throws
// ImageError.
void check_image(const TensorSpec& spec, const std::array<long, 3>& made);

// How many images to run at a time: the batch size, or the model's own fixed batch, with a warning.
int batch_that_fits(const TensorSpec& spec, const std::filesystem::path& source, int batch_size,
                    const std::function<void(const std::string&)>& on_warning);

// Runs a model on `count` images, contiguous in `rows`, which has room for its fixed batch; what is
// missing to that is filled with zeros. Returns the scores as (count, classes). Throws BundleError:
// the model does not answer with one row of scores for each of its images.
Scores infer_rows(Engine& engine, std::vector<std::uint8_t>& rows, long count,
                  const std::array<long, 3>& shape);

}  // namespace hgdeploy
