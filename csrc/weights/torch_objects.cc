// SPDX-License-Identifier: Apache-2.0
#include "weights/torch_objects.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include "base/error.h"

namespace trine {

namespace {

using Kind = PickleKind;
using Bytes = std::span<const std::byte>;

// Those up to kClass make tensors.
enum class Role : uint8_t {
  kTensor,       // storage, offset, size, stride, ...
  kTypedTensor,  // the same, with the dtype as the seventh
  kParameter,    // tensor, requires_grad, hooks, ...
  kAttributes,   // function, class, its arguments, attributes of the tensor
  kClass,        // of tensors: an argument of the above, and called in ways that are not read
  kDict,
  kSize,
  kStorage,
  kDType,
  kPlain,  // a value that says nothing about a tensor
};

struct TorchGlobal {
  std::string_view name;
  Role role;
  std::optional<DType> dtype = std::nullopt;
};

constexpr TorchGlobal kGlobals[] = {
    {"collections.OrderedDict", Role::kDict},
    {"torch._utils._rebuild_tensor", Role::kTensor},
    {"torch._utils._rebuild_tensor_v2", Role::kTensor},
    {"torch._utils._rebuild_tensor_v3", Role::kTypedTensor},
    {"torch._utils._rebuild_parameter", Role::kParameter},
    {"torch._utils._rebuild_parameter_with_state", Role::kParameter},
    {"torch._tensor._rebuild_from_type_v2", Role::kAttributes},
    {"torch.Tensor", Role::kClass},
    {"torch.nn.parameter.Parameter", Role::kClass},
    {"torch.nn.parameter.Buffer", Role::kClass},
    {"torch.Size", Role::kSize},
    {"torch.device", Role::kPlain},
    {"torch.FloatStorage", Role::kStorage, DType::kF32},
    {"torch.DoubleStorage", Role::kStorage, DType::kF64},
    {"torch.HalfStorage", Role::kStorage, DType::kF16},
    {"torch.BFloat16Storage", Role::kStorage, DType::kBF16},
    {"torch.LongStorage", Role::kStorage, DType::kI64},
    {"torch.IntStorage", Role::kStorage, DType::kI32},
    {"torch.ShortStorage", Role::kStorage, DType::kI16},
    {"torch.CharStorage", Role::kStorage, DType::kI8},
    {"torch.ByteStorage", Role::kStorage, DType::kU8},
    {"torch.BoolStorage", Role::kStorage, DType::kBool},
    {"torch.ComplexFloatStorage", Role::kStorage, DType::kC64},
    // Its elements are bytes; the tensor has the dtype.
    {"torch.storage.UntypedStorage", Role::kStorage, DType::kU8},
    {"torch.float32", Role::kDType, DType::kF32},
    {"torch.float64", Role::kDType, DType::kF64},
    {"torch.float16", Role::kDType, DType::kF16},
    {"torch.bfloat16", Role::kDType, DType::kBF16},
    {"torch.int64", Role::kDType, DType::kI64},
    {"torch.int32", Role::kDType, DType::kI32},
    {"torch.int16", Role::kDType, DType::kI16},
    {"torch.int8", Role::kDType, DType::kI8},
    {"torch.uint8", Role::kDType, DType::kU8},
    {"torch.uint16", Role::kDType, DType::kU16},
    {"torch.uint32", Role::kDType, DType::kU32},
    {"torch.uint64", Role::kDType, DType::kU64},
    {"torch.bool", Role::kDType, DType::kBool},
    {"torch.complex64", Role::kDType, DType::kC64},
    {"torch.float8_e4m3fn", Role::kDType, DType::kF8E4M3},
    {"torch.float8_e5m2", Role::kDType, DType::kF8E5M2},
    {"torch.float8_e8m0fnu", Role::kDType, DType::kF8E8M0},
    {"torch.float8_e4m3fnuz", Role::kDType, DType::kF8E4M3Fnuz},
    {"torch.float8_e5m2fnuz", Role::kDType, DType::kF8E5M2Fnuz},
};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kGlobals)> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kGlobals[i].name;
  return names;
}();

const TorchGlobal* global(const PickleValue& value) {
  return value.kind == Kind::kGlobal ? &kGlobals[static_cast<size_t>(value.number)] : nullptr;
}

constexpr size_t kMaxDims = 64;
// Copies of views take at most what the storages have, and this for those that repeat elements.
constexpr uint64_t kMaxRepeated = uint64_t{16} << 20;

struct View {
  uint64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

class StateDict {
 public:
  StateDict(const Pickle& pickle, const std::map<std::string_view, Bytes>& storages,
            const std::string& file_name)
      : pickle_(pickle), storages_(storages), file_name_(file_name), copies_left_(kMaxRepeated) {
    for (const auto& [key, bytes] : storages) copies_left_ += bytes.size();
  }

  std::vector<TorchTensor> read() {
    const std::vector<PickleValue> dict = find_dict();
    for (size_t i = 0; i < dict.size(); i += 2) {
      const PickleValue &key = dict[i], &value = dict[i + 1];
      if (!is_tensor(value)) continue;
      if (key.kind != Kind::kString) fail("the key of a tensor is no string");
      name_ = key.text;
      tensors_.push_back(read_tensor(value));
    }
    check_names();
    for (const std::string_view prefix : {"module.", "_orig_mod.", "module."}) strip(prefix);
    return std::move(tensors_);
  }

 private:
  struct Call {
    Role role;
    std::span<const PickleValue> arguments;
  };

  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(file_name_, ": ", what...));
  }
  template <class... A>
  [[noreturn]] void fail_tensor(const A&... what) const {
    fail("tensor ", quoted(name_), ": ", what...);
  }

  std::span<const PickleValue> items(const PickleValue& value) const {
    return pickle_.items(value);
  }
  const TorchGlobal* function(const PickleValue& value) const {
    return value.kind == Kind::kCall ? global(items(value)[0]) : nullptr;
  }
  bool is_tensor(const PickleValue& value) const {
    const TorchGlobal* f = function(value);
    return f != nullptr && f->role <= Role::kClass;
  }

  // Keys and values in turn; nothing for what is no dict.
  std::vector<PickleValue> pairs(const PickleValue& value) const {
    const std::span<const PickleValue> all = items(value);
    if (value.kind == Kind::kDict) return {all.begin(), all.end()};
    const TorchGlobal* f = function(value);
    if (f == nullptr || f->role != Role::kDict) return {};
    std::vector<PickleValue> out;
    // Python 2 gives an OrderedDict its items as a list of lists.
    const std::span<const PickleValue> arguments = items(all[1]);
    if (!arguments.empty()) {
      for (const PickleValue& pair : items(arguments[0])) {
        const std::span<const PickleValue> two = items(pair);
        if (two.size() != 2) fail("an OrderedDict is made of what are no pairs");
        out.insert(out.end(), two.begin(), two.end());
      }
    }
    out.insert(out.end(), all.begin() + 2, all.end());
    return out;
  }

  // Empty when it has no tensors.
  std::vector<PickleValue> tensors_in(const PickleValue& value) const {
    std::vector<PickleValue> dict = pairs(value);
    for (size_t i = 1; i < dict.size(); i += 2) {
      if (is_tensor(dict[i])) return dict;
    }
    return {};
  }

  std::vector<PickleValue> find_dict() const {
    std::vector<PickleValue> top = tensors_in(pickle_.root());
    if (!top.empty()) return top;
    top = pairs(pickle_.root());
    for (const std::string_view key : {"state_dict", "model", "module"}) {
      size_t i = 0;
      while (i < top.size() && (top[i].kind != Kind::kString || top[i].text != key)) i += 2;
      if (i == top.size()) continue;
      std::vector<PickleValue> nested = tensors_in(top[i + 1]);
      if (!nested.empty()) return nested;
    }
    fail("has no dict of tensors, neither at the top nor under 'state_dict', 'model' or 'module'");
  }

  TorchTensor read_tensor(const PickleValue& value) {
    const auto [role, arguments] = unwrap(value);
    const size_t known = role == Role::kTypedTensor ? 7 : 6;
    if (arguments.size() < (role == Role::kTypedTensor ? 7 : 4)) {
      fail_tensor("has ", arguments.size(), " arguments, too few");
    }
    // Conjugates and negatives of complex numbers that are not computed yet.
    if (arguments.size() > known && !items(arguments[known]).empty()) {
      fail_tensor("is a view that changes its elements, which is not read");
    }
    const TorchStorage storage =
        read_torch_storage(pickle_, arguments[0], cat(file_name_, ": tensor ", quoted(name_)));
    TorchTensor tensor;
    tensor.name = name_;
    tensor.dtype = storage.dtype;
    if (role == Role::kTypedTensor) {
      const TorchGlobal* dtype = global(arguments[6]);
      if (dtype == nullptr || dtype->role != Role::kDType) fail_tensor("has no dtype");
      tensor.dtype = *dtype->dtype;
    }
    if (arguments[1].kind != Kind::kInt || arguments[1].number < 0) {
      fail_tensor("its storage offset is no number from 0 to 2^63 - 1");
    }
    View view{static_cast<uint64_t>(arguments[1].number), numbers(arguments[2], "size"),
              numbers(arguments[3], "stride")};
    place(tensor, bytes_of(storage), view);
    tensor.shape = std::move(view.shape);
    return tensor;
  }

  // From a parameter, or a tensor with attributes, to what makes the tensor.
  Call unwrap(PickleValue value) const {
    constexpr int kMaxWrappers = 4;
    for (int i = 0; i < kMaxWrappers; ++i) {
      const TorchGlobal* f = function(value);
      if (f == nullptr) break;
      Call call{f->role, items(items(value)[1])};
      if (call.role == Role::kAttributes && call.arguments.size() >= 3) {
        const TorchGlobal* inner = global(call.arguments[0]);
        if (inner == nullptr) break;
        call = {inner->role, items(call.arguments[2])};
      }
      if (call.role == Role::kTensor || call.role == Role::kTypedTensor) return call;
      if (call.role != Role::kParameter || call.arguments.empty()) break;
      value = call.arguments[0];
    }
    fail_tensor("is not made as torch.save makes tensors");
  }

  std::vector<int64_t> numbers(PickleValue value, std::string_view what) const {
    const TorchGlobal* f = function(value);
    if (f != nullptr && f->role == Role::kSize && items(items(value)[1]).size() == 1) {
      value = items(items(value)[1])[0];
    }
    const bool is_list = value.kind == Kind::kTuple || value.kind == Kind::kList;
    const std::span<const PickleValue> all = items(value);
    if (!is_list || all.size() > kMaxDims) {
      fail_tensor("its ", what, " is no tuple of at most ", kMaxDims, " numbers");
    }
    std::vector<int64_t> out;
    for (const PickleValue& number : all) {
      if (number.kind != Kind::kInt || number.number < 0) {
        fail_tensor("its ", what, " has what is no number from 0 to 2^63 - 1");
      }
      out.push_back(number.number);
    }
    return out;
  }

  Bytes bytes_of(const TorchStorage& storage) const {
    const auto found = storages_.find(storage.key);
    if (found == storages_.end()) {
      fail_tensor("its storage ", quoted(storage.key), " is missing; truncated file?");
    }
    const uint64_t size = size_of(storage.dtype);
    if (found->second.size() % size != 0 || found->second.size() / size != storage.whole) {
      fail_tensor("its storage ", quoted(storage.key), " has ", found->second.size(),
                  " bytes, not ", storage.whole, " elements of ", name_of(storage.dtype));
    }
    if (storage.first > storage.whole || storage.count > storage.whole - storage.first) {
      fail_tensor("its part of storage ", quoted(storage.key), " reaches past the end");
    }
    return found->second.subspan(static_cast<size_t>(storage.first * size),
                                 static_cast<size_t>(storage.count * size));
  }

  // Sets the data to the elements of `storage` that the view names, in place if they lie in a row.
  void place(TorchTensor& tensor, Bytes storage, const View& view) {
    const auto& [offset, shape, strides] = view;
    const std::optional<uint64_t> bytes = checked_bytes(tensor.dtype, shape);
    if (strides.size() != shape.size() || !bytes) {
      fail_tensor("shape ", shape, " with strides ", strides, " of ", name_of(tensor.dtype),
                  " is none");
    }
    if (*bytes == 0) return;
    const uint64_t size = size_of(tensor.dtype), count = storage.size() / size;
    uint64_t last = offset;  // element; the sum never passes count
    bool inside = offset < count;
    bool in_row = true;
    uint64_t dense = 1;
    for (size_t i = shape.size(); inside && i-- > 0;) {
      if (shape[i] == 1) continue;
      const auto steps = static_cast<uint64_t>(shape[i] - 1);
      const auto stride = static_cast<uint64_t>(strides[i]);
      inside = stride == 0 || steps <= (count - 1 - last) / stride;
      if (inside) last += steps * stride;
      in_row = in_row && stride == dense;
      dense *= steps + 1;
    }
    if (!inside) {
      fail_tensor("shape ", shape, " with strides ", strides, " from element ", offset,
                  " leaves its storage of ", count, " elements");
    }
    const Bytes from = storage.subspan(static_cast<size_t>(offset * size));
    if (in_row) {
      tensor.data = from.first(static_cast<size_t>(*bytes));
      return;
    }
    if (*bytes > copies_left_) fail_tensor("repeats the elements of its storage too often");
    copies_left_ -= *bytes;
    const auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(*bytes));
    gather(from, static_cast<size_t>(size), view, *copy);
    tensor.data = *copy;
    tensor.owner = copy;
  }

  static void gather(Bytes from, size_t size, const View& view, std::vector<std::byte>& to) {
    struct Dim {
      uint64_t count, stride, index;
    };
    std::vector<Dim> dims;
    for (size_t i = 0; i < view.shape.size(); ++i) {
      if (view.shape[i] == 1) continue;
      dims.push_back(
          {static_cast<uint64_t>(view.shape[i]), static_cast<uint64_t>(view.strides[i]) * size, 0});
    }
    size_t at = 0;
    for (size_t done = 0; done < to.size(); done += size) {
      std::memcpy(to.data() + done, from.data() + at, size);
      for (auto dim = dims.rbegin(); dim != dims.rend(); ++dim) {
        if (++dim->index < dim->count) {
          at += dim->stride;
          break;
        }
        dim->index = 0;
        at -= dim->stride * (dim->count - 1);
      }
    }
  }

  void check_names() const {
    std::vector<std::string_view> names;
    names.reserve(tensors_.size());
    for (const TorchTensor& tensor : tensors_) names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("tensor ", quoted(*twice), ": comes twice");
  }

  void strip(std::string_view prefix) {
    const bool all = std::all_of(tensors_.begin(), tensors_.end(), [&](const TorchTensor& tensor) {
      return tensor.name.starts_with(prefix);
    });
    if (!all) return;
    for (TorchTensor& tensor : tensors_) tensor.name.erase(0, prefix.size());
  }

  const Pickle& pickle_;
  const std::map<std::string_view, Bytes>& storages_;
  const std::string& file_name_;
  uint64_t copies_left_;
  std::string_view name_;
  std::vector<TorchTensor> tensors_;
};

}  // namespace

std::span<const std::string_view> torch_globals() noexcept { return kNames; }

TorchStorage read_torch_storage(const Pickle& pickle, const PickleValue& value,
                                const std::string& where) {
  const auto fail = [&](const auto&... what) {
    throw ModelError(cat(where, ": its storage ", what...));
  };
  const auto is_count = [](const PickleValue& v) { return v.kind == Kind::kInt && v.number >= 0; };
  std::span<const PickleValue> id;
  if (value.kind == Kind::kPersistent) id = pickle.items(pickle.items(value)[0]);
  if (id.size() < 5 || id[0].text != "storage") fail("is none that torch.save writes");
  const TorchGlobal* type = global(id[1]);
  if (type == nullptr || type->role != Role::kStorage) fail("is of no known type");
  if (id[2].text.empty() || !is_count(id[4])) fail("has no key or no size");
  TorchStorage storage;
  storage.dtype = *type->dtype;
  storage.key = id[2].text;
  storage.whole = storage.count = static_cast<uint64_t>(id[4].number);
  if (id.size() > 5 && id[5].kind != Kind::kNone) {
    const std::span<const PickleValue> part = pickle.items(id[5]);
    if (part.size() != 3 || !is_count(part[1]) || !is_count(part[2])) {
      fail("is part of another in a way that is not read");
    }
    storage.first = static_cast<uint64_t>(part[1].number);
    storage.count = static_cast<uint64_t>(part[2].number);
  }
  return storage;
}

std::vector<TorchTensor> read_state_dict(const Pickle& pickle,
                                         const std::map<std::string_view, Bytes>& storages,
                                         const std::string& file_name) {
  return StateDict(pickle, storages, file_name).read();
}

}  // namespace trine
