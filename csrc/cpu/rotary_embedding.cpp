#include "rotary_embedding.h"

#include <algorithm>

#include "parallel.h"
#include "simd.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// Minus in the lanes whose sine has one: those of the first channel of a pair, or transposed, of the second.
template <class T, bool kTranspose>
VTFAST_INLINE Vector<T> signs() {
  return []<int... kLane>(std::integer_sequence<int, kLane...>) {
    return Vector<T>{((kLane % 2 == 0) != kTranspose ? T(-1) : T(1))...};
  }(std::make_integer_sequence<int, kLanes<T>>());
}

template <class T>
VTFAST_INLINE Vector<T> swap_neighbours(Vector<T> v) {
  return swap_lanes<1, T>(v, std::make_integer_sequence<int, kLanes<T>>());
}

// The pairs of a vector times their 2 x 2 matrices. Transposed, it is the sine of a channel's neighbour that counts.
template <class T, bool kTranspose>
VTFAST_INLINE Vector<T> rotate(Vector<T> x, Vector<T> cos, Vector<T> sin) {
  if constexpr (kTranspose) sin = swap_neighbours<T>(sin);
  return x * cos + swap_neighbours<T>(x) * (sin * signs<T, kTranspose>());
}

// One head of q or k of one token.
template <class T, bool kTranspose>
VTFAST_INLINE void rotate_head(const T* source, const AccOf<T>* cos, const AccOf<T>* sin, int64_t rotated,
                               int64_t head_dim, T* target) {
  using Acc = AccOf<T>;
  int64_t i = 0;
  for (; i + kLanes<Acc> <= rotated; i += kLanes<Acc>) {
    store_from_acc(target + i, rotate<Acc, kTranspose>(load_as_acc(source + i), load(cos + i), load(sin + i)));
  }
  if (i < rotated) {
    const int64_t rest = rotated - i;
    const Vector<Acc> x = load_partial_as_acc(source + i, rest);
    const Vector<Acc> c = load_partial_as_acc(cos + i, rest), s = load_partial_as_acc(sin + i, rest);
    store_partial_from_acc(target + i, rotate<Acc, kTranspose>(x, c, s), rest);
  }
  if (rotated < head_dim) std::memcpy(target + rotated, source + rotated, (head_dim - rotated) * sizeof(T));
}

// Goes through the tables from token to token: a division a token would be felt.
class TableWalk {
 public:
  TableWalk(const RotaryEmbeddingParams& p, int64_t token)
      : p_(p), t_(token / p.grid[2] / p.grid[1]), h_(token / p.grid[2] % p.grid[1]), w_(token % p.grid[2]) {}

  int64_t entry() const { return t_ * p_.table_stride[0] + h_ * p_.table_stride[1] + w_ * p_.table_stride[2]; }

  void next() {
    if (++w_ < p_.grid[2]) return;
    w_ = 0;
    if (++h_ < p_.grid[1]) return;
    h_ = 0;
    if (++t_ == p_.grid[0]) t_ = 0;
  }

 private:
  const RotaryEmbeddingParams& p_;
  int64_t t_, h_, w_;
};

template <class T, bool kTranspose>
void rotate_tokens(const RotaryEmbeddingParams& p, int64_t begin, int64_t end) {
  using Acc = AccOf<T>;
  const int64_t channels = p.channels(), row = 3 * channels, num_tokens = p.num_tokens();
  int64_t token = begin % num_tokens;
  TableWalk walk(p, std::max<int64_t>(token - p.num_prefix, 0));
  for (int64_t i = begin; i < end; ++i, token = token + 1 == num_tokens ? 0 : token + 1) {
    const T* source = static_cast<const T*>(p.qkv) + i * row;
    T* target = static_cast<T*>(p.out) + i * row;
    if (token < p.num_prefix) {
      std::memcpy(target, source, row * sizeof(T));
      continue;
    }
    const Acc* cos = static_cast<const Acc*>(p.cos) + walk.entry();
    const Acc* sin = static_cast<const Acc*>(p.sin) + walk.entry();
    walk.next();
    for (int64_t head = 0; head < 2 * channels; head += p.head_dim) {
      rotate_head<T, kTranspose>(source + head, cos, sin, p.rotated, p.head_dim, target + head);
    }
    std::memcpy(target + 2 * channels, source + 2 * channels, channels * sizeof(T));
  }
}

template <class T>
void run(const RotaryEmbeddingParams& p) {
  parallel_for(p.batch * p.num_tokens(), [&](int64_t begin, int64_t end) {
    if (p.transpose) {
      rotate_tokens<T, true>(p, begin, end);
    } else {
      rotate_tokens<T, false>(p, begin, end);
    }
  });
}

}  // namespace

void rotary_embedding(const RotaryEmbeddingParams& params) {
  with_data_type(params.data_type, [&]<class T>() { return run<T>(params); });
}

}  // namespace vtfast::cpu
