// Forward pass of the depthwise convolution.
#include "depthwise_conv3d.h"
#include "depthwise_links.h"
#include "depthwise_tile.h"

namespace vtfast::cpu {
namespace {

template <class T>
void run(const DepthwiseConv3dParams& p) {
  using Acc = AccOf<T>;
  const DepthwiseSum<T> sum{p.t,
                            p.h,
                            p.w,
                            p.batch,
                            p.channels,
                            p.residual,
                            p.x,
                            static_cast<const Acc*>(p.weight),
                            false,
                            static_cast<const Acc*>(p.bias),
                            static_cast<T*>(p.out)};
  if (try_sum_tiles(sum)) return;
  sum_all_links(sum, {AxisLinks::of_windows(p.t), AxisLinks::of_windows(p.h), AxisLinks::of_windows(p.w)});
}

}  // namespace

void depthwise_conv3d_forward(const DepthwiseConv3dParams& params) {
  switch (params.data_type) {
    case DataType::kFloat32:
      return run<float>(params);
    case DataType::kBFloat16:
      return run<BFloat16>(params);
    case DataType::kFloat16:
      return run<Float16>(params);
    case DataType::kFloat64:
      return run<double>(params);
  }
}

}  // namespace vtfast::cpu
