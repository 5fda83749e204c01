#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

// raw.rs asserts the same.
static_assert(sizeof(SpiketraceSgd) == 40 && sizeof(SpiketraceAdam) == 48, "doubles and a bool");

char* spiketrace_fused_sgd(const SpiketraceList* params, const SpiketraceList* grads,
                           const SpiketraceList* buffers, const SpiketraceSgd* options, bool first) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_fused_sgd_(params->tensors, grads->tensors, buffers->tensors, options->weight_decay,
                    options->momentum, options->lr, options->dampening, options->nesterov,
                    /*maximize=*/false, first);
  });
}

char* spiketrace_fused_adam(const SpiketraceList* params, const SpiketraceList* grads,
                            const SpiketraceList* exp_avgs, const SpiketraceList* exp_avg_sqs,
                            const SpiketraceList* steps, const SpiketraceAdam* options) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_add_(steps->tensors, 1);
    const auto fused = options->decoupled ? at::_ops::_fused_adamw_::call : at::_ops::_fused_adam_::call;
    fused(params->tensors, grads->tensors, exp_avgs->tensors, exp_avg_sqs->tensors, {}, steps->tensors,
          options->lr, options->beta1, options->beta2, options->weight_decay, options->eps,
          /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
  });
}

void spiketrace_forget_grad(const at::Tensor* tensor) { tensor->mutable_grad().reset(); }
