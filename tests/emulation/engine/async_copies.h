// The cp.async copies of one thread: bytes read, but not yet in shared memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace vtfast::emulation {

class AsyncCopies {
 public:
  using Bytes = std::array<std::byte, 16>;

  void start(void* destination, const Bytes& bytes, size_t size) {
    copies_.push_back({destination, bytes, size, open_group_});
  }

  void commit() { ++open_group_; }

  // Lands all copies but those of the last `pending` committed groups and of the open one.
  void wait(int64_t pending) {
    auto copy = copies_.begin();
    for (; copy != copies_.end() && copy->group < open_group_ - pending; ++copy) {
      std::memcpy(copy->destination, copy->bytes.data(), copy->size);
    }
    copies_.erase(copies_.begin(), copy);
  }

  void drop() { copies_.clear(); }

 private:
  struct Copy {
    void* destination;
    Bytes bytes;
    size_t size;
    int64_t group;
  };

  std::vector<Copy> copies_;
  int64_t open_group_ = 0;
};

}  // namespace vtfast::emulation
