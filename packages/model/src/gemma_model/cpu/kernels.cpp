// The layers on a CPU, as a few loops that PyTorch has no single operation for.
//
// A step of a small batch reads every weight once and does little else, so its time is memory traffic plus overhead.
// PyTorch's own bf16 products of a few rows read the weights at a fraction of what the memory gives, and the small
// operations between the products cost more than their arithmetic. Prompts go the same way, by products that first lay
// out what they read in panels.
//
// All sums are fp32; tensors are bf16 or fp32. Products of bf16 are the processor's own where it has them (AVX512-BF16),
// else widened to fp32 first. A row is computed in the same order whatever other rows are there and however many, so a
// batch gives bit for bit what each row gives alone. The definitions in PyTorch stay beside each use; tests compare the
// two.
//
// M rows, H hidden, N AltUp streams, d head_dim.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <memory>
#include <type_traits>
#include <vector>

namespace {

using at::Tensor;
using Vec = at::vec::Vectorized<float>;
constexpr int64_t LANES = Vec::size();
constexpr int64_t AT_ONCE = 64;  // rows that meet a weight while it is near
#ifdef CPU_CAPABILITY_AVX512
constexpr int64_t MANY_ROWS = 129;  // from here on a product lays out its operands in panels
#else
constexpr int64_t MANY_ROWS = 8;
#endif
constexpr int64_t PANEL_DEPTH = 512;  // elements of a panel's rows that meet while they are in the first cache
constexpr int64_t STRIP = 48;  // columns of a product that one thread computes at a time
constexpr int64_t AHEAD = 24;  // columns of a product whose weights are on their way while others are used
#ifdef CPU_CAPABILITY_AVX512
constexpr int PANEL_ROWS = 8;  // rows and columns of a tile of sums: as many as the registers hold beside its operands
#else
constexpr int PANEL_ROWS = 4;
#endif
constexpr int PANEL_COLUMNS = 3;
constexpr int64_t GRAIN = 1 << 15;  // elements that are worth waking a thread for
constexpr int64_t PIECES = 2;  // of a product for each thread, or more where they were longer than this:
constexpr int64_t LONGEST = 3 << 19;  // elements, a tenth of a millisecond of reading

#define FOR_DTYPE(tensor, ...)                                                               \
  AT_DISPATCH_SWITCH((tensor).scalar_type(), "gemma",                                        \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__) AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))

inline Vec load(const float* p) { return Vec::loadu(p); }
inline Vec load(const at::BFloat16* p) {
  Vec x;
  at::vec::load_to_float(p, x);
  return x;
}
inline void store(float* p, Vec x) { x.store(p); }
inline void store(at::BFloat16* p, Vec x) { at::vec::convert_from_float<at::BFloat16>(x, x).store(p, LANES); }

template <typename T>
void store(T* to, const float* from, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, Vec::loadu(from + i));
  for (; i < count; ++i) to[i] = T(from[i]);
}

inline Vec gelu(Vec x) {
  const Vec inner = (x + x * x * x * Vec(0.044715f)) * Vec(0.7978845608028654f);
  return x / (Vec(1.0f) + (inner * Vec(-2.0f)).exp());  // (1 + tanh(i)) / 2 is 1 / (1 + exp(-2 i))
}

template <typename A, typename B>
float dot(const A* a, const B* b, int64_t width) {
  Vec sum(0.0f);
  for (int64_t i = 0; i < width; i += LANES) sum = at::vec::fmadd(load(a + i), load(b + i), sum);
  return sum.reduce_add();
}

template <typename T>
float inverse_rms(const T* x, int64_t width, double eps) {
  return 1.0f / std::sqrt(dot(x, x, width) / float(width) + float(eps));
}

// Calls `work(row)` for each row, on several threads when there is enough to do.
template <typename Work>
void for_rows(int64_t rows, int64_t width, const Work& work) {
  at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row) work(row);
                   });
}

// ---- products ------------------------------------------------------------------------------------------------

// A matrix whose rows are contiguous, though they may be parts of longer ones.
template <typename T>
struct Matrix {
  const T* data;
  int64_t rows, depth, stride;

  Matrix(const T* data, int64_t rows, int64_t depth, int64_t stride)
      : data(data), rows(rows), depth(depth), stride(stride) {}
  explicit Matrix(const Tensor& w) : Matrix(w.const_data_ptr<T>(), w.size(0), w.size(1), w.stride(0)) {}
};

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define DOTS_BF16
// Each lane of `sum` plus the products of two pairs of bf16, added in fp32.
inline Vec add_pairs(Vec sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

// What the inputs of a product with weights of type T are kept as: bf16 meets bf16.
template <typename T>
using Input = T;
#else
template <typename T>
using Input = float;
#endif

// The even (H = 0) or odd (H = 1) elements of the next two vectors: of bf16 a shift or a mask makes them fp32. Where
// that is not at hand, the first or second of the two. What they are multiplied with must lie in that order.
template <int H, typename T>
inline Vec half_of(const T* p) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    const __m512i both = _mm512_loadu_si512(p);
    return _mm512_castsi512_ps(H ? _mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000)))
                                 : _mm512_slli_epi32(both, 16));
  }
#endif
  return load(p + H * LANES);
}

// The elements of x as a product with weights of type T takes them: as they are, where bf16 meets bf16; else widened,
// in the order in which `half_of` reads elements of type T.
template <typename T>
std::vector<Input<T>> arranged(const Tensor& x) {
  const Tensor in = x.contiguous();
  const int64_t count = in.numel(), depth = in.size(-1);
  if constexpr (std::is_same_v<Input<T>, at::BFloat16>) {
    TORCH_CHECK(in.scalar_type() == at::kBFloat16, "inputs of bf16 weights are bf16");
    const auto* from = in.const_data_ptr<at::BFloat16>();
    return {from, from + count};
  } else {
    std::vector<float> wide(count);
    FOR_DTYPE(in, [&] {
      const auto* from = in.const_data_ptr<scalar_t>();
      for (int64_t i = 0; i < count; i += LANES) load(from + i).store(wide.data() + i);
    });
#ifdef CPU_CAPABILITY_AVX512
    if constexpr (std::is_same_v<T, at::BFloat16>) {
      const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
      const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      for (int64_t at = 0; at < count; at += depth)
        for (int64_t k = 0; k + 2 * LANES <= depth; k += 2 * LANES) {
          float* place = wide.data() + at + k;
          const __m512 first = _mm512_loadu_ps(place), second = _mm512_loadu_ps(place + LANES);
          _mm512_storeu_ps(place, _mm512_permutex2var_ps(first, even, second));
          _mm512_storeu_ps(place + LANES, _mm512_permutex2var_ps(first, odd, second));
        }
    }
#endif
    return wide;
  }
}

#ifdef CPU_CAPABILITY_AVX512
// 8 rows of 8 to 8 columns.
inline void transpose(const float* from, float* to, int64_t stride) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + 8 * i);
  for (int i = 0; i < 8; i += 2) b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}
#endif

// The sums of the lanes of each of N vectors; in the same order of additions whatever N is.
template <int N>
inline void reduce(const Vec* sums, float* y) {
  int at = 0;
#ifdef CPU_CAPABILITY_AVX512
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; at + 8 <= N; at += 8) {  // lanes 8 apart are added first, then 4, 2 and 1 apart: eight vectors at once
    __m512 s[4];
    for (int i = 0; i < 4; ++i) {
      const __m512 a = sums[at + 2 * i], b = sums[at + 2 * i + 1];
      s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int i = 0; i < 2; ++i)
      s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x88),
                           _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xdd));
    const __m512d first = _mm512_castps_pd(s[0]), second = _mm512_castps_pd(s[1]);
    const __m512 pairs = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                                       _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
    const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(pairs, pairs, 0x88), _mm512_shuffle_ps(pairs, pairs, 0xdd));
    _mm256_storeu_ps(y + at, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all)));
  }
#endif
#ifdef CPU_CAPABILITY_AVX2
  for (; at + 8 <= N; at += 8) {  // here lanes 4 apart, then 2 and 1
    __m256 s[4], t[2];
    for (int i = 0; i < 4; ++i) {
      const __m256 a = sums[at + 2 * i], b = sums[at + 2 * i + 1];
      s[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    for (int i = 0; i < 2; ++i)
      t[i] = _mm256_add_ps(_mm256_shuffle_ps(s[2 * i], s[2 * i + 1], 0x44),
                           _mm256_shuffle_ps(s[2 * i], s[2 * i + 1], 0xee));
    const __m256 all = _mm256_add_ps(_mm256_shuffle_ps(t[0], t[1], 0x88), _mm256_shuffle_ps(t[0], t[1], 0xdd));
    _mm256_storeu_ps(y + at, _mm256_permutevar8x32_ps(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
#endif
  for (; at < N; ++at) y[at] = sums[at].reduce_add();
}

// R rows of x, as `arranged`, times C rows of w -> y [C, R]: both are read along their depth, the sums stay in
// registers. Whoever is first with these rows of w asks for those that come later.
template <int R, int C, typename T>
inline void tile(const Matrix<T>& w, int64_t first, const Input<T>* x, float* y, bool is_first = true) {
  Vec sums[C * R];
  for (auto& sum : sums) sum = Vec(0.0f);
  const T* rows = w.data + first * w.stride;
  const auto add = [&](int64_t k, const auto& weight_of, const auto& input_of, const auto& sum_of) {
    decltype(weight_of(rows)) weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) weights[c] = weight_of(rows + c * w.stride + k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = input_of(x + r * w.depth + k);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[c * R + r] = sum_of(sums[c * R + r], weights[c], input);
    }
  };
  const auto prefetch = [&](int64_t k) {  // into the second cache: the first has no room for what is not used yet
    if (is_first)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) __builtin_prefetch(rows + (c + AHEAD) * w.stride + k, 0, 2);
  };
  int64_t k = 0;
#ifdef DOTS_BF16
  if constexpr (std::is_same_v<Input<T>, at::BFloat16>) {
    const auto whole = [](const T* p) { return _mm512_loadu_si512(p); };
    const auto half = [](const T* p) { return _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i*)p)); };
    for (; k + 2 * LANES <= w.depth; k += 2 * LANES) prefetch(k), add(k, whole, whole, add_pairs);
    if (k < w.depth) add(k, half, half, add_pairs);
  }
#endif
  const auto fused = [](Vec sum, Vec weight, Vec input) { return at::vec::fmadd(weight, input, sum); };
  if constexpr (std::is_same_v<Input<T>, float>) {
    const auto input = [](const float* p) { return Vec::loadu(p); };
    for (; k + 2 * LANES <= w.depth; k += 2 * LANES) {
      prefetch(k);
      add(k, [](const T* p) { return half_of<0>(p); }, input, fused);
      add(k + LANES, [](const T* p) { return half_of<1>(p - LANES); }, input, fused);
    }
    if (k < w.depth) add(k, [](const T* p) { return load(p); }, input, fused);
  }
  reduce<C * R>(sums, y);
}

// Groups of R rows of x, AT_ONCE at most, times so many columns, AHEAD at most. A tile is as many sums as 32 registers
// hold beside what they are made of; its rows of w meet all groups before the next ones do, for then they still are in
// the first cache.
template <int R, int C, typename T>
void tiles(const Matrix<T>& w, int64_t first, int64_t count, const Input<T>* x, int64_t groups, float* y,
           int64_t y_stride) {
  constexpr int64_t SUMS = AHEAD * R;
  float own[SUMS * (R < 8 ? 1 : AT_ONCE / 8)];
  float* turned = R == 1 ? y : own;  // [groups, count, R]
  const auto all_groups = [&](int64_t c, const auto& work) {
    for (int64_t g = 0; g < groups; ++g) work(x + g * R * w.depth, turned + g * SUMS + c * R, g == 0);
  };
  int64_t c = 0;
  for (; c + C <= count; c += C)
    all_groups(c, [&](const auto* in, float* out, bool lead) { tile<R, C>(w, first + c, in, out, lead); });
  for (; c < count; ++c)
    all_groups(c, [&](const auto* in, float* out, bool lead) { tile<R, 1>(w, first + c, in, out, lead); });
  if constexpr (R == 1) return;
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = turned + g * SUMS;
    float* to = y + g * R * y_stride;
    c = 0;
#ifdef CPU_CAPABILITY_AVX512
    if constexpr (R == 8)
      for (; c + 8 <= count; c += 8) transpose(from + c * R, to + c, y_stride);
#endif
    for (; c < count; ++c)
      for (int r = 0; r < R; ++r) to[r * y_stride + c] = from[c * R + r];
  }
}

// x [rows, depth] times a strip of w's rows -> y [rows, count]. Few rows share many columns, for the weights come from
// memory; many share few, so that a weight, once read, serves them all.
template <typename T>
void strip(const Matrix<T>& w, int64_t first, int64_t count, const Input<T>* x, int64_t rows, float* y,
           int64_t y_stride) {
  for (int64_t c = 0; c < count; c += AHEAD) {
    const int64_t some = std::min(AHEAD, count - c);
    for (int64_t r = 0; r < rows;) {
      const int64_t left = rows - r;
      const auto* from = x + r * w.depth;
      float* to = y + r * y_stride + c;
      const int64_t groups = std::min(left, AT_ONCE) / 8;
      if (groups > 0) tiles<8, 3>(w, first + c, some, from, groups, to, y_stride), r += groups * 8;
      else if (left >= 4) tiles<4, 6>(w, first + c, some, from, 1, to, y_stride), r += 4;
      else if (left == 3) tiles<3, 6>(w, first + c, some, from, 1, to, y_stride), r += 3;
      else if (left == 2) tiles<2, 8>(w, first + c, some, from, 1, to, y_stride), r += 2;
      else tiles<1, 8>(w, first + c, some, from, 1, to, y_stride), r += 1;
    }
  }
}

// Calls `work(begin, end)` for pieces of [0, count): whoever is done takes the next one. Of equal shares, as parallel_for
// has them, one is late whenever the system gives a core to another program (Triton and the gateway, at each token).
template <typename Work>
void shared_out(int64_t count, int64_t piece, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t pieces = (count + piece - 1) / piece;
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), pieces), 1, [&](int64_t, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(piece)) < count;) work(begin, std::min(begin + piece, count));
  });
}

// x [rows, depth] times each of N matrices [columns, depth], for few rows: see `products`.
template <typename T, size_t N, typename Finish>
void products_of_few(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  const auto inputs = arranged<T>(x);
  const int64_t rows = x.size(0), columns = ws[0].rows;
  const int64_t strips = (columns + STRIP - 1) / STRIP, elements = N * STRIP * ws[0].depth;
  const int64_t least = std::max<int64_t>(1, GRAIN / elements), most = std::max(least, LONGEST / elements);
  const int64_t share = (strips + PIECES * at::get_num_threads() - 1) / (PIECES * at::get_num_threads());
  shared_out(strips, std::clamp(share, least, most), [&](int64_t begin, int64_t end) {
    std::vector<float> sums(N * rows * STRIP);
    for (int64_t number = begin; number < end; ++number) {
      const int64_t first = number * STRIP, count = std::min(STRIP, columns - first);
      for (size_t i = 0; i < N; ++i)
        strip(ws[i], first, count, inputs.data(), rows, sums.data() + i * rows * count, count);
      finish(first, count, sums.data());
    }
  });
}

// Where there are many rows, arithmetic takes the time, and operands must be near when they meet. They are copied into
// panels: of PANEL_ROWS rows of x, or of PANEL_COLUMNS rows of w, the first vectors side by side, then the second ones.
// A tile of sums reads one panel of each from end to end. A sum is that of a tile above: of the same products, in the
// same order, however many rows there are.

// Elements of a vector that is multiplied.
template <typename T>
constexpr int64_t WIDTH = std::is_same_v<Input<T>, float> ? LANES : 2 * LANES;

// Panels of P rows each. A row's last vector is filled up with zeros; so are the rows that the last panel lacks.
template <int P, typename T>
class Panels {
 public:
  Panels(int64_t rows, int64_t depth)
      : vectors((depth + WIDTH<T> - 1) / WIDTH<T>), count((rows + P - 1) / P), depth_(depth),
        data_(new Input<T>[count * P * vectors * WIDTH<T>]) {}

  const int64_t vectors, count;

  const Input<T>* at(int64_t panel, int64_t vector) const { return data_.get() + place(panel * P, vector); }

  void put(int64_t row, const T* from) {
    Input<T>* to = data_.get() + place(row, 0);
    int64_t k = 0;
    if constexpr (std::is_same_v<Input<T>, float>) {
      for (; k + 2 * LANES <= depth_; k += 2 * LANES, to += 2 * P * LANES)
        half_of<0>(from + k).store(to), half_of<1>(from + k).store(to + P * LANES);
      if (k < depth_) load(from + k).store(to);
    } else {
      for (; k < depth_; k += WIDTH<T>, to += P * WIDTH<T>) {
        const int64_t some = std::min(WIDTH<T>, depth_ - k);
        std::fill_n(std::copy_n(from + k, some, to), WIDTH<T> - some, Input<T>(0.0f));
      }
    }
  }

  void clear(int64_t row) {
    for (int64_t v = 0; v < vectors; ++v) std::fill_n(data_.get() + place(row, v), WIDTH<T>, Input<T>(0.0f));
  }

 private:
  int64_t place(int64_t row, int64_t vector) const {
    return ((row / P * vectors + vector) * P + row % P) * WIDTH<T>;
  }

  const int64_t depth_;
  const std::unique_ptr<Input<T>[]> data_;
};

inline auto vector_at(const float* p) { return Vec::loadu(p); }
inline Vec add_products(Vec sum, Vec a, Vec b) { return at::vec::fmadd(a, b, sum); }
#ifdef DOTS_BF16
inline auto vector_at(const at::BFloat16* p) { return _mm512_loadu_si512(p); }
inline Vec add_products(Vec sum, __m512i a, __m512i b) { return add_pairs(sum, a, b); }
#endif

// A vector that is read once and used often. With 16 registers, GCC would read it from memory anew for each use, and the
// product would wait for that.
#ifdef CPU_CAPABILITY_AVX512
template <typename V>
inline V in_register(V v) { return v; }
#else
inline Vec in_register(Vec v) {
  __m256 own = v;
  asm("" : "+x"(own));
  return own;
}
#endif

// The tile of sums [PANEL_ROWS, PANEL_COLUMNS] of two panels, so many vectors long, on top of what is there already.
template <typename In>
inline void add_panels(const In* x, const In* w, int64_t vectors, Vec* tile) {
  constexpr int R = PANEL_ROWS, C = PANEL_COLUMNS;
  constexpr int64_t width = std::is_same_v<In, float> ? LANES : 2 * LANES;
  Vec sums[R * C];
#pragma GCC unroll 24
  for (int i = 0; i < R * C; ++i) sums[i] = tile[i];
  for (; vectors > 0; --vectors, x += R * width, w += C * width) {
    decltype(vector_at(w)) weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) weights[c] = in_register(vector_at(w + c * width));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = in_register(vector_at(x + r * width));
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[r * C + c] = add_products(sums[r * C + c], weights[c], input);
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < R * C; ++i) tile[i] = sums[i];
}

// Panels of x times those of w -> y [rows, columns]. A block of rows meets one part of the depth after the other, for
// which it needs memory for its sums.
template <typename T>
void multiply(const Panels<PANEL_ROWS, T>& x, const Panels<PANEL_COLUMNS, T>& w, int64_t rows, int64_t columns, float* y) {
  constexpr int64_t R = PANEL_ROWS, C = PANEL_COLUMNS, BLOCK = AT_ONCE / R, DEPTH = PANEL_DEPTH / WIDTH<T>;
  std::vector<Vec> unfinished(x.vectors > DEPTH ? BLOCK * w.count * R * C : 0);
  const auto tile = [&](int64_t p, int64_t q, int64_t begin, int64_t end, Vec* kept) {
    Vec sums[R * C];
#pragma GCC unroll 24
    for (int i = 0; i < R * C; ++i) sums[i] = begin ? kept[i] : Vec(0.0f);
    add_panels(x.at(p, begin), w.at(q, begin), end - begin, sums);
    if (end < x.vectors) {
      std::copy_n(sums, R * C, kept);
      return;
    }
    float done[R * C];
    reduce<R * C>(sums, done);
    for (int64_t r = 0; r < std::min(R, rows - p * R); ++r)
      std::copy_n(done + r * C, std::min(C, columns - q * C), y + (p * R + r) * columns + q * C);
  };
  for (int64_t first = 0; first < x.count; first += BLOCK)
    for (int64_t begin = 0; begin < x.vectors; begin += DEPTH)
      for (int64_t p = first; p < std::min(first + BLOCK, x.count); ++p)
        for (int64_t q = 0; q < w.count; ++q)
          tile(p, q, begin, std::min(begin + DEPTH, x.vectors), unfinished.data() + ((p - first) * w.count + q) * R * C);
}

// As `products_of_few`, for many rows.
template <typename T, size_t N, typename Finish>
void products_of_many(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  const Tensor in = x.contiguous();
  TORCH_CHECK(in.scalar_type() == c10::CppTypeToScalarType<T>::value, "inputs and weights are of one type");
  const int64_t rows = x.size(0), columns = ws[0].rows, depth = ws[0].depth;
  Panels<PANEL_ROWS, T> inputs(rows, depth);
  for_rows(inputs.count * PANEL_ROWS, depth, [&](int64_t row) {
    row < rows ? inputs.put(row, in.const_data_ptr<T>() + row * depth) : inputs.clear(row);
  });
  shared_out((columns + STRIP - 1) / STRIP, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sums(N * rows * STRIP);
    for (int64_t first = begin * STRIP; first < std::min(end * STRIP, columns); first += STRIP) {
      const int64_t count = std::min(STRIP, columns - first);
      Panels<PANEL_COLUMNS, T> weights(count, depth);
      for (size_t i = 0; i < N; ++i) {
        for (int64_t c = 0; c < weights.count * PANEL_COLUMNS; ++c)
          c < count ? weights.put(c, ws[i].data + (first + c) * ws[i].stride) : weights.clear(c);
        multiply(inputs, weights, rows, count, sums.data() + i * rows * count);
      }
      finish(first, count, sums.data());
    }
  });
}

// x [rows, depth] times each of N matrices [columns, depth]: gives each strip of columns to
// `finish(first, count, sums)`, whose sums are [N, rows, count].
template <typename T, size_t N, typename Finish>
void products(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  x.size(0) < MANY_ROWS ? products_of_few(ws, x, finish) : products_of_many(ws, x, finish);
}

template <typename T, typename Finish>
void product(const Matrix<T>& w, const Tensor& x, const Finish& finish) {
  products(std::array{w}, x, finish);
}

// A matrix as the loops above read it: rows of whole vectors. Only a checkpoint of odd sizes has others.
Tensor of_whole_vectors(const Tensor& x) {
  const int64_t missing = (LANES - x.size(1) % LANES) % LANES;
  return missing ? at::constant_pad_nd(x, {0, missing}) : x.stride(1) == 1 ? x : x.contiguous();
}

// x [M, in], w [out, in] -> [M, out]
Tensor times(const Tensor& x, const Tensor& w) {
  const int64_t columns = w.size(0), rows = x.size(0);
  const Tensor inputs = of_whole_vectors(x), weights = of_whole_vectors(w);
  const Tensor y = at::empty({rows, columns}, x.options());
  FOR_DTYPE(w, [&] {
    auto* out = y.mutable_data_ptr<scalar_t>();
    product(Matrix<scalar_t>(weights), inputs, [&](int64_t first, int64_t count, const float* sums) {
      for (int64_t r = 0; r < rows; ++r) store(out + r * columns + first, sums + r * count, count);
    });
  });
  return y;
}

// cap * tanh(x / cap), with less than a millionth of the cap lost: sums of as many products as logits have lose more.
inline Vec capped(Vec x, float cap) {
  const Vec e = (x * Vec(2 / cap)).exp();
  return Vec(cap) - Vec(2 * cap) / (e + Vec(1.0f));
}

// The head: as `times`, but fp32, and softly capped at +-cap; cap 0 caps nothing.
Tensor logits(const Tensor& x, const Tensor& w, double cap) {
  const int64_t columns = w.size(0), rows = x.size(0);
  const Tensor y = at::empty({rows, columns}, x.options().dtype(at::kFloat));
  FOR_DTYPE(w, [&] {
    auto* out = y.mutable_data_ptr<float>();
    product(Matrix<scalar_t>(w), x, [&](int64_t first, int64_t count, const float* sums) {
      for (int64_t r = 0; r < rows; ++r) {
        float* to = out + r * columns + first;
        if (cap == 0) {
          std::copy_n(sums + r * count, count, to);
          continue;
        }
        for (int64_t i = 0; i < count; i += LANES) {
          const int64_t n = std::min(LANES, count - i);
          capped(Vec::loadu(sums + r * count + i, n), float(cap)).store(to + i, n);
        }
      }
    });
  });
  return y;
}

// ---- norms and sums ------------------------------------------------------------------------------------------

// x [M, H], weight [H] -> [M, H]
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t width = x.size(-1);
  const Tensor in = x.contiguous(), y = at::empty_like(in);
  FOR_DTYPE(x, [&] {
    const auto *from = in.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(x.numel() / width, width, [&](int64_t row) {
      const Vec scale(inverse_rms(from + row * width, width, eps));
      for (int64_t i = 0; i < width; i += LANES)
        store(to + row * width + i, load(from + row * width + i) * scale * load(w + i));
    });
  });
  return y;
}

// x + norm(y): all [M, H]
Tensor add_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps) {
  const int64_t width = x.size(1);
  const Tensor sum = at::empty_like(x);
  FOR_DTYPE(x, [&] {
    const auto *a = x.const_data_ptr<scalar_t>(), *b = y.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    auto* to = sum.mutable_data_ptr<scalar_t>();
    for_rows(x.size(0), width, [&](int64_t row) {
      const int64_t at = row * width;
      const Vec scale(inverse_rms(b + at, width, eps));
      for (int64_t i = 0; i < width; i += LANES)
        store(to + at + i, load(a + at + i) + load(b + at + i) * scale * load(w + i));
    });
  });
  return sum;
}

// (active stream + norm(attended) + x + norm(laurel)) / sqrt(2): streams [M, N, H], the others [M, H]
Tensor join(const Tensor& streams, int64_t active, const Tensor& x, const Tensor& attended,
            const Tensor& attended_weight, const Tensor& laurel, const Tensor& laurel_weight, double eps) {
  const int64_t width = x.size(1), count = streams.size(1);
  const Tensor y = at::empty_like(x);
  FOR_DTYPE(x, [&] {
    const auto* s = streams.const_data_ptr<scalar_t>() + active * width;
    const auto *in = x.const_data_ptr<scalar_t>(), *a = attended.const_data_ptr<scalar_t>();
    const auto *l = laurel.const_data_ptr<scalar_t>(), *aw = attended_weight.const_data_ptr<scalar_t>();
    const auto* lw = laurel_weight.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(x.size(0), width, [&](int64_t row) {
      const int64_t at = row * width;
      const Vec as(inverse_rms(a + at, width, eps)), ls(inverse_rms(l + at, width, eps));
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec sum = load(s + row * count * width + i) + load(a + at + i) * as * load(aw + i) +
                        load(in + at + i) + load(l + at + i) * ls * load(lw + i);
        store(to + at + i, sum * Vec(float(M_SQRT1_2)));
      }
    });
  });
  return y;
}

// Adds norm(y) to every stream but the first, in place: streams [M, N, H], y [M, H]
void add_to_others(Tensor streams, const Tensor& y, const Tensor& weight, double eps) {
  const int64_t width = y.size(1), count = streams.size(1);
  FOR_DTYPE(y, [&] {
    const auto *from = y.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>();
    auto* to = streams.mutable_data_ptr<scalar_t>();
    for_rows(y.size(0), count * width, [&](int64_t row) {
      const Vec scale(inverse_rms(from + row * width, width, eps));
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec more = load(from + row * width + i) * scale * load(w + i);
        for (int64_t n = 1; n < count; ++n) {
          auto* place = to + (row * count + n) * width + i;
          store(place, load(place) + more);
        }
      }
    });
  });
}

// ---- feed-forward --------------------------------------------------------------------------------------------

// Mean plus so many standard deviations: where a sparse layer's gates open.
template <typename T>
float cut_off(const T* gate, int64_t width, double deviations) {
  Vec sum(0.0f), squares(0.0f);
  for (int64_t i = 0; i < width; i += LANES) sum = sum + load(gate + i);
  const float mean = sum.reduce_add() / float(width);
  for (int64_t i = 0; i < width; i += LANES) {
    const Vec off = load(gate + i) - Vec(mean);
    squares = at::vec::fmadd(off, off, squares);
  }
  return mean + std::sqrt(squares.reduce_add() / float(width)) * float(deviations);
}

// gelu(gate) * up; gates below mean + deviations x standard deviation are shut first, and the cut-off is
// taken from the others (deviations NaN: none is). gate_up [M, 2 x I] -> [M, I]
Tensor gated(const Tensor& gate_up, double deviations) {
  const int64_t width = gate_up.size(1) / 2;
  const Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
  FOR_DTYPE(gate_up, [&] {
    const auto* from = gate_up.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(gate_up.size(0), width, [&](int64_t row) {
      const auto *gate = from + row * 2 * width, *up = gate + width;
      const bool sparse = !std::isnan(deviations);
      const Vec cutoff(sparse ? cut_off(gate, width, deviations) : 0.0f);
      for (int64_t i = 0; i < width; i += LANES) {
        Vec open = load(gate + i);
        if (sparse) open = at::vec::maximum(open - cutoff, Vec(0.0f));
        store(to + row * width + i, gelu(open) * load(up + i));
      }
    });
  });
  return y;
}

// gelu(gate(x)) * up(x): x [M, H]; gate, up [I, H] -> [M, I]
Tensor gate_up(const Tensor& x, const Tensor& gate, const Tensor& up) {
  const int64_t rows = x.size(0), width = gate.size(0);
  const Tensor y = at::empty({rows, width}, x.options());
  FOR_DTYPE(x, [&] {
    auto* to = y.mutable_data_ptr<scalar_t>();
    const std::array both{Matrix<scalar_t>(gate), Matrix<scalar_t>(up)};
    products(both, x, [&](int64_t first, int64_t count, float* sums) {
      for (int64_t i = 0; i < rows * count; i += LANES) {
        const int64_t n = std::min(LANES, rows * count - i);
        (gelu(Vec::loadu(sums + i, n)) * Vec::loadu(sums + rows * count + i, n)).store(sums + i, n);
      }
      for (int64_t r = 0; r < rows; ++r) store(to + r * width + first, sums + r * count, count);
    });
  });
  return y;
}

// down(gelu(gate(x)) * up(x)) of a layer that shuts most gates: of `up` and `down` only the neurons that some
// row leaves open are read. x [M, H], M at most 64; gate, up [I, H]; down [I, H], transposed
Tensor sparse_feed_forward(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                           double deviations) {
  const int64_t rows = x.size(0), width = x.size(1), neurons = gate.size(0);
  TORCH_CHECK(rows <= AT_ONCE, "at most ", AT_ONCE, " rows");
  const Tensor y = at::empty_like(x);
  FOR_DTYPE(x, [&] {
    const auto inputs = arranged<scalar_t>(x);
    const auto* in = inputs.data();
    const Matrix<scalar_t> ups(up);
    const auto* down_rows = down.const_data_ptr<scalar_t>();
    auto* out = y.mutable_data_ptr<scalar_t>();
    std::vector<float> gates(rows * neurons);
    product(Matrix<scalar_t>(gate), x, [&](int64_t first, int64_t count, const float* sums) {
      for (int64_t r = 0; r < rows; ++r) std::copy_n(sums + r * count, count, gates.data() + r * neurons + first);
    });
    std::vector<uint64_t> open(neurons, 0);  // a bit for each row
    for (int64_t r = 0; r < rows; ++r) {
      float* g = gates.data() + r * neurons;
      const float cutoff = cut_off(g, neurons, deviations);
      for (int64_t i = 0; i < neurons; ++i) {
        g[i] -= cutoff;
        open[i] |= uint64_t(g[i] > 0) << r;
      }
    }
    std::vector<int64_t> read;
    for (int64_t i = 0; i < neurons; ++i)
      if (open[i]) read.push_back(i);
    const auto each_open = [&](int64_t neuron, const auto& work) {
      for (uint64_t left = open[neuron]; left; left &= left - 1) work(int64_t(__builtin_ctzll(left)));
    };
    const int64_t count = int64_t(read.size());
    at::parallel_for(0, count, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at)
        each_open(read[at], [&](int64_t r) {
          float& g = gates[r * neurons + read[at]];
          float lanes[LANES];
          gelu(Vec(g)).store(lanes);
          float through;
          tile<1, 1>(ups, read[at], in + r * width, &through);
          g = lanes[0] * through;
        });
    });
    at::parallel_for(0, width / LANES, std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, count * LANES)),
                     [&](int64_t begin, int64_t end) {
                       const int64_t from = begin * LANES, strip = (end - begin) * LANES;
                       std::vector<float> sums(rows * strip, 0.0f);
                       for (const int64_t neuron : read)
                         each_open(neuron, [&](int64_t r) {
                           const Vec share(gates[r * neurons + neuron]);
                           const auto* column = down_rows + neuron * width + from;
                           for (int64_t i = 0; i < strip; i += LANES) {
                             float* sum = sums.data() + r * strip + i;
                             at::vec::fmadd(share, load(column + i), Vec::loadu(sum)).store(sum);
                           }
                         });
                       for (int64_t r = 0; r < rows; ++r)
                         for (int64_t i = 0; i < strip; i += LANES)
                           store(out + r * width + from + i, Vec::loadu(sums.data() + r * strip + i));
                     });
  });
  return y;
}

// gelu(gate) * x, all [M, P]
Tensor gelu_times(const Tensor& gate, const Tensor& x) {
  TORCH_CHECK(x.size(0) == gate.size(0), x.size(0), " per-layer inputs for ", gate.size(0), " tokens");
  const int64_t width = gate.size(1), stride = x.stride(0);
  const Tensor y = at::empty_like(gate);
  FOR_DTYPE(gate, [&] {
    const auto *g = gate.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(gate.size(0), width, [&](int64_t row) {
      for (int64_t i = 0; i < width; i += LANES)
        store(to + row * width + i, gelu(load(g + row * width + i)) * load(in + row * stride + i));
    });
  });
  return y;
}

// ---- AltUp ---------------------------------------------------------------------------------------------------

// tanh(router(norm(x) / H)), into `out` [N]
template <typename T>
void route(const T* x, const T* norm, const T* router, int64_t width, int64_t count, double eps, float* out,
           float* scratch) {
  const Vec scale(inverse_rms(x, width, eps) / float(width));
  for (int64_t i = 0; i < width; i += LANES) (load(x + i) * scale * load(norm + i)).store(scratch + i);
  for (int64_t n = 0; n < count; ++n) out[n] = std::tanh(dot(router + n * width, scratch, width));
}

// What the layer will make of each stream: streams [M, N, H] -> [M, N, H]
Tensor predict(const Tensor& streams, int64_t active, const Tensor& norm, const Tensor& router,
               const Tensor& mixing, double eps) {
  const int64_t count = streams.size(1), width = streams.size(2);
  const Tensor y = at::empty_like(streams);
  FOR_DTYPE(streams, [&] {
    const auto *from = streams.const_data_ptr<scalar_t>(), *w = norm.const_data_ptr<scalar_t>();
    const auto *r = router.const_data_ptr<scalar_t>(), *mix = mixing.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(streams.size(0), count * width, [&](int64_t row) {
      const auto* s = from + row * count * width;
      std::vector<float> scratch(width), routed(count), share(count * count);
      route(s + active * width, w, r, width, count, eps, routed.data(), scratch.data());
      for (int64_t i = 0; i < count * count; ++i) {
        share[i] = 0;
        for (int64_t n = 0; n < count; ++n) share[i] += float(mix[i * count + n]) * routed[n];
      }
      for (int64_t i = 0; i < width; i += LANES)
        for (int64_t n = 0; n < count; ++n) {
          Vec sum = load(s + n * width + i);
          for (int64_t m = 0; m < count; ++m)
            sum = at::vec::fmadd(Vec(share[n * count + m]), load(s + m * width + i), sum);
          store(to + (row * count + n) * width + i, sum);
        }
    });
  });
  return y;
}

// The predictions [M, N, H], moved towards what the layer made of the active one [M, H]
Tensor correct(const Tensor& predicted, int64_t active, const Tensor& activated, const Tensor& norm,
               const Tensor& router, const Tensor& mixing, double eps) {
  const int64_t count = predicted.size(1), width = predicted.size(2);
  const Tensor y = at::empty_like(predicted);
  FOR_DTYPE(predicted, [&] {
    const auto *from = predicted.const_data_ptr<scalar_t>(), *a = activated.const_data_ptr<scalar_t>();
    const auto *w = norm.const_data_ptr<scalar_t>(), *r = router.const_data_ptr<scalar_t>();
    const auto* mix = mixing.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    for_rows(predicted.size(0), count * width, [&](int64_t row) {
      const auto *p = from + row * count * width, *x = a + row * width;
      std::vector<float> scratch(width), routed(count), share(count);
      route(x, w, r, width, count, eps, routed.data(), scratch.data());
      for (int64_t n = 0; n < count; ++n) {
        share[n] = 1;
        for (int64_t m = 0; m < count; ++m) share[n] += float(mix[n * count + m]) * routed[m];
      }
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec innovation = load(x + i) - load(p + active * width + i);
        for (int64_t n = 0; n < count; ++n)
          store(to + (row * count + n) * width + i,
                at::vec::fmadd(Vec(share[n]), innovation, load(p + n * width + i)));
      }
    });
  });
  return y;
}

// ---- attention -----------------------------------------------------------------------------------------------

// Norm, scale and rotate the heads of new tokens; keys and values go into the cache.
//   projected [M, heads x d]: queries, then keys and values where the layer stores them
//   scale [heads, d] fp32; cos, sin [M, 1, d] fp32, the first half of the sines negated
//   layer [slots, 2 x kv_heads, columns, d]; slots, positions [M] int64; a position goes to its column modulo theirs
// -> queries [M, query heads, d]
Tensor heads(const Tensor& projected, const Tensor& scale, const Tensor& cos, const Tensor& sin, double eps,
             int64_t queries, const std::optional<Tensor>& layer, const Tensor& slots, const Tensor& positions) {
  const int64_t width = scale.size(1), count = scale.size(0), kv = (count - queries) / 2, half = width / 2;
  const Tensor y = at::empty({projected.size(0), queries, width}, projected.options());
  FOR_DTYPE(projected, [&] {
    const auto* from = projected.const_data_ptr<scalar_t>();
    const auto *c = cos.const_data_ptr<float>(), *s = sin.const_data_ptr<float>();
    const auto* factor = scale.const_data_ptr<float>();
    const auto *slot = slots.const_data_ptr<int64_t>(), *position = positions.const_data_ptr<int64_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    auto* cache = layer ? layer->mutable_data_ptr<scalar_t>() : nullptr;
    const int64_t columns = layer ? layer->size(2) : 1;
    for_rows(projected.size(0), count * width, [&](int64_t row) {
      std::vector<float> head(width + half);  // its first half stands behind the second once more
      for (int64_t h = 0; h < count; ++h) {
        const auto* x = from + (row * count + h) * width;
        const Vec norm(inverse_rms(x, width, eps));
        for (int64_t i = 0; i < width; i += LANES)
          (load(x + i) * norm * Vec::loadu(factor + h * width + i)).store(head.data() + i);
        std::copy_n(head.begin(), half, head.begin() + width);
        const int64_t stored = h - queries;
        auto* place = stored < 0 ? to + (row * queries + h) * width
                                 : cache + ((slot[row] * 2 * kv + stored) * columns + position[row] % columns) * width;
        for (int64_t i = 0; i < width; i += LANES) {
          Vec turned = Vec::loadu(head.data() + i);
          if (h < queries + kv)
            turned = turned * Vec::loadu(c + row * width + i) +
                     Vec::loadu(head.data() + i + half) * Vec::loadu(s + row * width + i);
          store(place + i, turned);
        }
      }
    });
  });
  return y;
}

// G rows of weights [G, count] times `count` vectors, each of LANES x BLOCK elements -> sums [G, stride].
template <int G, int BLOCK, typename T>
inline void mix(const float* weights, int64_t weights_stride, const T* values, int64_t width, int64_t count,
                float* sums, int64_t stride) {
  Vec total[G][BLOCK];
  for (int g = 0; g < G; ++g)
    for (int b = 0; b < BLOCK; ++b) total[g][b] = Vec::loadu(sums + g * stride + b * LANES);
  for (int64_t p = 0; p < count; ++p)
#pragma GCC unroll 4
    for (int b = 0; b < BLOCK; ++b) {
      const Vec value = load(values + p * width + b * LANES);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        total[g][b] = at::vec::fmadd(Vec(weights[g * weights_stride + p]), value, total[g][b]);
    }
  for (int g = 0; g < G; ++g)
    for (int b = 0; b < BLOCK; ++b) total[g][b].store(sums + g * stride + b * LANES);
}

template <int G, typename T>
void mix_all(const float* weights, int64_t weights_stride, const T* values, int64_t width, int64_t count, float* sums) {
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    mix<G, 4>(weights, weights_stride, values + i, width, count, sums + i, width);
  for (; i < width; i += LANES) mix<G, 1>(weights, weights_stride, values + i, width, count, sums + i, width);
}

// A softmax in place.
inline void softmax(float* score, int64_t count) {
  const Vec top(*std::max_element(score, score + count));
  Vec total(0.0f);
  for (int64_t p = 0; p < count; p += LANES) {
    const int64_t n = std::min(LANES, count - p);
    const Vec weight = (Vec::loadu(score + p, n) - top).exp();
    weight.store(score + p, n);
    total = total + Vec::set(Vec(0.0f), weight, n);
  }
  const Vec share(1.0f / total.reduce_add());
  for (int64_t p = 0; p < count; p += LANES) {
    const int64_t n = std::min(LANES, count - p);
    (Vec::loadu(score + p, n) * share).store(score + p, n);
  }
}

// Each new token attends to its slot, itself included, as far back as the window. Neighbours in a slot do so together,
// for most of what they see is the same.
//   query [M, query heads, d]; slots, positions [M] -> [M, query heads x d]
Tensor attend(const Tensor& query, const Tensor& layer, const Tensor& slots, const Tensor& positions, int64_t window) {
  constexpr int64_t TOGETHER = 4, NEAR = 256;  // tokens, and columns whose values stay in the second cache meanwhile
  const int64_t rows = query.size(0), count = query.size(1), width = query.size(2);
  const int64_t kv = layer.size(1) / 2, columns = layer.size(2), groups = count / kv;
  const Tensor y = at::empty({rows, count * width}, query.options());
  const auto *slot = slots.const_data_ptr<int64_t>(), *position = positions.const_data_ptr<int64_t>();
  std::vector<int64_t> begins;
  for (int64_t row = 0; row < rows; ++row)
    if (row == 0 || slot[row] != slot[row - 1] || position[row] != position[row - 1] + 1 ||
        row - begins.back() == TOGETHER)
      begins.push_back(row);
  const int64_t parts = int64_t(begins.size());
  begins.push_back(rows);
  FOR_DTYPE(query, [&] {
    const auto queries = arranged<scalar_t>(query);
    const auto* cache = layer.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    shared_out(parts * kv, 1, [&](int64_t begin, int64_t end) {
      std::vector<Input<scalar_t>> own(TOGETHER * groups * width);
      std::vector<float> scores, sums(TOGETHER * groups * width);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task % kv, row = begins[task / kv], tokens = begins[task / kv + 1] - row;
        const int64_t first = std::max<int64_t>(0, position[row] - window + 1), lines = tokens * groups;
        const int64_t seen = position[row + tokens - 1] - first + 1;  // by any of them
        const auto* keys = cache + (slot[row] * 2 * kv + head) * columns * width;
        const auto* values = keys + kv * columns * width;
        const auto place = [&](int64_t token) { return ((row + token) * count + head * groups) * width; };
        const auto each_run = [&](int64_t most, const auto& work) {  // a ring's end may lie between first and last
          for (int64_t p = 0; p < seen;) {
            const int64_t column = (first + p) % columns, n = std::min({seen - p, columns - column, most});
            work(p, column, n);
            p += n;
          }
        };
        for (int64_t t = 0; t < tokens; ++t)
          std::copy_n(queries.data() + place(t), groups * width, own.data() + t * groups * width);
        scores.resize(lines * seen);
        const Matrix<scalar_t> stored(keys, columns, width, width);
        each_run(seen, [&](int64_t p, int64_t column, int64_t n) {
          strip(stored, column, n, own.data(), lines, scores.data() + p, seen);
        });
        for (int64_t line = 0; line < lines; ++line) {
          const int64_t last = position[row + line / groups];
          float *score = scores.data() + line * seen, *from = score + std::max<int64_t>(0, last - window + 1) - first;
          float* behind = score + last - first + 1;
          std::fill(score, from, 0.0f);
          softmax(from, behind - from);
          std::fill(behind, score + seen, 0.0f);
        }
        std::fill_n(sums.begin(), lines * width, 0.0f);
        each_run(NEAR, [&](int64_t p, int64_t column, int64_t n) {
          const auto* from = values + column * width;
          int64_t g = 0;
          for (; g + 4 <= lines; g += 4) mix_all<4>(&scores[g * seen + p], seen, from, width, n, &sums[g * width]);
          for (; g < lines; ++g) mix_all<1>(&scores[g * seen + p], seen, from, width, n, &sums[g * width]);
        });
        for (int64_t t = 0; t < tokens; ++t)
          store(to + place(t), sums.data() + t * groups * width, groups * width);
      }
    });
  });
  return y;
}

// ---- layers --------------------------------------------------------------------------------------------------

// What a layer is made of, in the order in which stack.py gives it.
enum Part : int64_t {
  ROUTER_NORM, ROUTER, PREDICTION, CORRECTION, ACTIVE_SCALE, INPUT_NORM, INTO, HEAD_SCALE, OUT_OF, POST_ATTENTION_NORM,
  LAUREL_LEFT, LAUREL_RIGHT, POST_LAUREL_NORM, PRE_MLP_NORM, GATE, UP, DOWN, POST_MLP_NORM, PER_LAYER_GATE,
  PER_LAYER_PROJECTION, POST_PER_LAYER_NORM, PARTS
};

// Where tokens stand in what they attend to: cos, sin [M, 1, d]; slots, positions [M] int64.
struct Place {
  Tensor cos, sin, slots, positions;

  Place of(const Tensor& rows) const {
    return {cos.index_select(0, rows), sin.index_select(0, rows), slots.index_select(0, rows),
            positions.index_select(0, rows)};
  }
};

// The new tokens of one sequence.
struct Run {
  int64_t slot, start, tokens;
};

// What all layers of one type have in common. They attend to the cache itself; but where the new tokens would overwrite
// what some of them still see, to a copy of the window before them with room for them behind it, a slot for each run.
struct Kind {
  const std::vector<Run>& runs;
  int64_t window;
  Place all, some;  // of all tokens, and of those that are kept
  Tensor copy;      // [runs, 2 x kv_heads, columns, d], where there is one

  Kind(const std::vector<Run>& runs, int64_t window, const Tensor& cos, const Tensor& sin, const Tensor& cached,
       const std::optional<Tensor>& kept)
      : runs(runs), window(window) {
    int64_t columns = 0;
    bool overwrites = false;
    for (const Run& run : runs) {
      columns = std::max(columns, before(run) + run.tokens);
      overwrites |= run.start + run.tokens > cached.size(2) && run.tokens > cached.size(2) - window + 1;
    }
    if (overwrites) copy = at::empty({int64_t(runs.size()), cached.size(1), columns, cached.size(3)}, cached.options());
    std::vector<int64_t> slots, positions;
    for (size_t b = 0; b < runs.size(); ++b)
      for (int64_t t = 0; t < runs[b].tokens; ++t) {
        slots.push_back(overwrites ? int64_t(b) : runs[b].slot);
        positions.push_back(t + (overwrites ? before(runs[b]) : runs[b].start));
      }
    all = {cos, sin, at::tensor(slots), at::tensor(positions)};
    some = kept ? all.of(*kept) : all;
  }

  // The tokens before a run that its first token sees.
  int64_t before(const Run& run) const { return std::min(run.start, window - 1); }

  const Tensor& seen(const Tensor& cached) const { return copy.defined() ? copy : cached; }

  // Between the copy and a layer of the cache: what the new tokens see before them, and what is left of them afterwards.
  void take(const Tensor& cached) {
    if (!copy.defined()) return;
    for (size_t b = 0; b < runs.size(); ++b) exchange<true>(b, cached, 0, before(runs[b]));
  }
  void give(const Tensor& cached) {
    if (!copy.defined()) return;
    for (size_t b = 0; b < runs.size(); ++b) {
      const int64_t end = before(runs[b]) + runs[b].tokens;
      exchange<false>(b, cached, end - std::min(runs[b].tokens, cached.size(2)), end);
    }
  }

  template <bool TAKES>
  void exchange(size_t b, const Tensor& cached, int64_t begin, int64_t end) {
    const int64_t bytes = cached.size(3) * cached.element_size(), ring = cached.size(2), columns = copy.size(2);
    const int64_t first = runs[b].start - before(runs[b]);
    auto *own = (char*)copy.mutable_data_ptr(), *theirs = (char*)cached.mutable_data_ptr();
    for (int64_t h = 0; h < cached.size(1); ++h)
      for (int64_t p = begin; p < end; ++p) {
        char* here = own + ((int64_t(b) * cached.size(1) + h) * columns + p) * bytes;
        char* there = theirs + ((runs[b].slot * cached.size(1) + h) * ring + (first + p) % ring) * bytes;
        TAKES ? std::copy_n(there, bytes, here) : std::copy_n(here, bytes, there);
      }
  }
};

Tensor feed_forward(const Tensor& x, const Tensor* part, double deviations) {
  if (std::isnan(deviations)) return times(gate_up(x, part[GATE], part[UP]), part[DOWN]);
  std::vector<Tensor> some;
  for (const Tensor& rows : x.split(AT_ONCE))
    some.push_back(sparse_feed_forward(rows, part[GATE], part[UP], part[DOWN].t(), deviations));
  return some.size() == 1 ? some[0] : at::cat(some);
}

// What all layers of a model have in common.
struct Common {
  int64_t active, queries;  // the active stream, and how many heads are queries
  double eps;
};

// Where some rows are `kept`, they alone go on behind the keys and values.
Tensor run_layer(const Tensor& streams, Tensor per_layer_input, const Tensor* part, double deviations, Kind& kind,
                 const Tensor& cached, const Common& common, bool kept_before, const Tensor* kept) {
  const auto [active, queries, eps] = common;
  const bool stores = part[HEAD_SCALE].size(0) > queries;
  const Place &at = kept_before ? kind.some : kind.all, &on = kept ? kind.some : at;
  if (stores) kind.take(cached);
  Tensor predicted = predict(streams, active, part[ROUTER_NORM], part[ROUTER], part[PREDICTION], eps);
  Tensor x = rms_norm(predicted.select(1, active), part[INPUT_NORM], eps);
  Tensor query = heads(times(x, part[INTO]), part[HEAD_SCALE], at.cos, at.sin, eps, queries,
                       stores ? std::optional<Tensor>(kind.seen(cached)) : std::nullopt, at.slots, at.positions);
  if (stores) kind.give(cached);
  if (kept) {
    if (kept->numel() == 0) return streams.narrow(0, 0, 0);
    for (Tensor* each : {&predicted, &x, &query, &per_layer_input}) *each = each->index_select(0, *kept);
  }
  const Tensor attended = times(attend(query, kind.seen(cached), on.slots, on.positions, kind.window), part[OUT_OF]);
  const Tensor laurel = times(times(x, part[LAUREL_LEFT]), part[LAUREL_RIGHT]);
  x = join(predicted, active, x, attended, part[POST_ATTENTION_NORM], laurel, part[POST_LAUREL_NORM], eps);
  x = add_norm(x, feed_forward(rms_norm(x, part[PRE_MLP_NORM], eps), part, deviations), part[POST_MLP_NORM], eps);
  const Tensor corrected = correct(predicted, active, x, part[ROUTER_NORM], part[ROUTER], part[CORRECTION], eps);
  Tensor spoken = corrected.select(1, active);
  if (part[ACTIVE_SCALE].numel()) spoken = at::mul(spoken, part[ACTIVE_SCALE]);
  const Tensor gate = gelu_times(times(spoken, part[PER_LAYER_GATE]), per_layer_input);
  add_to_others(corrected, times(gate, part[PER_LAYER_PROJECTION]), part[POST_PER_LAYER_NORM], eps);
  return corrected;
}

// All layers: streams [M, N, H] of new tokens -> [M, N, H], or of the rows `kept` alone: only these go through what no
// other token depends on, layer `last` (the last that stores keys and values) behind its keys and values, and those after
// it. `runs` [B, 3] are slot, first position and number of tokens of each sequence. In one call, so that Python's other
// threads (the outbox, at each token) have the interpreter meanwhile.
Tensor layers(const Tensor& streams, at::TensorList per_layer_inputs, at::TensorList parts, at::ArrayRef<double> deviations,
              at::TensorList cached, at::IntArrayRef kinds, at::TensorList cos, at::TensorList sin,
              at::IntArrayRef windows, const Tensor& runs, int64_t active, int64_t queries, double eps, int64_t last,
              const std::optional<Tensor>& kept) {
  const int64_t count = int64_t(kinds.size());
  TORCH_CHECK(int64_t(parts.size()) == count * PARTS, "a layer has ", int64_t(PARTS), " parts");
  std::vector<Run> each;
  for (int64_t b = 0; b < runs.size(0); ++b) {
    const auto* run = runs.const_data_ptr<int64_t>() + 3 * b;
    each.push_back({run[0], run[1], run[2]});
  }
  std::vector<Kind> of_kind;
  for (size_t kind = 0; kind < cos.size(); ++kind) {
    const auto number = std::find(kinds.begin(), kinds.end(), int64_t(kind)) - kinds.begin();
    of_kind.emplace_back(each, windows[kind], cos[kind], sin[kind], cached[number], kept);
  }
  Tensor x = streams.contiguous();
  for (int64_t i = 0; i < count && x.size(0) > 0; ++i)
    x = run_layer(x, per_layer_inputs.at(i), parts.data() + i * PARTS, deviations[i], of_kind[kinds[i]], cached[i],
                  {active, queries, eps}, i > last, kept && i == last ? &*kept : nullptr);
  return x;
}

// ---- what is no number ---------------------------------------------------------------------------------------

// Whether all exponents among the elements leave room for a finite number.
template <typename Bits>
bool all_finite(const Bits* x, int64_t count, Bits exponent) {
  std::atomic<bool> finite{true};
  at::parallel_for(0, count, GRAIN, [&](int64_t begin, int64_t end) {
    Bits found = 0;
    for (int64_t i = begin; i < end; ++i) found |= Bits((x[i] & exponent) == exponent);
    if (found) finite = false;
  });
  return finite;
}

// Whether none of the elements is infinite or NaN.
bool is_finite(const Tensor& x) {
  if (!x.is_contiguous() && x.dim() == 1) return is_finite(x.contiguous());
  if (!x.is_contiguous()) {  // a part of each row, such as some columns of a cache
    for (int64_t i = 0; i < x.size(0); ++i)
      if (!is_finite(x.select(0, i))) return false;
    return true;
  }
  return x.scalar_type() == at::kBFloat16
             ? all_finite<uint16_t>((const uint16_t*)x.const_data_ptr(), x.numel(), 0x7f80)
             : all_finite<uint32_t>((const uint32_t*)x.const_data_ptr<float>(), x.numel(), 0x7f800000);
}

}  // namespace

TORCH_LIBRARY(gemma, library) {
  library.def("is_finite(Tensor x) -> bool", &is_finite);
  library.def("linear(Tensor x, Tensor w) -> Tensor", &times);
  library.def("logits(Tensor x, Tensor w, float cap) -> Tensor", &logits);
  library.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", &rms_norm);
  library.def("add_norm(Tensor x, Tensor y, Tensor weight, float eps) -> Tensor", &add_norm);
  library.def("gated(Tensor gate_up, float deviations) -> Tensor", &gated);
  library.def(
      "sparse_feed_forward(Tensor x, Tensor gate, Tensor up, Tensor down, float deviations) -> Tensor",
      &sparse_feed_forward);
  library.def(
      "layers(Tensor streams, Tensor[] per_layer_inputs, Tensor[] parts, float[] deviations, Tensor(a!)[] cached, "
      "int[] kinds, Tensor[] cos, Tensor[] sin, int[] windows, Tensor runs, int active, int queries, float eps, int last, "
      "Tensor? kept) -> Tensor",
      &layers);
}
