// Forward pass of the depthwise convolution.
#include "depthwise_conv3d.h"
#include "depthwise_sum.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

template <class T>
void run(const DepthwiseConv3dParams& p) {
  using Acc = AccOf<T>;
  sum_windows<T>({p.t, p.h, p.w, p.batch, p.channels, p.residual, p.x, static_cast<const Acc*>(p.weight), false,
                  static_cast<const Acc*>(p.bias), static_cast<T*>(p.out)});
}

}  // namespace

void depthwise_conv3d_forward(const DepthwiseConv3dParams& params) {
  with_data_type(params.data_type, [&]<class T>() { return run<T>(params); });
}

}  // namespace vtfast::cpu
