// SPDX-License-Identifier: Apache-2.0
#include "backend.h"

#include <algorithm>

#include "base/error.h"
#include "cpu/features.h"
#include "cpu/ops.h"
#include "cpu/positions.h"
#include "cpu/thread_pool.h"
#include "exec/host.h"
#include "exec/lower.h"
#include "ref/ref.h"

namespace trine {
namespace {

const cpu::Workers& workers(const RunContext& c) noexcept {
  return *static_cast<const cpu::Workers*>(c.device);
}

// How the weights of linears lie in memory, by what they are computed in: panels of kPanel columns,
// one after the other, each in itself all that its columns need.
struct PanelForm {
  const char* name;
  DType dtype;
  std::vector<int64_t> (*shape)(int64_t k);  // of one panel
  // Whole panels of [n, k]; false when they cannot hold it.
  bool (*pack)(const void* w, DType, int64_t n, int64_t k, std::byte* packed,
               cpu::ThreadPool&) noexcept;

  Form of(int64_t n, int64_t k) const {
    std::vector<int64_t> all = shape(k);
    all.insert(all.begin(), (n + cpu::kPanel - 1) / cpu::kPanel);
    return {name, dtype, std::move(all)};
  }
};

constexpr PanelForm kPanelsF32 = {
    "panels", DType::kF32, [](int64_t k) { return std::vector<int64_t>{k, cpu::kPanel}; },
    [](const void* w, DType dtype, int64_t n, int64_t k, std::byte* packed,
       cpu::ThreadPool& pool) noexcept {
      cpu::pack_linear(w, dtype, n, k, reinterpret_cast<float*>(packed), pool);
      return true;
    }};

constexpr PanelForm kPanelsBF16 = {
    "panels_bf16", DType::kBF16,
    [](int64_t k) {
      return std::vector<int64_t>{cpu::packed_bf16(1, k) / cpu::kPanel / 2, cpu::kPanel, 2};
    },
    [](const void* w, DType dtype, int64_t n, int64_t k, std::byte* packed,
       cpu::ThreadPool& pool) noexcept {
      cpu::pack_linear_bf16(w, dtype, n, k, reinterpret_cast<uint16_t*>(packed), pool);
      return true;
    }};

constexpr PanelForm kPanelsInt8 = {
    "panels_int8", DType::kI8,
    [](int64_t k) {
      return std::vector<int64_t>{cpu::packed_int8(1, k) / cpu::kPanel / 4, cpu::kPanel, 4};
    },
    [](const void* w, DType dtype, int64_t n, int64_t k, std::byte* packed,
       cpu::ThreadPool& pool) noexcept {
      cpu::pack_linear_int8(w, dtype, n, k, reinterpret_cast<int8_t*>(packed), pool);
      return true;
    }};

template <GroupForm kForm>
constexpr PanelForm panels_of_groups(const char* name) {
  return {name, dtype_of(kForm),
          [](int64_t k) {
            constexpr int64_t kBytes = group_bytes(kForm), kLine = kBytes % 4 == 0 ? 4 : 2;
            const auto size = static_cast<int64_t>(size_of(dtype_of(kForm)));
            const int64_t groups = (k + kGroup - 1) / kGroup, lines = kBytes / kLine;
            if (size > kLine)
              return std::vector<int64_t>{groups, lines, cpu::kPanel * kLine / size};
            return std::vector<int64_t>{groups, lines, cpu::kPanel, kLine / size};
          },
          [](const void* w, DType dtype, int64_t n, int64_t k, std::byte* packed,
             cpu::ThreadPool& pool) noexcept {
            return cpu::pack_linear_groups(w, dtype, n, k, kForm, packed, pool);
          }};
}

constexpr PanelForm kPanelsOfGroups[] = {panels_of_groups<GroupForm::kInt4>("panels_int4"),
                                         panels_of_groups<GroupForm::kQ4_0>("panels_q4_0"),
                                         panels_of_groups<GroupForm::kQ6_K>("panels_q6_k"),
                                         panels_of_groups<GroupForm::kQ8_0>("panels_q8_0"),
                                         panels_of_groups<GroupForm::kInt8>("panels_q8")};

// Of a weight that is multiplied in `dtype` (host::multiplied_dtype).
const PanelForm& panel_form(const Graph& graph, NodeId weight, DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return kPanelsBF16;
    case DType::kI8:
      return kPanelsInt8;
    case DType::kI4:
      return kPanelsOfGroups[static_cast<size_t>(host::group_form(graph, weight))];
    default:
      return kPanelsF32;
  }
}

// What multiplies such panels.
const cpu::LinearKernel& kernel_of(const cpu::KernelTable& table, const PanelForm& form) {
  if (const auto groups = group_form_of(form.dtype))
    return table.linear_groups[static_cast<size_t>(*groups)];
  if (form.dtype == DType::kI8) return table.linear_int8;
  return form.dtype == DType::kBF16 ? table.linear_bf16 : table.linear;
}

struct Kernels {
  static void linear(const LinearArgs& a, const RunContext& c) noexcept {
    cpu::linear(a, workers(c));
  }
  static void linear_bf16(const LinearArgs& a, const RunContext& c) noexcept {
    cpu::linear_bf16(a, workers(c));
  }
  static void linear_int8(const LinearArgs& a, const RunContext& c) noexcept {
    cpu::linear_int8(a, workers(c));
  }
  static void linear_groups(const LinearArgs& a, GroupForm form, const RunContext& c) noexcept {
    cpu::linear_groups(a, form, workers(c));
  }
  static void attention(const AttentionArgs& a, const RunContext& c) noexcept {
    cpu::attention(a, workers(c));
  }
  static void attention_bf16(const AttentionArgs& a, const RunContext& c) noexcept {
    cpu::attention_bf16(a, workers(c));
  }
  static Positions positions_of(const AttentionAttrs& a, int64_t head_dim, DType dtype) {
    return cpu::positions_of(a, dtype == DType::kBF16 ? (head_dim + 1) / 2 : head_dim);
  }
  static void layer_norm(const LayerNormArgs& a, const RunContext& c) noexcept {
    cpu::layer_norm(a, workers(c));
  }
  static void rms_norm(const RmsNormArgs& a, const RunContext& c) noexcept {
    cpu::rms_norm(a, workers(c));
  }
  static void rotary(const RotaryArgs& a, const RunContext& c) noexcept {
    cpu::rotary(a, workers(c));
  }
  static void rope(const RopeArgs& a, const RunContext& c) noexcept { cpu::rope(a, workers(c)); }
  static void gated(const GatedArgs& a, const RunContext& c) noexcept { cpu::gated(a, workers(c)); }
  static void scale(const ScaleArgs& a, const RunContext& c) noexcept { cpu::scale(a, workers(c)); }
  static void embedding(const EmbeddingArgs& a, const RunContext& c) noexcept {
    cpu::embedding(a, workers(c));
  }
  static void activation(const ActivationArgs& a, const RunContext& c) noexcept {
    cpu::activation(a, workers(c));
  }
  static void add(const AddArgs& a, const RunContext& c) noexcept { cpu::add(a, workers(c)); }
  static void pool(const PoolArgs& a, const RunContext& c) noexcept { cpu::pool(a, workers(c)); }
  static void l2_normalize(const L2NormalizeArgs& a, const RunContext& c) noexcept {
    cpu::l2_normalize(a, workers(c));
  }
  // Some thousand values, once per model: the reference is fast enough.
  static void relative_bias(const RelativeBiasArgs& a, const RunContext&) noexcept {
    ref::relative_bias(a);
  }
};

// What the kernels need per thread; grows with every node that is lowered.
struct ScratchNeed {
  size_t linear = 0;
  // Of linears that prepare x: the kernels, of two dtypes at most, and the deepest.
  std::vector<const cpu::LinearKernel*> preparing;
  int64_t prepared_depth = 0;
  int64_t head_dim = 0;
  int64_t position_columns = 0;
};

class CpuContext : public DeviceContext {
 public:
  CpuContext(const cpu::KernelTable& table, cpu::ThreadPool& pool, const ScratchNeed& need)
      : need_(need), workers_{&table, &pool, nullptr, 0} {}

  const void* get() const noexcept override { return &workers_; }

  void reserve(const RunSize& size) override {
    size_t stride = need_.linear;
    if (need_.head_dim > 0) {
      for (const cpu::AttentionKernel* kernel :
           {&workers_.table->attention, &workers_.table->attention_bf16}) {
        stride = std::max(
            stride, kernel->scratch_bytes(size.max_length, need_.head_dim, need_.position_columns));
      }
    }
    stride = std::max((stride + 63) / 64 * 64, workers_.scratch_stride);
    size_t shared = shared_;
    for (const cpu::LinearKernel* kernel : need_.preparing) {
      const int64_t rows = std::max<int64_t>(size.tokens, size.sequences);
      const int64_t floats = cpu::prepared_floats(*kernel, rows, need_.prepared_depth);
      shared = std::max(shared, sizeof(float) * static_cast<size_t>(floats));
    }
    if (stride == workers_.scratch_stride && shared == shared_ && memory_) return;
    const size_t own = stride * static_cast<size_t>(workers_.pool->size());
    memory_.reset();
    memory_ = host::alloc(own + shared);
    workers_.scratch = memory_.get();
    workers_.scratch_stride = stride;
    workers_.prepared = reinterpret_cast<float*>(memory_.get() + own);
    shared_ = shared;
  }

  size_t bytes() const noexcept override {
    return workers_.scratch_stride * static_cast<size_t>(workers_.pool->size()) + shared_;
  }

 private:
  const ScratchNeed& need_;
  cpu::Workers workers_;
  size_t shared_ = 0;  // bytes behind all threads' scratch
  std::shared_ptr<std::byte> memory_;
};

class CpuBackend : public Backend {
 public:
  CpuBackend(int threads, DType dtype)
      : table_(cpu::select_kernel_table()), pool_(threads), dtype_(dtype) {
    host::require_dtype("cpu", dtype, kHostDTypes);
  }

  BackendInfo properties() const override { return {"cpu", table_.name, pool_.size(), dtype_}; }
  bool supports(const Graph&, const Node&) const noexcept override { return true; }
  std::shared_ptr<std::byte> alloc(size_t bytes) override { return host::alloc(bytes); }

  Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) const override {
    const auto& dims = graph[weight].shape.dims;
    const DType dtype = host::multiplied_dtype(graph, weight, consumer, slot, dtype_);
    if (is_panels(consumer, slot, dtype))
      return panel_form(graph, weight, dtype).of(dims[0], dims[1]);
    if (consumer.op == Op::embedding) return {"table", host::table_dtype(graph, weight), dims};
    if (consumer.op == Op::attention && slot >= 4) {
      const auto& a = consumer.as<AttentionAttrs>();
      const int64_t head_dim = dims[1] / a.heads, panel = cpu::kPanel * head_dim;
      const int64_t panels = cpu::positions_of(a, head_dim).head / panel;
      const std::string layout =
          cat(a.position_buckets, ".", a.max_relative_positions, ".", a.heads);
      if (host::attention_dtype(dtype_) == DType::kBF16)
        return {"positions_bf16." + layout,
                DType::kBF16,
                {a.heads, panels, (head_dim + 1) / 2, cpu::kPanel, 2}};
      return {"positions." + layout, DType::kF32, {a.heads, panels, head_dim, cpu::kPanel}};
    }
    if (consumer.op != Op::linear || slot == 0) return {"dense", DType::kF32, dims};
    // The epilogue reads whole panels.
    return {"bias", DType::kF32, {(dims[0] + cpu::kPanel - 1) / cpu::kPanel * cpu::kPanel}};
  }

  Packed pack(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) override {
    const DType dtype = host::multiplied_dtype(graph, weight, consumer, slot, dtype_);
    if (is_panels(consumer, slot, dtype))
      return pack_panels(graph, weight, panel_form(graph, weight, dtype));
    if (consumer.op == Op::embedding) return host::in_place(graph, weight);
    if (consumer.op == Op::attention && slot >= 4)
      return pack_positions(graph, weight, consumer, form(graph, weight, consumer, slot));
    if (consumer.op != Op::linear || slot == 0) return host::as_f32(graph, weight);
    const Form wanted = form(graph, weight, consumer, slot);
    return host::as_f32(graph, weight, wanted.shape[0] - graph[weight].shape.dims[0]);
  }

  Step lower(const Graph& graph, const Node& node, std::span<const Operand> in,
             const Operand& out) override {
    if (node.op == Op::linear) {
      const DType dtype = host::multiplied_dtype(graph, node.inputs[1], node, 1, dtype_);
      const cpu::LinearKernel& kernel = kernel_of(table_, panel_form(graph, node.inputs[1], dtype));
      const int64_t depth = graph[node.inputs[0]].shape.cols();
      need_.linear = std::max(need_.linear, kernel.scratch_bytes(depth));
      if (kernel.prepare != nullptr) {
        auto& all = need_.preparing;
        if (std::find(all.begin(), all.end(), &kernel) == all.end()) all.push_back(&kernel);
        need_.prepared_depth = std::max(need_.prepared_depth, depth);
      }
    } else if (node.op == Op::attention) {
      const auto& attrs = node.as<AttentionAttrs>();
      need_.head_dim = std::max(need_.head_dim, node.shape.cols() / attrs.heads);
      if (node.input(4) != kNoNode || node.input(5) != kNoNode)
        need_.position_columns =
            std::max<int64_t>(need_.position_columns, cpu::positions_of(attrs, 1).columns);
    }
    return lower_on_host<Kernels>(graph, node, in, out, host::attention_dtype(dtype_));
  }

  std::unique_ptr<DeviceContext> context() override {
    return std::make_unique<CpuContext>(table_, pool_, need_);
  }

  void for_each(int64_t items, const std::function<void(int64_t)>& work) override {
    pool_.parallel_for(items, [&](int64_t item, int) { work(item); });
  }

 private:
  static bool is_panels(const Node& consumer, size_t slot, DType dtype) {
    return (consumer.op == Op::linear && slot == 1) ||
           (consumer.op == Op::embedding && dtype != DType::kF32);
  }

  // Parts are whole panels (fuse merges no others), so each is packed into its own place.
  Packed pack_panels(const Graph& graph, NodeId weight, const PanelForm& form) {
    const std::vector<host::Part> from = host::parts(graph, weight);
    const auto size = [&form](const host::Part& p) {
      return static_cast<size_t>(checked_bytes(form.dtype, form.of(p.rows, p.cols).shape).value());
    };
    size_t bytes = 0;
    for (const auto& p : from) bytes += size(p);
    const std::shared_ptr<std::byte> memory = place(bytes);
    std::byte* to = memory.get();
    for (const auto& p : from) {
      if (!form.pack(p.data, p.dtype, p.rows, p.cols, to, pool_))
        host::throw_not_in_groups(graph, weight, static_cast<size_t>(&p - from.data()));
      to += size(p);
    }
    return {memory, memory.get(), bytes, form.dtype};
  }

  // Memory for weights. Those that are smaller than a huge page share some, so that reading them
  // all does not miss in the TLB at every page, where the processor's own prefetching ends, too.
  std::shared_ptr<std::byte> place(size_t bytes) {
    constexpr size_t kLine = 64, kSmall = size_t{64} << 10, kLarge = size_t{2} << 20;
    constexpr size_t kChunk = size_t{32} << 20;
    if (bytes < kSmall || bytes >= kLarge) return host::alloc(bytes);
    if (chunk_ == nullptr || kChunk - used_ < bytes) {
      chunk_ = host::alloc(kChunk);
      used_ = 0;
    }
    const std::shared_ptr<std::byte> piece(chunk_, chunk_.get() + used_);
    used_ += (bytes + kLine - 1) / kLine * kLine;
    return piece;
  }

  static Packed pack_positions(const Graph& graph, NodeId table, const Node& node,
                               const Form& wanted) {
    const auto& attrs = node.as<AttentionAttrs>();
    const int64_t head_dim = graph[table].shape.cols() / attrs.heads;
    const size_t bytes = static_cast<size_t>(checked_bytes(wanted.dtype, wanted.shape).value());
    const std::shared_ptr<std::byte> memory = host::alloc(bytes);
    const Packed dense = host::as_f32(graph, table);
    const auto* const from = static_cast<const float*>(dense.data);
    if (wanted.dtype == DType::kBF16) {
      cpu::pack_positions_bf16(from, attrs, head_dim, reinterpret_cast<uint16_t*>(memory.get()));
    } else {
      cpu::pack_positions(from, attrs, head_dim, reinterpret_cast<float*>(memory.get()));
    }
    return {memory, memory.get(), bytes, wanted.dtype};
  }

  const cpu::KernelTable& table_;
  cpu::ThreadPool pool_;
  DType dtype_;
  ScratchNeed need_;
  std::shared_ptr<std::byte> chunk_;  // where the next weights go
  size_t used_ = 0;                   // of it
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads, DType dtype) {
  return std::make_unique<CpuBackend>(threads, dtype);
}

DType cpu_default_dtype() {
  const cpu::Isa isa = cpu::select_kernel_table().isa;
  const bool worth_it =
      isa == cpu::Isa::kAmx || (isa == cpu::Isa::kAvx512Bf16 && cpu::features().fast_avx512_bf16);
  return worth_it ? DType::kBF16 : DType::kF32;
}

}  // namespace trine
