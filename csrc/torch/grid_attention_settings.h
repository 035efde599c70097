// The settings of a call of grid attention, and the sizes that follow from them. Nothing of torch: the module that
// tells launch plans needs them too.
#pragma once

#include <stdexcept>
#include <vector>

#include "grid_attention.h"

namespace vtfast {

using Sizes = std::vector<int64_t>;

// As the schema lists them.
struct GridAttentionSettings {
  Sizes grid;
  int64_t num_heads;
  Sizes block, dilation, shift, bias_window;
  bool bias_by_window;
  bool pad_keys;
  int64_t num_prefix;
  bool prefix_keys;
  int64_t prefix_queries;
  double scale;
};

inline void require(bool holds, const char* wanted) {
  if (!holds) throw std::runtime_error(wanted);
}

inline Axis make_axis(const GridAttentionSettings& s, size_t axis) {
  for (const Sizes* sizes : {&s.grid, &s.block, &s.dilation, &s.shift, &s.bias_window}) {
    require(sizes->size() == 3, "grid, block, dilation, shift and bias_window must have three elements");
  }
  const int64_t size = s.grid[axis], block = s.block[axis], dilation = s.dilation[axis], shift = s.shift[axis];
  require(size > 0 && block > 0 && dilation > 0, "grid, block and dilation must be positive");
  require(shift >= 0 && shift < block * dilation, "shift must be smaller than block * dilation");
  require(s.bias_window[axis] >= block, "bias_window must be at least block");
  return Axis::make(size, block, dilation, shift);
}

// Parameters without addresses; `packed` is 3 * C.
inline GridAttentionParams make_params(const GridAttentionSettings& s, DataType type, int64_t batch, int64_t packed) {
  require(s.num_prefix >= 0 && s.prefix_queries >= 0 && s.prefix_queries <= 2, "bad prefix settings");
  require(s.num_heads > 0 && packed > 0 && packed % (3 * s.num_heads) == 0, "num_heads must divide C");
  GridAttentionParams p{};
  p.geometry = {make_axis(s, 0), make_axis(s, 1), make_axis(s, 2), s.num_prefix};
  for (size_t axis = 0; axis < 3; ++axis) {
    p.bias.window[axis] = s.bias_window[axis];
    p.bias.extent[axis] = s.bias_by_window ? s.bias_window[axis] : s.block[axis];
  }
  p.data_type = type;
  p.batch = batch;
  p.num_heads = s.num_heads;
  p.head_dim = packed / 3 / s.num_heads;
  p.scale = s.scale;
  p.pad_keys = s.pad_keys;
  p.prefix_keys = s.prefix_keys;
  p.prefix_queries = static_cast<PrefixQueries>(s.prefix_queries);
  return p;
}

}  // namespace vtfast
