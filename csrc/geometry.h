// Token grid -> groups, pooling windows, relative positions -> token offsets. The one place where shift, padding,
// dilation, stride and prefix tokens live.
//
// `Index` is the integer of sizes and positions, `Divisor` that of sizes which others are divided by: processors whose
// division is slow bring a type of their own that behaves as an `Index` does.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define VTFAST_HOST_DEVICE __host__ __device__
#else
#define VTFAST_HOST_DEVICE
#endif

namespace vtfast {

// One axis of the grid, cut into spans of block * dilation positions; a group takes every dilation-th position of a
// span. Positions are those of the padded and rolled axis; tokens are those of the axis as it lies in memory.
template <class Index, class Divisor = Index>
struct BasicAxis {
  Index size;        // tokens
  Divisor block;     // tokens of a group
  Divisor dilation;  // distance between neighbours of a group
  Index shift;       // the token that the roll brings to position 0
  Index num_spans;   // a division, kept out of the inner loops
  Divisor num_groups;

  static BasicAxis make(Index size, Index block, Index dilation, Index shift) {
    const Index span = block * dilation, num_spans = (size + span - 1) / span;
    return {size, Divisor(block), Divisor(dilation), shift, num_spans, Divisor(num_spans * dilation)};
  }

  VTFAST_HOST_DEVICE Index span() const { return block * dilation; }
  VTFAST_HOST_DEVICE Index padded_size() const { return num_spans * span(); }

  // Position of the first slot of a group; the others follow `dilation` apart.
  VTFAST_HOST_DEVICE Index start(Index group) const { return group / dilation * span() + group % dilation; }

  // The token at a position, or a value >= size for padding.
  VTFAST_HOST_DEVICE Index token(Index position) const {
    const Index rolled = position + shift;
    return rolled < padded_size() ? rolled : rolled - padded_size();
  }

  // Which stretch of the unrolled axis a position of a group comes from; tokens of two stretches do not see each
  // other (the regions of Swin's shift mask).
  VTFAST_HOST_DEVICE int region(Index position) const {
    if (shift == 0) return 0;
    return (position >= padded_size() - span()) + (position >= padded_size() - shift);
  }

  // Only the last span holds the seam of the roll.
  VTFAST_HOST_DEVICE bool crosses_seam(Index group) const { return shift != 0 && group / dilation == num_spans - 1; }
};

template <class Index, class Divisor = Index>
struct BasicGeometry {
  BasicAxis<Index, Divisor> t, h, w;
  Index num_prefix;  // tokens before those of the grid

  VTFAST_HOST_DEVICE Index num_tokens() const { return t.size * h.size * w.size; }  // without the prefix
  VTFAST_HOST_DEVICE Index num_groups() const { return t.num_groups * h.num_groups * w.num_groups; }
  VTFAST_HOST_DEVICE Index num_slots() const { return t.block * h.block * w.block; }

  VTFAST_HOST_DEVICE bool has_padding() const {
    return t.padded_size() != t.size || h.padded_size() != h.size || w.padded_size() != w.size;
  }
};

// Coordinates along the three axes.
template <class Index>
struct BasicCoordinates {
  Index t, h, w;

  // Of an index into a box whose last two sides are `height` and `width`.
  template <class Divisor>
  VTFAST_HOST_DEVICE static BasicCoordinates of(Index index, Divisor height, Divisor width) {
    const Index row = index / width;
    return {row / height, row % height, index % width};
  }
};

// A group by its coordinates along the three axes.
template <class Index, class Divisor = Index>
struct BasicGroupIndex : BasicCoordinates<Index> {
  VTFAST_HOST_DEVICE BasicGroupIndex(const BasicGeometry<Index, Divisor>& geometry, Index index)
      : BasicCoordinates<Index>(BasicCoordinates<Index>::of(index, geometry.h.num_groups, geometry.w.num_groups)) {}

  VTFAST_HOST_DEVICE bool crosses_seam(const BasicGeometry<Index, Divisor>& geometry) const {
    return geometry.t.crosses_seam(this->t) || geometry.h.crosses_seam(this->h) || geometry.w.crosses_seam(this->w);
  }
};

using Axis = BasicAxis<int64_t>;
using Geometry = BasicGeometry<int64_t>;
using GroupIndex = BasicGroupIndex<int64_t>;

// Where the bias of a pair of slots stands in the table. A slot has a place in a box of `extent`; the table is that
// of a `window` at least as large. See reference.relative_position_bias.
struct BiasGeometry {
  int64_t extent[3];
  int64_t window[3];

  VTFAST_HOST_DEVICE int64_t table_size() const {
    return (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1);
  }

  // Row of the table for an offset (query minus key) along each axis.
  VTFAST_HOST_DEVICE int64_t row(int64_t dt, int64_t dh, int64_t dw) const {
    return ((dt + window[0] - 1) * (2 * window[1] - 1) + dh + window[1] - 1) * (2 * window[2] - 1) + dw + window[2] - 1;
  }
};

// One axis of a grid that is pooled or convolved by windows of `kernel` tokens, `stride` apart, with `padding` tokens
// at both ends.
template <class Index, class Divisor = Index>
struct BasicPoolAxis {
  Index size;
  Index kernel;
  Divisor stride;
  Index padding;
  Index pooled;  // windows; a division, kept out of the inner loops

  static BasicPoolAxis make(Index size, Index kernel, Index stride, Index padding) {
    return {size, kernel, Divisor(stride), padding, (size + 2 * padding - kernel) / stride + 1};
  }

  // With as much padding as keeps the size of the axis for an odd kernel at stride 1.
  static BasicPoolAxis make(Index size, Index kernel, Index stride) { return make(size, kernel, stride, kernel / 2); }

  // The token under tap `tap` of a window, or one outside of [0, size) for padding.
  VTFAST_HOST_DEVICE Index token(Index window, Index tap) const { return window * stride + tap - padding; }

  // The taps [first, last) of a window that are no padding.
  VTFAST_HOST_DEVICE Index first_tap(Index window) const {
    const Index outside = padding - window * stride;
    return outside > 0 ? outside : 0;
  }
  VTFAST_HOST_DEVICE Index last_tap(Index window) const {
    const Index left = size - token(window, 0);
    return left < kernel ? left : kernel;
  }

  // The windows [first, last) that hold a token.
  VTFAST_HOST_DEVICE Index first_window(Index token) const {
    const Index past = token + padding - kernel + stride;
    return past > 0 ? past / stride : 0;
  }
  VTFAST_HOST_DEVICE Index last_window(Index token) const {
    const Index last = (token + padding) / stride + 1;
    return last < pooled ? last : pooled;
  }
};

using PoolAxis = BasicPoolAxis<int64_t>;

// A product of floats that no compiler fuses with the sum it goes into.
VTFAST_HOST_DEVICE inline float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  const volatile float product = a * b;
  return product;
#endif
}

// One axis of the grids of queries and keys, and which row of a table of relative positions a pair of them has along
// it.
template <class Index, class Divisor = Index>
struct BasicRelativeAxis {
  Divisor q_size;
  Divisor k_size;
  float q_step;  // of the finer grid's tokens to one of this grid's
  float k_step;
  float origin;  // makes the smallest distance 0

  static BasicRelativeAxis make(Index q_size, Index k_size) {
    const double q_step = q_size < k_size ? static_cast<double>(k_size) / q_size : 1.0;
    const double k_step = k_size < q_size ? static_cast<double>(q_size) / k_size : 1.0;
    return {Divisor(q_size), Divisor(k_size), static_cast<float>(q_step), static_cast<float>(k_step),
            static_cast<float>((k_size - 1) * k_step)};
  }

  VTFAST_HOST_DEVICE Index num_rows() const { return 2 * (Index(q_size) > Index(k_size) ? q_size : k_size) - 1; }

  // The rounding of every step to float is part of the published weights.
  VTFAST_HOST_DEVICE Index row(Index q, Index k) const {
    const float queries = rounded_product(static_cast<float>(q), q_step);
    const float keys = rounded_product(static_cast<float>(k), k_step);
    return static_cast<Index>(queries - keys + origin);
  }

  // The key whose row for a query is `row`, if there is one, give or take one for the rounding.
  VTFAST_HOST_DEVICE Index key_near(Index q, Index row) const {
    return static_cast<Index>((static_cast<float>(q) * q_step + origin - static_cast<float>(row)) / k_step);
  }
};

using RelativeAxis = BasicRelativeAxis<int64_t>;

}  // namespace vtfast
