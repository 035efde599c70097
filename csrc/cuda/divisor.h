// Division by a number that stays the same, as a multiplication and a shift: GPUs have no integer division.
#pragma once

#include <cstdint>

#include "../geometry.h"

namespace vtfast::cuda {

// A positive int that non-negative ints are divided by. Granlund and Montgomery, "Division by Invariant Integers using
// Multiplication", 1994, section 4, for 31-bit numerators.
class Divisor {
 public:
  Divisor() = default;

  explicit Divisor(int value) : value_(value) {
    while ((int64_t{1} << shift_) < value) ++shift_;
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - value)) / value + 1);
  }

  VTFAST_HOST_DEVICE operator int() const { return value_; }

  VTFAST_HOST_DEVICE friend int operator/(int numerator, Divisor divisor) {
    const uint32_t n = static_cast<uint32_t>(numerator);
    const uint32_t high = static_cast<uint32_t>((uint64_t{n} * divisor.multiplier_) >> 32);
    return static_cast<int>((high + n) >> divisor.shift_);
  }

  VTFAST_HOST_DEVICE friend int operator%(int numerator, Divisor divisor) {
    return numerator - numerator / divisor * divisor.value_;
  }

  friend float operator/(float numerator, Divisor divisor) = delete;  // would round to an int

 private:
  int value_ = 1;
  uint32_t multiplier_ = 1;
  int shift_ = 0;
};

using DeviceAxis = BasicAxis<int, Divisor>;
using DeviceGeometry = BasicGeometry<int, Divisor>;
using DevicePoolAxis = BasicPoolAxis<int, Divisor>;
using DeviceRelativeAxis = BasicRelativeAxis<int, Divisor>;
using DeviceGroupIndex = BasicGroupIndex<int, Divisor>;
using DeviceCoordinates = BasicCoordinates<int>;

}  // namespace vtfast::cuda
