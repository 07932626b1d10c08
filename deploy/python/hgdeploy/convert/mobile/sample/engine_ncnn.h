// SPDX-License-Identifier: Apache-2.0
// The model in ncnn, on the CPU. One Engine serves many threads.
#pragma once

#include <net.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"

class Engine {
public:
    explicit Engine(const std::string& folder) {
        // What the README's agreement was measured with. fp16 arithmetic (ARMv8.2 and later) is
        // faster still and coarser: compare your own images before you turn it on.
        net_.opt.use_fp16_packed = net_.opt.use_fp16_storage = model::kFp16;
        net_.opt.use_fp16_arithmetic = false;
        net_.opt.use_bf16_storage = false;
        const std::string stem = folder + "/inference.ncnn";
        if (net_.load_param((stem + ".param").c_str()) || net_.load_model((stem + ".bin").c_str())) {
            throw std::runtime_error("ncnn cannot read " + stem + ".param and .bin");
        }
    }

    // Takes what preprocess() returns; returns a score for each class.
    std::vector<float> run(const std::vector<float>& planes) const {
        const size_t pixels = size_t(model::kWidth) * model::kHeight;
        ncnn::Mat in(model::kWidth, model::kHeight, 3);
        for (int channel = 0; channel < 3; ++channel) {  // ncnn leaves gaps between them
            std::memcpy(in.channel(channel), &planes[channel * pixels], pixels * sizeof(float));
        }
        ncnn::Extractor extractor = net_.create_extractor();
        ncnn::Mat out;
        if (extractor.input("in0", in) || extractor.extract("out0", out)) {
            throw std::runtime_error("ncnn failed to run the model");
        }
        out = out.reshape(out.w * out.h * out.d * out.c);
        if (out.w != model::kClasses) throw std::runtime_error("ncnn gave other scores");
        const float* scores = out;
        return std::vector<float>(scores, scores + out.w);
    }

private:
    ncnn::Net net_;
};
