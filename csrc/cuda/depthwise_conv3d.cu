#include "column_sums.h"
#include "depthwise_conv3d.h"
#include "depthwise_plan.h"
#include "with_type.cuh"

namespace vtfast::cuda {
namespace {

// Sums tokens from `source` into `target`, in the one direction or the other.
void sum(const DepthwiseConv3dParams& p, DepthwiseFlow flow, const TokenGrid& source, void* target, void* stream) {
  const bool to_outputs = flow == DepthwiseFlow::kToOutputs;
  const auto fill = [&](auto& k) {
    k.residual = p.residual;
    k.weight = static_cast<const float*>(p.weight);
    k.bias = to_outputs ? static_cast<const float*>(p.bias) : nullptr;
    k.source = bytes_of(source, element_size(p));
    k.target = targets_at(target, p, flow);
  };
  const SlidingKernel kernel = sliding_kernel(p);
  if (kernel == SlidingKernel::kNone) {
    DepthwiseAnyParams k = plan_any(p, flow);
    fill(k);
    return launch_any(p.data_type, flow, k, stream);
  }
  DepthwiseSlideParams k{};
  k.tiles = plan_tiles(p, flow, sum_channels(p.data_type));
  k.flipped = !to_outputs;
  fill(k);
  with_type(p.data_type, [&](auto element) { launch_slide<decltype(element)>(kernel, k, stream); });
}

// The partial sums of a backward in its workspace: [slabs, C, taps] of the weights, then [slabs, C] of the bias.
struct DepthwisePartials {
  DepthwiseSlabs slabs;
  int64_t weights, biases;  // floats

  static DepthwisePartials of(const DepthwiseConv3dParams& p) {
    const SlidingKernel kernel = sliding_kernel(p);
    DepthwiseSlabs slabs;
    if (kernel == SlidingKernel::kNone) {
      const DepthwiseAnyParams k = plan_any(p, DepthwiseFlow::kToOutputs);
      slabs = depthwise_slabs(k.steps, k.chunks * num_tap_tiles(p));
    } else {
      const DepthwiseTiles tiles = plan_tiles(p, DepthwiseFlow::kToOutputs, gradient_channels(p.data_type, kernel));
      slabs = depthwise_slabs(tiles.count, tiles.chunks);
    }
    return {slabs, slabs.count * p.channels * p.num_taps(), slabs.count * p.channels};
  }
};

Divisor num_tiles(const PoolAxis& axis, int64_t taps) {
  return Divisor(static_cast<int>((axis.kernel + taps - 1) / taps));
}

void differentiate_weights(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients, float* workspace,
                           void* stream) {
  const DepthwisePartials partials = DepthwisePartials::of(p);
  float* const weight_partials = workspace;
  float* const bias_partials = workspace + partials.weights;
  const auto fill = [&](auto& k) {
    k.gradients = bytes_of(gradients.grad_out, element_size(p));
    k.weight_partials = weight_partials;
    k.bias_partials = bias_partials;
  };
  const SlidingKernel kernel = sliding_kernel(p);
  if (kernel == SlidingKernel::kNone) {
    DepthwiseAnyGradientParams k{};
    k.windows = plan_any(p, DepthwiseFlow::kToOutputs);
    k.windows.source = bytes_of(p.x, element_size(p));
    k.tap_frames = num_tiles(p.t, 1);
    k.tap_lines = num_tiles(p.h, kAnyTapTile);
    k.tap_columns = num_tiles(p.w, kAnyTapTile);
    k.slab_steps = static_cast<int>(partials.slabs.size);
    fill(k);
    launch_any_gradient(p.data_type, k, partials.slabs.count, stream);
  } else {
    DepthwiseSlideGradientParams k{};
    k.tiles = plan_tiles(p, DepthwiseFlow::kToOutputs, gradient_channels(p.data_type, kernel));
    k.slab_tiles = static_cast<int>(partials.slabs.size);
    k.source = bytes_of(p.x, element_size(p));
    fill(k);
    with_type(p.data_type,
              [&](auto element) { launch_slide_gradient<decltype(element)>(kernel, k, partials.slabs.count, stream); });
  }
  const auto columns = [&](const float* of, int64_t count, void* sums) {
    return ColumnSums{of, static_cast<float*>(sums), partials.slabs.count, count, sums == nullptr ? 0 : count};
  };
  sum_columns({{columns(weight_partials, p.channels * p.num_taps(), gradients.d_weight),
                columns(bias_partials, p.channels, gradients.d_bias)}},
              stream);
}

bool wants_weights(const DepthwiseConv3dGradients& gradients) {
  return gradients.d_weight != nullptr || gradients.d_bias != nullptr;
}

}  // namespace

void depthwise_conv3d_forward(const DepthwiseConv3dParams& p, void* stream) {
  sum(p, DepthwiseFlow::kToOutputs, p.x, p.out, stream);
}

int64_t depthwise_conv3d_workspace_size(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients) {
  if (!wants_weights(gradients)) return 0;
  const DepthwisePartials partials = DepthwisePartials::of(p);
  return partials.weights + partials.biases;
}

void depthwise_conv3d_backward(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients,
                               void* workspace, void* stream) {
  if (gradients.d_x != nullptr) sum(p, DepthwiseFlow::kToInputs, gradients.grad_out, gradients.d_x, stream);
  if (wants_weights(gradients)) differentiate_weights(p, gradients, static_cast<float*>(workspace), stream);
}

}  // namespace vtfast::cuda
