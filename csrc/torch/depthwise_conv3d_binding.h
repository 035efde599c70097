// Depthwise convolution as torch calls it: allocation around the kernels of one device. An `Engine` is made for a call
// and has
//   static constexpr const char* kDevice     where its tensors must be, for a message
//   static constexpr size_t kAlignment       of the inputs and of every token, in bytes
//   static bool owns(tensor)                 whether a tensor is there
//   Engine(x, params)                        refuses what its kernels do not take
//   backward_workspace_size(params, grads)   elements of accumulation type
//   forward(...), backward(...)              never called for an empty batch
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "torch/depthwise_conv3d_arguments.h"

namespace vtfast {

template <class Engine>
Tensor depthwise_conv3d(Tensor x, Tensor weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
                        std::vector<int64_t> padding, bool residual) {
  STD_TORCH_CHECK(Engine::owns(x), "x must be on ", Engine::kDevice);
  x = as_grid_input(x, "x", Engine::kAlignment);
  DepthwiseConv3dParams p = describe(x, weight, bias, {stride, padding, residual}, Engine::kAlignment);
  const Engine engine(x, p);
  Tensor out = empty(x, {p.batch, p.t.pooled, p.h.pooled, p.w.pooled, p.channels});
  if (p.batch == 0) return out;
  p.out = out.mutable_data_ptr();
  engine.forward(p);
  return out;
}

// An empty tensor in place of what is not wanted.
template <class Engine>
std::tuple<Tensor, Tensor, Tensor> depthwise_conv3d_backward(Tensor grad_out, Tensor x, Tensor weight,
                                                             std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                             bool residual, std::vector<bool> wanted) {
  STD_TORCH_CHECK(Engine::owns(x), "x must be on ", Engine::kDevice);
  STD_TORCH_CHECK(wanted.size() == 3, "wanted must have three elements");
  x = as_grid_input(x, "x", Engine::kAlignment);
  std::optional<Tensor> no_bias;
  const DepthwiseConv3dParams p = describe(x, weight, no_bias, {stride, padding, residual}, Engine::kAlignment);
  grad_out = as_grid_input(grad_out, "grad_out", Engine::kAlignment);
  check_tensor(grad_out, "grad_out", x, x.scalar_type(), {p.batch, p.t.pooled, p.h.pooled, p.w.pooled, p.channels});

  const auto room = [](bool is_wanted, const Tensor& like, std::vector<int64_t> shape) {
    return empty(like, is_wanted ? shape : std::vector<int64_t>{0});
  };
  Tensor d_x = room(wanted[0], x, {p.batch, p.t.size, p.h.size, p.w.size, p.channels});
  Tensor d_weight = room(wanted[1], weight, {p.channels, 1, p.t.kernel, p.h.kernel, p.w.kernel});
  Tensor d_bias = room(wanted[2], weight, {p.channels});
  if (p.batch == 0) return {d_x, torch::stable::zero_(d_weight), torch::stable::zero_(d_bias)};

  const auto target = [](bool is_wanted, Tensor& gradient) {
    return is_wanted ? gradient.mutable_data_ptr() : nullptr;
  };
  const DepthwiseConv3dGradients gradients{token_grid(grad_out), target(wanted[0], d_x), target(wanted[1], d_weight),
                                           target(wanted[2], d_bias)};
  const Engine engine(x, p);
  Tensor workspace = empty(x, {engine.backward_workspace_size(p, gradients)}, acc_type(p.data_type));
  engine.backward(p, gradients, workspace.mutable_data_ptr());
  return {d_x, d_weight, d_bias};
}

template <class Engine>
void register_depthwise_conv3d(torch::stable::detail::StableLibrary& library) {
  library.impl("depthwise_conv3d", TORCH_BOX(&depthwise_conv3d<Engine>));
  library.impl("depthwise_conv3d_backward", TORCH_BOX(&depthwise_conv3d_backward<Engine>));
}

}  // namespace vtfast
