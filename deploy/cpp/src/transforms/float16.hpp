// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

namespace hgdeploy {

// The bits of a float16, rounded to the nearest, and of two equally near ones to the even.
inline std::uint16_t to_half(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t size = bits & 0x7FFFFFFFU;
  if (size >= 0x7F800000U) {  // infinity, not-a-number
    return static_cast<std::uint16_t>(sign | (size > 0x7F800000U ? 0x7E00U : 0x7C00U));
  }
  const int exponent = static_cast<int>(size >> 23) - 127;
  if (exponent < -25) {
    return static_cast<std::uint16_t>(sign);
  }
  const std::uint32_t digits = exponent < -126 ? 0 : (size & 0x7FFFFFU) | 0x800000U;
  const int drop = exponent < -14 ? -1 - exponent : 13;  // subnormal numbers keep fewer digits
  const std::uint32_t rest = digits & ((1U << drop) - 1U);
  const std::uint32_t middle = 1U << (drop - 1);
  std::uint32_t kept = digits >> drop;
  kept += rest > middle || (rest == middle && (kept & 1U) != 0) ? 1 : 0;
  const std::uint32_t base = exponent < -14 ? 0 : static_cast<std::uint32_t>(exponent + 14) << 10;
  const std::uint32_t result = base + kept;
  return static_cast<std::uint16_t>(sign | (result > 0x7C00U ? 0x7C00U : result));
}

inline bool is_finite_half(std::uint16_t bits) { return (bits & 0x7C00U) != 0x7C00U; }

}  // namespace hgdeploy
