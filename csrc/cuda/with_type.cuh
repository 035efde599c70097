// From the data type of tokens to its C++ type.
#pragma once

#include "../data_type.h"
#include "element.cuh"

namespace vtfast::cuda {

// Calls run(T{}).
template <class Run>
void with_type(DataType type, const Run& run) {
  switch (type) {
    case DataType::kBFloat16:
      return run(BFloat16{});
    case DataType::kFloat16:
      return run(Float16{});
    default:
      return run(float{});
  }
}

}  // namespace vtfast::cuda
