// Token pooling as torch calls it: allocation around the kernels of one device. An `Engine` is made for a call and has
//   static constexpr const char* kDevice     where its tensors must be, for a message
//   static constexpr size_t kAlignment       of the inputs and of every token, in bytes
//   static bool owns(tensor)                 whether a tensor is there
//   Engine(x, params)                        refuses what its kernels do not take
//   backward_workspace_size(params)          elements of accumulation type
//   forward(...), backward(...)              never called for an empty batch
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <tuple>

#include "torch/pool_tokens_arguments.h"

namespace vtfast {

using OptionalTensor = std::optional<Tensor>;

template <class Engine>
Tensor pool_part(const Tensor& tokens, int64_t part, int64_t num_parts, PoolWeights weights,
                 const PoolSettings& settings) {
  PoolTokensParams p = describe(tokens, part, num_parts, weights, settings, Engine::kAlignment);
  const Engine engine(tokens, p);
  Tensor out = empty(tokens, {p.batch, p.num_prefix + p.num_outputs(), p.channels()});
  if (p.batch == 0) return out;
  p.out = out.mutable_data_ptr();
  engine.forward(p);
  return out;
}

// Fills its part of `d_tokens`, which is packed as the tokens are; returns the gradients of the weights.
template <class Engine>
PoolWeights differentiate_part(Tensor grad_out, const Tensor& tokens, int64_t part, int64_t num_parts,
                               PoolWeights weights, const PoolSettings& settings, Tensor& d_tokens) {
  const PoolTokensParams p = describe(tokens, part, num_parts, weights, settings, Engine::kAlignment);
  grad_out = as_kernel_input(grad_out, Engine::kAlignment);
  check_tensor(grad_out, "grad_out", tokens, tokens.scalar_type(),
               {p.batch, p.num_prefix + p.num_outputs(), p.channels()});
  PoolWeights d_weights{empty_gradient(weights.weight, tokens), empty_gradient(weights.norm_weight, tokens),
                        empty_gradient(weights.norm_bias, tokens)};
  if (p.batch == 0) {
    for (OptionalTensor* d : {&d_weights.weight, &d_weights.norm_weight, &d_weights.norm_bias}) {
      *d = torch::stable::zero_(**d);
    }
    return d_weights;
  }
  const auto target = [](const OptionalTensor& input, OptionalTensor& gradient) {
    return input ? gradient->mutable_data_ptr() : nullptr;
  };
  const int64_t offset = part * p.channels() * static_cast<int64_t>(tokens.element_size());
  PoolTokensGradients gradients{
      grad_out.const_data_ptr(),
      {static_cast<char*>(d_tokens.mutable_data_ptr()) + offset, d_tokens.stride(0), d_tokens.stride(1)},
      target(weights.weight, d_weights.weight),
      target(weights.norm_weight, d_weights.norm_weight),
      target(weights.norm_bias, d_weights.norm_bias)};
  const Engine engine(tokens, p);
  Tensor workspace = empty(tokens, {engine.backward_workspace_size(p)}, acc_type(p.data_type));
  engine.backward(p, gradients, workspace.mutable_data_ptr());
  return d_weights;
}

template <class Engine>
Tensor pool_tokens(Tensor x, OptionalTensor weight, OptionalTensor norm_weight, OptionalTensor norm_bias,
                   std::vector<int64_t> grid, int64_t num_heads, int64_t num_prefix, int64_t mode,
                   std::vector<int64_t> kernel, std::vector<int64_t> stride, double eps) {
  STD_TORCH_CHECK(Engine::owns(x), "x must be on ", Engine::kDevice);
  return pool_part<Engine>(as_token_input(x, "x", Engine::kAlignment), 0, 1, {weight, norm_weight, norm_bias},
                           {grid, num_heads, num_prefix, mode, kernel, stride, eps});
}

template <class Engine>
std::tuple<Tensor, Tensor, Tensor, Tensor> pool_tokens_backward(Tensor grad_out, Tensor x, OptionalTensor weight,
                                                                OptionalTensor norm_weight, OptionalTensor norm_bias,
                                                                std::vector<int64_t> grid, int64_t num_heads,
                                                                int64_t num_prefix, int64_t mode,
                                                                std::vector<int64_t> kernel,
                                                                std::vector<int64_t> stride, double eps) {
  STD_TORCH_CHECK(Engine::owns(x), "x must be on ", Engine::kDevice);
  x = as_token_input(x, "x", Engine::kAlignment);
  Tensor d_x = empty(x, {x.size(0), x.size(1), x.size(2)});
  PoolWeights d = differentiate_part<Engine>(grad_out, x, 0, 1, {weight, norm_weight, norm_bias},
                                             {grid, num_heads, num_prefix, mode, kernel, stride, eps}, d_x);
  return {d_x, *d.weight, *d.norm_weight, *d.norm_bias};
}

// How part `part` of packed q, k and v is pooled, out of the lists for all three.
inline PoolSettings settings_of_part(int64_t part, const std::vector<int64_t>& grid, int64_t num_heads,
                                     int64_t num_prefix, const std::vector<int64_t>& modes,
                                     const std::vector<int64_t>& kernels, const std::vector<int64_t>& strides,
                                     double eps) {
  STD_TORCH_CHECK(modes.size() == 3 && kernels.size() == 9 && strides.size() == 9,
                  "modes must have three elements, kernels and strides nine");
  const auto triple = [part](const std::vector<int64_t>& sizes) {
    return std::vector<int64_t>(sizes.begin() + 3 * part, sizes.begin() + 3 * part + 3);
  };
  return {grid, num_heads, num_prefix, modes[part], triple(kernels), triple(strides), eps};
}

template <class Engine>
std::tuple<Tensor, Tensor, Tensor> pool_qkv(Tensor qkv, OptionalTensor q_weight, OptionalTensor q_norm_weight,
                                            OptionalTensor q_norm_bias, OptionalTensor k_weight,
                                            OptionalTensor k_norm_weight, OptionalTensor k_norm_bias,
                                            OptionalTensor v_weight, OptionalTensor v_norm_weight,
                                            OptionalTensor v_norm_bias, std::vector<int64_t> grid, int64_t num_heads,
                                            int64_t num_prefix, std::vector<int64_t> modes,
                                            std::vector<int64_t> kernels, std::vector<int64_t> strides, double eps) {
  STD_TORCH_CHECK(Engine::owns(qkv), "qkv must be on ", Engine::kDevice);
  qkv = as_token_input(qkv, "qkv", Engine::kAlignment);
  const auto pool = [&](int64_t part, PoolWeights weights) {
    return pool_part<Engine>(qkv, part, 3, weights,
                             settings_of_part(part, grid, num_heads, num_prefix, modes, kernels, strides, eps));
  };
  return {pool(0, {q_weight, q_norm_weight, q_norm_bias}), pool(1, {k_weight, k_norm_weight, k_norm_bias}),
          pool(2, {v_weight, v_norm_weight, v_norm_bias})};
}

template <class Engine>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> pool_qkv_backward(
    Tensor d_q, Tensor d_k, Tensor d_v, Tensor qkv, OptionalTensor q_weight, OptionalTensor q_norm_weight,
    OptionalTensor q_norm_bias, OptionalTensor k_weight, OptionalTensor k_norm_weight, OptionalTensor k_norm_bias,
    OptionalTensor v_weight, OptionalTensor v_norm_weight, OptionalTensor v_norm_bias, std::vector<int64_t> grid,
    int64_t num_heads, int64_t num_prefix, std::vector<int64_t> modes, std::vector<int64_t> kernels,
    std::vector<int64_t> strides, double eps) {
  STD_TORCH_CHECK(Engine::owns(qkv), "qkv must be on ", Engine::kDevice);
  qkv = as_token_input(qkv, "qkv", Engine::kAlignment);
  Tensor d_qkv = empty(qkv, {qkv.size(0), qkv.size(1), qkv.size(2)});
  const auto differentiate = [&](int64_t part, const Tensor& grad_out, PoolWeights weights) {
    return differentiate_part<Engine>(grad_out, qkv, part, 3, weights,
                                      settings_of_part(part, grid, num_heads, num_prefix, modes, kernels, strides, eps),
                                      d_qkv);
  };
  const PoolWeights q = differentiate(0, d_q, {q_weight, q_norm_weight, q_norm_bias});
  const PoolWeights k = differentiate(1, d_k, {k_weight, k_norm_weight, k_norm_bias});
  const PoolWeights v = differentiate(2, d_v, {v_weight, v_norm_weight, v_norm_bias});
  return {d_qkv,          *q.weight,    *q.norm_weight, *q.norm_bias,   *k.weight,
          *k.norm_weight, *k.norm_bias, *v.weight,      *v.norm_weight, *v.norm_bias};
}

template <class Engine>
void register_pool_tokens(torch::stable::detail::StableLibrary& library) {
  library.impl("pool_tokens", TORCH_BOX(&pool_tokens<Engine>));
  library.impl("pool_tokens_backward", TORCH_BOX(&pool_tokens_backward<Engine>));
  library.impl("pool_qkv", TORCH_BOX(&pool_qkv<Engine>));
  library.impl("pool_qkv_backward", TORCH_BOX(&pool_qkv_backward<Engine>));
}

}  // namespace vtfast
