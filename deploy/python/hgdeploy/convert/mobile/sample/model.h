// Made by hgdeploy export-mobile: what this model takes, and what it gives.
#pragma once

#include <vector>

namespace model {

constexpr const char* kName = $name;
constexpr int kWidth = $width, kHeight = $height;  // of its input, which has three planes
constexpr int kClasses = $classes;
constexpr int kTopk = $topk;
constexpr bool kFp16 = $fp16;  // whether its weights are stored in fp16
constexpr const char* kInput = $input;
constexpr const char* kOutput = $output;

enum class Do { ResizeShort, Resize, Crop };

struct Step {
    Do what;
    double short_side;  // in pixels, of ResizeShort
    int width, height;  // in pixels, of Resize and Crop
    int filter;         // of both resizes: the library's own number
};

$feed

}  // namespace model
