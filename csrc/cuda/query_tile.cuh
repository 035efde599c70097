// 16 queries and their softmax, whose maximum and sum are kept up to date from one block of keys to the next (Dao et
// al., "FlashAttention-2", 2023, algorithm 1).
#pragma once

#include "logarithms.h"
#include "product.cuh"

namespace vtfast::cuda {

struct Unchanged {
  template <class Scores>
  __device__ void operator()(Scores&, int) const {}
};

// 16 queries of a warp and what they have gathered so far.
template <class T, int D>
class QueryTile {
 public:
  static constexpr int kBlocks = 4;  // of 16 keys, between two updates of the maximum
  static constexpr bool kHold = D <= 96;

  float out[D / 8][4];
  float sum[2];
  float max[2];

  __device__ void begin(Shared<char> queries) {
    queries_.load(queries);
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[d][i] = 0;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = 0;
      max[half] = -INFINITY;
    }
  }

  // `finish(scores, at)` turns products with the 16 keys from `at` on into scores times log2(e), minus infinity where
  // there is no key; `complete(scores, first)`, if it is given, has the last word on the kBlocks blocks from `first`
  // on.
  template <class Finish, class Complete = Unchanged>
  __device__ void attend(Shared<char> keys, Shared<char> values, int count, const Finish& finish,
                         const Complete& complete = {}) {
    for (int first = 0; first < count; first += 16 * kBlocks) {
      Block scores[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at < count) {
          multiply(scores[b], queries_, keys + at * SharedRow<T, D>::kBytes);
          finish(scores[b], at);
        } else {
#pragma unroll
          for (int i = 0; i < 8; ++i) scores[b][i / 4][i % 4] = -INFINITY;
        }
      }
      complete(scores, first);
      weigh(scores);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at < count) accumulate(out, Weights<T>(scores[b]), values + at * SharedRow<T, D>::kBytes);
      }
    }
  }

  // Completes `sum` and returns what `out` is to be multiplied with; zero where no key was seen.
  __device__ void finish(float (&factor)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = sum_of_row(sum[half]);
      factor[half] = sum[half] == 0 ? 0 : 1 / sum[half];
    }
  }

  // Natural logarithm; infinity where no key was seen, so that the backward finds a weight of zero.
  __device__ float lse(int half) const { return sum[half] == 0 ? INFINITY : max[half] * kLn2 + logf(sum[half]); }

 private:
  // Scores become weights relative to the largest score so far.
  __device__ void weigh(Block (&scores)[kBlocks]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = max[half];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) largest = fmaxf(largest, scores[b][i / 2][i % 2 + 2 * half]);
      }
      largest = max_of_row(largest);
      const float origin = largest == -INFINITY ? 0 : largest;
      const float shrink = ptx::ex2(max[half] - origin);
      max[half] = largest;
      float added = 0;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& weight = scores[b][i / 2][i % 2 + 2 * half];
          weight = ptx::ex2(weight - origin);
          added += weight;
        }
      }
      sum[half] = sum[half] * shrink + added;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        out[d][2 * half] *= shrink;
        out[d][2 * half + 1] *= shrink;
      }
    }
  }

  Rows<T, D, kHold> queries_;
};

}  // namespace vtfast::cuda
