// Stands in for csrc/cuda/launch.cuh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/grid.h"

namespace vtfast::cuda {

template <class Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, size_t shared_bytes, void* /*stream*/,
            const Params& params) {
  static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= 4096);
  if (blocks == 0) return;
  emulation::run_grid({blocks, threads, shared_bytes}, [&] { kernel(params); });
}

}  // namespace vtfast::cuda
