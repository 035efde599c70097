#include "cuda/launch.cuh"
#include "grid_attention.h"
#include "kernels.h"
#include "prefix.cuh"
#include "weights.cuh"
#include "workspace.h"

namespace vtfast::cuda {
namespace {

constexpr size_t kSumShared = kSumThreads * sizeof(float);

DeviceAxis device_axis(const Axis& axis) {
  return DeviceAxis::make(static_cast<int>(axis.size), static_cast<int>(axis.block), static_cast<int>(axis.dilation),
                          static_cast<int>(axis.shift));
}

KernelParams describe(const GridAttentionParams& p, const Device& device, Pass pass) {
  KernelParams k{};
  k.plan = make_launch_plan(p, device, pass);
  k.geometry = {device_axis(p.geometry.t), device_axis(p.geometry.h), device_axis(p.geometry.w),
                static_cast<int>(p.geometry.num_prefix)};
  k.num_groups = Divisor(static_cast<int>(p.geometry.num_groups()));
  k.clip_tokens = Divisor(static_cast<int>(p.num_tokens()));
  k.group_prefix = static_cast<int>(prefix_of_group(p));
  k.entries = Divisor(k.group_prefix + static_cast<int>(p.geometry.num_slots()));
  k.unit_rows = Divisor(k.plan.unit_rows);
  k.row_sets = Divisor(k.plan.row_sets);
  k.chunks = Divisor(k.plan.chunks);
  k.extent_h = Divisor(static_cast<int>(p.bias.extent[1]));
  k.extent_w = Divisor(static_cast<int>(p.bias.extent[2]));
  const auto byte_of = [&](int64_t t, int64_t h, int64_t w) {
    return static_cast<int>(p.bias.row(t, h, w) * sizeof(float));
  };
  k.bias_center = byte_of(0, 0, 0);
  k.bias_stride_t = byte_of(1, 0, 0) - k.bias_center;
  k.bias_stride_h = byte_of(0, 1, 0) - k.bias_center;
  k.bias_stride_w = byte_of(0, 0, 1) - k.bias_center;
  k.table_size = p.bias_table == nullptr ? 0 : static_cast<int>(p.bias.table_size());
  k.batch = static_cast<int>(p.batch);
  k.num_heads = static_cast<int>(p.num_heads);
  k.head_dim = static_cast<int>(p.head_dim);
  k.scale = static_cast<float>(p.scale);
  k.score_scale = static_cast<float>(p.scale * kLog2e);
  k.layout = SharedLayout::of(k.plan, pass, element_size(p.data_type), k.table_size);
  k.pad_keys = p.pad_keys || !p.geometry.has_padding();
  k.prefix_keys = p.prefix_keys;
  k.prefix_queries = p.prefix_queries;
  k.prefix_share = k.global_prefix() ? 1.0f : 1.0f / static_cast<float>(p.geometry.num_groups());
  k.qkv = p.qkv;
  k.pad_qkv = p.pad_qkv;
  k.key_mask = p.key_mask;
  k.out = p.out;
  k.lse = static_cast<float*>(p.lse);
  k.prefix_lse = static_cast<float*>(p.prefix_lse);
  return k;
}

int64_t prefix_heads(const GridAttentionParams& p) { return p.batch * p.num_heads * p.geometry.num_prefix; }

int64_t prefix_heads_of_groups(const GridAttentionParams& p) { return prefix_heads(p) * p.geometry.num_groups(); }

void take_table(KernelParams& k, Workspace& workspace) {
  if (k.table_size > 0) k.table = workspace.take(int64_t{k.table_size} * k.num_heads);
}

KernelParams describe_forward(const GridAttentionParams& p, const Device& device, Workspace& workspace) {
  KernelParams k = describe(p, device, Pass::kForward);
  take_table(k, workspace);
  if (p.prefix_attends()) k.prefix_partials = workspace.take(prefix_heads_of_groups(p) * (p.head_dim + 1));
  return k;
}

KernelParams describe_backward(const GridAttentionParams& p, const GridAttentionGradients& gradients,
                               const Device& device, Workspace& workspace) {
  KernelParams k = describe(p, device, Pass::kBackward);
  const int64_t blocks = k.plan.workers * k.num_heads;
  take_table(k, workspace);
  k.grad_out = gradients.grad_out;
  k.d_qkv = gradients.d_qkv;
  if (p.prefix_attends()) {
    k.grad_prefix = workspace.take(p.batch * p.geometry.num_prefix * p.channels());
    k.prefix_delta = workspace.take(prefix_heads(p) * p.num_passes());
  }
  if (!k.plan.whole()) k.delta = workspace.take(p.batch * p.num_heads * p.geometry.num_tokens());
  if (k.group_prefix > 0) k.prefix_grad_partials = workspace.take(prefix_heads_of_groups(p) * 3 * p.head_dim);
  if (gradients.d_bias_table != nullptr) {
    k.table_partials = workspace.take(blocks * k.table_size);
    if (!k.plan.grads_resident) k.table_scratch = workspace.take(blocks * k.plan.warps * k.table_size);
  }
  if (gradients.d_pad_qkv != nullptr && p.geometry.has_padding()) {
    k.pad_partials = workspace.take(blocks * 2 * p.head_dim);
  }
  return k;
}

void prepare_table(const GridAttentionParams& p, const KernelParams& k, void* stream) {
  const int64_t size = int64_t{k.table_size} * k.num_heads;
  const TableParams table{static_cast<const float*>(p.bias_table), const_cast<float*>(k.table), k.table_size,
                          k.num_heads, 0};
  launch(prepare_table_kernel, (size + kSumThreads - 1) / kSumThreads, kSumThreads, 0, stream, table);
}

template <class T>
void forward(const GridAttentionParams& p, const KernelParams& k, void* stream) {
  prepare_table(p, k, stream);
  if (k.plan.whole()) {
    launch_forward<T, true>(k, stream);
  } else {
    launch_forward<T, false>(k, stream);
  }
  if (p.prefix_attends()) launch(merge_prefix_kernel<T>, prefix_heads(p), kSumThreads, kSumShared, stream, k);
}

template <class T>
void backward(const GridAttentionParams& p, const GridAttentionGradients& gradients, const KernelParams& k,
              void* stream) {
  prepare_table(p, k, stream);
  if (p.prefix_attends()) {
    const size_t shared = kSumShared + 2 * p.head_dim * sizeof(float);
    launch(prepare_prefix_kernel<T>, prefix_heads(p), kSumThreads, shared, stream, k);
  }
  if (k.plan.whole()) {
    launch_backward<T, Phase::kBoth>(k, stream);
  } else {
    launch_backward<T, Phase::kQueries>(k, stream);
    launch_backward<T, Phase::kKeys>(k, stream);
  }
  launch(sum_prefix_gradients_kernel<T>, prefix_heads(p), kSumThreads, kSumShared, stream, k);
  if (gradients.d_bias_table != nullptr) {
    const TableParams table{k.table_partials, static_cast<float*>(gradients.d_bias_table), k.table_size, k.num_heads,
                            k.plan.workers};
    const int64_t slices = (k.table_size + kTableSlice - 1) / kTableSlice;
    launch(sum_table_kernel, slices * k.num_heads, kSumThreads, kSumShared, stream, table);
  }
  if (gradients.d_pad_qkv != nullptr) {
    const PaddingParams padding{k.pad_partials, gradients.d_pad_qkv, k.num_heads, k.head_dim,
                                k.pad_partials == nullptr ? 0 : k.plan.workers};
    launch(sum_padding_kernel<T>, k.num_heads, kSumThreads, kSumShared, stream, padding);
  }
}

}  // namespace

int64_t forward_workspace_size(const GridAttentionParams& params, const Device& device) {
  Workspace workspace;
  describe_forward(params, device, workspace);
  return workspace.size();
}

int64_t backward_workspace_size(const GridAttentionParams& params, const GridAttentionGradients& gradients,
                                const Device& device) {
  Workspace workspace;
  describe_backward(params, gradients, device, workspace);
  return workspace.size();
}

void grid_attention_forward(const GridAttentionParams& params, const Device& device, void* memory, void* stream) {
  Workspace workspace(memory);
  const KernelParams k = describe_forward(params, device, workspace);
  switch (params.data_type) {
    case DataType::kBFloat16:
      return forward<BFloat16>(params, k, stream);
    case DataType::kFloat16:
      return forward<Float16>(params, k, stream);
    default:
      return forward<float>(params, k, stream);
  }
}

void grid_attention_backward(const GridAttentionParams& params, const GridAttentionGradients& gradients,
                             const Device& device, void* memory, void* stream) {
  Workspace workspace(memory);
  const KernelParams k = describe_backward(params, gradients, device, workspace);
  switch (params.data_type) {
    case DataType::kBFloat16:
      return backward<BFloat16>(params, gradients, k, stream);
    case DataType::kFloat16:
      return backward<Float16>(params, gradients, k, stream);
    default:
      return backward<float>(params, gradients, k, stream);
  }
}

}  // namespace vtfast::cuda
