#include "pooling_plan.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "pooling_layout.h"

namespace vtfast::cuda {
namespace {

constexpr int kMostRelativeScores = 512;  // of a query: rows of them fit in any GPU's shared memory
constexpr int kReservedShared = 1024;     // bytes that a block takes besides those it asks for

// A block of the keys has about 128 of them. Few keys leave it to several blocks to walk over the queries.
constexpr int64_t kKeysOfSplit = 128, kWantedBlocks = 512, kFewestQueries = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// From the most wanted to the one that always fits. Two blocks on a multiprocessor hide each other's loads, so one
// alone comes second; few rows are left to small blocks, so that more multiprocessors have one.
struct Candidate {
  int blocks;      // of a multiprocessor, if registers allow
  int most_warps;  // of a block, likewise
  int chunk;
  int stages;
};

constexpr int kFewestWarps = 2;  // that a block is made smaller to, for the sake of more blocks

constexpr Candidate kCandidates[] = {
    {2, 8, 64, 2}, {2, 4, 64, 2}, {2, 8, 32, 2}, {2, 2, 64, 2}, {1, 8, 64, 2}, {1, 8, 32, 2},
    {1, 4, 64, 2}, {1, 4, 32, 2}, {1, 2, 64, 2}, {1, 4, 32, 1}, {1, 2, 32, 1}, {1, 1, 16, 1},
};

// Of the queries.
int split_share(const PoolingAttentionParams& p) {
  const int64_t blocks = p.batch * p.num_heads * ceil_div(p.num_keys(), kKeysOfSplit);
  const int64_t splits =
      std::clamp<int64_t>(kWantedBlocks / std::max<int64_t>(blocks, 1), 1, ceil_div(p.num_queries(), kFewestQueries));
  return static_cast<int>(ceil_div(ceil_div(p.num_queries(), splits), 16) * 16);
}

}  // namespace

int relative_scores(const PoolingAttentionParams& p) {
  int64_t count = 0;
  for (int axis = 0; axis < 3; ++axis) count += p.rel_pos[axis] == nullptr ? 0 : p.axes[axis].k_size;
  return static_cast<int>(count);
}

const char* unsupported(const PoolingAttentionParams& p) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (p.data_type == DataType::kFloat64) return "float64 has no kernel on CUDA";
  if (p.head_dim % 8 != 0 || p.head_dim > 128) return "head_dim must be a multiple of 8 and at most 128 on CUDA";
  if (std::max(p.num_queries(), p.num_keys()) > kMost / 256) return "more than 2^23 tokens of a clip";
  if (p.batch * p.num_heads * std::max(p.num_queries(), p.num_keys()) > kMost / 2)
    return "more than 2^30 tokens of heads";
  if (relative_scores(p) > kMostRelativeScores) {
    return "relative positions along axes of more than 512 keys together";
  }
  return nullptr;
}

PoolingPlan make_pooling_plan(const PoolingAttentionParams& p, const Device& device, PoolingPass pass) {
  PoolingPlan plan{};
  plan.padded_dim = padded_head_dim(p.head_dim);
  plan.width = static_cast<int>(ceil_div(relative_scores(p), 16) * 16);
  const bool keys = pass == PoolingPass::kKeys;
  const int64_t rows = keys ? p.num_keys() : p.num_queries();
  plan.share = keys ? split_share(p) : static_cast<int>(ceil_div(p.num_keys(), 16) * 16);
  plan.splits = keys ? static_cast<int>(ceil_div(p.num_queries(), plan.share)) : 1;
  const int size = element_size(p.data_type);
  const PoolingBounds bounds = PoolingBounds::of(pass, plan.padded_dim, size);
  for (const Candidate& candidate : kCandidates) {
    if (candidate.blocks > bounds.blocks) continue;
    plan.warps = std::min(candidate.most_warps, bounds.warps);
    plan.chunk = candidate.chunk;
    plan.stages = candidate.stages;
    plan.row_sets = static_cast<int>(ceil_div(rows, plan.rows()));
    plan.shared_bytes = PoolingLayout::of(plan, pass, size).total;
    const int available = std::min(device.shared_per_block, device.shared_per_sm / candidate.blocks - kReservedShared);
    const bool fills_the_gpu = p.batch * p.num_heads * plan.row_sets * plan.splits >= device.num_sms;
    if (plan.shared_bytes <= available && (fills_the_gpu || plan.warps <= kFewestWarps)) return plan;
  }
  throw std::logic_error("pooling_attention: no launch plan fits the GPU's shared memory");
}

}  // namespace vtfast::cuda
