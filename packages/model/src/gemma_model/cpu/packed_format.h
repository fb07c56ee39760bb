// Packed matrices of 4 or 8 bits: the formats that the kernels read, packing, and reading rows.
//
// A matrix [columns, depth] is stored in blocks of BLOCK_COLUMNS columns and BLOCK_DEPTH elements of the depth, as a
// uint8 tensor [columns / BLOCK_COLUMNS, depth / BLOCK_DEPTH, bytes of a block]; that number of bytes identifies the
// format. A block has scales, offsets if the format has them, and integers. An element is scale * q + offset, where q
// is the integer, or the nibble minus 8 in a format of 4 bits without offsets.

#pragma once

#include "vec.h"

#include <ATen/ops/empty.h>

#include <cstring>

namespace {

constexpr int64_t BLOCK_COLUMNS = 8;  // the lanes of a vector of 32-bit sums
constexpr int64_t BLOCK_DEPTH = 32;   // the elements of an input that share a scale

// What a block of integers is: BLOCK_DEPTH / 4 vectors of BLOCK_COLUMNS x 4. Element 4 v + b of column c is byte
// 4 c + b of vector v.
struct Bytes {
  static constexpr int BITS = 8, ZERO = 0;
  static int get(const uint8_t* block, int64_t column, int64_t k) {
    return int8_t(block[k / 4 * 32 + column * 4 + k % 4]);
  }
  static void set(uint8_t* block, int64_t column, int64_t k, int q) {
    block[k / 4 * 32 + column * 4 + k % 4] = uint8_t(q);
  }
  // All integers of a column, from BLOCK_DEPTH bytes.
  static void set_column(uint8_t* block, int64_t column, const uint8_t* stored) {
    for (int64_t v = 0; v < BLOCK_DEPTH / 4; ++v) std::memcpy(block + v * 32 + column * 4, stored + v * 4, 4);
  }
};

// With 4 bits, even vectors are the low nibbles and odd vectors the high nibbles of the same bytes.
struct Nibbles {
  static constexpr int BITS = 4, ZERO = 8;
  static int64_t place(int64_t column, int64_t k) { return k / 8 * 32 + column * 4 + k % 4; }
  static int get(const uint8_t* block, int64_t column, int64_t k) {
    return block[place(column, k)] >> (k & 4 ? 4 : 0) & 15;
  }
  static void set(uint8_t* block, int64_t column, int64_t k, int q) {
    block[place(column, k)] |= uint8_t(q << (k & 4 ? 4 : 0));
  }
  // All integers of a column, from BLOCK_DEPTH / 2 bytes with two neighbours each.
  static void set_column(uint8_t* block, int64_t column, const uint8_t* stored) {
    for (int64_t v = 0; v < BLOCK_DEPTH / 8; ++v) {
      uint32_t eight;
      std::memcpy(&eight, stored + v * 4, 4);
      const uint32_t four = one_per_byte(eight & 0xffff) | one_per_byte(eight >> 16) << 4;
      std::memcpy(block + v * 32 + column * 4, &four, 4);
    }
  }
  static uint32_t one_per_byte(uint32_t nibbles) {
    nibbles = (nibbles | nibbles << 8) & 0x00ff00ff;
    return (nibbles | nibbles << 4) & 0x0f0f0f0f;
  }
};

// A product that is rounded before it is added to something, as PyTorch does it: no fused multiply-add.
inline float rounded(float product) {
#ifdef __x86_64__
  asm("" : "+x"(product));
#else
  asm("" : "+w"(product));
#endif
  return product;
}

// A format: GROUPS groups of integers in the depth of a block, each with a scale for each column.
template <class I, int G, typename S, bool O>
struct Format {
  using Integers = I;
  using Scale = S;
  static constexpr int GROUPS = G;
  static constexpr bool OFFSETS = O;
  static constexpr int ZERO = O ? 0 : I::ZERO;
  static constexpr int64_t GROUP = BLOCK_DEPTH / G;
  static constexpr int64_t SCALES = (O ? 2 : 1) * G * int64_t(sizeof(S));  // bytes of a column
  static constexpr int64_t HEAD = BLOCK_COLUMNS * SCALES;
  static constexpr int64_t COLUMN_BYTES = SCALES + BLOCK_DEPTH * I::BITS / 8;
  static constexpr int64_t BYTES = BLOCK_COLUMNS * COLUMN_BYTES;

  // The scales of a group, followed by its offsets.
  static const S* scales(const uint8_t* block, int group) {
    return reinterpret_cast<const S*>(block) + group * BLOCK_COLUMNS * (O ? 2 : 1);
  }
  static float element(const uint8_t* block, int64_t column, int64_t k) {
    const S* own = scales(block, int(k / GROUP)) + column;
    const float scaled = rounded(float(own[0]) * float(I::get(block + HEAD, column, k) - ZERO));
    return O ? scaled + float(own[BLOCK_COLUMNS]) : scaled;
  }
};

using Int4 = Format<Nibbles, 1, at::Half, false>;      // 4.5 bits an element
using Int8 = Format<Bytes, 1, at::Half, false>;        // 8.5 bits
using Int4Offsets = Format<Nibbles, 1, at::Half, true>;      // 5 bits: Q4_K, and zero points
using Int8Groups16 = Format<Bytes, 2, at::Half, false>;      // 9 bits: Q6_K
using Int4OffsetsFp32 = Format<Nibbles, 1, float, true>;     // 6 bits: the same as Int4Offsets, exactly
using Int8OffsetsFp32 = Format<Bytes, 2, float, true>;       // 12 bits: all other matrices, exactly

inline bool is_packed(const Tensor& w) { return w.scalar_type() == at::kByte; }

// Calls `work(Format())` with the format whose block, or column of a block, has that many bytes.
template <typename Work>
void with_format(int64_t bytes, bool of_column, const Work& work) {
  const auto matches = [&](auto format) {
    using F = decltype(format);
    if (bytes != (of_column ? F::COLUMN_BYTES : F::BYTES)) return false;
    work(format);
    return true;
  };
  const bool known = matches(Int4()) || matches(Int8()) || matches(Int4Offsets()) || matches(Int8Groups16()) ||
                     matches(Int4OffsetsFp32()) || matches(Int8OffsetsFp32());
  TORCH_CHECK(known, "no packed format has ", bytes, " bytes");
}

// A quantised matrix as it is stored in a checkpoint: see QuantizedTensor in weights/quantized_tensor.py.
struct StoredMatrix {
  const uint8_t* quants;
  const float *scale, *offset;
  int64_t bits, columns, depth, group;

  StoredMatrix(const Tensor& quants, const Tensor& scales, const std::optional<Tensor>& offsets, int64_t bits)
      : quants(static_cast<const uint8_t*>(quants.const_data_ptr())),
        scale(scales.const_data_ptr<float>()),
        offset(offsets ? offsets->const_data_ptr<float>() : nullptr),
        bits(bits),
        columns(quants.size(0)),
        depth(quants.size(1) * 8 / bits),
        group(depth / scales.size(1)) {
    TORCH_CHECK(quants.is_contiguous() && scales.is_contiguous(), "the parts are contiguous");
    TORCH_CHECK(columns % BLOCK_COLUMNS == 0 && depth % BLOCK_DEPTH == 0, "a matrix consists of complete blocks");
  }

  // The stored integer, before 8 is subtracted from a nibble.
  int integer(int64_t column, int64_t k) const {
    if (bits == 8) return int8_t(quants[column * depth + k]);
    return quants[(column * depth + k) / 2] >> (k % 2 * 4) & 15;
  }
  template <class F>
  int integer_for(int64_t column, int64_t k) const {
    const bool subtract = bits == 4 && F::Integers::BITS == 8 && !offset;
    return integer(column, k) - (subtract ? Nibbles::ZERO : 0);
  }
  template <class F>
  float offset_for(int64_t column, int64_t k) const {
    const int64_t at = column * (depth / group) + k / group;
    if (offset) return offset[at];
    return bits == 4 && F::Integers::BITS == 4 ? -float(Nibbles::ZERO) * scale[at] : 0.0f;
  }
  float scale_of(int64_t column, int64_t k) const { return scale[column * (depth / group) + k / group]; }
};

// Packs a matrix. scales, offsets: fp32; bytes: of a block in the wanted format.
Tensor pack_matrix(const Tensor& quants, const Tensor& scales, const std::optional<Tensor>& offsets, int64_t bits,
                   int64_t bytes) {
  const StoredMatrix from(quants, scales, offsets, bits);
  const int64_t blocks = from.columns / BLOCK_COLUMNS, deep = from.depth / BLOCK_DEPTH;
  const Tensor packed = at::empty({blocks, deep, bytes}, at::kByte);
  auto* to = packed.mutable_data_ptr<uint8_t>();
  with_format(bytes, false, [&](auto format) {
    using F = decltype(format);
    parallel_rows(blocks * deep, F::BYTES, [&](int64_t number) {
      uint8_t* block = to + number * F::BYTES;
      const int64_t first = number / deep * BLOCK_COLUMNS, start = number % deep * BLOCK_DEPTH;
      std::memset(block, 0, F::BYTES);
      for (int64_t c = 0; c < BLOCK_COLUMNS; ++c) {
        for (int g = 0; g < F::GROUPS; ++g) {
          auto* own = const_cast<typename F::Scale*>(F::scales(block, g)) + c;
          const int64_t k = start + g * F::GROUP;
          own[0] = typename F::Scale(from.scale_of(first + c, k));
          if constexpr (F::OFFSETS) own[BLOCK_COLUMNS] = typename F::Scale(from.template offset_for<F>(first + c, k));
        }
        if (from.bits == F::Integers::BITS) {
          F::Integers::set_column(block + F::HEAD, c, from.quants + ((first + c) * from.depth + start) * from.bits / 8);
          continue;
        }
        for (int64_t k = 0; k < BLOCK_DEPTH; ++k)
          F::Integers::set(block + F::HEAD, c, k, from.template integer_for<F>(first + c, start + k));
      }
    });
  });
  return packed;
}

// Rows of a packed matrix: ids [n] int64 -> [n, depth] fp32.
Tensor packed_rows(const Tensor& packed, const Tensor& ids) {
  const int64_t deep = packed.size(1), depth = deep * BLOCK_DEPTH, limit = packed.size(0) * BLOCK_COLUMNS;
  const Tensor y = at::empty({ids.size(0), depth}, at::kFloat);
  const auto* from = packed.const_data_ptr<uint8_t>();
  const auto* id = ids.const_data_ptr<int64_t>();
  auto* to = y.mutable_data_ptr<float>();
  with_format(packed.size(2), false, [&](auto format) {
    using F = decltype(format);
    parallel_rows(ids.size(0), depth, [&](int64_t row) {
      TORCH_CHECK(0 <= id[row] && id[row] < limit, "row ", id[row], " of ", limit);
      const auto* block = from + id[row] / BLOCK_COLUMNS * packed.stride(0);
      for (int64_t k = 0; k < depth; ++k)
        to[row * depth + k] = F::element(block + k / BLOCK_DEPTH * F::BYTES, id[row] % BLOCK_COLUMNS, k % BLOCK_DEPTH);
    });
  });
  return y;
}

}  // namespace
