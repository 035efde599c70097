// Token grid -> groups -> token offsets. The one place where shift, padding, dilation and prefix tokens live.
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
struct Axis {
  int64_t size;       // tokens
  int64_t block;      // tokens of a group
  int64_t dilation;   // distance between neighbours of a group
  int64_t shift;      // the token that the roll brings to position 0
  int64_t num_spans;  // a division, kept out of the inner loops

  static Axis make(int64_t size, int64_t block, int64_t dilation, int64_t shift) {
    const int64_t span = block * dilation;
    return {size, block, dilation, shift, (size + span - 1) / span};
  }

  VTFAST_HOST_DEVICE int64_t span() const { return block * dilation; }
  VTFAST_HOST_DEVICE int64_t padded_size() const { return num_spans * span(); }
  VTFAST_HOST_DEVICE int64_t num_groups() const { return num_spans * dilation; }

  // Position of the first slot of a group; the others follow `dilation` apart.
  VTFAST_HOST_DEVICE int64_t start(int64_t group) const { return group / dilation * span() + group % dilation; }

  // The token at a position, or a value >= size for padding.
  VTFAST_HOST_DEVICE int64_t token(int64_t position) const {
    const int64_t rolled = position + shift;
    return rolled < padded_size() ? rolled : rolled - padded_size();
  }

  // Which stretch of the unrolled axis a position of a group comes from; tokens of two stretches do not see each
  // other (the regions of Swin's shift mask).
  VTFAST_HOST_DEVICE int region(int64_t position) const {
    if (shift == 0) return 0;
    return (position >= padded_size() - span()) + (position >= padded_size() - shift);
  }

  // Only the last span holds the seam of the roll.
  VTFAST_HOST_DEVICE bool crosses_seam(int64_t group) const { return shift != 0 && group / dilation == num_spans - 1; }
};

struct Geometry {
  Axis t, h, w;
  int64_t num_prefix;  // tokens before those of the grid

  VTFAST_HOST_DEVICE int64_t num_tokens() const { return t.size * h.size * w.size; }  // without the prefix
  VTFAST_HOST_DEVICE int64_t num_groups() const { return t.num_groups() * h.num_groups() * w.num_groups(); }
  VTFAST_HOST_DEVICE int64_t num_slots() const { return t.block * h.block * w.block; }

  VTFAST_HOST_DEVICE bool has_padding() const {
    return t.padded_size() != t.size || h.padded_size() != h.size || w.padded_size() != w.size;
  }
};

// A group by its coordinates along the three axes.
struct GroupIndex {
  int64_t t, h, w;

  VTFAST_HOST_DEVICE GroupIndex(const Geometry& geometry, int64_t index)
      : t(index / (geometry.h.num_groups() * geometry.w.num_groups())),
        h(index / geometry.w.num_groups() % geometry.h.num_groups()),
        w(index % geometry.w.num_groups()) {}

  VTFAST_HOST_DEVICE bool crosses_seam(const Geometry& geometry) const {
    return geometry.t.crosses_seam(t) || geometry.h.crosses_seam(h) || geometry.w.crosses_seam(w);
  }
};

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

}  // namespace vtfast
