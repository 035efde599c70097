#include "launch_plan.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernel_params.h"
#include "shared_layout.h"

namespace vtfast::cuda {
namespace {

constexpr int kTile = 16;              // rows of a tile
constexpr int kWantedTiles = 4;        // of an item, so that its warps have work
constexpr int kReservedShared = 1024;  // bytes that a block takes besides those it asks for

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// No more warps than share the tiles evenly.
int even_warps(int64_t tiles, int most) { return static_cast<int>(ceil_div(tiles, ceil_div(tiles, most))); }

// One way to lay out a launch; candidates are tried from the most wanted to the one that always fits. Two blocks on a
// multiprocessor hide each other's loads, so one alone comes second.
struct Candidate {
  bool whole;
  int blocks;      // of a multiprocessor
  int most_warps;  // of a block, if registers allow
  int chunk;       // columns, 0 for all
  bool grads_resident;
  bool table_resident;
};

constexpr Candidate kCandidates[] = {
    {true, 2, 8, 0, true, true},    {true, 1, 8, 0, true, true},     {true, 1, 4, 0, true, true},
    {false, 2, 8, 0, true, true},   {false, 2, 8, 128, true, true},  {false, 1, 8, 128, true, true},
    {false, 1, 4, 128, true, true}, {false, 1, 8, 64, true, true},   {false, 1, 4, 64, true, true},
    {false, 1, 8, 64, false, true}, {false, 1, 8, 64, false, false}, {false, 1, 2, 32, false, false},
};

class Planner {
 public:
  Planner(const GridAttentionParams& params, const Device& device, Pass pass)
      : params_(params), device_(device), pass_(pass) {
    const int64_t entries = prefix_of_group(params) + params.geometry.num_slots();
    groups_per_unit_ = static_cast<int>(
        std::clamp<int64_t>(kTile / entries, 1, max_groups_per_unit(padded_head_dim(params.head_dim))));
    unit_rows_ = ceil_div(groups_per_unit_ * entries, kTile) * kTile;
    num_units_ = ceil_div(params.batch * params.geometry.num_groups(), groups_per_unit_);
  }

  LaunchPlan plan() const {
    for (const Candidate& candidate : kCandidates) {
      for (const int stages : {2, 1}) {
        const LaunchPlan plan = lay_out(candidate, stages);
        if (plan.shared_bytes <= shared_of(candidate) && (!candidate.whole || fills_the_gpu(plan))) return plan;
      }
    }
    throw std::logic_error("grid_attention: no launch plan fits the GPU's shared memory");
  }

 private:
  LaunchPlan lay_out(const Candidate& candidate, int stages) const {
    const int64_t tiles = unit_rows_ / kTile;
    LaunchPlan plan{};
    plan.padded_dim = padded_head_dim(params_.head_dim);
    plan.groups_per_unit = groups_per_unit_;
    plan.unit_rows = static_cast<int>(unit_rows_);
    plan.units = candidate.whole ? static_cast<int>(std::max<int64_t>(1, kWantedTiles / tiles)) : 1;
    const LaunchBounds bounds = bounds_of(plan);
    plan.warps =
        even_warps(tiles * plan.units, std::min(candidate.most_warps, bounds.warps * bounds.blocks / candidate.blocks));
    plan.rows = candidate.whole ? plan.units * plan.unit_rows : kTile * plan.warps;
    plan.row_sets = static_cast<int>(candidate.whole ? 1 : ceil_div(unit_rows_, plan.rows));
    plan.chunk = candidate.chunk == 0 ? plan.unit_rows : std::min(candidate.chunk, plan.unit_rows);
    plan.chunks = static_cast<int>(ceil_div(unit_rows_, plan.chunk));
    plan.stages = stages;
    plan.items = ceil_div(num_units_, plan.units) * plan.row_sets;
    const bool bias = params_.bias_table != nullptr;
    plan.table_resident = bias && candidate.table_resident;
    plan.grads_resident = bias && candidate.grads_resident && pass_ == Pass::kBackward;
    const int table_size = bias ? static_cast<int>(params_.bias.table_size()) : 0;
    plan.shared_bytes = SharedLayout::of(plan, pass_, element_size(params_.data_type), table_size).total;
    plan.workers = std::clamp<int64_t>(int64_t{device_.num_sms} * blocks_per_sm(plan) / params_.num_heads, 1,
                                       std::max<int64_t>(plan.items, 1));
    return plan;
  }

  LaunchBounds bounds_of(const LaunchPlan& plan) const {
    return LaunchBounds::of(pass_, plan.padded_dim, element_size(params_.data_type));
  }

  int blocks_per_sm(const LaunchPlan& plan) const {
    const LaunchBounds bounds = bounds_of(plan);
    const int by_registers = bounds.blocks * bounds.warps / plan.warps;
    return std::max(1, std::min(by_registers, device_.shared_per_sm / (plan.shared_bytes + kReservedShared)));
  }

  int64_t shared_of(const Candidate& candidate) const {
    return std::min(device_.shared_per_block, device_.shared_per_sm / candidate.blocks - kReservedShared);
  }

  // Few large groups are better cut into sets of rows, each for a block of its own.
  bool fills_the_gpu(const LaunchPlan& plan) const {
    return plan.rows <= kTile * plan.warps || plan.items * params_.num_heads >= device_.num_sms;
  }

  const GridAttentionParams& params_;
  const Device& device_;
  const Pass pass_;
  int groups_per_unit_;
  int64_t unit_rows_;
  int64_t num_units_;
};

}  // namespace

int padded_head_dim(int64_t head_dim) {
  for (const int padded : {32, 64, 96}) {
    if (head_dim <= padded) return padded;
  }
  return 128;
}

Device Device::of_arch(int arch) {
  constexpr Device kKnown[] = {
      {80, 108, 163 * 1024, 164 * 1024}, {86, 84, 99 * 1024, 100 * 1024},    {89, 142, 99 * 1024, 100 * 1024},
      {90, 132, 227 * 1024, 228 * 1024}, {100, 148, 227 * 1024, 228 * 1024}, {120, 188, 99 * 1024, 100 * 1024},
  };
  const Device* best = nullptr;
  for (const Device& device : kKnown) {
    if (device.arch <= arch) best = &device;
  }
  if (best == nullptr) throw std::invalid_argument("arch must be at least 80, got " + std::to_string(arch));
  return *best;
}

const char* unsupported(const GridAttentionParams& p) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (p.data_type == DataType::kFloat64) return "float64 has no kernel on CUDA";
  if (p.head_dim % 8 != 0 || p.head_dim > 128) return "head_dim must be a multiple of 8 and at most 128 on CUDA";
  if (p.batch * p.num_tokens() > kMost || p.geometry.num_slots() > kMost / 64) return "more than 2^31 tokens";
  if (p.bias_table != nullptr && p.bias.table_size() > kMost / 64) return "a bias table of more than 2^25 rows";
  if (p.batch * p.geometry.num_groups() > kMost) return "more than 2^31 groups";
  return nullptr;
}

LaunchPlan make_launch_plan(const GridAttentionParams& params, const Device& device, Pass pass) {
  return Planner(params, device, pass).plan();
}

}  // namespace vtfast::cuda
