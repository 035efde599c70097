// Blocks one after another, a fiber for each thread of a block. A warp runs until all of its lanes stand at a barrier
// of the block or have returned, its lanes from one warp-wide operation to the next; warps, lanes and blocks take turns
// in an order that is shuffled anew each time, so a result that needs an order which no barrier gives is wrong.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "engine/async_copies.h"

namespace vtfast::emulation {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;
constexpr std::byte kPoison{0xff};  // NaN as float, bfloat16 and float16

// What a warp does together, each lane with operands of its own.
struct WarpOperation {
  const char* name;
  void (*run)(const std::array<void*, kWarpSize>& operands);
};

struct GridLayout {
  int64_t blocks;
  int threads;
  size_t shared_bytes;
};

// Runs `kernel` on every thread. Throws if threads of a warp part ways where the warp must act together.
void run_grid(const GridLayout& layout, const std::function<void()>& kernel);

// Of the thread that runs: stops it until its warp has come this far. Operations order no accesses to memory, barriers
// do.
void meet_warp(const WarpOperation& operation, void* operands);
void synchronize_warp();
void synchronize_block();

AsyncCopies& async_copies();
char* shared_memory();

// Throws unless these bytes are aligned shared memory of the block that runs.
void check_shared(const void* address, size_t bytes, const char* instruction);

}  // namespace vtfast::emulation
