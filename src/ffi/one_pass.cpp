#include "seam.h"
#include "guarded.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>

namespace ag = torch::autograd;

namespace {

// Where a linear or convolution operation keeps its input for its weight's gradient.
ag::SavedVariable* saved_input(ag::Node* node) {
  if (auto* conv = dynamic_cast<ag::generated::ConvolutionBackward0*>(node)) return &conv->input_;
  if (auto* addmm = dynamic_cast<ag::generated::AddmmBackward0*>(node)) return &addmm->mat1_;
  if (auto* mm = dynamic_cast<ag::generated::MmBackward0*>(node)) return &mm->self_;
  return nullptr;
}

// Behind an operation there are at most an added bias and a few reshapes.
constexpr int kMostNodes = 4;

}  // namespace

char* spiketrace_learn_from(const at::Tensor* y, const at::Tensor* x, const at::Tensor* x_r, bool* done) {
  return guarded([&] {
    *done = false;
    auto node = y->grad_fn();
    for (int i = 0; node && i < kMostNodes; ++i) {
      if (ag::SavedVariable* saved = saved_input(node.get())) {
        const at::Tensor input = saved->unpack();
        // A weight that asks for no gradient needs no input.
        if (!input.defined()) {
          *done = true;
        } else if (input.numel() == x->numel() && input.data_ptr() == x->data_ptr() &&
                   input.scalar_type() == x->scalar_type()) {
          *saved = ag::SavedVariable(x_r->detach().reshape(input.sizes()), false);
          *done = true;
        }
        return;
      }
      if (node->num_outputs() == 0) return;
      node = node->next_edge(0).function;
    }
  });
}
