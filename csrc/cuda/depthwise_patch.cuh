// A tile of targets, and boxes of tokens on their way to shared memory.
#pragma once

#include "depthwise_params.h"
#include "element.cuh"
#include "pool_row.cuh"

namespace vtfast::cuda {

// The first target of a tile; its frames end before `last_t`.
struct DepthwiseTile {
  int clip, t, last_t, h, w;

  __device__ DepthwiseTile(const DepthwiseTiles& tiles, int place) {
    w = take_digit(place, tiles.columns) * kTileColumns;
    h = take_digit(place, tiles.lines) * kTileLines;
    t = take_digit(place, tiles.pieces) * tiles.piece_frames;
    last_t = min(t + tiles.piece_frames, tiles.targets.t);
    clip = place;
  }
};

// A thread's place in its block: `row` is its line of the tile, and it has `kCount` channels of it. One that does not
// exist may do what another does.
template <int kCount>
struct DepthwiseThread {
  int row, lane;
  int chunk_channel;  // the first of the block
  int channel;        // the first of the thread
  bool exists;

  __device__ DepthwiseThread(const DepthwiseTiles& tiles, int chunk)
      : row(static_cast<int>(threadIdx.x) / tiles.lanes),
        lane(static_cast<int>(threadIdx.x) % tiles.lanes),
        chunk_channel(chunk * tiles.lanes * kCount),
        channel(chunk_channel + lane * kCount),
        exists(row < kTileLines && channel < tiles.channels) {
    row = min(row, kTileLines - 1);
  }

  // Of the block's chunk.
  __device__ int num_channels(const DepthwiseTiles& tiles) const {
    return min(tiles.lanes * kCount, tiles.channels - chunk_channel);
  }
};

// The channels of one thread, side by side in memory: a word of 4 bytes, or half of one.
template <class T, int kChannelCount>
struct LaneChannels {
  static constexpr int kCount = kChannelCount;
  static constexpr int kBytes = kCount * static_cast<int>(sizeof(T));

  __device__ static void load(Shared<char> from, float (&values)[kCount]) {
    if constexpr (kCount == 1) {
      values[0] = to_float(from.as<T>()[0]);
    } else {
      const uint32_t pair = from.as<uint32_t>()[0];
      values[0] = T::low(pair);
      values[1] = T::high(pair);
    }
  }

  __device__ static void store(T* to, const float (&values)[kCount]) {
    if constexpr (kCount == 1) {
      *to = from_float<T>(values[0]);
    } else {
      *reinterpret_cast<uint32_t*>(to) = T::pack(values[0], values[1]);
    }
  }
};

// The same box of tokens of one frame after the other, on its way to shared memory, line by line.
template <class Lane, int kLines, int kColumns>
class DepthwisePatch {
 public:
  static constexpr int kTokenBytes = kMostLanes * Lane::kBytes;

 private:
  static constexpr int kVectorBytes = 16;
  static constexpr int kChannelBytes = Lane::kBytes / Lane::kCount;
  static constexpr int kRoundTokens = kTileLines * kVectorBytes / Lane::kBytes;  // copied by all threads at a time
  static constexpr int kRoundBytes = kRoundTokens * kTokenBytes;
  static constexpr int kCopies = (kLines * kColumns + kRoundTokens - 1) / kRoundTokens;

 public:
  static constexpr int kBytes = kCopies * kRoundBytes;

  // The box begins at (h, w), which may lie outside, of a grid of `size`; `frame` is the first.
  __device__ DepthwisePatch(const DepthwiseTiles& tiles, const GridBytes& grid, const DeviceCoordinates& size, int clip,
                            int frame, int h, int w, int first_channel)
      : t_stride_(grid.t_stride) {
    const int first_token = static_cast<int>(threadIdx.x) / tiles.vectors;
    const int vector = static_cast<int>(threadIdx.x) % tiles.vectors;
    const int channel = first_channel + vector * (kVectorBytes / kChannelBytes);
    to_ = first_token * kTokenBytes + vector * kVectorBytes;
    from_ = static_cast<const char*>(grid.data) + clip * grid.batch_stride + frame * grid.t_stride +
            int64_t{channel} * kChannelBytes;
    has_part_ = first_token < kRoundTokens;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int token = first_token + i * kRoundTokens, line = h + token / kColumns, column = w + token % kColumns;
      const bool exists = has_part_ && channel < tiles.channels && inside(line, size.h) && inside(column, size.w);
      existing_ |= exists ? 1u << i : 0u;
      offsets_[i] = line * grid.h_stride + column * grid.w_stride;
    }
  }

  // Zeros for what lies outside of the grid, which is never copied.
  __device__ void clear(Shared<char> patch) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (!has_part_ || (existing_ >> i & 1) != 0) continue;
      (patch + (to_ + i * kRoundBytes)).template as<uint4>()[0] = make_uint4(0, 0, 0, 0);
    }
  }

  // Starts copying this thread's part of a frame, and goes on to the next.
  __device__ void copy(Shared<char> patch) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if ((existing_ >> i & 1) == 0) continue;
      ptx::cp_async_16((patch + (to_ + i * kRoundBytes)).address(), from_ + offsets_[i], true);
    }
    from_ += t_stride_;
  }

  // The lane's channels of neighbours in a line.
  template <int kNeighbours>
  __device__ static void load(Shared<char> patch, int line, int lane, float (&values)[kNeighbours][Lane::kCount]) {
    const Shared<char> first = patch + (line * kColumns * kTokenBytes + lane * Lane::kBytes);
#pragma unroll
    for (int i = 0; i < kNeighbours; ++i) Lane::load(first + i * kTokenBytes, values[i]);
  }

 private:
  const char* from_;
  int64_t t_stride_;
  int to_;
  bool has_part_;
  unsigned existing_ = 0;
  int64_t offsets_[kCopies];
};

}  // namespace vtfast::cuda
