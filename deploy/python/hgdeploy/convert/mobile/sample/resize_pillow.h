// SPDX-License-Identifier: Apache-2.0
// This model's images are resized as Pillow does it: each pixel is a weighted sum over all that it
// covers, along the rows and then along the columns, in whole numbers of 22 bits.
#pragma once

namespace pillow {

constexpr int kBits = 22;
constexpr double kPi = 3.14159265358979323846;

// How far a filter reaches, in pixels, by Pillow's number of it.
inline double reach(int filter) {
    switch (filter) {
        case 1: return 3.0;  // Lanczos
        case 3: return 2.0;  // bicubic
        case 4: return 0.5;  // box
        default: return 1.0;  // bilinear and Hamming
    }
}

inline double sinc(double x) { return x == 0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

// The weight of a pixel at a distance of x.
inline double weight(int filter, double x) {
    if (filter == 4) return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    if (filter == 1) return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    x = std::fabs(x);
    if (filter == 2) return x < 1.0 ? 1.0 - x : 0.0;
    if (filter == 5) return x < 1.0 ? sinc(x) * (0.54f + 0.46f * std::cos(x * kPi)) : 0.0;
    const double a = -0.5;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

// What one pixel of the result is made of: `weights` of the pixels from `first` on.
struct Sum {
    int first;
    std::vector<int32_t> weights;
};

inline std::vector<Sum> sums(int from, int to, int filter) {
    const double scale = double(from) / to, wide = std::max(scale, 1.0);
    const double support = reach(filter) * wide;
    std::vector<Sum> result;
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(int(centre - support + 0.5), 0);
        const int end = std::min(int(centre + support + 0.5), from);
        std::vector<double> shares;
        double total = 0;
        for (int x = first; x < end; ++x) {
            shares.push_back(weight(filter, (x - centre + 0.5) * (1.0 / wide)));
            total += shares.back();
        }
        Sum sum{first, {}};
        for (double share : shares) {
            const double whole = (total == 0 ? share : share / total) * (1 << kBits);
            sum.weights.push_back(int32_t(whole < 0 ? whole - 0.5 : whole + 0.5));
        }
        result.push_back(sum);
    }
    return result;
}

// `step` is how far apart the summed bytes are.
inline uint8_t summed(const uint8_t* from, size_t step, const Sum& sum) {
    int32_t total = 1 << (kBits - 1);
    for (int32_t weight : sum.weights) {
        total += *from * weight;
        from += step;
    }
    return uint8_t(std::clamp(total >> kBits, 0, 255));
}

inline Image rows_resized(const Image& image, int width, int filter) {
    if (width == image.width) return image;
    Image result{width, image.height, std::vector<uint8_t>(size_t(width) * image.height * 3)};
    const std::vector<Sum> parts = sums(image.width, width, filter);
    uint8_t* to = result.rgb.data();
    for (int y = 0; y < image.height; ++y) {
        const uint8_t* row = &image.rgb[size_t(y) * image.width * 3];
        for (const Sum& sum : parts) {
            const uint8_t* from = row + size_t(sum.first) * 3;
            for (int channel = 0; channel < 3; ++channel) *to++ = summed(from + channel, 3, sum);
        }
    }
    return result;
}

inline Image columns_resized(const Image& image, int height, int filter) {
    if (height == image.height) return image;
    const size_t stride = size_t(image.width) * 3;
    Image result{image.width, height, std::vector<uint8_t>(stride * height)};
    uint8_t* to = result.rgb.data();
    for (const Sum& sum : sums(image.height, height, filter)) {
        const uint8_t* column = &image.rgb[sum.first * stride];
        for (size_t x = 0; x < stride; ++x) *to++ = summed(column + x, stride, sum);
    }
    return result;
}

}  // namespace pillow

// `filter` is one of Pillow's own numbers: 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
inline Image resized(const Image& image, int width, int height, int filter) {
    using namespace pillow;
    // As Pillow 13, which takes the columns first where that saves much; earlier ones never do.
    const int narrower = image.width - width, lower = image.height - height;
    if (lower > 0 && lower > 2 * narrower) {
        return rows_resized(columns_resized(image, height, filter), width, filter);
    }
    return columns_resized(rows_resized(image, width, filter), height, filter);
}
