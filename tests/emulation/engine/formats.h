// bfloat16 and float16 as bits, rounded to nearest even; NaN becomes the one NaN that the GPU's conversions give.
#pragma once

#include <bit>
#include <cstdint>

namespace vtfast::emulation {

constexpr uint16_t kNaN16 = 0x7fff;

inline float float_from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t bf16_from_float(float value) {
  if (value != value) return kNaN16;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float float_from_f16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  const bool finite = magnitude < 0x7c00;
  // The exponent's bias is 15 in float16 and 127 in float; the product also makes subnormal numbers normal.
  const float shifted = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t exponent = finite ? 0 : 0x7f800000;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) | exponent | sign);
}

inline uint16_t f16_from_float(float value) {
  if (value != value) return kNaN16;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520, halfway past the largest
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded as the addition rounds.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000));
  }
  const uint32_t rounded = magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | rounded >> 13);
}

}  // namespace vtfast::emulation
