// From the element type that a call names to the one a kernel is compiled for.
#pragma once

#include "../data_type.h"
#include "simd.h"

namespace vtfast::cpu {

// Calls body.template operator()<T>() for the type of that name.
template <class Body>
decltype(auto) with_data_type(DataType type, Body&& body) {
  switch (type) {
    case DataType::kFloat32:
      return body.template operator()<float>();
    case DataType::kBFloat16:
      return body.template operator()<BFloat16>();
    case DataType::kFloat16:
      return body.template operator()<Float16>();
    case DataType::kFloat64:
      return body.template operator()<double>();
  }
  __builtin_unreachable();
}

}  // namespace vtfast::cpu
