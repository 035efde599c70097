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

  // Whether place j takes the tokens j - 1, j and j + 1, in whatever order, and the line has as many tokens as places.
  bool are_three_neighbours(int64_t places) const {
    return count == 3 && step == 1 && size == places && taps[1].offset == 0 && taps[0].offset == -taps[2].offset &&
           (taps[0].offset == 1 || taps[0].offset == -1);
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

  // Places of the window that are worked on at once, their weights read once: of any window, and of one of three
  // neighbours that moves by one, where a token is read once for the three places it belongs to.
  static constexpr int kPlaces = 4;
  static constexpr int kPlacesOfThree = 8;

  static size_t scratch_bytes(int64_t padded) { return Scratch::bytes_of<Acc>(kPlacesOfThree * padded); }

  // The line that follows lies `to_next` elements behind one: it is fetched meanwhile, as the processor does not guess
  // so many lines at once.
  PoolLine(int64_t head_dim, int64_t padded, int64_t token_stride, int64_t to_next, Scratch& scratch)
      : head_dim_(head_dim),
        padded_(padded),
        token_stride_(token_stride),
        to_next_(to_next),
        rows_(scratch.take<Acc>(kPlacesOfThree * padded)) {}

  // Calls emit(place, row [padded]) for each of `places` places, in their order; what lies off the lines counts as 0,
  // or not at all for a maximum.
  template <class Emit>
  void run(const std::vector<Line>& lines, const WindowTaps& taps, int64_t places, Emit emit) {
    if (Pool::kWeighted && taps.are_three_neighbours(places)) return run_three(lines, taps, places, emit);
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
  template <class Emit>
  void run_three(const std::vector<Line>& lines, const WindowTaps& taps, int64_t places, Emit emit) {
    int64_t place = 0;
    const auto run = [&]<int kCount>() {
      for (; place + kCount <= places; place += kCount) {
        pool_three<kCount>(lines, taps, place);
        for (int i = 0; i < kCount; ++i) emit(place + i, rows_ + i * padded_);
      }
    };
    run.template operator()<kPlacesOfThree>();
    run.template operator()<4>();
    run.template operator()<1>();
  }

  template <int kCount>
  void pool_three(const std::vector<Line>& lines, const WindowTaps& taps, int64_t place) {
    constexpr int kLane = kLanes<Acc>;
    int64_t d = 0;
    if constexpr (kPair == 2) {
      for (; d + 2 * kLane <= head_dim_; d += 2 * kLane) pool_three_channels<kCount, 2, false>(lines, taps, place, d);
    }
    for (; d + kLane <= head_dim_; d += kLane) pool_three_channels<kCount, 1, false>(lines, taps, place, d);
    if (d < head_dim_) pool_three_channels<kCount, 1, true>(lines, taps, place, d);
  }

  // As pool_channels, for three neighbours.
  template <int kCount, int kVectors, bool kPartial>
  __attribute__((noinline)) void pool_three_channels(const std::vector<Line>& lines, const WindowTaps& taps,
                                                     int64_t place, int64_t d) {
    Vector<Acc> pooled[kCount][kVectors] = {};
    const bool has_left = place > 0, has_right = place + kCount < taps.size;
    // By where the token lies from the place: before it, on it, behind it.
    const int before = taps.taps[0].offset < 0 ? 0 : 2;
    const int64_t tap[3] = {taps.taps[before].tap, taps.taps[1].tap, taps.taps[2 - before].tap};
    for (const Line& line : lines) {
      Vector<Acc> weights[3][kVectors];
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) weights[k][v] = load(line.weights + tap[k] * padded_ + d + v * kLanes<Acc>);
      }
      const T* x = line.tokens + (place - 1) * token_stride_ + d;
#pragma GCC unroll 10
      for (int i = -1; i <= kCount; ++i, x += token_stride_) {
        if ((i == -1 && !has_left) || (i == kCount && !has_right)) continue;
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const Vector<Acc> token = fetch<kPartial>(x + v * kLanes<Acc>, d);
          prefetch(reinterpret_cast<const char*>(x + to_next_ + v * kLanes<Acc>));
          if (i + 1 < kCount) pooled[i + 1][v] += token * weights[0][v];
          if (i >= 0 && i < kCount) pooled[i][v] += token * weights[1][v];
          if (i >= 1) pooled[i - 1][v] += token * weights[2][v];
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) store(rows_ + i * padded_ + d + v * kLanes<Acc>, pooled[i][v]);
    }
  }

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

  // Vectors of channels for which the places of three neighbours fit into the registers.
  static constexpr int kPair = kVectorBytes == 64 ? 2 : 1;

  int64_t head_dim_;
  int64_t padded_;
  int64_t token_stride_;
  int64_t to_next_;
  Acc* rows_;  // [kPlacesOfThree, padded]
  std::vector<WindowTap> inside_;
};

}  // namespace vtfast::cpu
