// Sums, or maxima, over a window that slides along a line of tokens: the one loop of pooling and of its input gradient.
#pragma once

#include <algorithm>
#include <vector>

#include "scratch.h"
#include "simd.h"

namespace vtfast::cpu {

// One line of tokens that a window covers.
template <class T, class Acc>
struct WindowLine {
  const T* tokens;     // the head's channels of the line's token 0
  const Acc* weights;  // [kw, padded], of the window's row that lies on the line
  int64_t first_tap;   // number of the row's tap 0 in the window
};

// A place of the window along the line: place j of the window takes the token `offset + j * step`.
struct WindowTap {
  int64_t offset;
  int64_t tap;
};

// The places that a window takes along a line, and where its taps are then.
struct WindowTaps {
  const WindowTap* taps;
  int64_t count;
  int64_t step;
  int64_t size;  // tokens of a line

  // The places [first, last) of `places` at which the taps lie on the line, all of them.
  int64_t first_inside() const {
    int64_t first = 0;
    for (int64_t i = 0; i < count; ++i) first = std::max(first, (step - 1 - taps[i].offset) / step);
    return first;
  }
  int64_t last_inside(int64_t places) const {
    int64_t last = places;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t room = size - 1 - taps[i].offset;
      last = std::min(last, room < 0 ? 0 : room / step + 1);
    }
    return last;
  }
};

template <class Acc>
struct WeightedSum {
  static constexpr bool kWeighted = true;
  static VTFAST_INLINE Vector<Acc> start() { return Vector<Acc>{}; }
  static VTFAST_INLINE Vector<Acc> combine(Vector<Acc> sum, Vector<Acc> x, Vector<Acc> weight) {
    return x * weight + sum;
  }
};

// The largest, or NaN if there is one.
template <class Acc>
struct Largest {
  static constexpr bool kWeighted = false;
  static VTFAST_INLINE Vector<Acc> start() { return broadcast(-std::numeric_limits<Acc>::infinity()); }
  static VTFAST_INLINE auto replaces(Vector<Acc> x, Vector<Acc> largest) { return (x > largest) | (x != x); }
  static VTFAST_INLINE Vector<Acc> combine(Vector<Acc> largest, Vector<Acc> x, Vector<Acc>) {
    return replaces(x, largest) ? x : largest;
  }
};

template <class T, class Pool>
class PoolLine {
 public:
  using Acc = AccOf<T>;
  using Line = WindowLine<T, Acc>;

  // Places of the window that are worked on at once, their weights read once.
  static constexpr int kPlaces = 4;

  static size_t scratch_bytes(int64_t padded) { return Scratch::bytes_of<Acc>(kPlaces * padded); }

  PoolLine(int64_t head_dim, int64_t padded, int64_t token_stride, Scratch& scratch)
      : head_dim_(head_dim), padded_(padded), token_stride_(token_stride), rows_(scratch.take<Acc>(kPlaces * padded)) {}

  // Calls emit(place, row [padded]) for each of `places` places, in their order; what lies off the lines counts as 0,
  // or not at all for a maximum.
  template <class Emit>
  void run(const std::vector<Line>& lines, const WindowTaps& taps, int64_t places, Emit emit) {
    const int64_t first = std::min(taps.first_inside(), places), last = taps.last_inside(places);
    int64_t place = 0;
    while (place < places) {
      const bool inside = place >= first && place < last;
      if (inside && place + kPlaces <= last) {
        pool<kPlaces>(lines, taps, place);
        for (int i = 0; i < kPlaces; ++i) emit(place++, rows_ + i * padded_);
        continue;
      }
      if (inside) {
        pool<1>(lines, taps, place);
      } else {
        pool_partly(lines, taps, place);
      }
      emit(place++, rows_);
    }
  }

 private:
  void pool_partly(const std::vector<Line>& lines, const WindowTaps& taps, int64_t place) {
    inside_.clear();
    for (int64_t i = 0; i < taps.count; ++i) {
      const int64_t token = taps.taps[i].offset + place * taps.step;
      if (token >= 0 && token < taps.size) inside_.push_back(taps.taps[i]);
    }
    pool<1>(lines, {inside_.data(), static_cast<int64_t>(inside_.size()), taps.step, taps.size}, place);
  }

  template <int kCount>
  void pool(const std::vector<Line>& lines, const WindowTaps& taps, int64_t place) {
    constexpr int kLane = kLanes<Acc>;
    int64_t d = 0;
    for (; d + 3 * kLane <= head_dim_; d += 3 * kLane) pool_channels<kCount, 3, false>(lines, taps, place, d);
    for (; d + kLane <= head_dim_; d += kLane) pool_channels<kCount, 1, false>(lines, taps, place, d);
    if (d < head_dim_) pool_channels<kCount, 1, true>(lines, taps, place, d);
  }

  // kVectors vectors of channels from `d` on; the last vector may be less than whole.
  template <int kCount, int kVectors, bool kPartial>
  __attribute__((noinline)) void pool_channels(const std::vector<Line>& lines, const WindowTaps& taps, int64_t place,
                                               int64_t d) {
    const int64_t step = taps.step * token_stride_;
    Vector<Acc> pooled[kCount][kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) pooled[i][v] = Pool::start();
    }
    for (const Line& line : lines) {
      const T* tokens = line.tokens + place * step + d;
      for (int64_t k = 0; k < taps.count; ++k) {
        const T* x = tokens + taps.taps[k].offset * token_stride_;
        Vector<Acc> weights[kVectors] = {};
        if constexpr (Pool::kWeighted) {
#pragma GCC unroll 3
          for (int v = 0; v < kVectors; ++v) {
            weights[v] = load(line.weights + taps.taps[k].tap * padded_ + d + v * kLanes<Acc>);
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 3
          for (int v = 0; v < kVectors; ++v) {
            pooled[i][v] = Pool::combine(pooled[i][v], fetch<kPartial>(x + i * step + v * kLanes<Acc>, d), weights[v]);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) store(rows_ + i * padded_ + d + v * kLanes<Acc>, pooled[i][v]);
    }
  }

  template <bool kPartial>
  VTFAST_INLINE Vector<Acc> fetch(const T* source, int64_t d) const {
    if constexpr (kPartial) return load_partial_as_acc(source, head_dim_ - d);
    return load_as_acc(source);
  }

  int64_t head_dim_;
  int64_t padded_;
  int64_t token_stride_;
  Acc* rows_;  // [kPlaces, padded]
  std::vector<WindowTap> inside_;
};

}  // namespace vtfast::cpu
