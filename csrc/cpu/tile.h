// Register tiles: the one matrix product that every attention kernel on the CPU is made of.
#pragma once

#include "simd.h"

namespace vtfast::cpu {

// The largest tile that leaves registers for two vectors of B and a broadcast.
#ifdef __AVX512F__
inline constexpr int kMaxTileRows = 14;
inline constexpr int kColumnTileRows = 8;
#else
inline constexpr int kMaxTileRows = 6;
inline constexpr int kColumnTileRows = 4;
#endif

// What an operand word is and how two of them meet an accumulator. A word packs kPack neighbours of the depth axis.
// Rows are multiplied up to kMaxRows at once. A matrix unit has products of its own, in a Session.
template <class T>
struct FusedDot {
  using Acc = T;
  using Word = T;
  static constexpr int kPack = 1;
  static constexpr int kMaxRows = kMaxTileRows;
  static constexpr bool kMatrixUnit = false;
  struct Session {};

  static VTFAST_INLINE Vector<T> multiply_add(Word a, Vector<Word> b, Vector<T> sum) { return broadcast(a) * b + sum; }
};

#ifdef __AVX512BF16__
struct BFloat16Dot {
  using Acc = float;
  using Word = uint32_t;
  static constexpr int kPack = 2;
  static constexpr int kMaxRows = kMaxTileRows;
  static constexpr bool kMatrixUnit = false;
  struct Session {};

  static VTFAST_INLINE Vector<float> multiply_add(Word a, Vector<Word> b, Vector<float> sum) {
    const auto pair = bit_cast<__m512bh>(broadcast(a));
    return bit_cast<Vector<float>>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), pair, bit_cast<__m512bh>(b)));
  }
};
#endif

// Columns of B are handled in panels of two vectors.
template <class Acc>
inline constexpr int kPanel = 2 * kLanes<Acc>;

template <class Dot, int kRows, int kVectors>
struct Tile {
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  Vector<Acc> sum[kRows][kVectors];

  template <class Value>
  VTFAST_INLINE void fill(Value value) {
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) sum[m][n] = value(m, n * kLanes<Acc>);
    }
  }

  // sum += A B. Strides of A are compile-time constants so that each broadcast is one load at a fixed displacement.
  template <int kRowStride, int kDepthStride>
  VTFAST_INLINE void multiply_add(const Word* a, const Word* b, int64_t b_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; ++k, a += kDepthStride, b += b_stride) {
      Vector<Word> columns[kVectors];
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) columns[n] = load(b + n * kLanes<Word>);
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m) {
        const Word row = a[m * kRowStride];
#pragma GCC unroll 2
        for (int n = 0; n < kVectors; ++n) sum[m][n] = Dot::multiply_add(row, columns[n], sum[m][n]);
      }
    }
  }

  template <class Sink>
  VTFAST_INLINE void drain(Sink sink) const {
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) sink(m, n * kLanes<Acc>, sum[m][n]);
    }
  }
};

// Calls body.template operator()<M>() with the smallest instantiated M >= rows; rows <= kMaxTileRows.
template <int kRows = 2, class Body>
VTFAST_INLINE void with_tile_rows(int rows, Body&& body) {
  if constexpr (kRows >= kMaxTileRows) {
    body.template operator()<kMaxTileRows>();
  } else if (rows <= kRows) {
    body.template operator()<kRows>();
  } else {
    with_tile_rows<kRows + 4>(rows, std::forward<Body>(body));
  }
}

// Rows of a tile such that `rows` rows need as few tiles as possible and these are equally full.
inline int tile_rows(int64_t rows) {
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  const int balanced = static_cast<int>((rows + tiles - 1) / tiles);
  int chosen = kMaxTileRows;
  with_tile_rows(balanced, [&]<int kRows>() { chosen = kRows; });
  return chosen;
}

}  // namespace vtfast::cpu
