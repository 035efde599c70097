// Backward pass of the depthwise convolution: one pass over the data for the gradient of the input, one for those of
// weights and bias.
#include "depthwise_conv3d.h"
#include "depthwise_links.h"
#include "depthwise_weight_gradient.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// One axis of the gradient of the input as a sum over windows of outputs, where windows move by one.
PoolAxis transposed(const PoolAxis& axis) {
  return {axis.pooled, axis.kernel, 1, axis.kernel - 1 - axis.padding, axis.size};
}

template <class T>
void differentiate_input(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients) {
  using Acc = AccOf<T>;
  const bool dense = p.t.stride == 1 && p.h.stride == 1 && p.w.stride == 1;
  DepthwiseSum<T> sum{p.t,
                      p.h,
                      p.w,
                      p.batch,
                      p.channels,
                      p.residual,
                      gradients.grad_out,
                      static_cast<const Acc*>(p.weight),
                      dense,
                      nullptr,
                      static_cast<T*>(gradients.d_x)};
  if (!dense)
    return sum_all_links(sum, {AxisLinks::of_tokens(p.t), AxisLinks::of_tokens(p.h), AxisLinks::of_tokens(p.w)});
  sum.t = transposed(p.t);
  sum.h = transposed(p.h);
  sum.w = transposed(p.w);
  sum_windows(sum);
}

// target[c, i] = the sum over the chunks of sums[chunk][vector of c, first + i, lane of c], for `count` rows of a
// vector.
template <class Acc>
void sum_chunks(const DepthwiseConv3dParams& p, const GradientChunks& chunks, const Acc* sums, int64_t chunk_size,
                int64_t first, int64_t count, void* target) {
  constexpr int64_t kLane = kLanes<Acc>;
  parallel_for(chunks.vectors, [&](int64_t begin, int64_t end) {
    for (int64_t vector = begin; vector < end; ++vector) {
      const int64_t lanes = std::min(kLane, p.channels - vector * kLane);
      for (int64_t i = 0; i < count; ++i) {
        const Acc* source = sums + (vector * (p.num_taps() + 1) + first + i) * kLane;
        Vector<Acc> total = load(source);
        for (int64_t chunk = 1; chunk < chunks.count; ++chunk) total += load(source + chunk * chunk_size);
        Acc* column = static_cast<Acc*>(target) + vector * kLane * count + i;
        for (int64_t lane = 0; lane < lanes; ++lane) column[lane * count] = total[lane];
      }
    }
  });
}

template <class T>
GradientChunks chunks_of(const DepthwiseConv3dParams& p) {
  return GradientChunks(p, kLanes<AccOf<T>>, sizeof(T));
}

template <class T>
void differentiate_parameters(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients,
                              void* workspace) {
  using Acc = AccOf<T>;
  const GradientChunks chunks = chunks_of<T>(p);
  const int64_t chunk_size = WeightGradient<T>::chunk_size(p, chunks), taps = p.num_taps();
  Acc* sums = static_cast<Acc*>(workspace);
  parallel_for(chunks.count * chunks.vectors, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t vector = item % chunks.vectors, chunk = item / chunks.vectors;
      Acc* target = sums + chunk * chunk_size + vector * (taps + 1) * kLanes<Acc>;
      WeightGradient<T>(p, gradients, chunks, vector, target).add_chunk(chunk);
    }
  });
  if (gradients.d_weight != nullptr) sum_chunks(p, chunks, sums, chunk_size, 0, taps, gradients.d_weight);
  if (gradients.d_bias != nullptr) sum_chunks(p, chunks, sums, chunk_size, taps, 1, gradients.d_bias);
}

template <class T>
void run(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients, void* workspace) {
  if (gradients.d_x != nullptr) differentiate_input<T>(p, gradients);
  if (gradients.d_weight != nullptr || gradients.d_bias != nullptr) {
    differentiate_parameters<T>(p, gradients, workspace);
  }
}

template <class T>
int64_t workspace_size(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients) {
  if (gradients.d_weight == nullptr && gradients.d_bias == nullptr) return 0;
  const GradientChunks chunks = chunks_of<T>(p);
  return chunks.count * WeightGradient<T>::chunk_size(p, chunks);
}

}  // namespace

int64_t depthwise_conv3d_workspace_size(const DepthwiseConv3dParams& params,
                                        const DepthwiseConv3dGradients& gradients) {
  return with_data_type(params.data_type, [&]<class T>() { return workspace_size<T>(params, gradients); });
}

void depthwise_conv3d_backward(const DepthwiseConv3dParams& params, const DepthwiseConv3dGradients& gradients,
                               void* workspace) {
  with_data_type(params.data_type, [&]<class T>() { return run<T>(params, gradients, workspace); });
}

}  // namespace vtfast::cpu
