// Frames on their way through shared memory.
#pragma once

#include "cuda/ptx.cuh"

namespace vtfast::cuda {

// Frames [first, last) go through a ring of stages: one is visited while others are under way. `copy(frame, stage)`
// starts copying one.
template <int kStages, class Copy>
class FrameStream {
 public:
  // Starts with the first ones; nobody may be reading the stages.
  __device__ FrameStream(int first, int last, Copy& copy) : first_(first), last_(last), copy_(copy) {
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) start(first + i, i);
  }

  // Waits for what was committed before the first frames.
  __device__ static void wait_for_earlier() { ptx::cp_async_wait<kStages - 1>(); }

  // Calls visit(frame, stage) for each. All threads of the block have to come.
  template <int kUnroll, class Visit>
  __device__ void for_each(const Visit& visit) {
    int stage = 0;
#pragma unroll kUnroll
    for (int frame = first_; frame < last_; ++frame) {
      ptx::cp_async_wait<kStages - 2>();
      __syncthreads();  // all have also left the stage that is filled next
      start(frame + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
      visit(frame, stage);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
  }

 private:
  __device__ void start(int frame, int stage) {
    if (frame < last_) copy_(frame, stage);
    ptx::cp_async_commit();
  }

  int first_, last_;
  Copy& copy_;
};

}  // namespace vtfast::cuda
