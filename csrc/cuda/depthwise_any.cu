#include "cuda/launch.cuh"
#include "depthwise_any_gradient.cuh"
#include "depthwise_plan.h"
#include "with_type.cuh"

namespace vtfast::cuda {

void launch_any(DataType type, DepthwiseFlow flow, const DepthwiseAnyParams& params, void* stream) {
  const auto run = [&](void (*kernel)(DepthwiseAnyParams)) {
    launch(kernel, int64_t{params.blocks} * params.chunks, num_threads(params), params.table_bytes, stream, params);
  };
  with_type(type, [&](auto element) {
    using T = decltype(element);
    if (flow == DepthwiseFlow::kToOutputs) {
      run(depthwise_any_kernel<T, Flow::kToWindows>);
    } else {
      run(depthwise_any_kernel<T, Flow::kToTokens>);
    }
  });
}

void launch_any_gradient(DataType type, const DepthwiseAnyGradientParams& params, int64_t slabs, void* stream) {
  const int64_t tap_tiles = int64_t{params.tap_frames} * params.tap_lines * params.tap_columns;
  with_type(type, [&](auto element) {
    launch(depthwise_any_gradient_kernel<decltype(element)>, slabs * params.windows.chunks * tap_tiles,
           num_threads(params.windows), RowSums::kBytes, stream, params);
  });
}

}  // namespace vtfast::cuda
