// Gradients that several groups share. Each group writes its own part, and the parts are summed in a fixed order.
#pragma once

#include "../grid_attention.h"

namespace vtfast::cpu {

template <class Acc>
struct SharedGradients {
  Acc* prefix;  // [B, num_heads, contributions, P, 3, head_dim], or null without prefix
  Acc* pad;     // [num_heads, B * num_groups, 2, head_dim] of k and v, or null without padding

  // Every group, and behind them the pass of the prefix over all tokens.
  static int64_t contributions(const GridAttentionParams& p) { return p.geometry.num_groups() + 1; }

  // Gradient of q, k or v (`which`) of a prefix token from one contribution.
  Acc* of_prefix(const GridAttentionParams& p, int64_t batch, int64_t head, int64_t contribution, int64_t token,
                 int64_t which) const {
    const int64_t part = (batch * p.num_heads + head) * contributions(p) + contribution;
    return prefix + ((part * p.geometry.num_prefix + token) * 3 + which) * p.head_dim;
  }

  // Gradient of the padding's k and v from group `item` of all clips.
  Acc* of_padding(const GridAttentionParams& p, int64_t head, int64_t item) const {
    return pad + (head * p.batch * p.geometry.num_groups() + item) * 2 * p.head_dim;
  }
};

}  // namespace vtfast::cpu
