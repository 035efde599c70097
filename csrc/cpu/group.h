// The members of one group as lists: which token each key column and each query row is, and who may see whom.
#pragma once

#include "../grid_attention.h"
#include "scratch.h"

namespace vtfast::cpu {

class Group {
 public:
  static constexpr int64_t kPadding = -1;
  // Regions of columns that every query, or none, attends to. True regions are 0 to 26.
  static constexpr uint8_t kOpen = 254;
  static constexpr uint8_t kBlocked = 255;

  // Key columns are the slots of the group and then the prefix; query rows are the slots that hold a token and then
  // the prefix, in so far as they attend here.
  int64_t num_slots = 0;
  int64_t num_columns = 0;
  int64_t num_rows = 0;
  int64_t num_prefix_rows = 0;  // the last of the rows
  bool masked = false;          // whether any column is out of reach of any row
  int64_t* column_token;        // [num_columns], index into the P + N tokens of a clip, or kPadding
  int32_t* row_slot;            // [num_rows], column of a grid row
  uint8_t* row_region;          // [num_rows], region of a grid row
  uint8_t* column_region;       // [num_columns] as grid rows see it
  uint8_t* column_open;         // [num_columns] as prefix rows see it: kOpen or kBlocked

  static int64_t max_columns(const GridAttentionParams& p) {
    const bool whole = p.prefix_attends() && p.prefix_queries == PrefixQueries::kGlobal;
    const int64_t slots = p.geometry.num_slots(), tokens = p.geometry.num_tokens();
    return (whole && tokens > slots ? tokens : slots) + p.geometry.num_prefix;
  }

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const int64_t columns = max_columns(p);
    return Scratch::bytes_of<int64_t>(columns) + Scratch::bytes_of<int32_t>(columns) +
           3 * Scratch::bytes_of<uint8_t>(columns);
  }

  Group(const GridAttentionParams& p, Scratch& scratch) : p_(p), geometry_(p.geometry) {
    const int64_t columns = max_columns(p);
    column_token = scratch.take<int64_t>(columns);
    row_slot = scratch.take<int32_t>(columns);
    row_region = scratch.take<uint8_t>(columns);
    column_region = scratch.take<uint8_t>(columns);
    column_open = scratch.take<uint8_t>(columns);
  }

  // Lists group `index` of clip `batch`; false if it is the one that is listed already.
  bool gather(int64_t batch, int64_t index) {
    if (batch == batch_ && index == index_) return false;
    batch_ = batch;
    index_ = index;
    const GroupIndex group(geometry_, index);
    const bool* mask = clip_mask(batch);
    num_slots = num_rows = 0;
    masked = group.crosses_seam(geometry_);
    const Axis &t = geometry_.t, &h = geometry_.h, &w = geometry_.w;
    const int64_t start_t = t.start(group.t), start_h = h.start(group.h), start_w = w.start(group.w);
    for (int64_t st = 0; st < t.block; ++st) {
      const int64_t position_t = start_t + st * t.dilation, token_t = t.token(position_t);
      for (int64_t sh = 0; sh < h.block; ++sh) {
        const int64_t position_h = start_h + sh * h.dilation, token_h = h.token(position_h);
        const int region_th = t.region(position_t) * 9 + h.region(position_h) * 3;
        const bool line_exists = token_t < t.size && token_h < h.size;
        for (int64_t sw = 0; sw < w.block; ++sw) {
          const int64_t position_w = start_w + sw * w.dilation, token_w = w.token(position_w);
          const bool exists = line_exists && token_w < w.size;
          const int64_t token = exists ? (token_t * h.size + token_h) * w.size + token_w : kPadding;
          add_slot(token, static_cast<uint8_t>(region_th + w.region(position_w)), mask);
        }
      }
    }
    add_prefix(p_.prefix_keys, p_.prefix_queries == PrefixQueries::kMean);
    return true;
  }

  // All tokens of clip `batch` as columns, the prefix alone as rows.
  void gather_global(int64_t batch) {
    index_ = -1;
    const bool* mask = clip_mask(batch);
    num_slots = 0;
    masked = false;
    for (int64_t token = 0; token < geometry_.num_tokens(); ++token) add_slot(token, 0, mask);
    num_rows = 0;
    add_prefix(true, true);
  }

  bool is_prefix_row(int64_t row) const { return row >= num_rows - num_prefix_rows; }
  int64_t prefix_of_row(int64_t row) const { return row - (num_rows - num_prefix_rows); }
  int64_t token_of_row(int64_t row) const {
    return is_prefix_row(row) ? prefix_of_row(row) : column_token[row_slot[row]];
  }

 private:
  const bool* clip_mask(int64_t batch) const {
    return p_.key_mask == nullptr ? nullptr : p_.key_mask + batch * geometry_.num_tokens();
  }

  void add_slot(int64_t token, uint8_t region, const bool* mask) {
    const bool blocked = token == kPadding ? !p_.pad_keys : mask != nullptr && !mask[token];
    masked |= blocked;
    column_token[num_slots] = token == kPadding ? kPadding : geometry_.num_prefix + token;
    column_region[num_slots] = blocked ? kBlocked : region;
    column_open[num_slots] = blocked ? kBlocked : kOpen;
    if (token != kPadding) {
      row_slot[num_rows] = static_cast<int32_t>(num_slots);
      row_region[num_rows++] = region;
    }
    ++num_slots;
  }

  void add_prefix(bool as_keys, bool as_queries) {
    num_columns = num_slots;
    for (int64_t i = 0; as_keys && i < geometry_.num_prefix; ++i, ++num_columns) {
      column_token[num_columns] = i;
      column_region[num_columns] = column_open[num_columns] = kOpen;
    }
    num_prefix_rows = as_queries ? geometry_.num_prefix : 0;
    num_rows += num_prefix_rows;
  }

  const GridAttentionParams& p_;
  const Geometry& geometry_;
  int64_t batch_ = -1;
  int64_t index_ = -1;
};

// One piece of work: a head of a group of a clip.
struct GroupTask {
  int64_t batch;
  int64_t group;
  int64_t head;
};

}  // namespace vtfast::cpu
