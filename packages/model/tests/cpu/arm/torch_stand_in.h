// The part of libtorch that the kernels use, so that they can be compiled for ARM and run under emulation without
// libtorch for ARM. The vectors (ATen/cpu/vec) and number types are PyTorch's own headers.

#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#undef TORCH_CHECK
#define TORCH_CHECK(condition, ...)                                       \
  do {                                                                    \
    if (!(condition)) throw std::runtime_error(at::message(__VA_ARGS__)); \
  } while (false)

#define AT_DISPATCH_SWITCH(type, name, ...)                     \
  [&] {                                                         \
    switch (type) {                                             \
      __VA_ARGS__                                               \
      default:                                                  \
        throw std::runtime_error("no kernel for this type");    \
    }                                                           \
  }()
#define AT_DISPATCH_CASE(type, ...)                              \
  case type: {                                                   \
    using scalar_t = c10::impl::ScalarTypeToCPPTypeT<type>;      \
    return __VA_ARGS__();                                        \
  }

namespace at {

using Sizes = std::vector<int64_t>;
using c10::kBFloat16, c10::kByte, c10::kFloat, c10::kLong, c10::ScalarType;

template <typename... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

struct TensorOptions {
  ScalarType type;
  TensorOptions(ScalarType type) : type(type) {}
  TensorOptions dtype(ScalarType other) const { return other; }
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(Sizes sizes, ScalarType type) : sizes_(std::move(sizes)), strides_(sizes_.size(), 1), type_(type) {
    for (int64_t d = dim() - 2; d >= 0; --d) strides_[d] = strides_[d + 1] * sizes_[d + 1];
    storage_ = std::shared_ptr<char[]>(new char[numel() * element_size()]());
    begin_ = storage_.get();
  }

  int64_t dim() const { return int64_t(sizes_.size()); }
  int64_t size(int64_t d) const { return sizes_.at(d < 0 ? d + dim() : d); }
  int64_t stride(int64_t d) const { return strides_.at(d < 0 ? d + dim() : d); }
  int64_t numel() const { return std::accumulate(sizes_.begin(), sizes_.end(), int64_t(1), std::multiplies<>()); }
  int64_t element_size() const { return type_ == kBFloat16 ? 2 : type_ == kFloat ? 4 : type_ == kLong ? 8 : 1; }
  bool defined() const { return storage_ != nullptr; }
  ScalarType scalar_type() const { return type_; }
  TensorOptions options() const { return type_; }
  const Sizes& sizes() const { return sizes_; }
  bool is_contiguous() const {
    int64_t expected = 1;
    for (int64_t d = dim() - 1; d >= 0; expected *= size(d--))
      if (size(d) != 1 && stride(d) != expected) return false;
    return true;
  }

  void* mutable_data_ptr() const { return begin_; }
  const void* const_data_ptr() const { return begin_; }
  template <typename T>
  T* mutable_data_ptr() const {
    TORCH_CHECK(c10::CppTypeToScalarType<T>::value == type_, "a pointer to another type");
    return reinterpret_cast<T*>(begin_);
  }
  template <typename T>
  const T* const_data_ptr() const {
    return mutable_data_ptr<T>();
  }

  Tensor narrow(int64_t d, int64_t first, int64_t count) const {
    Tensor part = *this;
    part.begin_ += first * stride(d) * element_size();
    part.sizes_[d] = count;
    return part;
  }
  Tensor select(int64_t d, int64_t index) const {
    Tensor part = narrow(d, index, 1);
    part.sizes_.erase(part.sizes_.begin() + d);
    part.strides_.erase(part.strides_.begin() + d);
    return part;
  }
  std::vector<Tensor> split(int64_t rows) const {
    std::vector<Tensor> parts;
    for (int64_t first = 0; first < size(0); first += rows)
      parts.push_back(narrow(0, first, std::min(rows, size(0) - first)));
    return parts;
  }
  Tensor t() const {
    Tensor turned = *this;
    std::swap(turned.sizes_.at(0), turned.sizes_.at(1));
    std::swap(turned.strides_[0], turned.strides_[1]);
    return turned;
  }
  Tensor index_select(int64_t d, const Tensor& ids) const {
    TORCH_CHECK(d == 0, "only rows are selected");
    Sizes sizes = sizes_;
    sizes[0] = ids.numel();
    Tensor rows(sizes, type_);
    for (int64_t i = 0; i < sizes[0]; ++i) rows.select(0, i).copy(select(0, ids.const_data_ptr<int64_t>()[i]));
    return rows;
  }
  Tensor contiguous() const {
    if (is_contiguous()) return *this;
    Tensor whole(sizes_, type_);
    whole.copy(*this);
    return whole;
  }
  Tensor to(ScalarType type) const {
    if (type == type_) return *this;
    TORCH_CHECK(type == kFloat && type_ == kBFloat16, "only bf16 is converted, to fp32");
    const Tensor from = contiguous(), wide(sizes_, type);
    std::copy_n(from.const_data_ptr<BFloat16>(), numel(), wide.mutable_data_ptr<float>());
    return wide;
  }
  void copy(const Tensor& from) const {
    TORCH_CHECK(sizes_ == from.sizes_ && type_ == from.type_, "a copy of another kind of tensor");
    if (dim() == 0) {
      std::memcpy(begin_, from.begin_, element_size());
      return;
    }
    for (int64_t i = 0; i < size(0); ++i) select(0, i).copy(from.select(0, i));
  }

 private:
  std::shared_ptr<char[]> storage_;
  char* begin_ = nullptr;
  Sizes sizes_, strides_;
  ScalarType type_ = kFloat;
};

using TensorList = const std::vector<Tensor>&;
using IntArrayRef = const std::vector<int64_t>&;
template <typename T>
using ArrayRef = const std::vector<T>&;

inline Tensor empty(Sizes sizes, TensorOptions options) { return {std::move(sizes), options.type}; }
inline Tensor empty_like(const Tensor& x) { return {x.sizes(), x.scalar_type()}; }
inline Tensor tensor(const Sizes& values) {
  Tensor made({int64_t(values.size())}, kLong);
  std::copy(values.begin(), values.end(), made.mutable_data_ptr<int64_t>());
  return made;
}
inline Tensor cat(const std::vector<Tensor>& parts) {
  Sizes sizes = parts.at(0).sizes();
  sizes[0] = 0;
  for (const Tensor& part : parts) sizes[0] += part.size(0);
  Tensor all(sizes, parts[0].scalar_type());
  int64_t row = 0;
  for (const Tensor& part : parts) all.narrow(0, row, part.size(0)).copy(part), row += part.size(0);
  return all;
}
inline Tensor constant_pad_nd(const Tensor& x, const Sizes& pad) {
  Tensor padded({x.size(0), x.size(1) + pad.at(1)}, x.scalar_type());
  padded.narrow(1, 0, x.size(1)).copy(x);
  return padded;
}
// Rows times a row.
inline Tensor mul(const Tensor& rows, const Tensor& factors) {
  const Tensor x = rows.contiguous(), y = empty_like(x);
  const auto multiply = [&](auto* to) {
    const auto a = static_cast<decltype(to)>(x.mutable_data_ptr()), b = static_cast<decltype(to)>(factors.mutable_data_ptr());
    for (int64_t i = 0; i < x.numel(); ++i) to[i] = a[i] * b[i % factors.numel()];
  };
  x.scalar_type() == kFloat ? multiply(y.mutable_data_ptr<float>()) : multiply(y.mutable_data_ptr<BFloat16>());
  return y;
}

inline int get_num_threads() { return 2; }

// As two threads would, one after the other.
template <typename Work>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Work& work) {
  const int64_t share = std::max(grain, (end - begin + 1) / 2);
  for (; begin < end; begin += share) work(begin, std::min(begin + share, end));
}

}  // namespace at

// Reads arguments from one file and writes results to another; see emulated_kernels.py.
struct Channel {
  FILE *in, *out;
  std::vector<at::Tensor> tensors;  // that were read

  void read_bytes(void* to, size_t bytes) {
    if (std::fread(to, 1, bytes, in) != bytes) throw std::runtime_error("an argument is missing");
  }
  template <typename T>
  T raw() {
    T value;
    read_bytes(&value, sizeof(T));
    return value;
  }
  void write(const at::Tensor& x) {
    const at::Tensor y = x.contiguous();
    const int64_t head[] = {int64_t(y.scalar_type()), y.dim()};
    std::fwrite(head, 8, 2, out);
    std::fwrite(y.sizes().data(), 8, y.dim(), out);
    std::fwrite(y.const_data_ptr(), y.element_size(), y.numel(), out);
  }
  void write(bool value) {
    at::Tensor x({}, at::kByte);
    *x.mutable_data_ptr<uint8_t>() = value;
    write(x);
  }
};

enum Kind : int64_t { NONE, INTEGER, FLOAT, TENSOR, SAME_TENSOR, TRANSPOSED, LIST };  // comes before each value

template <typename T>
struct Argument {
  static T read(Channel& channel, int64_t kind) {
    TORCH_CHECK(kind == INTEGER || kind == FLOAT, "a number is expected");
    return kind == INTEGER ? T(channel.raw<int64_t>()) : T(channel.raw<double>());
  }
};
template <typename T>
T read_argument(Channel& channel) {
  return Argument<T>::read(channel, channel.raw<int64_t>());
}
template <>
struct Argument<at::Tensor> {
  static at::Tensor read(Channel& channel, int64_t kind) {
    if (kind == SAME_TENSOR) return channel.tensors.at(channel.raw<int64_t>());  // shared, as the cache of some layers
    if (kind == TRANSPOSED) return read_argument<at::Tensor>(channel).t();
    TORCH_CHECK(kind == TENSOR, "a tensor is expected");
    const auto type = at::ScalarType(channel.raw<int64_t>());
    at::Sizes sizes(channel.raw<int64_t>());
    channel.read_bytes(sizes.data(), 8 * sizes.size());
    const at::Tensor x(sizes, type);
    channel.read_bytes(x.mutable_data_ptr(), x.numel() * x.element_size());
    channel.tensors.push_back(x);
    return x;
  }
};
template <typename T>
struct Argument<std::optional<T>> {
  static std::optional<T> read(Channel& channel, int64_t kind) {
    if (kind == NONE) return std::nullopt;
    return Argument<T>::read(channel, kind);
  }
};
template <typename T>
struct Argument<std::vector<T>> {
  static std::vector<T> read(Channel& channel, int64_t kind) {
    TORCH_CHECK(kind == LIST, "a list is expected");
    std::vector<T> values;
    for (int64_t count = channel.raw<int64_t>(); count > 0; --count) values.push_back(read_argument<T>(channel));
    return values;
  }
};

// The operations by name.
struct Library {
  std::map<std::string, std::function<void(Channel&)>> operations;

  template <typename Result, typename... Arguments>
  void def(const std::string& schema, Result (*function)(Arguments...)) {
    operations[schema.substr(0, schema.find('('))] = [function](Channel& channel) {
      std::tuple<std::decay_t<Arguments>...> arguments{read_argument<std::decay_t<Arguments>>(channel)...};
      channel.write(std::apply(function, arguments));
      for (const at::Tensor& x : channel.tensors) channel.write(x);  // some operations change them
    };
  }
};
#define TORCH_LIBRARY(name, library) void define_operations(Library& library)
