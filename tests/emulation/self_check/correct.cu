// Instructions against what the PTX ISA says of them, computed another way.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"
#include "self_check/cases.h"

namespace vtfast::self_check {
namespace {

// The value of a 16-bit number, from its definition.
double value_of(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  const double significand = exponent ? mantissa + (1 << mantissa_bits) : mantissa;
  return sign * std::ldexp(significand, std::max(exponent, 1) - bias - mantissa_bits);
}

constexpr int kBf16Exponent = 8, kF16Exponent = 5;

bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

// Conversion to 16 bits, of every number that has them, of every midpoint of two neighbours, and of what lies right
// beside it.
template <uint32_t (*kConvert)(float, float), int kExponentBits>
void check_rounding() {
  const auto low = [](float x) { return value_of(static_cast<uint16_t>(kConvert(x, 0)), kExponentBits); };
  const auto high = [](float x) { return value_of(static_cast<uint16_t>(kConvert(0, x) >> 16), kExponentBits); };
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto x = static_cast<float>(value_of(static_cast<uint16_t>(bits), kExponentBits));
    const std::string name = std::to_string(bits);
    expect(same(low(x), x) && same(high(x), x), "conversion of the number of bits " + name);
    const auto next = static_cast<float>(value_of(static_cast<uint16_t>(bits + 1), kExponentBits));
    if (std::isnan(x) || std::isinf(x) || std::isnan(next)) continue;
    // Rounding sees the next step beyond the largest number where infinity stands.
    const float step =
        std::isinf(next) ? x - static_cast<float>(value_of(static_cast<uint16_t>(bits - 1), kExponentBits)) : next - x;
    const float middle = x + step / 2;
    expect(same(low(middle), bits % 2 ? next : x), "a tie after " + name);
    expect(same(low(std::nextafter(middle, x)), x), "just before the tie after " + name);
    expect(same(low(std::nextafter(middle, next)), next), "just after the tie after " + name);
  }
  expect(std::isnan(low(NAN)) && std::isnan(low(-NAN)) && std::isinf(low(3.4e38f * 10)), "conversion of NaN, infinity");
}

void check_float_of_half() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    expect(same(ptx::cvt_f32_f16(half), value_of(half, kF16Exponent)), "float of half " + std::to_string(bits));
  }
}

void check_ex2() {
  for (float x = -126; x < 128; x += 0.37f) {
    expect(std::abs(ptx::ex2(x) / std::exp2(static_cast<double>(x)) - 1) < 3e-7, "2^" + std::to_string(x));
  }
  expect(ptx::ex2(-INFINITY) == 0 && ptx::ex2(-126.5f) == 0 && ptx::ex2(-1e30f) == 0, "2^x of very small x");
  expect(ptx::ex2(128) == INFINITY && std::isnan(ptx::ex2(NAN)) && ptx::ex2(1e-40f) == 1, "2^x of odd x");
}

struct MmaParams {
  const uint16_t* a;  // [16, 16]
  const uint16_t* b;  // [8, 16], transposed
  float* c;           // [16, 8]
};

uint32_t pair(const uint16_t* elements) { return elements[0] | static_cast<uint32_t>(elements[1]) << 16; }

template <void (*kMma)(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t)>
__global__ void multiply(__grid_constant__ const MmaParams params) {
  const int g = static_cast<int>(threadIdx.x) / 4, q = static_cast<int>(threadIdx.x) % 4;
  const uint16_t* a = params.a + g * 16 + 2 * q;
  const uint16_t* b = params.b + g * 16 + 2 * q;
  float* c = params.c + g * 8 + 2 * q;
  float sums[4] = {c[0], c[1], c[64], c[65]};
  kMma(sums, {pair(a), pair(a + 128), pair(a + 8), pair(a + 136)}, pair(b), pair(b + 8));
  c[0] = sums[0], c[1] = sums[1], c[64] = sums[2], c[65] = sums[3];
}

template <void (*kMma)(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t), uint32_t (*kConvert)(float, float),
          int kExponentBits>
void check_mma() {
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 20; ++round) {
    uint16_t a[256], b[128];
    float c[128], before[128];
    for (uint16_t& x : a) x = static_cast<uint16_t>(kConvert(normal(random), 0));
    for (uint16_t& x : b) x = static_cast<uint16_t>(kConvert(normal(random), 0));
    for (float& x : c) x = normal(random);
    std::copy(c, c + 128, before);
    cuda::launch(multiply<kMma>, 1, 32, 0, nullptr, MmaParams{a, b, c});
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        double wanted = before[row * 8 + column];
        for (int k = 0; k < 16; ++k) {
          wanted += value_of(a[row * 16 + k], kExponentBits) * value_of(b[column * 16 + k], kExponentBits);
        }
        expect(std::abs(c[row * 8 + column] - wanted) < 1e-5, "element of a product");
      }
    }
  }
}

struct WarpParams {
  uint32_t* out;
};

// Element (row, column) of matrix m is 64 m + 8 row + column; rows stand in shared memory in another order.
template <bool kTransposed>
__global__ void load_matrices(__grid_constant__ const WarpParams params) {
  const uint32_t lane = threadIdx.x;
  char* row = ptx::shared_memory() + (lane * 7 % 32) * 16;
  for (uint32_t column = 0; column < 8; ++column) {
    reinterpret_cast<uint16_t*>(row)[column] = static_cast<uint16_t>(lane * 8 + column);
  }
  __syncwarp();
  uint32_t matrices[4];
  if (kTransposed) {
    ptx::ldmatrix_x4_trans(matrices, row);
  } else {
    ptx::ldmatrix_x4(matrices, row);
  }
  for (int m = 0; m < 4; ++m) params.out[lane * 4 + m] = matrices[m];
}

template <bool kTransposed>
void check_ldmatrix() {
  uint32_t out[128];
  cuda::launch(load_matrices<kTransposed>, 1, 32, 512, nullptr, WarpParams{out});
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t m = 0; m < 4; ++m) {
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t g = lane / 4, i = lane % 4 * 2 + half;
        const uint32_t wanted = 64 * m + (kTransposed ? 8 * i + g : 8 * g + i);
        expect((out[lane * 4 + m] >> half * 16 & 0xffff) == wanted, "ldmatrix, lane " + std::to_string(lane));
      }
    }
  }
}

__global__ void shuffle(__grid_constant__ const WarpParams params) {
  const auto thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread - lane;
  bool right = __shfl_sync(0xffffffff, thread, 5) == warp + 5;
  right &= __shfl_sync(0xffffffff, static_cast<float>(thread), (lane + 1) % 32) == warp + (lane + 1) % 32;
  right &= __shfl_xor_sync(0xffffffff, threadIdx.x, 16) == (threadIdx.x ^ 16);
  right &= __shfl_xor_sync(0xffffffff, 0.5f * thread, 3) == 0.5f * (thread ^ 3);
  right &= (__any_sync(0xffffffff, thread == 40) != 0) == (warp == 32);
  params.out[thread] = right;
}

void check_shuffles() {
  uint32_t out[96];
  cuda::launch(shuffle, 1, 96, 0, nullptr, WarpParams{out});
  expect(std::all_of(out, out + 96, [](uint32_t right) { return right == 1; }), "shuffles and votes");
}

// Copies that are not valid leave zeros and do not look at the source.
__global__ void copy_nothing(__grid_constant__ const WarpParams params) {
  auto* shared = reinterpret_cast<uint32_t*>(ptx::shared_memory()) + threadIdx.x * 4;
  const bool poisoned = shared[0] == 0xffffffff && shared[3] == 0xffffffff;
  ptx::cp_async_16(shared, nullptr, false);
  ptx::cp_async_wait<0>();
  const bool not_committed = shared[0] == 0xffffffff;
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  const bool pending = shared[0] == 0xffffffff;
  ptx::cp_async_wait<0>();
  params.out[threadIdx.x] = poisoned && not_committed && pending && shared[0] == 0 && shared[3] == 0;
}

void check_copies() {
  uint32_t out[64];
  cuda::launch(copy_nothing, 2, 64, 1024, nullptr, WarpParams{out});
  expect(std::all_of(out, out + 64, [](uint32_t right) { return right == 1; }), "asynchronous copies");
}

struct GridParams {
  uint32_t* out;
  int64_t blocks;
};

__global__ void name_threads(__grid_constant__ const GridParams params) {
  const bool right = gridDim.x == params.blocks && blockDim.x == 64;
  __syncthreads();
  params.out[blockIdx.x * blockDim.x + threadIdx.x] = right ? blockIdx.x * 64 + threadIdx.x : 0;
}

void check_indices() {
  std::vector<uint32_t> out(70000 * 64 / 1000);
  const auto blocks = static_cast<int64_t>(out.size() / 64);
  cuda::launch(name_threads, 0, 64, 0, nullptr, GridParams{out.data(), 0});
  cuda::launch(name_threads, blocks, 64, 0, nullptr, GridParams{out.data(), blocks});
  for (uint32_t i = 0; i < out.size(); ++i) expect(out[i] == i, "indices of thread " + std::to_string(i));
}

}  // namespace

std::vector<Case> correct_cases() {
  return {
      {"bf16_rounding", check_rounding<ptx::cvt_bf16x2, kBf16Exponent>},
      {"f16_rounding", check_rounding<ptx::cvt_f16x2, kF16Exponent>},
      {"float_of_half", check_float_of_half},
      {"ex2", check_ex2},
      {"mma_bf16", check_mma<ptx::mma_m16n8k16_bf16, ptx::cvt_bf16x2, kBf16Exponent>},
      {"mma_f16", check_mma<ptx::mma_m16n8k16_f16, ptx::cvt_f16x2, kF16Exponent>},
      {"ldmatrix", check_ldmatrix<false>},
      {"ldmatrix_trans", check_ldmatrix<true>},
      {"shuffles", check_shuffles},
      {"copies", check_copies},
      {"indices", check_indices},
  };
}

}  // namespace vtfast::self_check
