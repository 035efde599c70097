// Vectors of the widest kind this file is compiled for, on the compiler's vector extensions: one source for AVX2 and
// AVX-512. Only what has no portable spelling (half, bfloat16 products) is an intrinsic.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define VTFAST_INLINE inline __attribute__((always_inline))

namespace vtfast::cpu {

#ifdef __AVX512F__
inline constexpr int kVectorBytes = 64;
#else
inline constexpr int kVectorBytes = 32;
#endif

// 16-bit storage types; arithmetic happens in float.
enum class BFloat16 : uint16_t {};
enum class Float16 : uint16_t {};

template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

namespace detail {
template <class T, int kLaneCount>
struct VectorOf {
  typedef T type __attribute__((vector_size(kLaneCount * sizeof(T))));
};
}  // namespace detail

template <class T, int kLaneCount = kLanes<T>>
using Vector = typename detail::VectorOf<T, kLaneCount>::type;

// The integer as wide as T, for masks and bit patterns.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <class T>
VTFAST_INLINE Vector<T> load(const T* source) {
  Vector<T> vector;
  std::memcpy(&vector, source, sizeof(vector));
  return vector;
}

template <class T>
VTFAST_INLINE void store(T* target, Vector<T> vector) {
  std::memcpy(target, &vector, sizeof(vector));
}

// The vector, kept in a register: where it is used many times, the compiler would rather read it from memory each time.
template <class V>
VTFAST_INLINE V in_register(V vector) {
  asm("" : "+v"(vector));
  return vector;
}

// Fetches the cache line of an address into the second level. Assembly, since GCC takes a function that does nothing
// but __builtin_prefetch for one without effects and drops its calls.
VTFAST_INLINE void prefetch(const char* address) { asm volatile("prefetcht1 %0" : : "m"(*address)); }

// The same for a line that is going to be written.
VTFAST_INLINE void prefetch_to_write(const char* address) { asm volatile("prefetchw %0" : : "m"(*address)); }

template <class T>
VTFAST_INLINE void prefetch_row(const T* row, int64_t size) {
  const char* line = reinterpret_cast<const char*>(row);
  for (int64_t offset = 0; offset < size * static_cast<int64_t>(sizeof(T)); offset += 64) prefetch(line + offset);
}

template <class T>
VTFAST_INLINE Vector<T> broadcast(T value) {
  return [value]<int... kLane>(std::integer_sequence<int, kLane...>) {
    return Vector<T>{((void)kLane, value)...};
  }(std::make_integer_sequence<int, kLanes<T>>());
}

template <class To, class From>
VTFAST_INLINE To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

template <class V>
VTFAST_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}

template <int kDistance, class T, int... kLane>
VTFAST_INLINE Vector<T> swap_lanes(Vector<T> v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ kDistance)...);
}

// Folds the lanes of a vector in a fixed, tree-shaped order.
template <class T, int kDistance = kLanes<T> / 2, class Combine>
VTFAST_INLINE T reduce(Vector<T> v, Combine combine) {
  if constexpr (kDistance == 0) {
    return v[0];
  } else {
    const Vector<T> swapped = swap_lanes<kDistance, T>(v, std::make_integer_sequence<int, kLanes<T>>());
    return reduce<T, kDistance / 2>(combine(v, swapped), combine);
  }
}

template <class T>
VTFAST_INLINE T reduce_add(Vector<T> v) {
  return reduce<T>(v, [](Vector<T> a, Vector<T> b) { return a + b; });
}

template <class T>
VTFAST_INLINE T reduce_max(Vector<T> v) {
  return reduce<T>(v, [](Vector<T> a, Vector<T> b) { return maximum(a, b); });
}

// The sum of `a` with itself swapped in the lanes without bit kDistance, that of `b` in the others.
template <int kDistance, class T, int... kLane>
VTFAST_INLINE Vector<T> fold_pair(Vector<T> a, Vector<T> b, std::integer_sequence<int, kLane...>) {
  constexpr int n = kLanes<T>;
  const Vector<T> kept = __builtin_shufflevector(a, b, ((kLane & kDistance) ? n + kLane : kLane)...);
  const Vector<T> moved = __builtin_shufflevector(a, b, (((kLane & kDistance) ? n + kLane : kLane) ^ kDistance)...);
  return kept + moved;
}

// The sums of the lanes of kCount vectors, a power of two, each in the lane of its number; then they repeat.
template <class T, int kCount, int kDistance = kLanes<T> / 2>
VTFAST_INLINE Vector<T> sum_each(Vector<T>* v) {
  constexpr auto kLane = std::make_integer_sequence<int, kLanes<T>>();
  if constexpr (kDistance == 0) {
    return v[0];
  } else if constexpr (kCount > kDistance) {
#pragma GCC unroll 16
    for (int i = 0; i < kDistance; ++i) v[i] = fold_pair<kDistance, T>(v[i], v[i + kDistance], kLane);
    return sum_each<T, kDistance, kDistance / 2>(v);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) v[i] += swap_lanes<kDistance, T>(v[i], kLane);
    return sum_each<T, kCount, kDistance / 2>(v);
  }
}

// Minimax polynomial of 2^x on [-0.5, 0.5] through (0, 1), by powers of x; relative error below 1.1e-7.
inline constexpr float kExp2[] = {1.0f,           0x1.62e42ap-1f, 0x1.ebf9bcp-3f,
                                  0x1.c6b752p-5f, 0x1.3cea88p-7f, 0x1.5bba12p-10f};

// 2^(unit x - offset) for unit x up to about `offset`, to float rounding; exactly 0 below 2^-126 and for minus
// infinity.
class Exp2 {
 public:
  // The offset is an integer of magnitude below 2^21, the unit positive.
  explicit VTFAST_INLINE Exp2(float offset, float unit = 1)
      : unit_(broadcast(unit)),
        shifter_(broadcast(12582912.0f - offset)),
        smallest_(broadcast((offset - 126.0f) / unit)) {}

  VTFAST_INLINE Vector<float> operator()(Vector<float> x) const {
    using V = Vector<float>;
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits of the sum; the offset, an integer
    // itself, is taken off those bits on the way.
    const V rounded = x * unit_ + shifter_;
    const V r = x * unit_ - (rounded - shifter_);  // in [-0.5, 0.5]
    V p = broadcast(kExp2[5]);
    for (int i = 4; i >= 0; --i) p = p * r + broadcast(kExp2[i]);
    const auto exponent = bit_cast<Vector<int32_t>>(rounded) << 23;
    const V result = bit_cast<V>(bit_cast<Vector<int32_t>>(p) + exponent);
    return x < smallest_ ? V{} : result;
  }

 private:
  Vector<float> unit_;
  Vector<float> shifter_;
  Vector<float> smallest_;
};

VTFAST_INLINE Vector<float> exp2(Vector<float> x) { return Exp2(0)(x); }

VTFAST_INLINE Vector<double> exp2(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = std::exp2(x[lane]);
  return x;
}

// Binary logarithm of zero, or of normal numbers; relative error below 3e-7 but near one.
VTFAST_INLINE Vector<float> log2(Vector<float> x) {
  using V = Vector<float>;
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)); log2(m) = 2 / ln 2 artanh((m - 1) / (m + 1)).
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const auto bits = bit_cast<Vector<int32_t>>(x);
  const auto exponent = (bits - kSqrtHalf) >> 23;
  const V m = bit_cast<V>(bits - (exponent << 23));
  const V t = (m - 1) / (m + 1), t2 = t * t;
  V series = broadcast(0.32059889f);
  for (float coefficient : {0.41219858f, 0.57707802f, 0.96179669f, 2.88539008f}) series = series * t2 + coefficient;
  const V result = __builtin_convertvector(exponent, V) + t * series;
  return x == 0 ? broadcast(-std::numeric_limits<float>::infinity()) : result;
}

VTFAST_INLINE Vector<double> log2(Vector<double> x) {
  for (int lane = 0; lane < kLanes<double>; ++lane) x[lane] = std::log2(x[lane]);
  return x;
}

// Conversions between what lies in memory and what is computed with.

VTFAST_INLINE Vector<float> load_as_acc(const float* source) { return load(source); }
VTFAST_INLINE Vector<double> load_as_acc(const double* source) { return load(source); }

// GCC 12 makes five instructions of a portable conversion from 16-bit integers, and draws false warnings of
// uninitialised values from the unmasked forms of these intrinsics.
VTFAST_INLINE Vector<float> load_as_acc(const BFloat16* source) {
#ifdef __AVX512F__
  const __m512i words =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#else
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#endif
  return bit_cast<Vector<float>>(bit_cast<Vector<uint32_t>>(words) << 16);
}

VTFAST_INLINE Vector<float> load_as_acc(const Float16* source) {
#ifdef __AVX512F__
  return bit_cast<Vector<float>>(
      _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))));
#else
  return bit_cast<Vector<float>>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))));
#endif
}

VTFAST_INLINE void store_from_acc(float* target, Vector<float> v) { store(target, v); }
VTFAST_INLINE void store_from_acc(double* target, Vector<double> v) { store(target, v); }

VTFAST_INLINE void store_from_acc(BFloat16* target, Vector<float> v) {
#ifdef __AVX512BF16__
  const auto rounded = _mm512_cvtneps_pbh(bit_cast<__m512>(v));
#else
  // Round to nearest even; a NaN stays one although its low bits are dropped.
  using Words = Vector<uint32_t>;
  const auto bits = bit_cast<Words>(v);
  const Words even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto rounded = __builtin_convertvector(v == v ? even : (bits >> 16 | 0x40), Vector<uint16_t, kLanes<float>>);
#endif
  std::memcpy(target, &rounded, sizeof(rounded));
}

VTFAST_INLINE void store_from_acc(Float16* target, Vector<float> v) {
#ifdef __AVX512F__
  const __m256i rounded =
      _mm512_maskz_cvtps_ph(0xffff, bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const __m128i rounded = _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT);
#endif
  std::memcpy(target, &rounded, sizeof(rounded));
}

template <class T>
using AccOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

// A vector whose tail, from lane `count`, is zero.
template <class T>
VTFAST_INLINE Vector<AccOf<T>> load_partial_as_acc(const T* source, int64_t count) {
  T lanes[kLanes<AccOf<T>>] = {};
  std::memcpy(lanes, source, count * sizeof(T));
  return load_as_acc(lanes);
}

template <class T>
VTFAST_INLINE void store_partial_from_acc(T* target, Vector<AccOf<T>> v, int64_t count) {
  T lanes[kLanes<AccOf<T>>];
  store_from_acc(lanes, v);
  std::memcpy(target, lanes, count * sizeof(T));
}

// The same for a count that is mostly the whole of a vector.
template <class T>
VTFAST_INLINE Vector<AccOf<T>> load_up_to(const T* source, int64_t count) {
  return count >= kLanes<AccOf<T>> ? load_as_acc(source) : load_partial_as_acc(source, count);
}

template <class T>
VTFAST_INLINE void store_up_to(T* target, Vector<AccOf<T>> v, int64_t count) {
  if (count >= kLanes<AccOf<T>>) return store_from_acc(target, v);
  store_partial_from_acc(target, v, count);
}

// target[0:padded] = scale * source[0:size], then zeros; `padded` is a whole number of vectors.
template <class T>
VTFAST_INLINE void load_row(const T* source, int64_t size, int64_t padded, AccOf<T> scale, AccOf<T>* target) {
  using Acc = AccOf<T>;
  const Vector<Acc> factor = broadcast(scale);
  int64_t i = 0;
  for (; i + kLanes<Acc> <= size; i += kLanes<Acc>) store(target + i, load_as_acc(source + i) * factor);
  if (i < padded) store(target + i, load_partial_as_acc(source + i, size - i) * factor);
}

// target[0:size] = scale * source[0:size]
template <class T>
VTFAST_INLINE void store_row(const AccOf<T>* source, int64_t size, AccOf<T> scale, T* target) {
  using Acc = AccOf<T>;
  const Vector<Acc> factor = broadcast(scale);
  int64_t i = 0;
  for (; i + kLanes<Acc> <= size; i += kLanes<Acc>) store_from_acc(target + i, load(source + i) * factor);
  if (i < size) store_partial_from_acc(target + i, load(source + i) * factor, size - i);
}

template <class T, int... kLane>
VTFAST_INLINE void interleave(Vector<T> a, Vector<T> b, Vector<T>& low, Vector<T>& high,
                              std::integer_sequence<int, kLane...>) {
  constexpr int n = kLanes<T>;
  low = __builtin_shufflevector(a, b, (kLane / 2 + kLane % 2 * n)...);
  high = __builtin_shufflevector(a, b, (n / 2 + kLane / 2 + kLane % 2 * n)...);
}

// Transposes a square of kLanes<T> rows: log2 rounds of perfect shuffles.
template <class T>
VTFAST_INLINE void transpose(const T* source, int64_t source_stride, T* target, int64_t target_stride) {
  constexpr int n = kLanes<T>;
  Vector<T> rows[n], shuffled[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) rows[i] = load(source + i * source_stride);
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      interleave<T>(rows[i], rows[i + n / 2], shuffled[2 * i], shuffled[2 * i + 1],
                    std::make_integer_sequence<int, n>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = shuffled[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(target + i * target_stride, rows[i]);
}

}  // namespace vtfast::cpu
