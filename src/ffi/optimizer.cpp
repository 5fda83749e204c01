#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
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

// On the CPU: computes on this thread alone.
template <size_t N, typename Kernel>
void alone(const Kernel& kernel, const Tensors<N>& tensors) {
  at::NoGradGuard no_grad;
  c10::ParallelGuard is_a_piece(true);
  FlushDenormals flush;
  kernel(tensors);
}

// Elements that a thread takes at least; as in sweep.rs.
constexpr int64_t kGrain = 32768;

// Hands the tensors of the lists, which the kernel goes through by address, to it: a large parameter on the CPU in
// pieces, each to the thread that it falls to. A list of single numbers (steps) is passed on as it is.
template <size_t N, typename Kernel>
void move(const Lists<N>& lists, const Kernel& kernel) {
  Tensors<N> whole;
  for (size_t i = 0; i < lists[0]->tensors.size(); ++i) {
    const at::Tensor& param = lists[0]->tensors[i];
    if (!param.is_cpu() || param.numel() <= kGrain) {
      for (size_t k = 0; k < N; ++k) {
        if (!lists[k]->tensors.empty()) whole[k].push_back(lists[k]->tensors[i]);
      }
      continue;
    }
    const auto piece = [&](int64_t begin, int64_t n) {
      at::NoGradGuard no_grad;
      Tensors<N> pieces;
      for (size_t k = 0; k < N; ++k) {
        if (lists[k]->tensors.empty()) continue;
        const at::Tensor& tensor = lists[k]->tensors[i];
        const bool is_number = tensor.numel() == 1;
        pieces[k].push_back(is_number ? tensor : tensor.as_strided({n}, {1}, tensor.storage_offset() + begin));
      }
      alone(kernel, pieces);
    };
    using Piece = decltype(piece);
    const auto body = [](const void* call, int64_t begin, int64_t n) {
      (*static_cast<const Piece*>(call))(begin, n);
    };
    rethrow(spiketrace_sweep(&param, kGrain, body, &piece));
  }
  if (whole[0].empty()) return;
  if (whole[0][0].is_cpu()) {
    alone(kernel, whole);
  } else {
    at::NoGradGuard no_grad;
    kernel(whole);
  }
}

// The fused kernels do not tell libtorch that they wrote: a backward through a graph that keeps the weights of before
// would compute with the new ones, instead of failing.
void written(const SpiketraceList* tensors) {
  for (const at::Tensor& tensor : tensors->tensors) tensor.unsafeGetTensorImpl()->bump_version();
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
