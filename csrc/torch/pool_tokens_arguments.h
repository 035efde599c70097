// The tensors of token pooling as every device takes them.
#pragma once

#include "pool_tokens.h"
#include "torch/tensor_arguments.h"

namespace vtfast {

struct PoolWeights {
  std::optional<Tensor> weight, norm_weight, norm_bias;
};

// As the schema lists them, for one tensor that is pooled.
struct PoolSettings {
  std::vector<int64_t> grid;
  int64_t num_heads;
  int64_t num_prefix;
  int64_t mode;
  std::vector<int64_t> kernel, stride;
  double eps;
};

// Checks the inputs and describes the pooling of part `part` of tokens that are packed `num_parts` at a time. `tokens`
// is a token input already; the weights become a kernel's input here.
PoolTokensParams describe(const Tensor& tokens, int64_t part, int64_t num_parts, PoolWeights& weights,
                          const PoolSettings& settings, size_t alignment);

}  // namespace vtfast
