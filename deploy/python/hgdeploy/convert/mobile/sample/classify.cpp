// SPDX-License-Identifier: Apache-2.0
// Reads an image and prints the best classes: number, score, name.
//
//     classify FOLDER IMAGE
//
// FOLDER has the model's files and labels.txt. An app takes engine.h, preprocess.h, resize.h and
// model.h as they are, and fills an Image from its own bitmap instead of read_image.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "engine.h"
#include "preprocess.h"

// OpenCV turns the image as its EXIF orientation says; an app must do that too.
static Image read_image(const std::string& path) {
    const cv::Mat bgr = cv::imread(path, cv::IMREAD_COLOR);
    if (bgr.empty()) throw std::runtime_error(path + " is no image that can be read");
    Image image{bgr.cols, bgr.rows, std::vector<uint8_t>(bgr.total() * 3)};
    cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, image.rgb.data());
    cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
    return image;
}

// Line N is the name of class N; a model without names has no such file.
static std::vector<std::string> read_labels(const std::string& path) {
    std::ifstream file(path);
    std::vector<std::string> labels;
    for (std::string line; std::getline(file, line);) labels.push_back(line);
    return labels;
}

// The best first; of equal scores the higher class, as in PaddleClas.
static std::vector<int> best(const std::vector<float>& scores, int count) {
    std::vector<int> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) {
        return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
    });
    order.resize(std::min(order.size(), size_t(count)));
    return order;
}

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: classify FOLDER IMAGE\n");
        return 2;
    }
    try {
        const std::string folder = arguments[1];
        Engine engine(folder);
        const std::vector<float> scores = engine.run(preprocess(read_image(arguments[2])));
        const std::vector<std::string> labels = read_labels(folder + "/labels.txt");
        for (int id : best(scores, model::kTopk)) {
            const char* name = size_t(id) < labels.size() ? labels[id].c_str() : "";
            std::printf("%d %.5f %s\n", id, scores[id], name);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
