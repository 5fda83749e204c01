#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <cstdlib>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace {

// While it lives, numbers below the smallest normal one count as 0 on libtorch's threads. The momentum of a weight that
// gets no gradient any more fades into them and stays there, and Intel's processors are slow over them.
class FlushDenormals {
#ifdef __SSE__
 public:
  FlushDenormals() { on_each_thread<flush>(); }
  ~FlushDenormals() { on_each_thread<restore>(); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  // One element a thread, cut up as the optimizer's work is.
  at::Tensor states_ = at::empty({at::get_num_threads()}, at::kInt);

  static void flush(unsigned& state) {
    state = _mm_getcsr();
    _mm_setcsr(state | 0x8040);  // results and operands
  }

  static void restore(unsigned& state) { _mm_setcsr(state); }

  template <void (*Body)(unsigned&)>
  void on_each_thread() {
    const auto piece = [](const void* states, int64_t begin, int64_t n) {
      auto* state = static_cast<unsigned*>(static_cast<const at::Tensor*>(states)->data_ptr()) + begin;
      for (int64_t i = 0; i < n; ++i) Body(state[i]);
    };
    std::free(spiketrace_sweep(&states_, 1, piece, &states_));
  }
#endif
};

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
    at::NoGradGuard no_grad;
    FlushDenormals flush;
    at::_fused_sgd_(params->tensors, grads->tensors, buffers->tensors, options->weight_decay,
                    options->momentum, options->lr, options->dampening, options->nesterov,
                    /*maximize=*/false, first);
    written(params);
    written(buffers);
  });
}

char* spiketrace_fused_adam(const SpiketraceList* params, const SpiketraceList* grads,
                            const SpiketraceList* exp_avgs, const SpiketraceList* exp_avg_sqs,
                            const SpiketraceList* steps, const SpiketraceAdam* options) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    FlushDenormals flush;
    at::_foreach_add_(steps->tensors, 1);
    const auto fused = options->decoupled ? at::_ops::_fused_adamw_::call : at::_ops::_fused_adam_::call;
    fused(params->tensors, grads->tensors, exp_avgs->tensors, exp_avg_sqs->tensors, {}, steps->tensors,
          options->lr, options->beta1, options->beta2, options->weight_decay, options->eps,
          /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
    written(params);
    written(exp_avgs);
    written(exp_avg_sqs);
  });
}

void spiketrace_forget_grad(const at::Tensor* tensor) { tensor->mutable_grad().reset(); }
