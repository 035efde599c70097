// Tokens whose channels are neighbours in memory, wherever the tokens themselves lie.
#pragma once

#include <cstdint>

namespace vtfast {

// A tensor [B, N, C], such as one part of a packed projection.
template <class Void>
struct BasicTokenRows {
  Void* data;            // [B, N, C]
  int64_t batch_stride;  // elements from one clip to the next
  int64_t token_stride;  // elements from one token to the next
};

using TokenRows = BasicTokenRows<const void>;
using MutableTokenRows = BasicTokenRows<void>;

// A tensor [B, T, H, W, C], such as the grid's part of tokens with a cls for each frame.
template <class Void>
struct BasicTokenGrid {
  Void* data;                            // [B, T, H, W, C]
  int64_t batch_stride;                  // elements from one clip to the next
  int64_t t_stride, h_stride, w_stride;  // elements from one token to the next along each axis
};

using TokenGrid = BasicTokenGrid<const void>;
using MutableTokenGrid = BasicTokenGrid<void>;

}  // namespace vtfast
