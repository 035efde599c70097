#include "cuda/launch.cuh"
#include "pooling_attention.h"
#include "pooling_kernels.h"
#include "position_tables.cuh"
#include "workspace.h"

namespace vtfast::cuda {
namespace {

constexpr int64_t kTableShare = 2048;  // queries of a block that sums the gradient of a table, about

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void describe_axes(PoolingKernelParams& k, const PoolingAttentionParams& p) {
  int q_stride = 1, k_stride = 1;
  for (int i = 2; i >= 0; --i) {
    PositionAxis& axis = k.axes[i];
    const int q_size = static_cast<int>(p.axes[i].q_size), k_size = static_cast<int>(p.axes[i].k_size);
    axis.sizes = DeviceRelativeAxis::make(q_size, k_size);
    axis.q_stride = Divisor(q_stride);
    axis.k_stride = Divisor(k_stride);
    axis.table = static_cast<const float*>(p.rel_pos[i]);
    axis.sharing = Divisor(static_cast<int>(p.grid_queries() / q_size));
    axis.slices = static_cast<int>(ceil_div(int64_t{k.pairs} * axis.sharing, kTableShare));
    q_stride *= q_size;
    k_stride *= k_size;
  }
  int row = 0, score = 0, block = 0;
  for (PositionAxis& axis : k.axes) {
    axis.first_row = row;
    axis.first_score = score;
    axis.first_block = block;
    if (!axis.exists()) continue;
    row += axis.sizes.num_rows();
    score += axis.sizes.k_size;
    block += axis.sizes.q_size * axis.slices * TableShare::blocks(axis.sizes.k_size, k.head_dim);
  }
  k.table_rows = row;
  k.table_blocks = block;
}

void lay_out(PoolingKernelParams& k, const PoolingAttentionParams& p, const Device& device, PoolingPass pass) {
  k.plan = make_pooling_plan(p, device, pass);
  k.layout = PoolingLayout::of(k.plan, pass, element_size(p.data_type));
}

PoolingKernelParams describe(const PoolingAttentionParams& p, const Device& device, PoolingPass pass) {
  PoolingKernelParams k{};
  lay_out(k, p, device, pass);
  k.num_heads = Divisor(static_cast<int>(p.num_heads));
  k.pairs = static_cast<int>(p.batch * p.num_heads);
  k.num_prefix = static_cast<int>(p.num_prefix);
  k.num_queries = static_cast<int>(p.num_queries());
  k.num_keys = static_cast<int>(p.num_keys());
  k.head_dim = static_cast<int>(p.head_dim);
  k.scale = static_cast<float>(p.scale);
  k.score_scale = static_cast<float>(p.scale * kLog2e);
  k.residual = p.residual;
  k.residual_prefix = p.residual_prefix;
  k.q = p.q;
  k.k = p.k;
  k.v = p.v;
  k.lse = static_cast<float*>(p.lse);
  describe_axes(k, p);
  return k;
}

// Tokens that are all neighbours in memory.
template <class Tokens, class Pointer>
Tokens whole(Pointer data, int64_t tokens, int64_t channels) {
  return {data, tokens * channels, channels};
}

// Room for elements of the type of the tokens.
void* take(Workspace& workspace, const PoolingAttentionParams& p, int64_t elements) {
  return workspace.take(ceil_div(elements * element_size(p.data_type), sizeof(float)));
}

void take_positions(PoolingKernelParams& k, const PoolingAttentionParams& p, Workspace& workspace) {
  k.tables = take(workspace, p, int64_t{k.table_rows} * k.head_dim);
  k.places = take(workspace, p, int64_t{k.num_keys} * k.plan.width);
}

PoolingKernelParams describe_forward(const PoolingAttentionParams& p, const Device& device, Workspace& workspace) {
  PoolingKernelParams k = describe(p, device, PoolingPass::kForward);
  k.out = whole<MutableTokenRows>(p.out, k.num_queries, p.channels());
  take_positions(k, p, workspace);
  return k;
}

// For the queries; the keys have another plan.
PoolingKernelParams describe_backward(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients,
                                      const Device& device, Workspace& workspace) {
  PoolingKernelParams k = describe(p, device, PoolingPass::kQueries);
  k.grad_out = whole<TokenRows>(gradients.grad_out, k.num_queries, p.channels());
  k.d_q = whole<MutableTokenRows>(gradients.d_q, k.num_queries, p.channels());
  k.d_k = whole<MutableTokenRows>(gradients.d_k, k.num_keys, p.channels());
  k.d_v = whole<MutableTokenRows>(gradients.d_v, k.num_keys, p.channels());
  take_positions(k, p, workspace);
  const int64_t queries = int64_t{k.pairs} * k.num_queries, keys = int64_t{k.pairs} * k.num_keys;
  k.delta = workspace.take(queries);
  k.relative = take(workspace, p, queries * k.plan.width);
  k.d_relative = take(workspace, p, queries * k.plan.width);
  const int splits = make_pooling_plan(p, device, PoolingPass::kKeys).splits;
  if (splits > 1) k.key_partials = workspace.take(int64_t{splits} * 2 * keys * k.head_dim);
  for (int i = 0; i < 3; ++i) {
    PositionAxis& axis = k.axes[i];
    if (!axis.exists()) continue;
    axis.d_table = static_cast<float*>(gradients.d_rel_pos[i]);
    axis.partials = workspace.take(int64_t{axis.sizes.q_size} * axis.slices * axis.sizes.k_size * k.head_dim);
  }
  return k;
}

template <class T>
void prepare_positions(const PoolingKernelParams& k, void* stream) {
  const int64_t elements = int64_t{k.table_rows} * k.head_dim + int64_t{k.num_keys} * k.plan.width;
  if (k.plan.width == 0) return;
  launch(prepare_positions_kernel<T>, ceil_div(elements, kPositionThreads), kPositionThreads, 0, stream, k);
}

template <class T>
void forward(const PoolingKernelParams& k, void* stream) {
  prepare_positions<T>(k, stream);
  launch_pooling_forward<T>(k, stream);
}

template <class T>
void backward(const PoolingAttentionParams& p, PoolingKernelParams k, const Device& device, void* stream) {
  prepare_positions<T>(k, stream);
  launch_pooling_queries<T>(k, stream);
  launch(table_gradient_kernel<T>, k.table_blocks, kPositionThreads, TableGradient<T>::kSharedBytes, stream, k);
  launch(sum_positions_kernel, k.table_rows, kPositionThreads, 0, stream, k);
  lay_out(k, p, device, PoolingPass::kKeys);
  launch_pooling_keys<T>(k, stream);
}

}  // namespace

int64_t forward_workspace_size(const PoolingAttentionParams& params, const Device& device) {
  Workspace workspace;
  describe_forward(params, device, workspace);
  return workspace.size();
}

int64_t backward_workspace_size(const PoolingAttentionParams& params, const Device& device) {
  Workspace workspace;
  describe_backward(params, {}, device, workspace);
  return workspace.size();
}

void pooling_attention_forward(const PoolingAttentionParams& params, const Device& device, void* memory, void* stream) {
  Workspace workspace(memory);
  const PoolingKernelParams k = describe_forward(params, device, workspace);
  switch (params.data_type) {
    case DataType::kBFloat16:
      return forward<BFloat16>(k, stream);
    case DataType::kFloat16:
      return forward<Float16>(k, stream);
    default:
      return forward<float>(k, stream);
  }
}

void pooling_attention_backward(const PoolingAttentionParams& params, const PoolingAttentionGradients& gradients,
                                const Device& device, void* memory, void* stream) {
  Workspace workspace(memory);
  const PoolingKernelParams k = describe_backward(params, gradients, device, workspace);
  switch (params.data_type) {
    case DataType::kBFloat16:
      return backward<BFloat16>(params, k, device, stream);
    case DataType::kFloat16:
      return backward<Float16>(params, k, device, stream);
    default:
      return backward<float>(params, k, device, stream);
  }
}

}  // namespace vtfast::cuda
