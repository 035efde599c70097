// Compiled once for the convolution and for the gradient of its input.
#include "depthwise_links.h"
#include "depthwise_tile.h"

namespace vtfast::cpu {

template <class T>
void sum_windows(const DepthwiseSum<T>& sum) {
  if (try_sum_tiles(sum)) return;
  sum_all_links(sum, {AxisLinks::of_windows(sum.t), AxisLinks::of_windows(sum.h), AxisLinks::of_windows(sum.w)});
}

template void sum_windows(const DepthwiseSum<float>&);
template void sum_windows(const DepthwiseSum<BFloat16>&);
template void sum_windows(const DepthwiseSum<Float16>&);
template void sum_windows(const DepthwiseSum<double>&);

}  // namespace vtfast::cpu
