// SPDX-License-Identifier: Apache-2.0
#include "transforms/resize.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include <opencv2/core/utility.hpp>
#include <opencv2/imgproc.hpp>

namespace hgdeploy {
namespace {

// Keeps this thread from Intel's IPP, whose resize rounds otherwise than OpenCV's own code, and
// differently from one CPU to the next; hgdeploy/transforms/preprocess.py does so too.
class WithoutIpp {
 public:
  WithoutIpp() : used_(cv::ipp::useIPP()) { cv::ipp::setUseIPP(false); }
  ~WithoutIpp() { cv::ipp::setUseIPP(used_); }
  WithoutIpp(const WithoutIpp&) = delete;
  WithoutIpp& operator=(const WithoutIpp&) = delete;

 private:
  bool used_;
};

// --- Pillow's src/libImaging/Resample.c, for 8 bits.

constexpr double pi = 3.14159265358979323846;
constexpr int precision_bits = 32 - 8 - 2;

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) {
    return 1.0;
  }
  if (x >= 1.0) {
    return 0.0;
  }
  x *= pi;
  return std::sin(x) / x * (0.54F + 0.46F * std::cos(x));
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  }
  return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

double sinc(double x) {
  if (x == 0.0) {
    return 1.0;
  }
  x *= pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Filter {
  double (*weight)(double);
  double support;
};

Filter filter_of(const std::string& interpolation) {
  if (interpolation == "box") {
    return {box, 0.5};
  }
  if (interpolation == "bilinear") {
    return {bilinear, 1.0};
  }
  if (interpolation == "hamming") {
    return {hamming, 1.0};
  }
  return interpolation == "bicubic" ? Filter{bicubic, 2.0} : Filter{lanczos, 3.0};
}

// Which pixels of a line one pixel of the result is made of, and how much of each.
struct Span {
  int first = 0;
  std::vector<int> weights;  // times 2^precision_bits
};

std::vector<Span> spans(int in_size, int out_size, const Filter& filter) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = filter.support * filter_scale;
  const double inverse = 1.0 / filter_scale;
  std::vector<Span> result(static_cast<std::size_t>(out_size));
  std::vector<double> weights;
  for (int at = 0; at < out_size; ++at) {
    const double centre = (at + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), in_size);
    weights.clear();
    double sum = 0.0;
    for (int i = first; i < end; ++i) {
      weights.push_back(filter.weight((i - centre + 0.5) * inverse));
      sum += weights.back();
    }
    Span& span = result[static_cast<std::size_t>(at)];
    span.first = first;
    for (double weight : weights) {
      weight = sum != 0.0 ? weight / sum : weight;
      const double scaled = weight * (1 << precision_bits);
      span.weights.push_back(static_cast<int>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
  }
  return result;
}

std::uint8_t clipped(int sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
}

// Each row made narrower or wider.
cv::Mat resized_rows(const cv::Mat& image, int width, const Filter& filter) {
  if (width == image.cols) {
    return image;
  }
  const std::vector<Span> columns = spans(image.cols, width, filter);
  cv::Mat result(image.rows, width, CV_8UC3);
  for (int y = 0; y < image.rows; ++y) {
    const std::uint8_t* row = image.ptr(y);
    std::uint8_t* out = result.ptr(y);
    for (const Span& span : columns) {
      const std::uint8_t* pixel = row + 3 * static_cast<std::ptrdiff_t>(span.first);
      std::array<int, 3> sum;
      sum.fill(1 << (precision_bits - 1));
      for (const int weight : span.weights) {
        sum[0] += pixel[0] * weight;
        sum[1] += pixel[1] * weight;
        sum[2] += pixel[2] * weight;
        pixel += 3;
      }
      for (const int each : sum) {
        *out++ = clipped(each);
      }
    }
  }
  return result;
}

// Each column made shorter or longer.
cv::Mat resized_columns(const cv::Mat& image, int height, const Filter& filter) {
  if (height == image.rows) {
    return image;
  }
  const std::vector<Span> rows = spans(image.rows, height, filter);
  cv::Mat result(height, image.cols, CV_8UC3);
  const auto width = 3 * static_cast<std::size_t>(image.cols);
  std::vector<int> sums(width);
  for (int y = 0; y < height; ++y) {
    const Span& span = rows[static_cast<std::size_t>(y)];
    std::fill(sums.begin(), sums.end(), 1 << (precision_bits - 1));
    for (std::size_t i = 0; i < span.weights.size(); ++i) {
      const std::uint8_t* row = image.ptr(span.first + static_cast<int>(i));
      const int weight = span.weights[i];
      for (std::size_t x = 0; x < width; ++x) {
        sums[x] += row[x] * weight;
      }
    }
    std::uint8_t* out = result.ptr(y);
    for (std::size_t x = 0; x < width; ++x) {
      out[x] = clipped(sums[x]);
    }
  }
  return result;
}

// The place that each pixel of the result is taken from; Pillow adds up steps, which rounds.
std::vector<int> nearest_places(int in_size, int out_size) {
  const double step = static_cast<double>(in_size) / out_size;
  std::vector<int> places;
  double at = step * 0.5;
  for (int i = 0; i < out_size; ++i) {
    places.push_back(static_cast<int>(at));
    at += step;
  }
  return places;
}

cv::Mat nearest_as_pillow(const cv::Mat& image, int width, int height) {
  cv::Mat result = cv::Mat::zeros(height, width, CV_8UC3);
  const std::vector<int> columns = nearest_places(image.cols, width);
  const std::vector<int> rows = nearest_places(image.rows, height);
  for (int y = 0; y < height; ++y) {
    const int from = rows[static_cast<std::size_t>(y)];
    if (from >= image.rows) {  // where the sum of steps went past the end: black, as in Pillow
      continue;
    }
    const auto* in = image.ptr<cv::Vec3b>(from);
    auto* out = result.ptr<cv::Vec3b>(y);
    for (int x = 0; x < width; ++x) {
      const int place = columns[static_cast<std::size_t>(x)];
      if (place < image.cols) {
        out[x] = in[place];
      }
    }
  }
  return result;
}

}  // namespace

cv::Mat resize_as_opencv(const cv::Mat& image, const Size& size, const std::string& interpolation) {
  static const std::array<std::pair<const char*, int>, 5> codes{{{"nearest", cv::INTER_NEAREST},
                                                                 {"bilinear", cv::INTER_LINEAR},
                                                                 {"bicubic", cv::INTER_CUBIC},
                                                                 {"area", cv::INTER_AREA},
                                                                 {"lanczos", cv::INTER_LANCZOS4}}};
  const auto* code = std::find_if(codes.begin(), codes.end(),
                                  [&](const auto& each) { return interpolation == each.first; });
  const WithoutIpp without_ipp;
  cv::Mat result;
  cv::resize(image, result, cv::Size(static_cast<int>(size.width), static_cast<int>(size.height)),
             0, 0, code->second);
  return result;
}

cv::Mat resize_as_pillow(const cv::Mat& image, const Size& size, const std::string& interpolation) {
  const auto width = static_cast<int>(size.width);
  const auto height = static_cast<int>(size.height);
  if (width == image.cols && height == image.rows) {
    return image;
  }
  if (interpolation == "nearest") {
    return nearest_as_pillow(image, width, height);
  }
  const Filter filter = filter_of(interpolation);
  // What is between the two steps is rounded, so their order matters: this is Pillow 13's. Older
  // ones always begin with the rows.
  if (height < image.rows && image.rows - height > 2 * (image.cols - width)) {
    return resized_rows(resized_columns(image, height, filter), width, filter);
  }
  return resized_columns(resized_rows(image, width, filter), height, filter);
}

}  // namespace hgdeploy
