// Depthwise sums of windows that move by one token: a tile of outputs along t and w stays in registers, and every token
// that is read serves all outputs of the tile whose windows hold it.
#pragma once

#include <algorithm>
#include <utility>

#include "depthwise_taps.h"
#include "parallel.h"

namespace vtfast::cpu {

// Taps along t and w, and outputs of a tile along them; taps along h are counted at run time.
template <int kTapsAlongT, int kTapsAlongW, int kFramesOfTile>
struct TileShape {
  static constexpr int kTapsT = kTapsAlongT;
  static constexpr int kTapsW = kTapsAlongW;
  static constexpr int kFrames = kFramesOfTile;
  static constexpr int kTokens = 7;  // divides the grids of clips of 224 x 224 pixels

  // How many frames of outputs, their weights with them, fit into the registers.
  static constexpr int most_frames() { return kTapsAlongT > 1 && kVectorBytes == 64 ? 2 : 1; }
};

// One line of outputs along w in each of the tile's frames, for one vector of channels. kPartial takes channels that do
// not fill the vector.
template <class T, class Shape, bool kPartial>
class DepthwiseLine {
 public:
  using Acc = AccOf<T>;
  using Taps = LineTaps<T, Shape::kTapsW>;

  DepthwiseLine(const DepthwiseSum<T>& sum, const TapVectors<Acc>& taps, int64_t clip, int64_t t, int64_t h,
                int64_t vector)
      : w_(sum.w),
        step_(sum.x.w_stride),
        row_step_(sum.x.h_stride),
        out_step_(sum.channels),
        lanes_(sum.channels - vector * kLanes<Acc>),
        bias_(sum.bias_of(vector)) {
    const int64_t first = sum.h.first_tap(h), all_rows = sum.h.kernel;
    num_rows_ = sum.h.last_tap(h) - first;
    frame_weights_ = all_rows * kLineWeights;
    const int64_t next = sum.h.token(h, 0) + all_rows;
    has_next_ = next < sum.h.size && h + 1 < sum.h.pooled && t + Shape::kFrames <= sum.t.size;
    weights_ = taps.of(vector) + first * kLineWeights;
    for (int i = 0; i < kFramesUnder; ++i) {
      const int64_t frame = t + i - sum.t.padding;
      const bool exists = frame >= 0 && frame < sum.t.size;
      rows_[i] = exists ? sum.x_at(clip, frame, sum.h.token(h, first), vector) : nullptr;
    }
    for (int i = 0; i < Shape::kFrames; ++i) {
      out_[i] = sum.out_at(clip, t + i, h, vector);
      next_[i] = sum.x_at(clip, t + i, next, vector);
      same_[i] = sum.residual ? sum.x_at(clip, t + i, h, vector) : nullptr;
    }
  }

  // Tile by tile; the last may overlap the one before it.
  void run() const {
    const int64_t last = std::max<int64_t>(w_.pooled - Shape::kTokens, 0);
    for (int64_t w = 0;; w = std::min(w + Shape::kTokens, last)) {
      const int64_t begin = w - w_.padding;
      const bool is_inside = begin >= 0 && begin + Shape::kTokens + Shape::kTapsW - 1 <= w_.size;
      if (is_inside && w + Shape::kTokens <= w_.pooled) {
        run_tile<false>(w);
      } else {
        run_tile<true>(w);
      }
      if (w >= last) return;
    }
  }

 private:
  static constexpr int kFramesUnder = Shape::kFrames + Shape::kTapsT - 1;  // under the windows of the tile
  static constexpr int64_t kLineWeights = Taps::kSteps * kLanes<Acc>;      // elements of a line of the window

  static constexpr bool has_tap(int tap) { return tap >= 0 && tap < Shape::kTapsT; }

  using Sums = Vector<Acc>[Shape::kFrames][Shape::kTokens];

  // kEdge takes windows and outputs beyond the ends of the line.
  template <bool kEdge>
  __attribute__((noinline)) void run_tile(int64_t w) const {
    if (has_next_) fetch_next_line(w);
    Sums sums;
#pragma GCC unroll 2
    for (int i = 0; i < Shape::kFrames; ++i) {
#pragma GCC unroll 7
      for (int j = 0; j < Shape::kTokens; ++j) sums[i][j] = bias_;
    }
    [&]<int... kFrame>(std::integer_sequence<int, kFrame...>) {
      (add_frame<kFrame, kEdge>(w, sums), ...);
    }(std::make_integer_sequence<int, kFramesUnder>());
#pragma GCC unroll 2
    for (int i = 0; i < Shape::kFrames; ++i) {
      T* out = out_[i] + w * out_step_;
      const T* same = same_[i] + w * step_;
#pragma GCC unroll 7
      for (int j = 0; j < Shape::kTokens; ++j, out += out_step_, same += step_) {
        if (kEdge && w + j >= w_.pooled) break;
        if (same_[i] != nullptr) sums[i][j] += fetch(same);
        if constexpr (kPartial) {
          store_partial_from_acc(out, sums[i][j], lanes_);
        } else {
          store_from_acc(out, sums[i][j]);
        }
      }
    }
  }

  // The processor does not guess so many lines at once. Each is fetched by one line of outputs.
  VTFAST_INLINE void fetch_next_line(int64_t w) const {
#pragma GCC unroll 2
    for (int i = 0; i < Shape::kFrames; ++i) {
      const T* next = next_[i] + w * step_;
      const T* out = out_[i] + (w_.pooled + w) * out_step_;
#pragma GCC unroll 7
      for (int j = 0; j < Shape::kTokens; ++j, next += step_, out += out_step_) {
        prefetch(reinterpret_cast<const char*>(next));
        prefetch_to_write(reinterpret_cast<const char*>(out));
      }
    }
  }

  // What frame kFrame under the tile's windows adds to its outputs.
  template <int kFrame, bool kEdge>
  VTFAST_INLINE void add_frame(int64_t w, Sums& sums) const {
    if (rows_[kFrame] == nullptr) return;
    const int64_t begin = w - w_.padding;
    const T* row = rows_[kFrame] + begin * step_;
    const Acc* weights = weights_;
    for (int64_t tap = 0; tap < num_rows_; ++tap, row += row_step_, weights += kLineWeights) {
      Vector<Acc> of_frame[Shape::kFrames][Taps::kSteps];
#pragma GCC unroll 2
      for (int i = 0; i < Shape::kFrames; ++i) {
        if (!has_tap(kFrame - i)) continue;
#pragma GCC unroll 5
        for (int step = 0; step < Taps::kSteps; ++step) {
          of_frame[i][step] = load(weights + (kFrame - i) * frame_weights_ + step * kLanes<Acc>);
        }
      }
      Taps line;
      const T* source = row;
#pragma GCC unroll 11
      for (int j = 0; j < Shape::kTokens + Shape::kTapsW - 1; ++j, source += step_) {
        const bool exists = !kEdge || (begin + j >= 0 && begin + j < w_.size);
        const Vector<Acc> token = exists ? fetch(source) : Vector<Acc>{};
        const auto add = [&](int step, int output, Vector<Acc> operand) __attribute__((always_inline)) {
#pragma GCC unroll 2
          for (int i = 0; i < Shape::kFrames; ++i) {
            if (!has_tap(kFrame - i)) continue;
            sums[i][output] = Taps::multiply_add(operand, of_frame[i][step], sums[i][output]);
          }
        };
        line.template meet<Shape::kTokens>(j, exists, token, add);
      }
    }
  }

  VTFAST_INLINE Vector<Acc> fetch(const T* source) const {
    if constexpr (kPartial) return load_partial_as_acc(source, lanes_);
    return load_as_acc(source);
  }

  const PoolAxis w_;
  const int64_t step_, row_step_, out_step_;  // elements from one token, line or output to the next
  const int64_t lanes_;                       // channels from the first of the vector on
  const Vector<Acc> bias_;
  int64_t num_rows_;               // taps along h that lie on the grid
  int64_t frame_weights_;          // elements from the weights of one frame of the window to the next
  const Acc* weights_;             // of the first of these taps
  const T* rows_[kFramesUnder];    // token 0 of the line under that tap, or null for a frame that does not exist
  bool has_next_;                  // whether there are lines to fetch
  const T* next_[Shape::kFrames];  // token 0 of the first line that is under the next line of outputs, but not this one
  const T* same_[Shape::kFrames];  // the token of x with the place of the line's first output, or null
  T* out_[Shape::kFrames];
};

template <class T, class Shape>
void run_line(const DepthwiseSum<T>& sum, const TapVectors<AccOf<T>>& taps, int64_t clip, int64_t t, int64_t h,
              int64_t vector) {
  if ((vector + 1) * kLanes<AccOf<T>> <= sum.channels) {
    DepthwiseLine<T, Shape, false>(sum, taps, clip, t, h, vector).run();
  } else {
    DepthwiseLine<T, Shape, true>(sum, taps, clip, t, h, vector).run();
  }
}

// How the outputs are handed out: line after line, each with all its frames and as many channels as let the lines under
// it stay in the second-level cache until the next line is done, which they serve too.
struct LineGroups {
  int64_t vectors;  // of a group
  int64_t count;

  template <class T>
  explicit LineGroups(const DepthwiseSum<T>& sum) {
    constexpr int64_t kCached = 128 << 10, kWantedItems = 64;
    const int64_t bytes = sum.h.kernel * sum.t.size * sum.w.size * kLanes<AccOf<T>> * sizeof(T);
    const int64_t shared = sum.num_vectors() * sum.batch * sum.h.pooled / kWantedItems;
    vectors = std::clamp<int64_t>(std::min(kCached / bytes, shared), 1, 8);
    count = (sum.num_vectors() + vectors - 1) / vectors;
  }
};

template <class T, int kTapsT, int kTapsW>
void sum_tiles(const DepthwiseSum<T>& sum) {
  constexpr int kFrames = TileShape<kTapsT, kTapsW, 1>::most_frames();
  using Shape = TileShape<kTapsT, kTapsW, kFrames>;
  using OneFrame = TileShape<kTapsT, kTapsW, 1>;
  const auto taps = TapVectors<AccOf<T>>::template of_lines<LineTaps<T, kTapsW>>(sum);
  const LineGroups groups(sum);
  parallel_for(sum.batch * groups.count * sum.h.pooled, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t h = item % sum.h.pooled, group = item / sum.h.pooled % groups.count;
      const int64_t clip = item / sum.h.pooled / groups.count;
      const int64_t last_vector = std::min((group + 1) * groups.vectors, sum.num_vectors());
      for (int64_t t = 0; t < sum.t.pooled; t += kFrames) {
        for (int64_t vector = group * groups.vectors; vector < last_vector; ++vector) {
          t + kFrames <= sum.t.pooled ? run_line<T, Shape>(sum, taps, clip, t, h, vector)
                                      : run_line<T, OneFrame>(sum, taps, clip, t, h, vector);
        }
      }
    }
  });
}

// Windows along t alone see lines of h as one long line, if these follow each other in memory.
template <class T>
DepthwiseSum<T> with_long_lines(DepthwiseSum<T> sum) {
  const bool along_t = sum.h.kernel == 1 && sum.w.kernel == 1 && sum.h.padding == 0 && sum.w.padding == 0;
  if (along_t && sum.x.h_stride == sum.w.size * sum.x.w_stride) {
    sum.w = PoolAxis::make(sum.h.size * sum.w.size, 1, 1);
    sum.h = PoolAxis::make(1, 1, 1);
  }
  return sum;
}

// Whether there are tiles for these windows; then they have done the sum.
template <class T>
bool try_sum_tiles(DepthwiseSum<T> sum) {
  if (sum.t.stride != 1 || sum.h.stride != 1 || sum.w.stride != 1) return false;
  sum = with_long_lines(sum);
  const auto has_taps = [&](int64_t t, int64_t w) { return sum.t.kernel == t && sum.w.kernel == w; };
  if (has_taps(3, 3)) return sum_tiles<T, 3, 3>(sum), true;
  if (has_taps(5, 5)) return sum_tiles<T, 5, 5>(sum), true;
  if (has_taps(3, 1)) return sum_tiles<T, 3, 1>(sum), true;
  if (has_taps(1, 3)) return sum_tiles<T, 1, 3>(sum), true;
  return false;
}

}  // namespace vtfast::cpu
