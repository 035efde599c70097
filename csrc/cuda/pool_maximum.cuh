// The largest token of a window, and the gradient's way back to it.
#pragma once

#include "pool_windows.cuh"

namespace vtfast::cuda {

// Where the winners of the thread's channels stand: eight 16-bit taps.
__device__ inline uint4* winners_at(const PoolKernelParams& p, const PoolRow& row, int window) {
  const int64_t place = int64_t{row.clip} * p.t.pooled * p.h.pooled * p.w.pooled + window;
  return reinterpret_cast<uint4*>(p.winners + place * p.channels() + row.channel);
}

template <class T>
struct Maximum {
  using Source = T;
  static constexpr Flow kFlow = Flow::kToWindows;
  static constexpr int kLines = 1, kColumns = 1, kTargets = 1;

  // Of equal tokens the first wins, and the last NaN over all others, as in torch.
  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&largest)[1][kChannels]) {
    const T* tokens = channels_of<T>(p.source, row);
    uint32_t winners[kChannels];
    bool is_first = true;
    for_each_source<kFlow>(p, row, [&](int tap, int token) {
      float values[kChannels];
      load(shifted(tokens, token * p.source.token_stride), values);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (is_first || values[c] > largest[0][c] || values[c] != values[c]) {
          largest[0][c] = values[c];
          winners[c] = static_cast<uint32_t>(tap);
        }
      }
      is_first = false;
    });
    if (p.winners == nullptr) return;
    const int window = (row.t * p.h.pooled + row.h) * p.w.pooled + row.w;
    *winners_at(p, row, window) = make_uint4(winners[0] | winners[1] << 16, winners[2] | winners[3] << 16,
                                             winners[4] | winners[5] << 16, winners[6] | winners[7] << 16);
  }
};

// For a token, the sum of the gradients of the windows that it has won.
struct Won {
  using Source = float;
  static constexpr Flow kFlow = Flow::kToTokens;
  static constexpr int kLines = 1, kColumns = 1, kTargets = 1;

  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&sums)[1][kChannels]) {
    const float* gradients = channels_of<float>(p.source, row);
    for_each_source<kFlow>(p, row, [&](int tap, int window) {
      float values[kChannels];
      load(shifted(gradients, window * p.source.token_stride), values);
      const uint4 winners = *winners_at(p, row, window);
      const uint32_t pairs[kHalf] = {winners.x, winners.y, winners.z, winners.w};
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const uint32_t winner = pairs[c / 2] >> (c % 2 * 16) & 0xffff;
        sums[0][c] += winner == static_cast<uint32_t>(tap) ? values[c] : 0.0f;
      }
    });
  }
};

}  // namespace vtfast::cuda
