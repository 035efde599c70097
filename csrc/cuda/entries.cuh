// The entries of a unit, prefix tokens and slots of its groups, as the kernels' loops see them.
#pragma once

#include "kernel_params.h"
#include "shared.cuh"

namespace vtfast::cuda {

// Who sees whom is told by bits: a query sees a key if they share one. Each group of a unit has nine bits. Eight stand
// for the regions that the seam of the roll cuts a group into, the ninth for "a token of the clip", all that a prefix
// query with one pass over the clip looks for.
inline constexpr int kBitsPerGroup = 9;
inline constexpr unsigned kAnyRegion = 0xff, kOfClip = 0x100;

inline constexpr int kAbsent = -1, kPadding = -2;  // in place of a row

// A list of entries in shared memory, field by field.
struct Entries {
  Shared<int> row;              // token among all clips' [B * (P + N)], or kAbsent or kPadding
  Shared<unsigned> query_bits;  // 0 if it is no query
  Shared<unsigned> key_bits;    // 0 if no query may attend to it
  Shared<int> place;            // in the bias table's box, in bytes of the table; negative if it has no bias

  // From `first` on, of a list of `length` entries.
  __device__ Entries(Shared<int> list, int length, int first)
      : row(list + first),
        query_bits((row + length).as<unsigned>()),
        key_bits(query_bits + length),
        place((key_bits + length).as<int>()) {}

  __device__ Entries(const Entries& list, int first)
      : row(list.row + first),
        query_bits(list.query_bits + first),
        key_bits(list.key_bits + first),
        place(list.place + first) {}
};

__device__ inline bool is_token(int row) { return row >= 0; }

__device__ inline bool is_prefix(const KernelParams& p, int row) {
  return p.geometry.num_prefix > 0 && row >= 0 && row % p.clip_tokens < p.geometry.num_prefix;
}

__device__ inline void describe_prefix(const KernelParams& p, int clip, int group, int prefix, int shift,
                                       const Entries& out, int i) {
  const bool global = p.global_prefix();
  const unsigned as_key = (p.prefix_keys ? kAnyRegion : 0) | (global && group == 0 ? kOfClip : 0);
  const unsigned as_query = !p.prefix_attends() ? 0 : global ? kOfClip : kAnyRegion;
  out.row[i] = clip * p.clip_tokens + prefix;
  out.query_bits[i] = as_query << shift;
  out.key_bits[i] = as_key << shift;
  out.place[i] = -1;
}

__device__ inline void describe_slot(const KernelParams& p, int clip, int group, int slot, int shift,
                                     const Entries& out, int i) {
  const DeviceGeometry& g = p.geometry;
  const DeviceGroupIndex index(g, group);
  const DeviceCoordinates at = DeviceCoordinates::of(slot, g.h.block, g.w.block);
  const int position_t = g.t.start(index.t) + at.t * g.t.dilation, t = g.t.token(position_t);
  const int position_h = g.h.start(index.h) + at.h * g.h.dilation, h = g.h.token(position_h);
  const int position_w = g.w.start(index.w) + at.w * g.w.dilation, w = g.w.token(position_w);
  // Within a group, an axis with a seam has regions 1 and 2, one without has region 0.
  const int region =
      (g.t.region(position_t) / 2) | (g.h.region(position_h) / 2 << 1) | (g.w.region(position_w) / 2 << 2);
  const bool exists = t < g.t.size && h < g.h.size && w < g.w.size;
  const int token = (t * g.h.size + h) * g.w.size + w;
  const bool open = exists ? p.key_mask == nullptr || p.key_mask[int64_t{clip} * g.num_tokens() + token] : p.pad_keys;
  out.row[i] = exists ? clip * p.clip_tokens + g.num_prefix + token : kPadding;
  out.query_bits[i] = exists ? 1u << (region + shift) : 0;
  out.key_bits[i] = open ? ((1u << region) | (exists ? kOfClip : 0)) << shift : 0;
  const DeviceCoordinates place = DeviceCoordinates::of(slot, p.extent_h, p.extent_w);
  out.place[i] = place.t * p.bias_stride_t + place.h * p.bias_stride_h + place.w * p.bias_stride_w;
}

inline constexpr int kEveryMember = -1;

// Writes entry `entry` of `unit` to place `i` of the list; absent unless it is of group `only` of the unit, or of any.
__device__ inline void describe_entry(const KernelParams& p, int unit, int entry, int only, const Entries& out, int i) {
  const int member = entry / p.entries, within = entry % p.entries;
  const int group = unit * p.plan.groups_per_unit + member;
  const bool left_out = only != kEveryMember && member != only;
  if (member >= p.plan.groups_per_unit || group >= p.batch * p.num_groups || left_out) {
    out.row[i] = kAbsent;
    out.query_bits[i] = out.key_bits[i] = 0;
    out.place[i] = -1;
    return;
  }
  const int clip = group / p.num_groups, of_clip = group % p.num_groups, shift = member * kBitsPerGroup;
  if (within < p.group_prefix) {
    describe_prefix(p, clip, of_clip, within, shift, out, i);
  } else {
    describe_slot(p, clip, of_clip, within - p.group_prefix, shift, out, i);
  }
}

// Whether some query of the unit does not see some of its keys.
__device__ inline bool is_masked(const KernelParams& p, int unit) {
  const bool partial_prefix = p.group_prefix > 0 && (!p.prefix_keys || p.global_prefix());
  if (p.plan.groups_per_unit > 1 || p.key_mask != nullptr || !p.pad_keys || partial_prefix) return true;
  return DeviceGroupIndex(p.geometry, unit % p.num_groups).crosses_seam(p.geometry);
}

}  // namespace vtfast::cuda
