// A weighted layer runs once, on the spike, and its weight learns from the trace: the node that libtorch's linear or
// convolution operation left in the graph gets the trace in the place of the input that it kept.
//
// This reaches into libtorch further than anything else here. It relies on
//   - the three node types of saved_input and their members, which generated/Functions.h declares: a header of libtorch's,
//     but no promise. is_sound() holds headers and library together, and where a first use goes wrong closes the way;
//   - a node that reads its saved input only to make the weight's gradient. The gradient of the input itself is made from
//     the weight and from sizes kept apart, so the value y and dL/dx stay those of the spike;
//   - edge 0 of the nodes after it (an added bias, reshapes, transposes) leading back to it: each has one input that came
//     from the operation, and libtorch records inputs in the order of the arguments.
// retain_graph and hooks need no thought: the node is libtorch's own, with everything it ever had but that one tensor. A
// second derivative is right because the stand-in hangs in the graph where the input did (see stand_in).
//
// The way not taken, and not built, so without figures: a Function of our own around each operation. It would have to know
// the configuration of every convolution, which tch hides, and to call each one's backward itself.

#include "seam.h"
#include "guarded.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/version.h>

namespace ag = torch::autograd;

namespace {

// Where a linear or convolution operation keeps its input for its weight's gradient.
ag::SavedVariable* saved_input(ag::Node* node) {
  if (auto* conv = dynamic_cast<ag::generated::ConvolutionBackward0*>(node)) return &conv->input_;
  if (auto* addmm = dynamic_cast<ag::generated::AddmmBackward0*>(node)) return &addmm->mat1_;
  if (auto* mm = dynamic_cast<ag::generated::MmBackward0*>(node)) return &mm->self_;
  return nullptr;
}

// After an operation come at most an added bias and a few reshapes.
constexpr int kMostNodes = 4;

// Whether both see the same elements in the same order: what is true of one by position is true of the other.
bool sees_the_same(const at::Tensor& a, const at::Tensor& b) {
  if (a.data_ptr() != b.data_ptr() || a.scalar_type() != b.scalar_type() || a.is_neg() != b.is_neg()) return false;
  if (a.sizes() == b.sizes() && a.strides() == b.strides()) return true;
  // A reshape of rows that lie one after another.
  return a.numel() == b.numel() && a.is_contiguous() && b.is_contiguous();
}

// x_r in value, x in the graph: the weight's gradient, which is made of it, can be differentiated by x, as if
// replace_for_grad(x, x_r) were there, without a node of its own.
at::Tensor stand_in(const at::Tensor& x, const at::Tensor& x_r, at::IntArrayRef sizes) {
  at::Tensor value = x_r.detach();
  if (x.requires_grad()) ag::impl::set_gradient_edge(value, ag::impl::gradient_edge(x));
  return value.sizes() == sizes ? value : value.reshape(sizes);
}

// Makes the operation that y comes from see x_r in the place of x, if operations of its kind are `sound`; whether it does.
template <typename Sound>
bool learn_from(const at::Tensor& y, const at::Tensor& x, const at::Tensor& x_r, const Sound& sound) {
  auto node = y.grad_fn();
  for (int i = 0; node && i < kMostNodes; ++i) {
    // What made the input is another layer's.
    if (node == x.grad_fn()) return false;
    if (ag::SavedVariable* saved = saved_input(node.get())) {
      if (!sound(dynamic_cast<ag::generated::ConvolutionBackward0*>(node.get()) != nullptr)) return false;
      const at::Tensor input = saved->unpack();
      // A weight that asks for no gradient needs no input.
      if (!input.defined()) return true;
      if (!sees_the_same(input, x)) return false;
      *saved = ag::SavedVariable(stand_in(x, x_r, input.sizes()), false);
      return true;
    }
    if (node->num_outputs() == 0) return false;
    node = node->next_edge(0).function;
  }
  return false;
}

// Whether the weight of a small operation gets the gradient x_r^T 1, and x the one that it has without us. In double
// precision, which no automatic cast touches.
template <typename Operation>
bool learns(const Operation& operation, at::IntArrayRef size, at::IntArrayRef weight_size) {
  const auto numbers = [](at::IntArrayRef size, double step) {
    return at::arange(c10::multiply_integers(size), at::kDouble).mul(step).sin().reshape(size);
  };
  const at::Tensor x = numbers(size, 1.3).requires_grad_(), x_r = numbers(size, 2.1);
  const at::Tensor w = numbers(weight_size, 0.7).requires_grad_(), ours = w.detach().clone().requires_grad_();
  const auto grad_of_x = [&](const at::Tensor& y) {
    y.sum().backward();
    const at::Tensor grad = x.grad();
    x.mutable_grad().reset();
    return grad;
  };
  const at::Tensor grad = grad_of_x(operation(x, w.detach()));
  operation(x_r, w).sum().backward();
  const at::Tensor y = operation(x, ours);
  return learn_from(y, x, x_r, [](bool) { return true; }) && grad_of_x(y).allclose(grad) && ours.grad().allclose(w.grad());
}

// Whether the library at run time is of the headers' release, and does as they say with a small operation.
template <typename... Operations>
bool holds(at::IntArrayRef size, at::IntArrayRef weight_size, const Operations&... operations) noexcept {
  try {
    at::AutoGradMode grad_mode(true);
    return aoti_torch_abi_version() >> 48 == TORCH_ABI_VERSION >> 48 && (learns(operations, size, weight_size) && ...);
  } catch (...) {
    return false;
  }
}

// Asked once for linear layers and once for convolutions, when the first comes: whose code is not used is not loaded.
// Where the answer is no, such layers take two passes, which need none of this.
bool is_sound(bool convolves) {
  const auto linear = [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w, w.detach().select(1, 0)); };
  const auto matrix = [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); };
  const auto conv = [](const at::Tensor& x, const at::Tensor& w) { return at::conv1d(x, w); };
  if (convolves) {
    static const bool sound = holds({3, 4, 5}, {2, 4, 3}, conv);
    return sound;
  }
  static const bool sound = holds({3, 4}, {2, 4}, linear, matrix);
  return sound;
}

}  // namespace

char* spiketrace_learn_from(const at::Tensor* y, const at::Tensor* x, const at::Tensor* x_r, bool* done) {
  return guarded([&] { *done = learn_from(*y, *x, *x_r, is_sound); });
}
