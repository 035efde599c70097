// Rotary embedding as torch calls it: allocation around the kernel of one device. An `Engine` is made for a call and
// has
//   static constexpr const char* kDevice     where its tensors must be, for a message
//   static constexpr size_t kAlignment       of the inputs, in bytes
//   static bool owns(tensor)                 whether a tensor is there
//   Engine(qkv, params)                      refuses what its kernel does not take
//   run(params)                              never called for an empty batch
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include "torch/rotary_embedding_arguments.h"

namespace vtfast {

template <class Engine>
Tensor rotary_embedding(Tensor qkv, Tensor cos, Tensor sin, std::vector<int64_t> grid, int64_t num_heads,
                        int64_t num_prefix, bool transpose) {
  STD_TORCH_CHECK(Engine::owns(qkv), "qkv must be on ", Engine::kDevice);
  for (Tensor* tensor : {&qkv, &cos, &sin}) *tensor = as_kernel_input(*tensor, Engine::kAlignment);
  RotaryEmbeddingParams p = describe(qkv, cos, sin, grid, num_heads, num_prefix, transpose);
  const Engine engine(qkv, p);
  Tensor out = empty(qkv, {p.batch, p.num_tokens(), 3 * p.channels()});
  if (p.batch == 0) return out;
  p.out = out.mutable_data_ptr();
  engine.run(p);
  return out;
}

template <class Engine>
void register_rotary_embedding(torch::stable::detail::StableLibrary& library) {
  library.impl("rotary_embedding", TORCH_BOX(&rotary_embedding<Engine>));
}

}  // namespace vtfast
