#include "engine/grid.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_builtins.h"
#include "engine/arch.h"
#include "engine/fiber.h"
#include "engine/sanitizer.h"
#include "engine/shuffler.h"

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace vtfast::emulation {
namespace {

const WarpOperation kBlockBarrier{"__syncthreads", nullptr};
const WarpOperation kWarpBarrier{"__syncwarp", [](const std::array<void*, kWarpSize>&) {}};

struct Thread {
  Fiber fiber;
  const WarpOperation* stopped_at = nullptr;
  void* operands = nullptr;
  AsyncCopies copies;
  std::exception_ptr error;
  int block_rounds = 0, warp_rounds = 0;

  const char* whereabouts() const { return fiber.finished() ? "has returned" : stopped_at->name; }
};

struct Warp {
  std::array<Thread, kWarpSize> lanes;
  MeetingPlace place;
};

Thread* current_thread = nullptr;
Warp* current_warp = nullptr;
MeetingPlace current_block_place;
char* current_shared = nullptr;
size_t current_shared_bytes = 0;

[[noreturn]] void fail(const std::string& message) {
  throw std::runtime_error("emulation: block " + std::to_string(blockIdx.x) + ", " + message);
}

uint64_t seed() {
  const char* text = std::getenv("VTFAST_EMULATION_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

// Stacks are dear to allocate, so warps outlive their grid.
std::vector<std::unique_ptr<Warp>> all_warps;

class Block {
 public:
  Block(int num_warps, Shuffler& shuffler) : warp_order_(num_warps), shuffler_(shuffler) {
    while (std::ssize(all_warps) < num_warps) all_warps.push_back(std::make_unique<Warp>());
    std::iota(warp_order_.begin(), warp_order_.end(), 0);
    std::iota(lane_order_.begin(), lane_order_.end(), 0);
  }

  void run(const std::function<void()>& kernel) {
    for (const int warp : warp_order_) {
      for (int lane = 0; lane < kWarpSize; ++lane) start(all_warps[warp]->lanes[lane], lane, kernel);
    }
    begin_.arrive();
    // Warps run until they return or stand at the barrier, so after each round the barrier is complete.
    for (bool alive = true; alive;) {
      alive = false;
      shuffler_.shuffle(warp_order_);
      for (const int warp : warp_order_) alive |= run_to_barrier(warp);
    }
    end_.depart();
  }

 private:
  void start(Thread& thread, int lane, const std::function<void()>& kernel) {
    thread.copies.drop();
    thread.error = nullptr;
    thread.block_rounds = thread.warp_rounds = 0;
    const auto body = [this, &thread, &kernel] {
      begin_.depart();
      try {
        kernel();
      } catch (...) {
        thread.error = std::current_exception();
      }
      end_.arrive();
    };
    thread.fiber.start(body, lane);
  }

  // Returns whether a thread of the warp is still on its way.
  bool run_to_barrier(int index) {
    Warp& warp = *all_warps[index];
    current_warp = &warp;
    while (true) {
      shuffler_.shuffle(lane_order_);
      for (const int lane : lane_order_) run(warp.lanes[lane], index * kWarpSize + lane);
      const WarpOperation* operation = agreed_operation(warp, index);
      if (operation == nullptr) return false;
      if (operation == &kBlockBarrier) return true;
      std::array<void*, kWarpSize> operands;
      for (int lane = 0; lane < kWarpSize; ++lane) operands[lane] = warp.lanes[lane].operands;
      operation->run(operands);
    }
  }

  static void run(Thread& thread, int index) {
    if (thread.fiber.finished()) return;
    current_thread = &thread;
    threadIdx = {static_cast<unsigned>(index), 0, 0};
    thread.fiber.resume();
    if (thread.error) std::rethrow_exception(thread.error);
  }

  // What the warp has stopped at, null if all its threads have returned. Only a barrier of the block goes without
  // threads that have returned.
  static const WarpOperation* agreed_operation(const Warp& warp, int index) {
    const Thread* first = nullptr;
    for (const Thread& thread : warp.lanes) {
      if (!thread.fiber.finished() && (first == nullptr || first->stopped_at == &kBlockBarrier)) first = &thread;
    }
    if (first == nullptr) return nullptr;
    for (const Thread& thread : warp.lanes) {
      if (thread.fiber.finished() ? first->stopped_at != &kBlockBarrier : thread.stopped_at != first->stopped_at) {
        fail("warp " + std::to_string(index) + " is divided: " + describe(warp, *first) + ", " +
             describe(warp, thread));
      }
    }
    return first->stopped_at;
  }

  static std::string describe(const Warp& warp, const Thread& thread) {
    return "lane " + std::to_string(&thread - warp.lanes.data()) + ": " + thread.whereabouts();
  }

  std::vector<int> warp_order_;
  std::array<int, kWarpSize> lane_order_;
  Shuffler& shuffler_;
  MeetingPoint begin_, end_;
};

void check_layout(const GridLayout& layout) {
  if (layout.blocks < 0 || layout.blocks > INT32_MAX) {
    throw std::invalid_argument("emulation: a grid of " + std::to_string(layout.blocks) + " blocks");
  }
  if (layout.threads <= 0 || layout.threads > kMaxThreads || layout.threads % kWarpSize != 0) {
    throw std::invalid_argument("emulation: a block of " + std::to_string(layout.threads) +
                                " threads; whole warps and at most 1024 threads are wanted");
  }
  const size_t most = max_shared_bytes(emulated_arch());
  if (layout.shared_bytes > most) {
    throw std::invalid_argument("emulation: " + std::to_string(layout.shared_bytes) +
                                " bytes of shared memory; a block may have " + std::to_string(most));
  }
}

}  // namespace

void run_grid(const GridLayout& layout, const std::function<void()>& kernel) {
  check_layout(layout);
  static std::mutex one_grid_at_a_time;
  const std::lock_guard lock(one_grid_at_a_time);
  Shuffler shuffler(seed());
  std::vector<unsigned> order(layout.blocks);
  std::iota(order.begin(), order.end(), 0);
  shuffler.shuffle(order);

  // Exactly as large as was asked for: the address sanitizer guards both ends.
  const auto shared = std::make_unique_for_overwrite<char[]>(layout.shared_bytes);
  current_shared = shared.get();
  current_shared_bytes = layout.shared_bytes;
  gridDim = {static_cast<unsigned>(layout.blocks), 1, 1};
  blockDim = {static_cast<unsigned>(layout.threads), 1, 1};
  Block block(layout.threads / kWarpSize, shuffler);
  for (const unsigned index : order) {
    blockIdx = {index, 0, 0};
    std::memset(current_shared, static_cast<int>(kPoison), layout.shared_bytes);
    block.run(kernel);
  }
}

void meet_warp(const WarpOperation& operation, void* operands) {
  Thread& thread = *current_thread;
  thread.stopped_at = &operation;
  thread.operands = operands;
  thread.fiber.pause();
}

void synchronize_warp() {
  MeetingPoint& point = current_warp->place.of_round(current_thread->warp_rounds++);
  point.arrive();
  meet_warp(kWarpBarrier, nullptr);
  point.depart();
}

void synchronize_block() {
  MeetingPoint& point = current_block_place.of_round(current_thread->block_rounds++);
  point.arrive();
  meet_warp(kBlockBarrier, nullptr);
  point.depart();
}

AsyncCopies& async_copies() { return current_thread->copies; }

char* shared_memory() { return current_shared; }

void check_shared(const void* address, size_t bytes, const char* instruction) {
  const auto offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(current_shared);
  if (offset % bytes != 0) fail(std::string(instruction) + ": the address in shared memory is not aligned");
  if (offset >= current_shared_bytes || bytes > current_shared_bytes - offset) {
    fail(std::string(instruction) + ": the address is not in the shared memory of the block");
  }
}

}  // namespace vtfast::emulation
