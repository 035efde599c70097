// Gradients of the weights and the bias of a depthwise convolution: sums over all outputs, cut into chunks of lines
// whose parts are added in a fixed order.
#pragma once

#include <algorithm>

#include "../depthwise_conv3d.h"
#include "operands.h"
#include "parallel.h"

namespace vtfast::cpu {

// How the outputs are cut up: a chunk is some blocks of lines of clips, all frames of them. It depends on sizes alone,
// never on the number of threads.
struct GradientChunks {
  int64_t lines_of_block;
  int64_t blocks;  // of lines, of a clip
  int64_t count;   // of chunks, of all clips' blocks
  int64_t vectors;

  GradientChunks(const DepthwiseConv3dParams& p, int64_t lanes, int64_t element_size) {
    // Tokens of one vector that stay in the second-level cache while the frames go by: of the gradient, and of the
    // frames under a window.
    constexpr int64_t kCached = 128 << 10, kWanted = 64;
    lines_of_block = std::clamp<int64_t>(kCached / ((p.t.kernel + 1) * p.w.size * lanes * element_size), 1, p.h.pooled);
    blocks = (p.h.pooled + lines_of_block - 1) / lines_of_block;
    vectors = (p.channels + lanes - 1) / lanes;
    count = std::clamp<int64_t>((kWanted + vectors - 1) / vectors, 1, p.batch * blocks);
  }

  int64_t first_block(const DepthwiseConv3dParams& p, int64_t chunk) const { return p.batch * blocks * chunk / count; }
};

// Lines of x under a line of outputs, one for each of kRows taps along h.
template <class T, int kRows>
struct LinesUnder {
  const T* rows[kRows];  // token 0 of the line, or zeros where there is none
  int64_t steps[kRows];  // elements from one token to the next
};

template <class T>
class WeightGradient {
 public:
  using Acc = AccOf<T>;
  static constexpr int64_t kLane = kLanes<Acc>;

  // Elements of one chunk: sums of one vector after the other, [K, lanes] and those of the bias, [lanes].
  static int64_t chunk_size(const DepthwiseConv3dParams& p, const GradientChunks& chunks) {
    return chunks.vectors * (p.num_taps() + 1) * kLane;
  }

  WeightGradient(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients,
                 const GradientChunks& chunks, int64_t vector, Acc* sums)
      : p_(p),
        gradients_(gradients),
        chunks_(chunks),
        x_(static_cast<const T*>(p.x.data) + vector * kLane),
        grad_out_(static_cast<const T*>(gradients.grad_out.data) + vector * kLane),
        lanes_(std::min(kLane, p.channels - vector * kLane)),
        sums_(sums) {}

  void add_chunk(int64_t chunk) {
    std::fill_n(sums_, (p_.num_taps() + 1) * kLane, Acc(0));
    for (int64_t block = chunks_.first_block(p_, chunk); block < chunks_.first_block(p_, chunk + 1); ++block) {
      const int64_t clip = block / chunks_.blocks, first = block % chunks_.blocks * chunks_.lines_of_block;
      const int64_t last = std::min(first + chunks_.lines_of_block, p_.h.pooled);
      for (int64_t t = 0; t < p_.t.pooled; ++t) {
        if (gradients_.d_bias != nullptr) add_bias(clip, t, first, last);
        if (gradients_.d_weight == nullptr) continue;
        for (int64_t tap = p_.t.first_tap(t); tap < p_.t.last_tap(t); ++tap) {
          lanes_ == kLane ? add_frame<false>(clip, t, tap, first, last) : add_frame<true>(clip, t, tap, first, last);
        }
      }
    }
  }

 private:
  const T* grad_line(int64_t clip, int64_t t, int64_t h) const {
    const TokenGrid& grid = gradients_.grad_out;
    return grad_out_ + clip * grid.batch_stride + t * grid.t_stride + h * grid.h_stride;
  }

  void add_bias(int64_t clip, int64_t t, int64_t first, int64_t last) {
    for (int64_t h = first; h < last; ++h) {
      const T* line = grad_line(clip, t, h);
      Vector<Acc> sum = {};
      for (int64_t w = 0; w < p_.w.pooled; ++w) sum += load_up_to(line + w * gradients_.grad_out.w_stride, lanes_);
      add_to(sums_ + p_.num_taps() * kLane, sum);
    }
  }

  // A chunk adds sums of short stretches, which keeps their rounding small.
  static VTFAST_INLINE void add_to(Acc* target, Vector<Acc> sum) { store(target, load(target) + sum); }

  // What the lines [first, last) of frame t of the outputs add to the taps of one frame of the window.
  template <bool kPartial>
  void add_frame(int64_t clip, int64_t t, int64_t tap, int64_t first, int64_t last) {
    const T* frame = x_ + clip * p_.x.batch_stride + p_.t.token(t, tap) * p_.x.t_stride;
    Acc* sums = sums_ + tap * p_.h.kernel * p_.w.kernel * kLane;
    const auto add = [&]<int kRows, int kTaps>() {
      for (int64_t row = 0; row < p_.h.kernel; row += kRows) {
        slide<kRows, kTaps, kPartial>(frame, clip, t, tap, first, last, row, sums + row * kTaps * kLane);
      }
    };
    const bool slides = p_.w.stride == 1;
    if (slides && p_.h.kernel == 3 && p_.w.kernel == 3) return add.template operator()<3, 3>();
    if (slides && p_.h.kernel == 5 && p_.w.kernel == 5) return add.template operator()<kRowsOfFive, 5>();
    if (slides && p_.w.kernel == 3) return add.template operator()<1, 3>();
    if (slides && p_.w.kernel == 1) return add.template operator()<1, 1>();
    for (int64_t row = 0; row < p_.h.kernel; ++row) {
      for (int64_t k = 0; k < p_.w.kernel; ++k) {
        add_tap(frame, clip, t, first, last, row, k, sums + (row * p_.w.kernel + k) * kLane);
      }
    }
  }

  // kRows lines of the window by kTaps taps along w: every token of x meets the gradients of the kTaps outputs over it,
  // which stay in registers as they move along.
  template <int kRows, int kTaps, bool kPartial>
  __attribute__((noinline)) void slide(const T* frame, int64_t clip, int64_t t, int64_t tap, int64_t first,
                                       int64_t last, int64_t row, Acc* target) {
    Vector<Acc> sums[kRows][kTaps] = {};
    const bool fetches = t + 1 < p_.t.pooled && tap + 1 == p_.t.kernel && row == 0;
    const int64_t grad_step = gradients_.grad_out.w_stride, padding = p_.w.padding;
    // Up to `inside` every token of x meets a new gradient.
    const int64_t size = p_.w.size, inside = std::clamp<int64_t>(p_.w.pooled - padding, 0, size);
    for (int64_t h = first; h < last; ++h) {
      LinesUnder<T, kRows> x = lines_under<kRows>(frame, h, row);
      const T* grad = grad_line(clip, t, h);
      Vector<Acc> over[kTaps];  // of outputs w + padding - k
#pragma GCC unroll 5
      for (int k = 1; k < kTaps; ++k) {
        const int64_t output = padding - k;
        over[k - 1] = output >= 0 && output < p_.w.pooled ? fetch<kPartial>(grad + output * grad_step) : Vector<Acc>{};
      }
      const T* next = grad + padding * grad_step;
      const auto add_token = [&](Vector<Acc> newest) __attribute__((always_inline)) {
#pragma GCC unroll 5
        for (int k = kTaps - 1; k > 0; --k) over[k] = over[k - 1];
        over[0] = newest;
#pragma GCC unroll 5
        for (int i = 0; i < kRows; ++i) {
          const Vector<Acc> token = fetch<kPartial>(x.rows[i]);
          x.rows[i] += x.steps[i];
#pragma GCC unroll 5
          for (int k = 0; k < kTaps; ++k) sums[i][k] += token * over[k];
        }
      };
      if (fetches) fetch_next_frame(frame, grad, h);
      int64_t w = 0;
      for (; w < inside; ++w, next += grad_step) add_token(fetch<kPartial>(next));
      for (; w < size; ++w) add_token(Vector<Acc>{});
    }
#pragma GCC unroll 5
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 5
      for (int k = 0; k < kTaps; ++k) add_to(target + (i * kTaps + k) * kLane, sums[i][k]);
    }
  }

  // What the processor does not guess: the lines of the next frames, that of x the last under the window.
  void fetch_next_frame(const T* frame, const T* grad, int64_t h) const {
    const T* x = frame + p_.x.t_stride + h * p_.h.stride * p_.x.h_stride;
    for (int64_t w = 0; w < p_.w.size; ++w) prefetch(reinterpret_cast<const char*>(x + w * p_.x.w_stride));
    const TokenGrid& grid = gradients_.grad_out;
    for (int64_t w = 0; w < p_.w.pooled; ++w) {
      prefetch(reinterpret_cast<const char*>(grad + grid.t_stride + w * grid.w_stride));
    }
  }

  template <int kRows>
  LinesUnder<T, kRows> lines_under(const T* frame, int64_t h, int64_t row) const {
    alignas(64) static constexpr T kZeros[kLane] = {};
    LinesUnder<T, kRows> lines;
    for (int i = 0; i < kRows; ++i) {
      const int64_t line = p_.h.token(h, row + i);
      const bool exists = line >= 0 && line < p_.h.size;
      lines.rows[i] = exists ? frame + line * p_.x.h_stride : kZeros;
      lines.steps[i] = exists ? p_.x.w_stride : 0;
    }
    return lines;
  }

  // One tap of a window of any size and stride.
  void add_tap(const T* frame, int64_t clip, int64_t t, int64_t first, int64_t last, int64_t row, int64_t tap,
               Acc* target) {
    const PoolAxis& axis = p_.w;
    const int64_t from = std::max<int64_t>(0, (axis.padding - tap + axis.stride - 1) / axis.stride);
    const int64_t reach = axis.size - 1 + axis.padding - tap;
    const int64_t to = reach < 0 ? 0 : std::min(axis.pooled, reach / axis.stride + 1);
    for (int64_t h = first; h < last; ++h) {
      Vector<Acc> sum = {};
      const int64_t line = p_.h.token(h, row);
      if (line < 0 || line >= p_.h.size) continue;
      const T* x = frame + line * p_.x.h_stride;
      const T* grad = grad_line(clip, t, h);
      for (int64_t w = from; w < to; ++w) {
        const Vector<Acc> token = load_up_to(x + axis.token(w, tap) * p_.x.w_stride, lanes_);
        sum += token * load_up_to(grad + w * gradients_.grad_out.w_stride, lanes_);
      }
      add_to(target, sum);
    }
  }

  template <bool kPartial>
  VTFAST_INLINE Vector<Acc> fetch(const T* source) const {
    if constexpr (kPartial) return load_partial_as_acc(source, lanes_);
    return load_as_acc(source);
  }

  // Of a window of 5 x 5, the lines whose sums fit into the registers.
  static constexpr int kRowsOfFive = kVectorBytes == 64 ? 5 : 1;

  const DepthwiseConv3dParams& p_;
  const DepthwiseConv3dGradients& gradients_;
  const GradientChunks& chunks_;
  const T* x_;         // the vector's channels of token 0
  const T* grad_out_;  // the same
  const int64_t lanes_;
  Acc* sums_;  // [K + 1, lanes]
};

}  // namespace vtfast::cpu
