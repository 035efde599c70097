#include "torch/pool_tokens_arguments.h"

#include <torch/headeronly/util/Exception.h>

namespace vtfast {
namespace {

PoolAxis axis(const PoolSettings& settings, int i) {
  const int64_t size = settings.grid[i], kernel = settings.kernel[i], stride = settings.stride[i];
  STD_TORCH_CHECK(size > 0 && kernel > 0 && stride > 0, "grid, kernel and stride must be at least 1");
  return PoolAxis::make(size, kernel, stride);
}

}  // namespace

PoolTokensParams describe(const Tensor& tokens, int64_t part, int64_t num_parts, PoolWeights& weights,
                          const PoolSettings& settings, size_t alignment) {
  STD_TORCH_CHECK(settings.grid.size() == 3 && settings.kernel.size() == 3 && settings.stride.size() == 3,
                  "grid, kernel and stride must have three elements");
  STD_TORCH_CHECK(settings.num_prefix >= 0, "num_prefix must be at least 0");
  STD_TORCH_CHECK(settings.mode >= 0 && settings.mode <= static_cast<int64_t>(PoolMode::kNone), "mode is unknown");
  const int64_t packed = tokens.size(2), parts = num_parts * settings.num_heads;
  STD_TORCH_CHECK(parts > 0 && packed > 0 && packed % parts == 0, "num_heads must divide C");

  PoolTokensParams p{};
  p.t = axis(settings, 0);
  p.h = axis(settings, 1);
  p.w = axis(settings, 2);
  p.batch = tokens.size(0);
  p.num_prefix = settings.num_prefix;
  p.num_heads = settings.num_heads;
  p.head_dim = packed / parts;
  p.eps = settings.eps;
  p.mode = static_cast<PoolMode>(settings.mode);
  p.data_type = data_type(tokens, "tokens");
  check_tensor(tokens, "tokens", tokens, tokens.scalar_type(), {p.batch, p.num_prefix + p.num_inputs(), packed});

  const ScalarType acc = acc_type(p.data_type);
  STD_TORCH_CHECK((p.mode == PoolMode::kConvolution) == weights.weight.has_value(), "weight must fit the mode");
  STD_TORCH_CHECK(weights.norm_weight.has_value() == weights.norm_bias.has_value(), "a norm has weight and bias");
  for (std::optional<Tensor>* tensor : {&weights.weight, &weights.norm_weight, &weights.norm_bias}) {
    if (*tensor) *tensor = as_kernel_input(**tensor, alignment);
  }
  if (weights.weight) {
    check_tensor(*weights.weight, "weight", tokens, acc, {p.head_dim, 1, p.t.kernel, p.h.kernel, p.w.kernel});
  }
  if (weights.norm_weight) {
    check_tensor(*weights.norm_weight, "norm_weight", tokens, acc, {p.head_dim});
    check_tensor(*weights.norm_bias, "norm_bias", tokens, acc, {p.head_dim});
  }
  p.x = token_rows(tokens);
  p.x.data = static_cast<const char*>(p.x.data) + part * p.channels() * tokens.element_size();
  p.weight = address(weights.weight);
  p.norm_weight = address(weights.norm_weight);
  p.norm_bias = address(weights.norm_bias);
  return p;
}

}  // namespace vtfast
