// SPDX-License-Identifier: Apache-2.0
// What the sample for phones uses of MNN's header of this name. The library in MNN's wheel has these
// functions, and the wheel no headers, so the names and layouts of MNN 3 are declared here.
#pragma once

#include <cstdint>
#include <vector>

namespace MNN {

class Tensor {
public:
    enum DimensionType { TENSORFLOW, CAFFE, CAFFE_C4 };

    Tensor(const Tensor* like, DimensionType type = CAFFE, bool allocate = true);
    ~Tensor();
    Tensor(const Tensor&) = delete;

    bool copyFromHostTensor(const Tensor* host);
    bool copyToHostTensor(Tensor* host) const;
    int size() const;
    int elementSize() const { return size() / ((bits_ + 7) / 8); }

    template <typename T>
    T* host() const {
        return reinterpret_cast<T*>(host_);
    }

private:
    uint64_t device_;
    const void* interface_;
    uint8_t* host_;
    uint64_t flags_;
    int32_t code_;
    uint8_t bits_;
    uint16_t lanes_;
    int32_t dimensions_;
    void* dimension_;
    void* padding_;
    void* description_;
};

}  // namespace MNN
