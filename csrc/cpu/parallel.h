// Threads, as the host framework hands them out. Kernels know no framework; csrc/torch defines this.
#pragma once

#include <cstdint>

namespace vtfast::cpu {

using RangeBody = void (*)(void* context, int64_t begin, int64_t end);

// Calls body on disjoint ranges that cover [0, count), perhaps in several threads.
void parallel_for(int64_t count, RangeBody body, void* context);

template <class Body>
void parallel_for(int64_t count, Body&& body) {
  parallel_for(
      count, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace vtfast::cpu
