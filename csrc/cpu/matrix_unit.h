// Products of bfloat16 on the matrix unit (AMX): tiles of 16 rows by 64 bytes. Operands lie as for register tiles.
#pragma once

#ifdef __AMX_BF16__

#include "operands.h"

namespace vtfast::cpu {

// Holds this thread's tile registers in the shape that the products below expect. The host framework uses the same
// unit, so the shape is set for each piece of work and let go after it.
class MatrixUnitSession {
 public:
  MatrixUnitSession() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    _tile_loadconfig(&shape);
  }
  ~MatrixUnitSession() { _tile_release(); }
  MatrixUnitSession(const MatrixUnitSession&) = delete;
  MatrixUnitSession& operator=(const MatrixUnitSession&) = delete;
};

struct MatrixUnitDot {
  using Acc = float;
  using Word = uint32_t;
  using Session = MatrixUnitSession;
  static constexpr int kPack = 2;
  static constexpr int kMaxRows = 16;
  static constexpr bool kMatrixUnit = true;

  // scores[panel][16][kPanel] = rows keys^T, of rows [16][words] and keys [panel][words][kPanel].
  static void multiply_keys(const uint32_t* rows, int64_t words, const uint32_t* keys, int64_t num_panels,
                            float* scores) {
    constexpr int kStride = kPanel<float> * sizeof(float);
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t word = 0; word < words; word += 16, keys += 16 * kPanel<float>) {
        _tile_loadd(2, rows + word, words * sizeof(uint32_t));
        _tile_loadd(3, keys, kStride);
        _tile_loadd(4, keys + 16, kStride);
        _tile_dpbf16ps(0, 2, 3);
        _tile_dpbf16ps(1, 2, 4);
      }
      _tile_stored(0, scores, kStride);
      _tile_stored(1, scores + 16, kStride);
      scores += 16 * kPanel<float>;
    }
  }

  // result[16][padded] = probabilities values, of probabilities [panel][16][16] and values [panel][16][padded].
  static void multiply_values(const uint32_t* probabilities, int64_t num_panels, const uint32_t* values, int64_t padded,
                              float* result) {
    const int64_t stride = padded * sizeof(float);
    for (int64_t d = 0; d < padded; d += 32) {
      const bool pair = d + 16 < padded;
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t panel = 0; panel < num_panels; ++panel) {
        const uint32_t* v = values + panel * 16 * padded + d;
        _tile_loadd(2, probabilities + panel * 256, 64);
        _tile_loadd(3, v, stride);
        _tile_dpbf16ps(0, 2, 3);
        if (!pair) continue;
        _tile_loadd(4, v + 16, stride);
        _tile_dpbf16ps(1, 2, 4);
      }
      _tile_stored(0, result + d, stride);
      if (pair) _tile_stored(1, result + d + 16, stride);
    }
  }
};

}  // namespace vtfast::cpu

#endif
