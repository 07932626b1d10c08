// SPDX-License-Identifier: Apache-2.0
// The model in MNN, on the CPU. One Engine serves one thread at a time.
#pragma once

#include <MNN/Interpreter.hpp>
#include <MNN/Tensor.hpp>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"

class Engine {
public:
    explicit Engine(const std::string& folder)
        : net_(MNN::Interpreter::createFromFile((folder + "/inference.mnn").c_str()),
               MNN::Interpreter::destroy) {
        if (!net_) throw std::runtime_error("MNN cannot read " + folder + "/inference.mnn");
        // What the README's agreement was measured with: fp32, and tiles of Winograd's algorithm
        // that round little. Precision_Low computes in fp16 on ARMv8.2 and later, which is faster
        // and coarser: compare your own images before you turn it on.
        net_->setSessionHint(MNN::Interpreter::WINOGRAD_MEMORY_LEVEL, 1);
        MNN::BackendConfig backend;
        backend.precision = MNN::BackendConfig::Precision_High;
        MNN::ScheduleConfig schedule;
        schedule.type = MNN_FORWARD_CPU;
        schedule.numThread = 4;
        schedule.backendConfig = &backend;
        session_ = net_->createSession(schedule);
        if (!session_) throw std::runtime_error("MNN cannot plan the model");
        input_ = net_->getSessionInput(session_, model::kInput);
        net_->resizeTensor(input_, {1, 3, model::kHeight, model::kWidth});
        net_->resizeSession(session_);
        output_ = net_->getSessionOutput(session_, model::kOutput);
    }

    // Takes what preprocess() returns; returns a score for each class.
    std::vector<float> run(const std::vector<float>& planes) {
        MNN::Tensor in(input_, MNN::Tensor::CAFFE), out(output_, MNN::Tensor::CAFFE);
        std::memcpy(in.host<float>(), planes.data(), planes.size() * sizeof(float));
        input_->copyFromHostTensor(&in);
        if (net_->runSession(session_) != MNN::NO_ERROR) {
            throw std::runtime_error("MNN failed to run the model");
        }
        output_->copyToHostTensor(&out);
        if (out.elementSize() != model::kClasses) throw std::runtime_error("MNN gave other scores");
        return std::vector<float>(out.host<float>(), out.host<float>() + model::kClasses);
    }

private:
    std::unique_ptr<MNN::Interpreter, void (*)(MNN::Interpreter*)> net_;
    MNN::Session* session_ = nullptr;
    MNN::Tensor* input_ = nullptr;
    MNN::Tensor* output_ = nullptr;
};
