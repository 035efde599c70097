// Grid attention as torch calls it: allocation around the kernels of one device. An `Engine` is made for a call and has
//   static constexpr const char* kDevice     where its tensors must be, for a message
//   static constexpr size_t kAlignment       of the inputs, in bytes
//   static bool owns(tensor)                 whether a tensor is there
//   Engine(qkv, params)                      refuses what its kernels do not take
//   {forward,backward}_workspace_size(...)   elements of accumulation type
//   forward(...), backward(...)              never called for an empty batch
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "torch/grid_attention_arguments.h"

namespace vtfast {

template <class Engine>
std::tuple<Tensor, Tensor, Tensor> grid_attention_forward(Tensor qkv, std::optional<Tensor> bias_table,
                                                          std::optional<Tensor> pad_qkv, std::optional<Tensor> key_mask,
                                                          Sizes grid, int64_t num_heads, Sizes block, Sizes dilation,
                                                          Sizes shift, Sizes bias_window, bool bias_by_window,
                                                          bool pad_keys, int64_t num_prefix, bool prefix_keys,
                                                          int64_t prefix_queries, double scale) {
  STD_TORCH_CHECK(Engine::owns(qkv), "qkv must be on ", Engine::kDevice);
  GridAttentionInputs inputs{qkv, bias_table, pad_qkv, key_mask};
  GridAttentionParams p = describe(inputs,
                                   {grid, num_heads, block, dilation, shift, bias_window, bias_by_window, pad_keys,
                                    num_prefix, prefix_keys, prefix_queries, scale},
                                   Engine::kAlignment);
  const Engine engine(qkv, p);
  const ScalarType acc = acc_type(p.data_type);
  Tensor out = empty(qkv, {p.batch, p.out_prefix() + p.geometry.num_tokens(), p.channels()});
  Tensor lse = empty(qkv, {p.batch, p.num_heads, p.geometry.num_tokens()}, acc);
  Tensor prefix_lse = empty(qkv, {p.batch, p.num_passes(), p.num_heads, p.geometry.num_prefix}, acc);
  if (p.batch == 0) return {out, lse, prefix_lse};

  Tensor workspace = empty(qkv, {engine.forward_workspace_size(p)}, acc);
  p.out = out.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  p.prefix_lse = prefix_lse.mutable_data_ptr();
  engine.forward(p, workspace.mutable_data_ptr());
  return {out, lse, prefix_lse};
}

template <class Engine>
std::tuple<Tensor, Tensor, Tensor> grid_attention_backward(
    Tensor grad_out, Tensor qkv, std::optional<Tensor> bias_table, std::optional<Tensor> pad_qkv,
    std::optional<Tensor> key_mask, Tensor lse, Tensor prefix_lse, Sizes grid, int64_t num_heads, Sizes block,
    Sizes dilation, Sizes shift, Sizes bias_window, bool bias_by_window, bool pad_keys, int64_t num_prefix,
    bool prefix_keys, int64_t prefix_queries, double scale) {
  STD_TORCH_CHECK(Engine::owns(qkv), "qkv must be on ", Engine::kDevice);
  for (Tensor* tensor : {&grad_out, &lse, &prefix_lse}) *tensor = as_kernel_input(*tensor, Engine::kAlignment);
  GridAttentionInputs inputs{qkv, bias_table, pad_qkv, key_mask};
  GridAttentionParams p = describe(inputs,
                                   {grid, num_heads, block, dilation, shift, bias_window, bias_by_window, pad_keys,
                                    num_prefix, prefix_keys, prefix_queries, scale},
                                   Engine::kAlignment);
  const Engine engine(qkv, p);
  const ScalarType type = qkv.scalar_type(), acc = acc_type(p.data_type);
  const int64_t out_tokens = p.out_prefix() + p.geometry.num_tokens();
  check_tensor(grad_out, "grad_out", qkv, type, {p.batch, out_tokens, p.channels()});
  check_tensor(lse, "lse", qkv, acc, {p.batch, p.num_heads, p.geometry.num_tokens()});
  check_tensor(prefix_lse, "prefix_lse", qkv, acc, {p.batch, p.num_passes(), p.num_heads, p.geometry.num_prefix});

  Tensor d_qkv = empty(qkv, {p.batch, p.num_tokens(), 3 * p.channels()});
  Tensor d_table = empty_gradient(bias_table, qkv), d_pad = empty_gradient(pad_qkv, qkv);
  if (p.batch == 0) return {d_qkv, torch::stable::zero_(d_table), torch::stable::zero_(d_pad)};

  p.lse = const_cast<void*>(lse.const_data_ptr());
  p.prefix_lse = const_cast<void*>(prefix_lse.const_data_ptr());
  const GridAttentionGradients gradients{grad_out.const_data_ptr(), d_qkv.mutable_data_ptr(),
                                         bias_table ? d_table.mutable_data_ptr() : nullptr,
                                         pad_qkv ? d_pad.mutable_data_ptr() : nullptr};
  Tensor workspace = empty(qkv, {engine.backward_workspace_size(p, gradients)}, acc);
  engine.backward(p, gradients, workspace.mutable_data_ptr());
  return {d_qkv, d_table, d_pad};
}

template <class Engine>
void register_grid_attention(torch::stable::detail::StableLibrary& library) {
  library.impl("grid_attention", TORCH_BOX(&grid_attention_forward<Engine>));
  library.impl("grid_attention_backward", TORCH_BOX(&grid_attention_backward<Engine>));
}

}  // namespace vtfast
