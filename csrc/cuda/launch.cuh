// Launching a kernel that takes one parameter struct. tests/emulation stands in for this file.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>

namespace vtfast::cuda {

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

// Runs `kernel` in `blocks` blocks of `threads` threads on `stream` (a cudaStream_t). Zero blocks are no launch.
template <class Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, size_t shared_bytes, void* stream,
            const Params& params) {
  if (blocks == 0) return;
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes,
           static_cast<cudaStream_t>(stream)>>>(params);
  check(cudaGetLastError());
}

}  // namespace vtfast::cuda
