// SPDX-License-Identifier: Apache-2.0
#include "transforms/attributes.hpp"

#include <array>
#include <cmath>

#include "system/text.hpp"

namespace hgdeploy {
namespace {

using Names = std::vector<std::string>;

const Names ages{"AgeLess18", "Age18-60", "AgeOver60"};
const Names sides{"Front", "Side", "Back"};
const Names bags{"HandBag", "ShoulderBag", "Backpack"};
const Names upper{"UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice"};
const Names lower_parts{"LowerStripe", "LowerPattern", "LongCoat",
                        "Trousers",    "Shorts",       "Skirt&Dress"};
const Names colours{"yellow", "orange", "green",  "gray",  "red",
                    "blue",   "white",  "golden", "brown", "black"};
const Names vehicles{"sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate"};

// By score: what is said above the threshold in English and Chinese, and, for gender and age,
// below.
constexpr std::array<std::array<const char*, 4>, FaceAttribute::classes> face{
    {{"CheekWhiskers", "刚长出的双颊胡须", "", ""},
     {"ArchedEyebrows", "柳叶眉", "", ""},
     {"Attractive", "吸引人的", "", ""},
     {"BagsUnderEyes", "眼袋", "", ""},
     {"Bald", "秃头", "", ""},
     {"Bangs", "刘海", "", ""},
     {"BigLips", "大嘴唇", "", ""},
     {"BigNose", "大鼻子", "", ""},
     {"BlackHair", "黑发", "", ""},
     {"BlondHair", "金发", "", ""},
     {"Blurry", "模糊的", "", ""},
     {"BrownHair", "棕发", "", ""},
     {"BushyEyebrows", "浓眉", "", ""},
     {"Chubby", "圆胖的", "", ""},
     {"DoubleChin", "双下巴", "", ""},
     {"Eyeglasses", "带眼镜", "", ""},
     {"Goatee", "山羊胡子", "", ""},
     {"GrayHair", "灰发或白发", "", ""},
     {"HeavyMakeup", "浓妆", "", ""},
     {"HighCheekbones", "高颧骨", "", ""},
     {"Male", "男性", "Female", "女性"},
     {"MouthSlightlyOpen", "微微张开嘴巴", "", ""},
     {"Mustache", "胡子", "", ""},
     {"NarrowEyes", "细长的眼睛", "", ""},
     {"NoBeard", "无胡子", "", ""},
     {"OvalFace", "椭圆形的脸", "", ""},
     {"PaleSkin", "苍白的皮肤", "", ""},
     {"PointyNose", "尖鼻子", "", ""},
     {"RecedingHairline", "发际线后移", "", ""},
     {"RosyCheeks", "红润的双颊", "", ""},
     {"Sideburns", "连鬓胡子", "", ""},
     {"Smiling", "微笑", "", ""},
     {"StraightHair", "直发", "", ""},
     {"WavyHair", "卷发", "", ""},
     {"WearingEarrings", "戴着耳环", "", ""},
     {"WearingHat", "戴着帽子", "", ""},
     {"WearingLipstick", "涂了唇膏", "", ""},
     {"WearingNecklace", "戴着项链", "", ""},
     {"WearingNecktie", "戴着领带", "", ""},
     {"Young", "年轻人", "Old", "老年人"}}};

// The place of the highest score of some, the first of equal ones; not-a-number is the highest.
std::size_t best(const Scores& scores, std::size_t start, std::size_t end) {
  std::size_t found = start;
  for (std::size_t i = start; i < end && !std::isnan(scores[found]); ++i) {
    if (scores[i] > scores[found] || std::isnan(scores[i])) {
      found = i;
    }
  }
  return found - start;
}

std::string yes_or_no(const char* what, bool truth) {
  return std::string(what) + ": " + (truth ? "True" : "False");
}

std::string told(const char* what, const Names& names, const Scores& scores, std::size_t start,
                 double least) {
  const std::size_t place = best(scores, start, start + names.size());
  const double score = scores[start + place];
  if (score < least) {
    return std::string(what) + " unknown";
  }
  return std::string(what) + ": (" + names[place] + ", prob: " + repr(score) + ")";
}

}  // namespace

Names attributes(const PersonAttribute& output, const Scores& scores) {
  const auto above = [&](const Names& names, std::size_t start) {
    Names found;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (scores[start + i] > output.threshold) {
        found.push_back(names[i]);
      }
    }
    return found;
  };
  Names top{"Upper:", scores[3] > scores[2] ? "LongSleeve" : "ShortSleeve"};
  for (const std::string& name : above(upper, 4)) {
    top.push_back(name);
  }
  Names bottom = above(lower_parts, 8);
  if (bottom.empty()) {
    bottom.push_back(lower_parts[best(scores, 8, 14)]);
  }
  const std::size_t bag = best(scores, 15, 18);
  return {
      scores[22] > output.threshold ? "Female" : "Male",
      ages[best(scores, 19, 22)],
      sides[best(scores, 23, 26)],
      yes_or_no("Glasses", scores[1] > output.glasses_threshold),
      yes_or_no("Hat", scores[0] > output.threshold),
      yes_or_no("HoldObjectsInFront", scores[18] > output.hold_threshold),
      scores[15 + bag] > output.threshold ? bags[bag] : "No bag",
      join(top, " "),
      "Lower:  " + join(bottom, " "),  // two spaces, as PaddleClas has them
      scores[14] > output.threshold ? "Boots" : "No boots",
  };
}

Names attributes(const FaceAttribute& output, const Scores& scores) {
  Names found;
  for (std::size_t i = 0; i < face.size(); ++i) {
    const std::size_t place =
        (output.convert_cn ? 1U : 0U) + (scores[i] > output.threshold ? 0U : 2U);
    if (*face[i][place] != '\0') {
      found.emplace_back(face[i][place]);
    }
  }
  return found;
}

Names attributes(const VehicleAttribute& output, const Scores& scores) {
  return {told("Color", colours, scores, 0, output.color_threshold) + ", " +
          told("Type", vehicles, scores, colours.size(), output.type_threshold)};
}

Names attributes(const TableAttribute& output, const Scores& scores) {
  return {
      scores[0] > output.source_threshold ? "Scanned" : "Photo",
      scores[1] > output.number_threshold ? "Little" : "Numerous",
      scores[2] > output.color_threshold ? "Black-and-White" : "Multicolor",
      scores[3] > output.clarity_threshold ? "Clear" : "Blurry",
      // The next two are PaddleClas's; see notes_of.
      scores[4] > output.number_threshold ? "Without-Obstacles" : "With-Obstacles",
      scores[5] > output.number_threshold ? "Horizontal" : "Tilted",
  };
}

Scores limits(const PersonAttribute& output) {
  Scores result(PersonAttribute::classes, 0.5);
  result[1] = output.glasses_threshold;
  result[18] = output.hold_threshold;
  return result;
}

Scores limits(const FaceAttribute& output) {
  return Scores(FaceAttribute::classes, output.threshold);
}

Scores limits(const VehicleAttribute& output) {
  Scores result(colours.size(), output.color_threshold);
  result.resize(VehicleAttribute::classes, output.type_threshold);
  return result;
}

Scores limits(const TableAttribute& output) {
  return {output.source_threshold,  output.number_threshold,      output.color_threshold,
          output.clarity_threshold, output.obstruction_threshold, output.angle_threshold};
}

Names notes_of(const PersonAttribute& output) {
  if (output.threshold == 0.5) {
    return {};
  }
  return {"PersonAttribute.threshold=" + repr(output.threshold) +
          " decides the attributes; output is compared with 0.5 all the same, as in PaddleClas"};
}

Names notes_of(const TableAttribute& output) {
  Names notes;
  const auto note = [&](const std::string& name, double value) {
    if (value != output.number_threshold) {
      notes.push_back("TableAttribute." + name + "_threshold=" + repr(value) +
                      " decides output; the attribute is compared with number_threshold (" +
                      repr(output.number_threshold) + ") all the same, as in PaddleClas");
    }
  };
  note("obstruction", output.obstruction_threshold);
  note("angle", output.angle_threshold);
  return notes;
}

}  // namespace hgdeploy
