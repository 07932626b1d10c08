// SPDX-License-Identifier: Apache-2.0
// From a decoded image to what the model takes, step by step as model.h lists it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"

// Rows of red, green and blue bytes, without gaps.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<uint8_t> rgb;
};

#include "resize.h"  // Image resized(const Image&, int width, int height, int filter)

// Cuts the middle out.
inline Image cropped(const Image& image, int width, int height) {
    if (image.width < width || image.height < height) {
        throw std::runtime_error("the image is smaller than the crop of " + std::to_string(width) +
                                 "x" + std::to_string(height));
    }
    const size_t left = (image.width - width) / 2, top = (image.height - height) / 2;
    Image result{width, height, std::vector<uint8_t>(size_t(width) * height * 3)};
    for (int y = 0; y < height; ++y) {
        const uint8_t* row = &image.rgb[((top + y) * image.width + left) * 3];
        std::copy(row, row + size_t(width) * 3, &result.rgb[size_t(y) * width * 3]);
    }
    return result;
}

inline Image transformed(const Image& image, const model::Step& step) {
    if (step.what == model::Do::Crop) return cropped(image, step.width, step.height);
    if (step.what == model::Do::Resize) {
        return resized(image, step.width, step.height, step.filter);
    }
    // lrint rounds halves to the even number, as Python does.
    const double ratio = step.short_side / std::min(image.width, image.height);
    const int width = int(std::lrint(image.width * ratio));
    const int height = int(std::lrint(image.height * ratio));
    return resized(image, width, height, step.filter);
}

// Returns the planes of the model's input, each of model::kHeight x model::kWidth floats.
inline std::vector<float> preprocess(Image image) {
    for (const model::Step& step : model::kSteps) image = transformed(image, step);
    if (image.width != model::kWidth || image.height != model::kHeight) {
        throw std::runtime_error("the model does not take images of this size");
    }
    const size_t pixels = size_t(image.width) * image.height;
    std::vector<float> planes(3 * pixels);
    for (int channel = 0; channel < 3; ++channel) {
        float values[256];
        for (int byte = 0; byte < 256; ++byte) {
            // One rounding after the other, so compile with -ffp-contract=off.
            const float scaled = float(byte) * model::kScale;
            values[byte] = (scaled - model::kMean[channel]) / model::kStd[channel];
        }
        const uint8_t* from = &image.rgb[model::kRgb ? channel : 2 - channel];
        float* plane = &planes[channel * pixels];
        for (size_t i = 0; i < pixels; ++i) plane[i] = values[from[3 * i]];
    }
    return planes;
}
