#include "cpu/parallel.h"

#include <torch/csrc/stable/ops.h>

namespace vtfast::cpu {

void parallel_for(int64_t count, RangeBody body, void* context) {
  torch::stable::parallel_for(0, count, 1, [=](int64_t begin, int64_t end) { body(context, begin, end); });
}

}  // namespace vtfast::cpu
