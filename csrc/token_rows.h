// Tokens of a tensor [B, N, C] whose channels are neighbours in memory, such as one part of a packed projection.
#pragma once

#include <cstdint>

namespace vtfast {

template <class Void>
struct BasicTokenRows {
  Void* data;            // [B, N, C]
  int64_t batch_stride;  // elements from one clip to the next
  int64_t token_stride;  // elements from one token to the next
};

using TokenRows = BasicTokenRows<const void>;
using MutableTokenRows = BasicTokenRows<void>;

}  // namespace vtfast
