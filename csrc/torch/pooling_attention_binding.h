// Pooling attention as torch calls it: allocation around the kernels of one device. An `Engine` is made for a call and
// has
//   static constexpr const char* kDevice     where its tensors must be, for a message
//   static constexpr size_t kAlignment       of the inputs and of every token, in bytes
//   static bool owns(tensor)                 whether a tensor is there
//   Engine(q, params)                        refuses what its kernels do not take
//   {forward,backward}_workspace_size(...)   elements of accumulation type
//   forward(...), backward(...)              never called for an empty batch
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "torch/pooling_attention_arguments.h"

namespace vtfast {

template <class Engine>
std::tuple<Tensor, Tensor> pooling_attention_forward(Tensor q, Tensor k, Tensor v, std::optional<Tensor> rel_pos_t,
                                                     std::optional<Tensor> rel_pos_h, std::optional<Tensor> rel_pos_w,
                                                     std::vector<int64_t> q_grid, std::vector<int64_t> k_grid,
                                                     int64_t num_heads, int64_t num_prefix, bool residual,
                                                     bool residual_prefix, double scale) {
  STD_TORCH_CHECK(Engine::owns(q), "q must be on ", Engine::kDevice);
  PoolingAttentionInputs inputs{q, k, v, {rel_pos_t, rel_pos_h, rel_pos_w}};
  PoolingAttentionParams p =
      describe(inputs, {q_grid, k_grid, num_heads, num_prefix, residual, residual_prefix, scale}, Engine::kAlignment);
  const Engine engine(q, p);
  const ScalarType acc = acc_type(p.data_type);
  Tensor out = empty(q, {p.batch, p.num_queries(), p.channels()});
  Tensor lse = empty(q, {p.batch, p.num_heads, p.num_queries()}, acc);
  if (p.batch == 0) return {out, lse};

  Tensor workspace = empty(q, {engine.forward_workspace_size(p)}, acc);
  p.out = out.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  engine.forward(p, workspace.mutable_data_ptr());
  return {out, lse};
}

template <class Engine>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> pooling_attention_backward(
    Tensor grad_out, Tensor q, Tensor k, Tensor v, std::optional<Tensor> rel_pos_t, std::optional<Tensor> rel_pos_h,
    std::optional<Tensor> rel_pos_w, Tensor lse, std::vector<int64_t> q_grid, std::vector<int64_t> k_grid,
    int64_t num_heads, int64_t num_prefix, bool residual, bool residual_prefix, double scale) {
  STD_TORCH_CHECK(Engine::owns(q), "q must be on ", Engine::kDevice);
  for (Tensor* tensor : {&grad_out, &lse}) *tensor = as_kernel_input(*tensor, Engine::kAlignment);
  PoolingAttentionInputs inputs{q, k, v, {rel_pos_t, rel_pos_h, rel_pos_w}};
  PoolingAttentionParams p =
      describe(inputs, {q_grid, k_grid, num_heads, num_prefix, residual, residual_prefix, scale}, Engine::kAlignment);
  const Engine engine(q, p);
  const ScalarType acc = acc_type(p.data_type);
  check_tensor(grad_out, "grad_out", q, q.scalar_type(), {p.batch, p.num_queries(), p.channels()});
  check_tensor(lse, "lse", q, acc, {p.batch, p.num_heads, p.num_queries()});

  Tensor d_q = empty(q, {p.batch, p.num_queries(), p.channels()});
  Tensor d_k = empty(q, {p.batch, p.num_keys(), p.channels()});
  Tensor d_v = empty(q, {p.batch, p.num_keys(), p.channels()});
  Tensor d_rel_pos[3] = {empty_gradient(inputs.rel_pos[0], q), empty_gradient(inputs.rel_pos[1], q),
                         empty_gradient(inputs.rel_pos[2], q)};
  PoolingAttentionGradients gradients{
      grad_out.const_data_ptr(), d_q.mutable_data_ptr(), d_k.mutable_data_ptr(), d_v.mutable_data_ptr(), {}};
  for (int i = 0; i < 3; ++i) {
    if (p.batch == 0) d_rel_pos[i] = torch::stable::zero_(d_rel_pos[i]);
    if (inputs.rel_pos[i]) gradients.d_rel_pos[i] = d_rel_pos[i].mutable_data_ptr();
  }
  if (p.batch > 0) {
    p.lse = const_cast<void*>(lse.const_data_ptr());
    Tensor workspace = empty(q, {engine.backward_workspace_size(p)}, acc);
    engine.backward(p, gradients, workspace.mutable_data_ptr());
  }
  return {d_q, d_k, d_v, d_rel_pos[0], d_rel_pos[1], d_rel_pos[2]};
}

template <class Engine>
void register_pooling_attention(torch::stable::detail::StableLibrary& library) {
  library.impl("pooling_attention", TORCH_BOX(&pooling_attention_forward<Engine>));
  library.impl("pooling_attention_backward", TORCH_BOX(&pooling_attention_backward<Engine>));
}

}  // namespace vtfast
