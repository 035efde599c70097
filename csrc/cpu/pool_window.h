// Which lines of tokens a pooling window covers, and which windows cover a token.
#pragma once

#include "../pool_tokens.h"
#include "operands.h"
#include "pool_line.h"

namespace vtfast::cpu {

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

  explicit Window(const PoolTokensParams& p) : p_(p) {
    for (int64_t tap = 0; tap < p.w.kernel; ++tap) taps_.push_back({p.w.token(0, tap), tap});
  }

  // The lines under the windows of output line (t, h); `grid` is the head's first channel of the clip's grid token 0.
  const std::vector<Line>& lines(const T* grid, const WindowWeights<Acc>& weights, int64_t t, int64_t h) {
    lines_.clear();
    for (int64_t kt = p_.t.first_tap(t); kt < p_.t.last_tap(t); ++kt) {
      for (int64_t kh = p_.h.first_tap(h); kh < p_.h.last_tap(h); ++kh) {
        const int64_t line = p_.t.token(t, kt) * p_.h.size + p_.h.token(h, kh);
        const int64_t tap = (kt * p_.h.kernel + kh) * p_.w.kernel;
        lines_.push_back({grid + line * p_.w.size * p_.x.token_stride, weights.of_tap(tap), tap});
      }
    }
    return lines_;
  }

  WindowTaps taps() const { return {taps_.data(), static_cast<int64_t>(taps_.size()), p_.w.stride, p_.w.size}; }

 private:
  const PoolTokensParams& p_;
  std::vector<WindowTap> taps_;
  std::vector<Line> lines_;
};

// The same the other way round: the windows over the tokens of one line. Tokens a stride apart lie under the same taps,
// so a line is handled as `stride` interleaved ones.
template <class Acc>
class TransposedWindow {
 public:
  using Line = WindowLine<Acc, Acc>;

  explicit TransposedWindow(const PoolTokensParams& p) : p_(p) {}

  // The output lines whose windows cover input line (t, h); `outputs` is the head's first channel of output 0.
  const std::vector<Line>& lines(const Acc* outputs, int64_t token_stride, const WindowWeights<Acc>& weights, int64_t t,
                                 int64_t h) {
    lines_.clear();
    for (int64_t window_t = p_.t.first_window(t); window_t < p_.t.last_window(t); ++window_t) {
      for (int64_t window_h = p_.h.first_window(h); window_h < p_.h.last_window(h); ++window_h) {
        const int64_t kt = t - p_.t.token(window_t, 0), kh = h - p_.h.token(window_h, 0);
        const int64_t tap = (kt * p_.h.kernel + kh) * p_.w.kernel;
        const int64_t line = window_t * p_.h.pooled + window_h;
        lines_.push_back({outputs + line * p_.w.pooled * token_stride, weights.of_tap(tap), tap});
      }
    }
    return lines_;
  }

  // The taps over tokens first, first + stride, ... of a line.
  WindowTaps taps(int64_t first) {
    taps_.clear();
    const int64_t reach = first - p_.w.token(0, 0);
    for (int64_t tap = reach % p_.w.stride; tap < p_.w.kernel; tap += p_.w.stride) {
      taps_.push_back({(reach - tap) / p_.w.stride, tap});
    }
    return {taps_.data(), static_cast<int64_t>(taps_.size()), 1, p_.w.pooled};
  }

 private:
  const PoolTokensParams& p_;
  std::vector<WindowTap> taps_;
  std::vector<Line> lines_;
};

}  // namespace vtfast::cpu
