// Which lines of tokens a pooling window covers, and which windows cover a token.
#pragma once

#include "../pool_tokens.h"
#include "operands.h"
#include "pool_line.h"

namespace vtfast::cpu {

// The order in which pooling goes through a grid: line by line along one axis, the lines by the other two. Along t,
// where that is long enough: the lines under a window are then as many as its taps along h and w, a vector of weights
// serves the whole line, and what a line has brought into the first-level cache serves every tap along it.
struct PoolOrder {
  struct Side {
    PoolAxis axis;
    int64_t input;   // tokens from one input to the next along the axis
    int64_t output;  // the same of outputs
    int64_t tap;     // taps of the window from one to the next
  };
  Side outer, inner, line;

  explicit PoolOrder(const PoolTokensParams& p) {
    const Side t{p.t, p.h.size * p.w.size, p.h.pooled * p.w.pooled, p.h.kernel * p.w.kernel};
    const Side h{p.h, p.w.size, p.w.pooled, p.w.kernel}, w{p.w, 1, 1, 1};
    constexpr int64_t kLongEnough = 4;
    const bool along_t = p.t.pooled >= kLongEnough;
    outer = along_t ? h : t;
    inner = along_t ? w : h;
    line = along_t ? t : w;
  }
};

// One head of one line of tokens, by its number.
struct HeadLine {
  int64_t batch, head, outer, inner;

  HeadLine(const PoolTokensParams& p, int64_t num_outer, int64_t num_inner, int64_t index)
      : batch(index / num_inner / num_outer / p.num_heads),
        head(index / num_inner / num_outer % p.num_heads),
        outer(index / num_inner % num_outer),
        inner(index % num_inner) {}

  static HeadLine of_outputs(const PoolTokensParams& p, const PoolOrder& order, int64_t index) {
    return HeadLine(p, order.outer.axis.pooled, order.inner.axis.pooled, index);
  }
  static HeadLine of_inputs(const PoolTokensParams& p, const PoolOrder& order, int64_t index) {
    return HeadLine(p, order.outer.axis.size, order.inner.axis.size, index);
  }

  static int64_t num_outputs(const PoolTokensParams& p, const PoolOrder& order) {
    return p.batch * p.num_heads * order.outer.axis.pooled * order.inner.axis.pooled;
  }
  static int64_t num_inputs(const PoolTokensParams& p, const PoolOrder& order) {
    return p.batch * p.num_heads * order.outer.axis.size * order.inner.axis.size;
  }
};

// The weights of a window as [taps, padded]: those of the convolution, or of the mean.
template <class Acc>
class WindowWeights {
 public:
  static size_t scratch_bytes(const PoolTokensParams& p) {
    return Scratch::bytes_of<Acc>(p.num_taps() * round_up(p.head_dim, kLanes<Acc>));
  }

  WindowWeights(const PoolTokensParams& p, Scratch& scratch) : padded_(round_up(p.head_dim, kLanes<Acc>)) {
    const int64_t taps = p.num_taps();
    weights_ = scratch.take<Acc>(taps * padded_);
    std::fill_n(weights_, taps * padded_, Acc(0));
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t d = 0; d < p.head_dim; ++d) {
        weights_[tap * padded_ + d] =
            p.weight == nullptr ? Acc(1) / taps : static_cast<const Acc*>(p.weight)[d * taps + tap];
      }
    }
  }

  const Acc* of_tap(int64_t tap) const { return weights_ + tap * padded_; }

 private:
  int64_t padded_;
  Acc* weights_;  // [taps, padded]
};

// The window over the lines of tokens, for the outputs of one line.
template <class T>
class Window {
 public:
  using Acc = AccOf<T>;
  using Line = WindowLine<T, Acc>;

  Window(const PoolTokensParams& p, const PoolOrder& order) : order_(order), token_stride_(p.x.token_stride) {
    const PoolAxis& axis = order.line.axis;
    for (int64_t tap = 0; tap < axis.kernel; ++tap) taps_.push_back({axis.token(0, tap), tap * order.line.tap});
  }

  // The lines under the windows of an output line; `grid` is the head's first channel of the clip's grid token 0.
  const std::vector<Line>& lines(const T* grid, const WindowWeights<Acc>& weights, const HeadLine& at) {
    const auto &outer = order_.outer, &inner = order_.inner;
    lines_.clear();
    for (int64_t i = outer.axis.first_tap(at.outer); i < outer.axis.last_tap(at.outer); ++i) {
      for (int64_t j = inner.axis.first_tap(at.inner); j < inner.axis.last_tap(at.inner); ++j) {
        const int64_t token = outer.axis.token(at.outer, i) * outer.input + inner.axis.token(at.inner, j) * inner.input;
        const int64_t tap = i * outer.tap + j * inner.tap;
        lines_.push_back({grid + token * token_stride_, weights.of_tap(tap), tap});
      }
    }
    return lines_;
  }

  WindowTaps taps() const {
    return {taps_.data(), static_cast<int64_t>(taps_.size()), order_.line.axis.stride, order_.line.axis.size};
  }

 private:
  const PoolOrder& order_;
  int64_t token_stride_;
  std::vector<WindowTap> taps_;
  std::vector<Line> lines_;
};

// The same the other way round: the windows over the tokens of one line. Tokens a stride apart lie under the same taps,
// so a line is handled as `stride` interleaved ones.
template <class Acc>
class TransposedWindow {
 public:
  using Line = WindowLine<Acc, Acc>;

  TransposedWindow(const PoolTokensParams& p, const PoolOrder& order) : order_(order), token_stride_(p.channels()) {}

  // The output lines whose windows cover an input line; `outputs` is the head's first channel of output 0.
  const std::vector<Line>& lines(const Acc* outputs, const WindowWeights<Acc>& weights, const HeadLine& at) {
    const auto &outer = order_.outer, &inner = order_.inner;
    lines_.clear();
    for (int64_t i = outer.axis.first_window(at.outer); i < outer.axis.last_window(at.outer); ++i) {
      for (int64_t j = inner.axis.first_window(at.inner); j < inner.axis.last_window(at.inner); ++j) {
        const int64_t tap =
            (at.outer - outer.axis.token(i, 0)) * outer.tap + (at.inner - inner.axis.token(j, 0)) * inner.tap;
        const int64_t token = i * outer.output + j * inner.output;
        lines_.push_back({outputs + token * token_stride_, weights.of_tap(tap), tap});
      }
    }
    return lines_;
  }

  // The taps over tokens first, first + stride, ... of a line.
  WindowTaps taps(int64_t first) {
    const PoolAxis& axis = order_.line.axis;
    taps_.clear();
    const int64_t reach = first - axis.token(0, 0);
    for (int64_t tap = reach % axis.stride; tap < axis.kernel; tap += axis.stride) {
      taps_.push_back({(reach - tap) / axis.stride, tap * order_.line.tap});
    }
    return {taps_.data(), static_cast<int64_t>(taps_.size()), 1, axis.pooled};
  }

 private:
  const PoolOrder& order_;
  int64_t token_stride_;
  std::vector<WindowTap> taps_;
  std::vector<Line> lines_;
};

}  // namespace vtfast::cpu
