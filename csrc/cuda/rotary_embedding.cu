#include <limits>

#include "cuda/launch.cuh"
#include "divisor.h"
#include "element.cuh"
#include "rotary_embedding.h"

namespace vtfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 4;  // about: blocks have whole tokens

// A vector is 16 bytes of a token's row.
struct RotaryKernelParams {
  Divisor clip_tokens;      // P + N
  Divisor height, width;    // of the grid
  Divisor row_vectors;      // of q, k and v
  Divisor head_vectors;     // of a head
  int rotated_vectors;      // of q and k, those beyond `rotated` included
  int num_prefix;           // P
  int rotated;              // R
  int rows, block_rows;     // tokens, and those of a block
  int64_t table_stride[3];  // elements

  const uint4* qkv;  // [rows, row_vectors]
  const float* cos;  // [T or 1, H or 1, W or 1, R]
  const float* sin;
  uint4* out;
};

template <class T>
struct VectorOf {
  static constexpr int kElements = 16 / sizeof(T);
};

// (a, b) times the matrix with rows (cos.x, -sin.x) and (sin.y, cos.y), or its transpose.
template <bool kTranspose>
__device__ inline float2 rotate(float2 pair, float2 cos, float2 sin) {
  if constexpr (kTranspose) {
    return make_float2(pair.x * cos.x + pair.y * sin.y, pair.y * cos.y - pair.x * sin.x);
  } else {
    return make_float2(pair.x * cos.x - pair.y * sin.x, pair.y * cos.y + pair.x * sin.y);
  }
}

// The pairs of a vector that have an entry in the tables, of which `left` channels are left.
template <class T, bool kTranspose>
__device__ inline uint4 rotate(uint4 vector, const float* cos, const float* sin, int left) {
  uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < VectorOf<T>::kElements; i += 2) {
    if (i >= left) break;
    const float2 c = *reinterpret_cast<const float2*>(cos + i), s = *reinterpret_cast<const float2*>(sin + i);
    if constexpr (sizeof(T) == 4) {
      const float2 pair =
          rotate<kTranspose>(make_float2(__uint_as_float(words[i]), __uint_as_float(words[i + 1])), c, s);
      words[i] = __float_as_uint(pair.x);
      words[i + 1] = __float_as_uint(pair.y);
    } else {
      uint32_t& word = words[i / 2];
      const float2 pair = rotate<kTranspose>(make_float2(T::low(word), T::high(word)), c, s);
      word = T::pack(pair.x, pair.y);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <class T, bool kTranspose>
__global__ void __launch_bounds__(kThreads) rotary_embedding_kernel(const __grid_constant__ RotaryKernelParams p) {
  const int first_row = blockIdx.x * p.block_rows;
  const int rows = min(p.block_rows, p.rows - first_row);
  for (int i = threadIdx.x; i < rows * p.row_vectors; i += kThreads) {
    const int row = first_row + i / p.row_vectors, place = i % p.row_vectors;
    const int64_t offset = int64_t{row} * p.row_vectors + place;
    uint4 vector = p.qkv[offset];
    const int token = row % p.clip_tokens - p.num_prefix;
    const int channel = place % p.head_vectors * VectorOf<T>::kElements;
    if (token >= 0 && place < p.rotated_vectors && channel < p.rotated) {
      const auto at = DeviceCoordinates::of(token, p.height, p.width);
      const int64_t entry = at.t * p.table_stride[0] + at.h * p.table_stride[1] + at.w * p.table_stride[2] + channel;
      vector = rotate<T, kTranspose>(vector, p.cos + entry, p.sin + entry, p.rotated - channel);
    }
    p.out[offset] = vector;
  }
}

template <class T>
void run(const RotaryEmbeddingParams& p, void* stream) {
  const auto vectors = [](int64_t elements) { return static_cast<int>(elements / VectorOf<T>::kElements); };
  RotaryKernelParams k{};
  k.clip_tokens = Divisor(static_cast<int>(p.num_tokens()));
  k.height = Divisor(static_cast<int>(p.grid[1]));
  k.width = Divisor(static_cast<int>(p.grid[2]));
  k.row_vectors = Divisor(vectors(3 * p.channels()));
  k.head_vectors = Divisor(vectors(p.head_dim));
  k.rotated_vectors = vectors(2 * p.channels());
  k.num_prefix = static_cast<int>(p.num_prefix);
  k.rotated = static_cast<int>(p.rotated);
  k.rows = static_cast<int>(p.batch * p.num_tokens());
  k.block_rows = max(1, kThreads * kVectorsPerThread / k.row_vectors);
  for (int axis = 0; axis < 3; ++axis) k.table_stride[axis] = p.table_stride[axis];
  k.qkv = static_cast<const uint4*>(p.qkv);
  k.cos = static_cast<const float*>(p.cos);
  k.sin = static_cast<const float*>(p.sin);
  k.out = static_cast<uint4*>(p.out);
  const int64_t blocks = (int64_t{k.rows} + k.block_rows - 1) / k.block_rows;
  launch(p.transpose ? rotary_embedding_kernel<T, true> : rotary_embedding_kernel<T, false>, blocks, kThreads, 0,
         stream, k);
}

}  // namespace

const char* unsupported(const RotaryEmbeddingParams& p) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (p.data_type == DataType::kFloat64) return "float64 has no kernel on CUDA";
  if (p.head_dim % 8 != 0) return "head_dim must be a multiple of 8 on CUDA";
  if (p.batch * p.num_tokens() > kMost) return "more than 2^31 tokens";
  if (3 * p.channels() > kMost / kThreads) return "more than 2^23 channels";
  return nullptr;
}

void rotary_embedding(const RotaryEmbeddingParams& params, void* stream) {
  switch (params.data_type) {
    case DataType::kBFloat16:
      return run<BFloat16>(params, stream);
    case DataType::kFloat16:
      return run<Float16>(params, stream);
    default:
      return run<float>(params, stream);
  }
}

}  // namespace vtfast::cuda
