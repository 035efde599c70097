// A depthwise sum over windows of tokens: the convolution, and the gradient of its input, which is another one.
#pragma once

#include "../depthwise_conv3d.h"
#include "simd.h"

namespace vtfast::cpu {

// out[o] = bias + sum over taps of x[under the tap] weight[tap] (+ x[o] with a residual)
template <class T>
struct DepthwiseSum {
  using Acc = AccOf<T>;

  PoolAxis t, h, w;
  int64_t batch;
  int64_t channels;
  bool residual;
  TokenGrid x;        // [B, T, H, W, C]
  const Acc* weight;  // [C, K], t slowest
  bool flipped;       // takes the taps in the opposite order
  const Acc* bias;    // [C], or null
  T* out;             // [B, T', H', W', C]

  int64_t num_vectors() const { return (channels + kLanes<Acc> - 1) / kLanes<Acc>; }
  int64_t num_taps() const { return t.kernel * h.kernel * w.kernel; }

  Vector<Acc> bias_of(int64_t vector) const {
    const int64_t first = vector * kLanes<Acc>;
    return bias == nullptr ? Vector<Acc>{} : load_up_to(bias + first, channels - first);
  }

  const T* x_at(int64_t clip, int64_t frame, int64_t row, int64_t vector) const {
    return static_cast<const T*>(x.data) + clip * x.batch_stride + frame * x.t_stride + row * x.h_stride +
           vector * kLanes<Acc>;
  }

  T* out_at(int64_t clip, int64_t frame, int64_t row, int64_t vector) const {
    return out + ((clip * t.pooled + frame) * h.pooled + row) * w.pooled * channels + vector * kLanes<Acc>;
  }
};

template <class T>
void sum_windows(const DepthwiseSum<T>& sum);

}  // namespace vtfast::cpu
