// Bringing rows of q, k, v into the shapes that register tiles read.
#pragma once

#include "tile.h"

namespace vtfast::cpu {

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Sizes of packed operands for one head_dim.
template <class Dot>
struct HeadLayout {
  int64_t size;         // head_dim
  int64_t padded;       // whole vectors of accumulators
  int64_t words;        // depth of a product over head_dim
  int64_t word_stride;  // whole vectors of words

  explicit HeadLayout(int64_t head_dim)
      : size(head_dim),
        padded(round_up(head_dim, kLanes<typename Dot::Acc>)),
        words((head_dim + Dot::kPack - 1) / Dot::kPack),
        word_stride(round_up(words, kLanes<typename Dot::Word>)) {}
};

// One row as words along its depth, zeros up to the stride.
template <class T>
VTFAST_INLINE void load_words(const T* source, const HeadLayout<FusedDot<AccOf<T>>>& head, AccOf<T> scale,
                              AccOf<T>* words) {
  load_row(source, head.size, head.padded, scale, words);
}

// A row of a product's right side, summed over rows: `kPack` rows to a row of words.
template <class T>
VTFAST_INLINE void load_row_pack(const T* const* sources, const HeadLayout<FusedDot<AccOf<T>>>& head, AccOf<T>* words) {
  load_row(sources[0], head.size, head.padded, AccOf<T>(1), words);
}

#ifdef __AVX512BF16__
// Words of two bfloat16 are bit copies: a scale would round them.
template <class Dot>
  requires(Dot::kPack == 2)
VTFAST_INLINE void load_words(const BFloat16* source, const HeadLayout<Dot>& head, float, uint32_t* words) {
  std::memset(words + head.size / 2, 0, (head.word_stride - head.size / 2) * sizeof(uint32_t));
  std::memcpy(words, source, head.size * sizeof(BFloat16));
}

template <class Dot>
  requires(Dot::kPack == 2)
VTFAST_INLINE void load_row_pack(const BFloat16* const* sources, const HeadLayout<Dot>& head, uint32_t* words) {
  for (int64_t i = 0; i < head.padded; i += kLanes<float>) {
    const int64_t left = head.size - i;
    const auto bits = [&](const BFloat16* source) {
      return bit_cast<Vector<uint32_t>>(left >= kLanes<float> ? load_as_acc(source + i)
                                                              : load_partial_as_acc(source + i, left));
    };
    store(words + i, bits(sources[0]) >> 16 | bits(sources[1]));
  }
}

// Words of the neighbours (first[0], first[1]), ..., (second[14], second[15]), rounded.
VTFAST_INLINE Vector<uint32_t> pack_neighbours(Vector<float> first, Vector<float> second) {
  return bit_cast<Vector<uint32_t>>(_mm512_cvtne2ps_pbh(bit_cast<__m512>(second), bit_cast<__m512>(first)));
}

// Words of (first[0], second[0]), ..., rounded.
VTFAST_INLINE Vector<uint32_t> pack_pair(Vector<float> first, Vector<float> second) {
  Vector<uint16_t, kLanes<float>> low, high;
  store_from_acc(reinterpret_cast<BFloat16*>(&low), first);
  store_from_acc(reinterpret_cast<BFloat16*>(&high), second);
  return __builtin_convertvector(low, Vector<uint32_t>) | __builtin_convertvector(high, Vector<uint32_t>) << 16;
}
#endif

// Writes kLanes<Word> rows, given by row(i), as columns: target[word * stride + i]. `staging` holds as many rows.
template <class Dot, class Row>
VTFAST_INLINE void pack_columns(Row row, const HeadLayout<Dot>& head, typename Dot::Acc scale,
                                typename Dot::Word* staging, typename Dot::Word* target, int64_t stride) {
  constexpr int kCount = kLanes<typename Dot::Word>;
  for (int i = 0; i < kCount; ++i) load_words(row(i), head, scale, staging + i * head.word_stride);
  for (int64_t block = 0; block < head.word_stride; block += kCount) {
    transpose(staging + block, head.word_stride, target + block * stride, stride);
  }
}

}  // namespace vtfast::cpu
