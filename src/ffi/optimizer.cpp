#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/util/ParallelGuard.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace {

// While it lives, numbers below the smallest normal one count as 0 on this thread. The momentum of a weight that gets
// no gradient any more fades into them and stays there, and Intel's processors are slow over them. The thread that
// computes a piece makes it and destroys it, so no flag outlives the piece, whatever OpenMP does with its threads.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
#ifdef __SSE__
  FlushDenormals() { _mm_setcsr(former_ | 0x8040); }  // results and operands
  ~FlushDenormals() { _mm_setcsr(former_); }

 private:
  const unsigned former_ = _mm_getcsr();
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
};

bool is_within_storage(const at::Tensor& tensor) {
  int64_t last = tensor.storage_offset();
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return (last + 1) * tensor.element_size() <= static_cast<int64_t>(tensor.storage().nbytes());
}

// Whether no two elements share a place: each stride leads past all that the smaller ones span.
bool is_apart(const at::Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t span = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= span) return false;
    span += (size - 1) * stride;
  }
  return true;
}

SpiketraceLayout layout(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided || !tensor.has_storage()) return SPIKETRACE_OTHER;
  if (tensor.numel() == 0) return SPIKETRACE_DENSE;
  if (!is_within_storage(tensor)) return SPIKETRACE_OTHER;
  // Numbers that are kept with the other sign are no numbers for a kernel.
  if (tensor.is_non_overlapping_and_dense() && !tensor.is_neg()) return SPIKETRACE_DENSE;
  return is_apart(tensor) ? SPIKETRACE_APART : SPIKETRACE_SHARED;
}

// Whether both are dense, and the same way through memory meets the same elements of both.
bool is_alike(const at::Tensor& a, const at::Tensor& b) {
  if (layout(a) != SPIKETRACE_DENSE || layout(b) != SPIKETRACE_DENSE) return false;
  if (a.scalar_type() != b.scalar_type() || a.device() != b.device() || a.sizes() != b.sizes()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  const auto* of_a = static_cast<const char*>(a.const_data_ptr());
  const auto* of_b = static_cast<const char*>(b.const_data_ptr());
  return of_a + a.nbytes() <= of_b || of_b + b.nbytes() <= of_a;
}

template <size_t N>
using Lists = std::array<const SpiketraceList*, N>;
template <size_t N>
using Tensors = std::array<std::vector<at::Tensor>, N>;

// Errors unless the tensors at one place of the lists are alike; a list may be empty.
template <size_t N>
void expect_alike(const Lists<N>& lists) {
  const auto& params = lists[0]->tensors;
  for (const SpiketraceList* list : lists) {
    if (list->tensors.empty()) continue;
    TORCH_CHECK(list->tensors.size() == params.size(), "an optimizer's lists have several lengths");
    for (size_t i = 0; i < params.size(); ++i) {
      TORCH_CHECK(list == lists[0] ? layout(params[i]) == SPIKETRACE_DENSE : is_alike(params[i], list->tensors[i]),
                  "an optimizer's tensors are not laid out alike");
    }
  }
}

// Elements that a thread takes at least; as in sweep.rs.
constexpr int64_t kGrain = 32768;

// What the elements `begin .. end`, counted through all tensors of the lists, are of each list: a large parameter's part
// of them, or a small one whole, where its first element is among them. A list of single numbers (steps) is passed on as
// it is.
template <size_t N>
Tensors<N> part(const Lists<N>& lists, int64_t begin, int64_t end) {
  Tensors<N> part;
  int64_t first = 0;
  for (size_t i = 0; i < lists[0]->tensors.size(); ++i) {
    const int64_t size = lists[0]->tensors[i].numel();
    int64_t from = std::clamp<int64_t>(begin - first, 0, size);
    int64_t to = std::clamp<int64_t>(end - first, 0, size);
    if (size <= kGrain && from < to) {
      to = from == 0 ? size : from;
    }
    first += size;
    if (from >= to) continue;
    for (size_t k = 0; k < N; ++k) {
      if (lists[k]->tensors.empty()) continue;
      const at::Tensor& tensor = lists[k]->tensors[i];
      const bool is_whole = to - from == size || tensor.numel() == 1;
      part[k].push_back(is_whole ? tensor : tensor.as_strided({to - from}, {1}, tensor.storage_offset() + from));
    }
  }
  return part;
}

// Hands the tensors of the lists, which the kernel goes through by address, to it. On the CPU each thread takes a part of
// them all in a single call: a call costs some microseconds, as much as moving a small weight does. The kernel's own
// threads would take whole tensors, and one layer often has most of the weights.
template <size_t N, typename Kernel>
void move(const Lists<N>& lists, const Kernel& kernel) {
  const auto& params = lists[0]->tensors;
  if (params.empty()) return;
  int64_t total = 0;
  for (const at::Tensor& param : params) total += param.numel();
  at::NoGradGuard no_grad;
  if (!params[0].is_cpu()) return kernel(part(lists, 0, total));
  const int64_t parts = std::clamp<int64_t>(total / kGrain, 1, at::get_num_threads());
  const auto work = [&](int64_t begin, int64_t n) {
    at::NoGradGuard no_grad;
    c10::ParallelGuard is_a_part(true);
    FlushDenormals flush;
    kernel(part(lists, begin * total / parts, (begin + n) * total / parts));
  };
  using Work = decltype(work);
  const auto body = [](const void* call, int64_t begin, int64_t n) { (*static_cast<const Work*>(call))(begin, n); };
  const at::Tensor one_each = at::empty({parts}, at::kByte);
  rethrow(spiketrace_sweep(&one_each, 1, body, &work));
}

// The fused kernels do not tell libtorch that they wrote: a backward through a graph that keeps the weights of before
// would compute with the new ones, instead of failing.
void written(const SpiketraceList* tensors) {
  for (const at::Tensor& tensor : tensors->tensors) spiketrace_written(&tensor);
}

}  // namespace

// raw.rs asserts the same.
static_assert(sizeof(SpiketraceSgd) == 40 && sizeof(SpiketraceAdam) == 48, "doubles and a bool");

char* spiketrace_fused_sgd(const SpiketraceList* params, const SpiketraceList* grads,
                           const SpiketraceList* buffers, const SpiketraceSgd* options, bool first) {
  return guarded([&] {
    const Lists<3> lists{params, grads, buffers};
    expect_alike(lists);
    move(lists, [&](const Tensors<3>& t) {
      at::_fused_sgd_(t[0], t[1], t[2], options->weight_decay, options->momentum, options->lr, options->dampening,
                      options->nesterov, /*maximize=*/false, first);
    });
    written(params);
    written(buffers);
  });
}

char* spiketrace_fused_adam(const SpiketraceList* params, const SpiketraceList* grads,
                            const SpiketraceList* exp_avgs, const SpiketraceList* exp_avg_sqs,
                            const SpiketraceList* steps, const SpiketraceAdam* options) {
  return guarded([&] {
    expect_alike(Lists<4>{params, grads, exp_avgs, exp_avg_sqs});
    TORCH_CHECK(steps->tensors.size() == params->tensors.size(), "an optimizer's lists have several lengths");
    for (const auto& step : steps->tensors) TORCH_CHECK(step.numel() == 1, "an optimizer's step is one number");
    const auto fused = options->decoupled ? at::_ops::_fused_adamw_::call : at::_ops::_fused_adam_::call;
    at::NoGradGuard no_grad;
    at::_foreach_add_(steps->tensors, 1);
    try {
      move(Lists<5>{params, grads, exp_avgs, exp_avg_sqs, steps}, [&](const Tensors<5>& t) {
        fused(t[0], t[1], t[2], t[3], {}, t[4], options->lr, options->beta1, options->beta2, options->weight_decay,
              options->eps, /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
      });
    } catch (...) {
      at::_foreach_sub_(steps->tensors, 1);  // a step that failed does not count
      throw;
    }
    for (const SpiketraceList* list : {params, exp_avgs, exp_avg_sqs}) written(list);
  });
}

SpiketraceLayout spiketrace_layout(const at::Tensor* tensor) noexcept { return layout(*tensor); }

bool spiketrace_is_alike(const at::Tensor* a, const at::Tensor* b) noexcept { return is_alike(*a, *b); }

const void* spiketrace_identity(const at::Tensor* tensor) noexcept { return tensor->unsafeGetTensorImpl(); }

char* spiketrace_forget_grad(const at::Tensor* tensor) {
  return guarded([&] { tensor->mutable_grad().reset(); });
}
