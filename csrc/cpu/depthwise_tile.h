// Depthwise sums of windows that move by one token: a tile of outputs along t and w stays in registers, and every token
// that is read serves all outputs of the tile whose windows hold it.
#pragma once

#include <algorithm>
#include <utility>

#include "depthwise_sum.h"
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

// The first output of a tile, and a vector of channels.
struct TilePlace {
  int64_t clip, t, h, w, vector;
};

// kCareful takes channels that do not fill a vector, and windows and outputs beyond the ends of a line.
template <class T, class Shape, bool kCareful>
class DepthwiseTile {
 public:
  using Acc = AccOf<T>;

  VTFAST_INLINE DepthwiseTile(const DepthwiseSum<T>& sum, const TilePlace& at)
      : sum_(sum), at_(at), lanes_(sum.channels - at.vector * kLanes<Acc>) {}

  VTFAST_INLINE void run() {
    const Vector<Acc> bias = sum_.bias_of(at_.vector);
#pragma GCC unroll 2
    for (int i = 0; i < Shape::kFrames; ++i) {
#pragma GCC unroll 7
      for (int j = 0; j < Shape::kTokens; ++j) sums_[i][j] = bias;
    }
    [this]<int... kFrame>(std::integer_sequence<int, kFrame...>) {
      (add_frame<kFrame>(), ...);
    }(std::make_integer_sequence<int, Shape::kFrames + Shape::kTapsT - 1>());
#pragma GCC unroll 2
    for (int i = 0; i < Shape::kFrames; ++i) {
      const T* same = sum_.x_at(at_.clip, at_.t + i, at_.h, at_.vector);
      T* out = sum_.out_at(at_.clip, at_.t + i, at_.h, at_.vector);
#pragma GCC unroll 7
      for (int j = 0; j < Shape::kTokens; ++j) {
        const int64_t token = at_.w + j;
        if (kCareful && token >= sum_.w.pooled) break;
        if (sum_.residual) sums_[i][j] += fetch(same + token * sum_.x.w_stride);
        if constexpr (kCareful) {
          store_up_to(out + token * sum_.channels, sums_[i][j], lanes_);
        } else {
          store_from_acc(out + token * sum_.channels, sums_[i][j]);
        }
      }
    }
  }

 private:
  static constexpr bool has_tap(int tap) { return tap >= 0 && tap < Shape::kTapsT; }

  // What frame kFrame under the tile's windows adds to its outputs.
  template <int kFrame>
  VTFAST_INLINE void add_frame() {
    const int64_t frame = at_.t + kFrame - sum_.t.padding;
    if (frame < 0 || frame >= sum_.t.size) return;
    const int64_t first = sum_.h.first_tap(at_.h), last = sum_.h.last_tap(at_.h), begin = at_.w - sum_.w.padding;
    const T* row = sum_.x_at(at_.clip, frame, at_.h + first - sum_.h.padding, at_.vector) + begin * sum_.x.w_stride;
    const Acc* weights = sum_.weights_of(at_.vector);
    for (int64_t tap = first; tap < last; ++tap, row += sum_.x.h_stride) {
      Vector<Acc> of_frame[Shape::kFrames][Shape::kTapsW];
#pragma GCC unroll 2
      for (int i = 0; i < Shape::kFrames; ++i) {
        if (!has_tap(kFrame - i)) continue;
#pragma GCC unroll 5
        for (int k = 0; k < Shape::kTapsW; ++k) {
          const int64_t number = ((kFrame - i) * sum_.h.kernel + tap) * Shape::kTapsW + k;
          of_frame[i][k] = load(weights + number * kLanes<Acc>);
        }
      }
#pragma GCC unroll 11
      for (int j = 0; j < Shape::kTokens + Shape::kTapsW - 1; ++j) {
        if (kCareful && (begin + j < 0 || begin + j >= sum_.w.size)) continue;
        const Vector<Acc> token = fetch(row + j * sum_.x.w_stride);
#pragma GCC unroll 2
        for (int i = 0; i < Shape::kFrames; ++i) {
          if (!has_tap(kFrame - i)) continue;
#pragma GCC unroll 5
          for (int k = 0; k < Shape::kTapsW; ++k) {
            if (j - k >= 0 && j - k < Shape::kTokens) sums_[i][j - k] += token * of_frame[i][k];
          }
        }
      }
    }
  }

  VTFAST_INLINE Vector<Acc> fetch(const T* source) const {
    if constexpr (kCareful) return load_up_to(source, lanes_);
    return load_as_acc(source);
  }

  const DepthwiseSum<T>& sum_;
  const TilePlace at_;
  const int64_t lanes_;  // channels from the first of the vector on
  Vector<Acc> sums_[Shape::kFrames][Shape::kTokens];
};

template <class T, class Shape, bool kCareful>
__attribute__((noinline)) void run_tile(const DepthwiseSum<T>& sum, const TilePlace& at) {
  DepthwiseTile<T, Shape, kCareful>(sum, at).run();
}

// One line of outputs along w for one vector of channels; the last tile may overlap the one before it.
template <class T, class Shape>
void run_line(const DepthwiseSum<T>& sum, TilePlace at) {
  const bool whole = (at.vector + 1) * kLanes<AccOf<T>> <= sum.channels;
  const int64_t last = std::max<int64_t>(sum.w.pooled - Shape::kTokens, 0);
  for (int64_t w = 0;; w = std::min(w + Shape::kTokens, last)) {
    at.w = w;
    const int64_t begin = w - sum.w.padding;
    const bool inside = begin >= 0 && begin + Shape::kTokens + Shape::kTapsW - 1 <= sum.w.size;
    if (whole && inside && w + Shape::kTokens <= sum.w.pooled) {
      run_tile<T, Shape, false>(sum, at);
    } else {
      run_tile<T, Shape, true>(sum, at);
    }
    if (w >= last) return;
  }
}

// How the outputs are handed out: blocks of lines and channels, frame after frame, so that the lines which neighbouring
// windows share are still in the second-level cache.
struct TileBlocks {
  static constexpr int64_t kLines = 8;
  static constexpr int64_t kVectors = 8;

  int64_t frames, lines, vectors;  // counts of blocks
  int64_t frames_of_block;

  template <class T>
  TileBlocks(const DepthwiseSum<T>& sum, int64_t frames_of_block)
      : frames((sum.t.pooled + frames_of_block - 1) / frames_of_block),
        lines((sum.h.pooled + kLines - 1) / kLines),
        vectors((sum.num_vectors() + kVectors - 1) / kVectors),
        frames_of_block(frames_of_block) {}
};

template <class T, int kTapsT, int kTapsW>
void sum_tiles(const DepthwiseSum<T>& sum) {
  constexpr int kFrames = TileShape<kTapsT, kTapsW, 1>::most_frames();
  using Shape = TileShape<kTapsT, kTapsW, kFrames>;
  using OneFrame = TileShape<kTapsT, kTapsW, 1>;
  const TileBlocks blocks(sum, kFrames);
  parallel_for(sum.batch * blocks.lines * blocks.vectors * blocks.frames, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item % blocks.frames * kFrames, block = item / blocks.frames;
      const int64_t first_vector = block % blocks.vectors * TileBlocks::kVectors;
      const int64_t first_line = block / blocks.vectors % blocks.lines * TileBlocks::kLines;
      const int64_t clip = block / blocks.vectors / blocks.lines;
      const int64_t last_line = std::min(first_line + TileBlocks::kLines, sum.h.pooled);
      const int64_t last_vector = std::min(first_vector + TileBlocks::kVectors, sum.num_vectors());
      for (int64_t h = first_line; h < last_line; ++h) {
        for (int64_t vector = first_vector; vector < last_vector; ++vector) {
          const TilePlace at{clip, t, h, 0, vector};
          t + kFrames <= sum.t.pooled ? run_line<T, Shape>(sum, at) : run_line<T, OneFrame>(sum, at);
        }
      }
    }
  });
}

// Whether there are tiles for these windows; then they have done the sum.
template <class T>
bool try_sum_tiles(const DepthwiseSum<T>& sum) {
  if (sum.t.stride != 1 || sum.h.stride != 1 || sum.w.stride != 1) return false;
  const auto has_taps = [&](int64_t t, int64_t w) { return sum.t.kernel == t && sum.w.kernel == w; };
  if (has_taps(3, 3)) return sum_tiles<T, 3, 3>(sum), true;
  if (has_taps(5, 5)) return sum_tiles<T, 5, 5>(sum), true;
  if (has_taps(3, 1)) return sum_tiles<T, 3, 1>(sum), true;
  if (has_taps(1, 3)) return sum_tiles<T, 1, 3>(sum), true;
  return false;
}

}  // namespace vtfast::cpu
