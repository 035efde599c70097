// The taps of a depthwise convolution as vectors of channels, and how they meet the tokens of a line.
#pragma once

#include <vector>

#include "depthwise_sum.h"
#include "operands.h"

namespace vtfast::cpu {

// Of every vector of channels, its taps line by line of the window; a line holds `steps` vectors of weights.
template <class Acc>
class TapVectors {
 public:
  // As they are.
  template <class T>
  explicit TapVectors(const DepthwiseSum<T>& sum) : per_vector_(sum.num_taps() * kLane) {
    const int64_t taps = sum.num_taps();
    values_.resize(sum.num_vectors() * per_vector_);
    for (int64_t first = 0; first < sum.channels; first += kLane) {
      const int64_t lanes = sum.channels - first < kLane ? sum.channels - first : kLane;
      for (int64_t tap = 0; tap < taps; ++tap) {
        Acc* target = values_.data() + first * taps + tap * kLane;
        const Acc* column = sum.weight + first * taps + (sum.flipped ? taps - 1 - tap : tap);
        for (int64_t lane = 0; lane < lanes; ++lane) target[lane] = column[lane * taps];
      }
    }
  }

  // As the operands of `Line`.
  template <class Line, class T>
  static TapVectors of_lines(const DepthwiseSum<T>& sum) {
    const TapVectors taps(sum);
    if constexpr (Line::kSteps == Line::kTaps) {
      return taps;
    } else {
      TapVectors packed;
      const int64_t lines = taps.values_.size() / (Line::kTaps * kLane);
      packed.per_vector_ = taps.per_vector_ / Line::kTaps * Line::kSteps;
      packed.values_.resize(lines * Line::kSteps * kLane);
      for (int64_t line = 0; line < lines; ++line) {
        Line::pack(&taps.values_[line * Line::kTaps * kLane], &packed.values_[line * Line::kSteps * kLane]);
      }
      return packed;
    }
  }

  const Acc* of(int64_t vector) const { return values_.data() + vector * per_vector_; }

 private:
  static constexpr int64_t kLane = kLanes<Acc>;

  TapVectors() = default;

  int64_t per_vector_;
  std::vector<Acc> values_;  // [vectors, lines, steps, lanes]
};

// A line of a window that moves by one: token j meets tap k for output j - k. The tokens of a tile are given one after
// the other, and `add(step, output, operand)` is called for each product with a vector of weights.
template <class T, int kTapsOfLine>
struct SingleTaps {
  using Operand = Vector<AccOf<T>>;
  static constexpr int kTaps = kTapsOfLine;
  static constexpr int kSteps = kTaps;

  template <int kOutputs, class Add>
  VTFAST_INLINE void meet(int j, bool exists, Operand token, Add add) {
    if (!exists) return;
    token = in_register(token);
#pragma GCC unroll 5
    for (int k = 0; k < kTaps; ++k) {
      if (j - k >= 0 && j - k < kOutputs) add(k, j - k, token);
    }
  }

  static VTFAST_INLINE Operand multiply_add(Operand a, Operand b, Operand sum) { return a * b + sum; }
};

#ifdef __AVX512BF16__
// The same in bfloat16, an odd number of taps: pairs of neighbouring tokens meet pairs of taps, and the last tap a
// single token, which is the upper half of a pair.
template <int kTapsOfLine>
struct PairedTaps {
  using Operand = Vector<float>;  // the bits of kLanes<float> pairs
  static constexpr int kTaps = kTapsOfLine;
  static constexpr int kSteps = kTaps / 2 + 1;

  template <int kOutputs, class Add>
  VTFAST_INLINE void meet(int j, bool, Operand token, Add add) {
    using Words = Vector<uint32_t>;
    if (j > 0) {
      const Operand pair = in_register(bit_cast<Operand>(bit_cast<Words>(previous_) >> 16 | bit_cast<Words>(token)));
#pragma GCC unroll 2
      for (int m = 0; m < kTaps / 2; ++m) {
        const int output = j - 1 - 2 * m;
        if (output >= 0 && output < kOutputs) add(m, output, pair);
      }
    }
    const int output = j - kTaps + 1;
    if (output >= 0 && output < kOutputs) add(kTaps / 2, output, token);
    previous_ = token;
  }

  static void pack(const float* taps, float* packed) {
    for (int m = 0; m < kSteps; ++m) {
      const Vector<float> last = load(taps + (kTaps - 1) * kLanes<float>);
      const Vector<uint32_t> words =
          m == kTaps / 2 ? pack_pair(Vector<float>{}, last)
                         : pack_pair(load(taps + 2 * m * kLanes<float>), load(taps + (2 * m + 1) * kLanes<float>));
      store(packed + m * kLanes<float>, bit_cast<Vector<float>>(words));
    }
  }

  static VTFAST_INLINE Operand multiply_add(Operand a, Operand b, Operand sum) {
    return bit_cast<Operand>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), bit_cast<__m512bh>(a), bit_cast<__m512bh>(b)));
  }

 private:
  Operand previous_;
};
#endif

template <class T, int kTaps>
struct LineTapsOf {
  using type = SingleTaps<T, kTaps>;
};

#ifdef __AVX512BF16__
template <int kTaps>
  requires(kTaps > 1)
struct LineTapsOf<BFloat16, kTaps> {
  using type = PairedTaps<kTaps>;
};
#endif

template <class T, int kTaps>
using LineTaps = typename LineTapsOf<T, kTaps>::type;

}  // namespace vtfast::cpu
