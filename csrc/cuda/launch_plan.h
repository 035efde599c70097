// How a kernel is laid out on a GPU for given sizes: pure host functions, also visible from Python.
#pragma once

#include "../grid_attention.h"

namespace vtfast::cuda {

// What a launch depends on of a GPU.
struct Device {
  int arch;              // 10 * major + minor
  int num_sms;           // multiprocessors
  int shared_per_block;  // bytes of shared memory that a block may ask for
  int shared_per_sm;     // bytes of shared memory of a multiprocessor

  // The largest GPU of an architecture, for plans made without one; arch 80 or newer.
  static Device of_arch(int arch);
};

// Thread blocks are bound to a head and walk over items. An item is `units` units, or one set of rows of a unit; a
// unit is one group, or as many groups as fit in a tile of 16 rows. Rows are the side of a product that a warp holds
// in registers, columns the side that it reads from shared memory, chunk by chunk.
struct LaunchPlan {
  int padded_dim;  // head_dim, rounded up to one that kernels are compiled for
  int groups_per_unit;
  int unit_rows;        // rows of a unit, tokens and filling: a multiple of 16
  int units;            // units of an item
  int rows;             // rows of an item: units * unit_rows, or 16 a warp
  int row_sets;         // items that share a unit; 1 if an item is whole units
  int chunk;            // columns of a unit that are resident in shared memory at once
  int chunks;           // chunks of a unit
  int warps;            // of a thread block
  int stages;           // 1, or 2 to load one chunk while computing on another
  int64_t items;        // of a head
  int64_t workers;      // thread blocks of a head
  bool table_resident;  // bias table in shared memory
  bool grads_resident;  // gradient of the table in shared memory, one copy a warp
  int shared_bytes;     // dynamic shared memory of a thread block

  // Items are whole units: rows and columns are the same entries, and all of them are resident.
  VTFAST_HOST_DEVICE bool whole() const { return row_sets == 1 && chunks == 1; }
};

enum class Pass : int { kForward, kBackward };

// Groups that may share a tile: the visibility of three fits in a word, see entries.cuh; the widest rows leave a kernel
// no registers for what sharing takes.
VTFAST_HOST_DEVICE constexpr int max_groups_per_unit(int padded_dim) { return padded_dim <= 64 ? 3 : 1; }

// Launch bounds of a kernel: they settle how many registers a thread may have.
struct LaunchBounds {
  int warps;   // of a block, at most
  int blocks;  // of that size that a multiprocessor holds at least

  VTFAST_HOST_DEVICE static constexpr LaunchBounds of(Pass pass, int padded_dim, int element_size) {
    const int row_bytes = padded_dim * element_size * (pass == Pass::kBackward ? 2 : 1);
    return row_bytes <= 64 ? LaunchBounds{8, 2} : row_bytes <= 128 ? LaunchBounds{12, 1} : LaunchBounds{8, 1};
  }
};

// The smallest width of rows, of those that kernels are compiled for, that holds a head.
int padded_head_dim(int64_t head_dim);

inline int element_size(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

// Whether the kernels take these sizes: a reason for the user if not, null if they do.
const char* unsupported(const GridAttentionParams& params);

LaunchPlan make_launch_plan(const GridAttentionParams& params, const Device& device, Pass pass);

}  // namespace vtfast::cuda
