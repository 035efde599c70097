// Kernels with one mistake each.
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "self_check/cases.h"

namespace vtfast::self_check {
namespace {

constexpr int kThreads = 128;

struct Params {
  const float* in;
  float* out;
};

// Hands a number to the thread of the next warp.
template <bool kBarrier>
__global__ void pass_on(__grid_constant__ const Params params) {
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x;
  shared[thread] = params.in[thread];
  if (kBarrier) __syncthreads();
  params.out[thread] = shared[(thread + 32) % kThreads];
}

// Two rounds in the same memory: the second write must not overtake the first read.
template <bool kBarrier>
__global__ void pass_on_twice(__grid_constant__ const Params params) {
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x, next = (thread + 32) % kThreads;
  shared[thread] = params.in[thread];
  __syncthreads();
  const float first = shared[next];
  if (kBarrier) __syncthreads();
  shared[thread] = 0;
  params.out[thread] = first;
}

// The same among the lanes of a warp.
template <bool kBarrier>
__global__ void pass_on_in_warp(__grid_constant__ const Params params) {
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x;
  shared[thread] = params.in[thread];
  if (kBarrier) __syncwarp();
  params.out[thread] = shared[thread ^ 1];
}

// On a GPU a shuffle brings lanes together, but orders no accesses to memory; no order of lanes shows that here.
__global__ void shuffle_instead_of_barrier(__grid_constant__ const Params params) {
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x;
  shared[thread] = params.in[thread];
  __shfl_sync(0xffffffff, 0, 0);
  params.out[thread] = shared[thread ^ 1];
}

// Two groups of copies; only the wait for both makes the second one visible.
template <int kPending>
__global__ void copy_async(__grid_constant__ const Params params) {
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x;
  float* const mine = shared + thread * 8;
  const float* const source = params.in + thread * 4 % kThreads;
  ptx::cp_async_16(mine, source, true);
  ptx::cp_async_commit();
  ptx::cp_async_16(mine + 4, source, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<kPending>();
  __syncthreads();
  params.out[thread] = shared[(thread / 4 * 8 + thread % 4 + 4) % (kThreads * 8)];
}

template <int kPast>
__global__ void read_shared(__grid_constant__ const Params params) {
  const auto* shared = reinterpret_cast<const float*>(ptx::shared_memory());
  if (threadIdx.x == 0) params.out[0] = shared[kThreads - 1 + kPast];
}

template <int kPast>
__global__ void read_global(__grid_constant__ const Params params) {
  if (threadIdx.x == 0) params.out[0] = params.in[kThreads - 1 + kPast];
}

template <int kPast>
__global__ void copy_async_global(__grid_constant__ const Params params) {
  if (threadIdx.x != 0) return;
  ptx::cp_async_16(ptx::shared_memory(), params.in + kThreads - 4 + 4 * kPast, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
}

template <int kOffset>
__global__ void copy_async_unaligned(__grid_constant__ const Params params) {
  ptx::cp_async_16(ptx::shared_memory(), params.in + kOffset, true);
}

template <int kOffset>
__global__ void ldmatrix_unaligned(__grid_constant__ const Params params) {
  uint32_t matrices[4];
  ptx::ldmatrix_x4(matrices, ptx::shared_memory() + threadIdx.x % 8 * 16 + kOffset);
  params.out[threadIdx.x] = static_cast<float>(matrices[0]);
}

// Half of a warp takes another way.
__global__ void divided(__grid_constant__ const Params params) {
  float sum = params.in[threadIdx.x];
  if (threadIdx.x % 2 == 0) {
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
  } else {
    __syncwarp();
  }
  params.out[threadIdx.x] = sum;
}

__global__ void returned_early(__grid_constant__ const Params params) {
  if (threadIdx.x == 77) return;
  params.out[threadIdx.x] = __shfl_xor_sync(0xffffffff, params.in[threadIdx.x], 1);
}

__global__ void barrier_against_shuffle(__grid_constant__ const Params params) {
  if (threadIdx.x % 32 == 5) __syncthreads();
  params.out[threadIdx.x] = __shfl_sync(0xffffffff, params.in[threadIdx.x], 0);
}

// As CUDA has it, a barrier does not wait for threads that have returned.
__global__ void barrier_of_the_living(__grid_constant__ const Params params) {
  constexpr unsigned kLiving = 50;
  auto* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const unsigned thread = threadIdx.x;
  params.out[thread] = params.in[(thread + 32) % kThreads];
  if (thread >= kLiving) return;
  shared[kLiving - 1 - thread] = params.in[kLiving - 1 - thread + 32];
  __syncthreads();
  params.out[thread] = shared[thread];
}

__global__ void deep_recursion(__grid_constant__ const Params params) {
  volatile float large[80 * 1024];
  for (float& element : const_cast<float (&)[80 * 1024]>(large)) element = params.in[0];
  params.out[threadIdx.x] = large[threadIdx.x];
}

// Runs on 128 numbers; the results, all finite, must be those 32 (or `step`) places on.
template <void (*kKernel)(const Params)>
void run(int step, size_t shared_bytes) {
  const auto in = std::make_unique<float[]>(kThreads), out = std::make_unique<float[]>(kThreads);
  for (int i = 0; i < kThreads; ++i) in[i] = static_cast<float>(i + 1);
  cuda::launch(kKernel, 3, kThreads, shared_bytes, nullptr, Params{in.get(), out.get()});
  for (int i = 0; step >= 0 && i < kThreads; ++i) {
    const float wanted = in[step == 1 ? i ^ 1 : (i + step) % kThreads];
    expect(out[i] == wanted, "element " + std::to_string(i) + " is " + std::to_string(out[i]));
  }
}

constexpr size_t kFloats = kThreads * sizeof(float);

void launch_with(int threads, size_t shared_bytes) {
  float number = 0;
  cuda::launch(read_global<1 - kThreads>, 1, threads, shared_bytes, nullptr, Params{&number, &number});
}

}  // namespace

std::vector<Case> planted_mistakes() {
  return {
      {"barrier", [] { run<pass_on<true>>(32, kFloats); }},
      {"no_barrier", [] { run<pass_on<false>>(32, kFloats); }},
      {"barrier_before_overwriting", [] { run<pass_on_twice<true>>(32, kFloats); }},
      {"no_barrier_before_overwriting", [] { run<pass_on_twice<false>>(32, kFloats); }},
      {"warp_barrier", [] { run<pass_on_in_warp<true>>(1, kFloats); }},
      {"no_warp_barrier", [] { run<pass_on_in_warp<false>>(1, kFloats); }},
      {"shuffle_instead_of_barrier", [] { run<shuffle_instead_of_barrier>(1, kFloats); }},
      {"copy_async", [] { run<copy_async<0>>(0, 8 * kFloats); }},
      {"copy_async_not_waited_for", [] { run<copy_async<1>>(0, 8 * kFloats); }},
      {"shared_read", [] { run<read_shared<0>>(-1, kFloats); }},
      {"shared_read_out_of_bounds", [] { run<read_shared<1>>(-1, kFloats); }},
      {"global_read", [] { run<read_global<0>>(-1, 0); }},
      {"global_read_out_of_bounds", [] { run<read_global<1>>(-1, 0); }},
      {"copy_async_global", [] { run<copy_async_global<0>>(-1, 16); }},
      {"copy_async_out_of_bounds", [] { run<copy_async_global<1>>(-1, 16); }},
      {"copy_async_past_shared", [] { run<copy_async_global<0>>(-1, 8); }},
      {"copy_async_unaligned", [] { run<copy_async_unaligned<1>>(-1, 16); }},
      {"ldmatrix_unaligned", [] { run<ldmatrix_unaligned<4>>(-1, kFloats); }},
      {"ldmatrix_past_shared", [] { run<ldmatrix_unaligned<16>>(-1, 128); }},
      {"divided_warp", [] { run<divided>(-1, 0); }},
      {"returned_early", [] { run<returned_early>(-1, 0); }},
      {"barrier_against_shuffle", [] { run<barrier_against_shuffle>(-1, 0); }},
      {"barrier_of_the_living", [] { run<barrier_of_the_living>(32, kFloats); }},
      {"stack_too_small", [] { run<deep_recursion>(-1, 0); }},
      {"launch", [] { launch_with(1024, 227 * 1024); }},
      {"too_much_shared_memory", [] { launch_with(32, 227 * 1024 + 16); }},
      {"too_many_threads", [] { launch_with(1056, 0); }},
      {"half_a_warp", [] { launch_with(48, 0); }},
  };
}

}  // namespace vtfast::self_check
