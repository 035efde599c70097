// The group at work and the one that follows it.
#pragma once

#include "head_view.h"

namespace vtfast::cpu {

// The group at work and the one after it, whose rows are fetched into the cache one by one in the course of the work:
// they lie too far apart for the processor to guess them, which costs time where memory is busy.
template <class T>
class GroupPair {
 public:
  static size_t scratch_bytes(const GridAttentionParams& p) {
    return 2 * (Group::scratch_bytes(p) + HeadView<T>::scratch_bytes(p));
  }

  GroupPair(const GridAttentionParams& p, Scratch& scratch)
      : p_(p), groups_{{p, scratch}, {p, scratch}}, views_{{p, scratch}, {p, scratch}} {}

  const Group& group() const { return groups_[current_]; }
  const HeadView<T>& view() const { return views_[current_]; }

  // Moves to `task`; `next` is the one that will follow it.
  void advance(const GroupTask& task, const GroupTask& next) {
    current_ = 1 - current_;
    select(current_, task);
    select(1 - current_, next);
    fetched_ = 0;
  }

  void advance_global(int64_t batch, int64_t head) {
    groups_[current_].gather_global(batch);
    views_[current_].select(batch, head);
    fetched_ = groups_[1 - current_].num_columns;
  }

  // Fetches one more token of the next group; also(token, view) may fetch more of it.
  template <class Also>
  VTFAST_INLINE void fetch(Also also) {
    const Group& next = groups_[1 - current_];
    if (fetched_ >= next.num_columns) return;
    const int64_t token = next.column_token[fetched_++];
    if (token == Group::kPadding) return;
    for (int which : {0, 1, 2}) fetch_row(views_[1 - current_].row(token, which));
    also(token, views_[1 - current_]);
  }

  void fetch_row(const T* row) const { prefetch_row(row, p_.head_dim); }

 private:
  void select(int which, const GroupTask& task) {
    groups_[which].gather(task.batch, task.group);
    views_[which].select(task.batch, task.head);
  }

  const GridAttentionParams& p_;
  Group groups_[2];
  HeadView<T> views_[2];
  int current_ = 0;
  int64_t fetched_ = 0;
};

}  // namespace vtfast::cpu
